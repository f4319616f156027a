//! `json-compare{"path":"/mag","op":">=","value":4.5}`: a filter that keeps the records whose value is JSON in which
//! the field at `path` compares to `value` as `op` says.
//!
//! Numbers compare as numbers, texts by their characters; `true`, `false` and `null` compare only by `==` and `!=`. A
//! missing field, and one of another type, fits only `!=`. A record without a value is not kept. A value is read only
//! up to the field; if that part is not JSON, it is an error of its row.
#![forbid(unsafe_code)]

mod value;

use millstream_sdk::json::{Found, Pointer};
use millstream_sdk::{ConfigError, Filter, Record, Result};
use serde::Deserialize;

use value::{Op, Wanted};

/// Compares a field of a JSON value.
#[derive(Debug, Deserialize)]
pub struct JsonCompare {
    path: Pointer,
    op: Op,
    value: Wanted,
}

impl Filter for JsonCompare {
    fn prepare(&mut self) -> Result<(), ConfigError> {
        match (&self.value, self.op) {
            (Wanted::Number(_) | Wanted::Text(_), _) | (_, Op::Equal | Op::NotEqual) => Ok(()),
            _ => Err(ConfigError::new("/op", "true, false and null have no order: compare them by == or !=")),
        }
    }

    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        let Some(json) = record.value() else { return Ok(false) };
        self.path.find(json, |found: Found<'_>| self.op.holds(self.value.compare(&found)))
    }
}

millstream_sdk::filter!(JsonCompare);
