//! The field of a record, and how it compares to the wanted value.

use std::cmp::Ordering;

use millstream_sdk::json::{Found, Number};
use serde::Deserialize;

/// The value of the configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub(crate) enum Wanted {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
}

/// How to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Op {
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    LessOrEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = ">=")]
    GreaterOrEqual,
}

impl Op {
    /// Returns whether the operator holds for the order of a field and the wanted value; `None` if the two do not
    /// compare.
    pub(crate) fn holds(self, order: Option<Ordering>) -> bool {
        match (self, order) {
            (op, None) => op == Op::NotEqual,
            (Op::Equal, Some(order)) => order.is_eq(),
            (Op::NotEqual, Some(order)) => order.is_ne(),
            (Op::Less, Some(order)) => order.is_lt(),
            (Op::LessOrEqual, Some(order)) => order.is_le(),
            (Op::Greater, Some(order)) => order.is_gt(),
            (Op::GreaterOrEqual, Some(order)) => order.is_ge(),
        }
    }
}

impl Wanted {
    /// Compares the field with this value.
    pub(crate) fn compare(&self, found: &Found<'_>) -> Option<Ordering> {
        match (found, self) {
            (Found::Number(found), Wanted::Number(wanted)) => compare(*found, *wanted),
            (Found::Text(found), Wanted::Text(wanted)) => Some(str::cmp(found, wanted)),
            (Found::Bool(found), Wanted::Bool(wanted)) => Some(found.cmp(wanted)),
            (Found::Null, Wanted::Null) => Some(Ordering::Equal),
            _ => None,
        }
    }
}

fn compare(one: Number, other: Number) -> Option<Ordering> {
    match (one, other) {
        (Number::Whole(a), Number::Whole(b)) => Some(a.cmp(&b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        (Number::Whole(a), Number::Float(b)) => (a as f64).partial_cmp(&b),
        (Number::Float(a), Number::Whole(b)) => a.partial_cmp(&(b as f64)),
    }
}

impl TryFrom<serde_json::Value> for Wanted {
    type Error = &'static str;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        match value {
            serde_json::Value::Null => Ok(Wanted::Null),
            serde_json::Value::Bool(value) => Ok(Wanted::Bool(value)),
            serde_json::Value::String(text) => Ok(Wanted::Text(text)),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(whole), _, _) => Ok(Wanted::Number(Number::Whole(whole.into()))),
                (_, Some(whole), _) => Ok(Wanted::Number(Number::Whole(whole.into()))),
                (_, _, Some(float)) => Ok(Wanted::Number(Number::Float(float))),
                _ => Err("the number is out of range"),
            },
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                Err("a field can be compared with a number, a text, true, false or null")
            }
        }
    }
}
