//! The native half: calls the type of the stage as the host does.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

use crate::compressor::{compress, decompress};
use crate::filter::filter;
use crate::partitioner::partition;
use crate::serializer::{deserialize, serialize};
use crate::{Changed, ColumnBuf, Compressor, ConfigError, Error, Filter, Partitioner, Partitions, Serializer, config};
use serde_json::{Map, Value, json};

use super::call::{Bytes, Call, Function};

/// One kind of stage.
pub(crate) trait Native: Sized {
    fn configure(json: &str) -> Result<Self, ConfigError>;

    /// Returns the result, or an error of the contract as `{"rows":...}` or `{"batch":...}`; `None` for a function of
    /// another kind.
    fn call(&mut self, call: &Call) -> Option<Result<Value, Value>>;
}

/// The stage of the last vector, with its configuration.
pub(crate) struct Session<N>(Option<(Map<String, Value>, N)>);

impl<N> Default for Session<N> {
    fn default() -> Self {
        Self(None)
    }
}

impl<N: Native> Session<N> {
    /// Returns the result of a vector, or why the vector is not valid.
    pub(crate) fn result(&mut self, vector: &Value) -> Result<Value, String> {
        let call: Call =
            serde_json::from_value(vector.clone()).map_err(|error| format!("the vector is not valid: {error}"))?;
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.call(&call)));
        match outcome {
            Ok(Some(Ok(result))) => Ok(result),
            Ok(Some(Err(error))) => Ok(json!({ "error": error })),
            Ok(None) => Err("this kind of stage does not have that function".into()),
            Err(panic) => {
                // The host discards an instance that trapped.
                self.0 = None;
                Ok(json!({ "error": { "trap": message_of(&*panic) } }))
            }
        }
    }

    fn call(&mut self, call: &Call) -> Option<Result<Value, Value>> {
        let stage = match self.0.take() {
            Some((configured, stage)) if configured == call.config => stage,
            _ => match N::configure(&Value::Object(call.config.clone()).to_string()) {
                Ok(stage) => stage,
                Err(ConfigError { field, message }) => {
                    return Some(Err(json!({ "config": { "field": field, "message": message } })));
                }
            },
        };
        self.0.insert((call.config.clone(), stage)).1.call(call)
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => message,
        (_, Some(message)) => message,
        _ => "a panic",
    }
}

fn failure(error: Error) -> Value {
    match error {
        Error::Batch(message) => json!({ "batch": message }),
        Error::Rows(rows) => {
            let rows: Vec<Value> = rows.iter().map(|bad| json!({ "row": bad.row, "message": bad.message })).collect();
            json!({ "rows": rows })
        }
    }
}

fn configured<T>(json: &str, prepare: fn(&mut T) -> Result<(), ConfigError>) -> Result<T, ConfigError>
where
    T: serde::de::DeserializeOwned,
{
    let mut stage = config::from_json(json)?;
    prepare(&mut stage)?;
    Ok(stage)
}

pub(crate) struct FilterHalf<T>(T);

impl<T: Filter> Native for FilterHalf<T> {
    fn configure(json: &str) -> Result<Self, ConfigError> {
        configured(json, T::prepare).map(Self)
    }

    fn call(&mut self, call: &Call) -> Option<Result<Value, Value>> {
        let batch = call.batch();
        let kept = (call.call == Function::Filter).then(|| filter(&self.0, &batch.as_batch()))?;
        Some(kept.map(|kept| json!({ "keep": kept.ones().collect::<Vec<_>>() })).map_err(failure))
    }
}

pub(crate) struct PartitionerHalf<T>(T);

impl<T: Partitioner> Native for PartitionerHalf<T> {
    fn configure(json: &str) -> Result<Self, ConfigError> {
        configured(json, T::prepare).map(Self)
    }

    fn call(&mut self, call: &Call) -> Option<Result<Value, Value>> {
        let batch = call.batch();
        let chosen = (call.call == Function::Partition).then(|| {
            let mut load = call.load.clone();
            load.resize(call.partitions as usize, 0);
            partition(&mut self.0, &batch.as_batch(), &Partitions::new(call.partitions, &load))
        })?;
        Some(chosen.map(|chosen| json!({ "partitions": chosen })).map_err(failure))
    }
}

pub(crate) struct SerializerHalf<T>(T);

impl<T: Serializer> Native for SerializerHalf<T> {
    fn configure(json: &str) -> Result<Self, ConfigError> {
        configured(json, T::prepare).map(Self)
    }

    fn call(&mut self, call: &Call) -> Option<Result<Value, Value>> {
        let batch = call.batch();
        let changed = match call.call {
            Function::Serialize => serialize(&self.0, &batch.as_batch()),
            Function::Deserialize => deserialize(&self.0, &batch.as_batch()),
            _ => return None,
        };
        Some(changed.map(show_changed).map_err(failure))
    }
}

fn show_changed(changed: Changed) -> Value {
    let show = |column: ColumnBuf| column.as_column().iter().map(|row| row.map_or(Value::Null, Bytes::show)).collect();
    let mut columns = Map::new();
    for (name, new) in [("keys", changed.keys), ("values", changed.values)] {
        if let Some(new) = new {
            columns.insert(name.into(), show(new));
        }
    }
    json!({ "changed": columns })
}

pub(crate) struct CompressorHalf<T>(T);

impl<T: Compressor> Native for CompressorHalf<T> {
    fn configure(json: &str) -> Result<Self, ConfigError> {
        configured(json, T::prepare).map(Self)
    }

    fn call(&mut self, call: &Call) -> Option<Result<Value, Value>> {
        let data = match call.call {
            Function::Compress => compress(&mut self.0, call.data.get()),
            Function::Decompress => decompress(&mut self.0, call.data.get(), call.max),
            _ => return None,
        };
        Some(data.map(|data| json!({ "data": Bytes::show(&data) })).map_err(|message| json!({ "batch": message })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Record, Result};
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Script {
        #[serde(default)]
        keep: String,
    }

    impl Filter for Script {
        fn keep(&self, record: &Record<'_>) -> Result<bool> {
            match record.value() {
                Some(b"bad") => Err("bad".into()),
                Some(b"panic") => panic!("out of luck"),
                value => Ok(value == Some(self.keep.as_bytes())),
            }
        }
    }

    #[test]
    fn results_are_those_of_the_contract() {
        let mut session = Session::<FilterHalf<Script>>::default();
        for (vector, expected) in [
            (json!({"call": "filter", "config": {"keep": "a"}, "records": [{"value": "a"}, {}]}), json!({"keep": [0]})),
            (
                json!({"call": "filter", "records": [{"value": "bad"}]}),
                json!({"error": {"rows": [{"row": 0, "message": "bad"}]}}),
            ),
            (json!({"call": "filter", "records": [{"value": "panic"}]}), json!({"error": {"trap": "out of luck"}})),
            (
                json!({"call": "filter", "config": {"keep": 7}}),
                json!({"error": {"config": {
                    "field": "/keep",
                    "message": "invalid type: integer `7`, expected a string",
                }}}),
            ),
        ] {
            assert_eq!(session.result(&vector).unwrap(), expected, "{vector}");
        }
        assert!(session.result(&json!({"call": "partition"})).is_err());
    }
}
