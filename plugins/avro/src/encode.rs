//! Writes JSON as Avro's binary encoding.

use millstream_sdk::Result;
use serde_json::Value;

use crate::types::{Field, Id, Type, Types};

/// Defaults inside defaults could make very much out of little. A record has no more values than this for each byte of
/// its JSON, and [`VALUES_FREE`] more.
const VALUES_A_BYTE: usize = 8;
const VALUES_FREE: usize = 10_000;

/// The most values inside each other, as in serde_json.
const DEPTH_MAX: usize = 128;

/// Appends a value of this type to `out`. `size` is the length of its JSON.
///
/// # Errors
/// The value does not fit the schema.
pub(crate) fn encode(types: &Types, of: Id, value: &Value, size: usize, out: &mut Vec<u8>) -> Result<()> {
    let mut encoder = Encoder { types, out, values_left: size * VALUES_A_BYTE + VALUES_FREE, depth: 0 };
    encoder.value(of, value).map_err(|misfit| {
        let place = if misfit.at.is_empty() { "the value" } else { &misfit.at };
        format!("{place}: {}", misfit.problem).into()
    })
}

struct Encoder<'a> {
    types: &'a Types,
    out: &'a mut Vec<u8>,
    values_left: usize,
    depth: usize,
}

/// Why a value does not fit, and the JSON Pointer of the part that does not.
struct Misfit {
    at: String,
    problem: String,
}

impl Misfit {
    fn inside(mut self, name: &str) -> Self {
        self.at.insert_str(0, &format!("/{}", name.replace('~', "~0").replace('/', "~1")));
        self
    }
}

fn misfit<T>(problem: impl Into<String>) -> Result<T, Misfit> {
    Err(Misfit { at: String::new(), problem: problem.into() })
}

impl Encoder<'_> {
    fn value(&mut self, id: Id, value: &Value) -> Result<(), Misfit> {
        if self.values_left == 0 || self.depth == DEPTH_MAX {
            return misfit("the defaults of the schema add too many values");
        }
        self.values_left -= 1;
        self.depth += 1;
        let types = self.types;
        let written = self.typed(types.get(id), value);
        self.depth -= 1;
        written
    }

    fn typed(&mut self, of: &Type, value: &Value) -> Result<(), Misfit> {
        match (of, value) {
            (Type::Null, Value::Null) => {}
            (Type::Boolean, Value::Bool(value)) => self.out.push(u8::from(*value)),
            (Type::Int, Value::Number(number)) => match number.as_i64().map(i32::try_from) {
                Some(Ok(number)) => self.long(number.into()),
                _ => return misfit(format!("{number} is no whole number of 32 bits")),
            },
            (Type::Long, Value::Number(number)) => match number.as_i64() {
                Some(number) => self.long(number),
                None => return misfit(format!("{number} is no whole number of 64 bits")),
            },
            (Type::Float, _) if let Some(number) = float(value) => {
                let narrow = number as f32;
                if narrow.is_infinite() && number.is_finite() {
                    return misfit(format!("{number} is beyond a float of 32 bits"));
                }
                self.out.extend_from_slice(&narrow.to_le_bytes());
            }
            (Type::Double, _) if let Some(number) = float(value) => self.out.extend_from_slice(&number.to_le_bytes()),
            (Type::Text, Value::String(text)) => self.bytes(text.as_bytes()),
            (Type::Bytes, Value::String(text)) => match latin(text) {
                Some(bytes) => self.bytes(&bytes),
                None => return misfit("bytes have only characters up to U+00FF"),
            },
            (Type::Fixed { size, .. }, Value::String(text)) => match latin(text) {
                Some(bytes) if bytes.len() == *size => self.out.extend_from_slice(&bytes),
                _ => return misfit(format!("want {size} characters up to U+00FF")),
            },
            (Type::Enum { symbols, .. }, Value::String(text)) => {
                match symbols.iter().position(|symbol| symbol == text) {
                    Some(place) => self.long(place as i64),
                    None => return misfit(format!("{text:?} is not one of {}", symbols.join(", "))),
                }
            }
            (Type::Array(items), Value::Array(values)) => self.array(*items, values)?,
            (Type::Map(of), Value::Object(object)) => {
                self.block(object.len());
                for (name, value) in object {
                    self.bytes(name.as_bytes());
                    self.value(*of, value).map_err(|misfit| misfit.inside(name))?;
                }
                self.long(0);
            }
            (Type::Record { fields, places, .. }, Value::Object(object)) => {
                if let Some(name) = object.keys().find(|name| !places.contains_key(*name)) {
                    return misfit("the schema has no such field").map_err(|misfit| misfit.inside(name));
                }
                for field in fields {
                    let value = object.get(&field.name).or(field.default.as_ref());
                    let written = match value {
                        Some(value) => self.value(field.of, value),
                        None => misfit("the field is missing, and has no default"),
                    };
                    written.map_err(|misfit| misfit.inside(&field.name))?;
                }
            }
            (Type::Union(branches), _) => {
                let Some((place, value)) = self.branch(branches, value) else {
                    let names: Vec<&str> = branches.iter().map(|id| self.types.get(*id).name()).collect();
                    return misfit(format!("{} is not one of {}", kind(value), names.join(", ")));
                };
                self.long(place as i64);
                self.value(branches[place], value)?;
            }
            (of, value) => return misfit(format!("want {}, got {}", of.name(), kind(value))),
        }
        Ok(())
    }

    fn array(&mut self, items: Id, values: &[Value]) -> Result<(), Misfit> {
        self.block(values.len());
        for (index, value) in values.iter().enumerate() {
            self.value(items, value).map_err(|misfit| misfit.inside(&index.to_string()))?;
        }
        self.long(0);
        Ok(())
    }

    /// Chooses the branch of a union by the value itself, not by what is in it, so that each value is tried once.
    /// Returns the place of the branch, and the value in it.
    fn branch<'v>(&self, branches: &[Id], value: &'v Value) -> Option<(usize, &'v Value)> {
        let fits = branches.iter().map(|id| fit(self.types.get(*id), value)).enumerate();
        let (place, best) = fits.rev().max_by_key(|(_, fit)| *fit)?;
        if best > Fit::Kind {
            return Some((place, value));
        }
        let wrapped = value.as_object().filter(|object| object.len() == 1).and_then(|object| {
            let (name, value) = object.iter().next()?;
            Some((branches.iter().position(|id| self.types.get(*id).name() == name)?, value))
        });
        wrapped.or((best == Fit::Kind).then_some((place, value)))
    }

    /// Starts the one block of an array or a map. A block of nothing ends it.
    fn block(&mut self, count: usize) {
        if count > 0 {
            self.long(count as i64);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.long(bytes.len() as i64);
        self.out.extend_from_slice(bytes);
    }

    fn long(&mut self, number: i64) {
        let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.out.push(rest as u8);
    }
}

/// How well a value fits a branch of a union.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Not,
    /// An object for a record with other fields: its error names the field.
    Kind,
    /// The value loses digits or its meaning.
    Poor,
    /// The value is a whole number for a float, or a text for bytes.
    Fair,
    Good,
    /// A symbol of an enum, or the fields of a record.
    Best,
}

fn fit(of: &Type, value: &Value) -> Fit {
    let when = |is: bool, fit| if is { fit } else { Fit::Not };
    match (of, value) {
        (Type::Null, Value::Null)
        | (Type::Boolean, Value::Bool(_))
        | (Type::Text, Value::String(_))
        | (Type::Array(_), Value::Array(_))
        | (Type::Map(_), Value::Object(_)) => Fit::Good,
        (Type::Int, Value::Number(number)) => {
            when(number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()), Fit::Good)
        }
        (Type::Long, Value::Number(number)) => when(number.as_i64().is_some(), Fit::Good),
        (Type::Double, Value::Number(number)) => {
            if number.is_f64() {
                Fit::Good
            } else {
                Fit::Fair
            }
        }
        (Type::Float, Value::Number(number)) => match number.as_f64() {
            Some(wide) if f64::from(wide as f32) == wide => {
                if number.is_f64() {
                    Fit::Good
                } else {
                    Fit::Fair
                }
            }
            _ => Fit::Poor,
        },
        (Type::Float | Type::Double, _) => when(float(value).is_some(), Fit::Poor),
        (Type::Enum { symbols, .. }, Value::String(text)) => when(symbols.contains(text), Fit::Best),
        (Type::Bytes, Value::String(text)) => when(latin(text).is_some(), Fit::Fair),
        (Type::Fixed { size, .. }, Value::String(text)) => {
            when(latin(text).is_some_and(|bytes| bytes.len() == *size), Fit::Fair)
        }
        (Type::Record { fields, places, .. }, Value::Object(object)) => {
            let is_there = |field: &Field| field.default.is_some() || object.contains_key(&field.name);
            let fits = object.keys().all(|name| places.contains_key(name)) && fields.iter().all(is_there);
            if fits { Fit::Best } else { Fit::Kind }
        }
        _ => Fit::Not,
    }
}

/// Returns a number; JSON has no others than finite ones, so the rest are texts.
fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// Returns one byte for each character, if all are up to U+00FF.
fn latin(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|letter| u8::try_from(letter).ok()).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
