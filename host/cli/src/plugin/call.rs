//! `millstream plugin call FILE`: reads one call and prints one result in each line. The test kit runs the sandboxed
//! half of a plug-in's tests through this, so that a plug-in does not have to compile the sandbox.
//!
//! A call is a JSON object:
//!
//! ```text
//! {"call":"filter","config":{...},"topic":"t",
//!  "records":[{"timestamp":0,"key":...,"value":...,"headers":[[name,value]]}]}
//! ```
//!
//! The other calls are `partition` (with `partitions` and `load`), `serialize`, `deserialize`, `compress` (with `data`)
//! and `decompress` (with `data` and `max`). Bytes are a text if they are UTF-8, `{"hex":"00ff"}` otherwise, or null.
//!
//! A result is one of these:
//!
//! ```text
//! {"keep":[rows]}
//! {"partitions":[...]}
//! {"changed":{"keys":[...],"values":[...]}}
//! {"data":...}
//! {"error":{"rows":[{"row":0,"message":"..."}]}}
//! {"error":{"batch":"..."}}
//! {"error":{"config":{"field":"/path","message":"..."}}}
//! {"error":{"trap":"..."}}
//! ```

use std::io::{self, BufRead, Write};

use anyhow::{Context, Result};
use millstream_stage::{ColumnBuf, Columns, Fault, Plugin, RecordsBuf, Stage, StageError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::output;
use crate::sandbox::LimitsArgs;

/// The arguments of `millstream plugin call`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  echo '{\"call\":\"filter\",\"config\":{\"text\":\"b\"},\"records\":[{\"value\":\"abc\"}]}' |
      millstream plugin call contains
  echo '{\"call\":\"partition\",\"partitions\":4,\"records\":[{\"key\":\"k1\"}]}' |
      millstream plugin call murmur2")]
pub(crate) struct Args {
    /// A component, or the name of a built-in plug-in.
    #[arg(value_name = "FILE")]
    plugin: String,
    #[command(flatten)]
    limits: LimitsArgs,
}

impl Args {
    pub(crate) fn run(self) -> Result<()> {
        let engine = self.limits.engine()?;
        let mut session = Session::new(super::load(&engine, &self.plugin)?);
        let mut out = output::stdout();
        for (number, line) in io::stdin().lock().lines().enumerate() {
            let line = line.context("cannot read standard input")?;
            if line.trim().is_empty() {
                continue;
            }
            let call =
                serde_json::from_str(&line).with_context(|| format!("line {} is not a valid call", number + 1))?;
            writeln!(out, "{}", session.result(call)?)?;
            out.flush()?;
        }
        Ok(())
    }
}

/// One call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    call: Function,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    records: Vec<Record>,
    #[serde(default)]
    partitions: u32,
    #[serde(default)]
    load: Vec<u64>,
    #[serde(default)]
    data: Bytes,
    #[serde(default)]
    max: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Function {
    Partition,
    Serialize,
    Deserialize,
    Compress,
    Decompress,
    Filter,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default)]
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    #[serde(default)]
    headers: Vec<(String, Option<Bytes>)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "BytesText")]
struct Bytes(Vec<u8>);

#[derive(Deserialize)]
#[serde(untagged)]
enum BytesText {
    Text(String),
    Hex { hex: String },
}

impl TryFrom<BytesText> for Bytes {
    type Error = &'static str;

    fn try_from(text: BytesText) -> Result<Self, Self::Error> {
        match text {
            BytesText::Text(text) => Ok(Bytes(text.into_bytes())),
            BytesText::Hex { hex } => {
                let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let byte = |pair: &[u8]| match pair {
                    [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                    _ => None,
                };
                hex.as_bytes()
                    .chunks(2)
                    .map(byte)
                    .collect::<Option<_>>()
                    .map(Bytes)
                    .ok_or("hex must be pairs of digits")
            }
        }
    }
}

fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

/// A plug-in, and the stage of the last call with its configuration: a stage keeps its state from call to call.
pub(crate) struct Session {
    plugin: Plugin,
    stage: Option<(String, Stage)>,
}

impl Session {
    pub(crate) fn new(plugin: Plugin) -> Session {
        Session { plugin, stage: None }
    }

    /// Returns the result of a call; a failure of the plug-in is a result too.
    pub(crate) fn result(&mut self, call: Call) -> Result<Value> {
        let config = Value::Object(call.config.clone()).to_string();
        let outcome = match self.stage(config) {
            Ok(stage) => run(stage, &call),
            Err(error) => Err(error),
        };
        Ok(outcome.unwrap_or_else(|error| json!({ "error": failure(&error) })))
    }

    fn stage(&mut self, config: String) -> Result<&Stage, StageError> {
        let stage = match self.stage.take() {
            Some((configured, stage)) if configured == config => stage,
            _ => Stage::new(self.plugin.clone(), &config)?,
        };
        Ok(&self.stage.insert((config, stage)).1)
    }
}

fn run(stage: &Stage, call: &Call) -> Result<Value, StageError> {
    let records = records(&call.records);
    let (topic, records) = (call.topic.as_str(), &records.as_records());
    Ok(match call.call {
        Function::Filter => {
            json!({ "keep": stage.filter(topic, records)?.iter().collect::<Vec<_>>() })
        }
        Function::Partition => {
            // The contract has one load for each partition; a call without loads has empty queues.
            let mut load = call.load.clone();
            load.resize(call.partitions as usize, 0);
            json!({ "partitions": stage.partition(topic, call.partitions, &load, records)? })
        }
        Function::Serialize => changed(stage.serialize(topic, records)?),
        Function::Deserialize => changed(stage.deserialize(topic, records)?),
        Function::Compress => json!({ "data": bytes(&stage.compress(&call.data.0, 0)?) }),
        Function::Decompress => json!({ "data": bytes(&stage.decompress(&call.data.0, 0, call.max as usize)?) }),
    })
}

fn records(records: &[Record]) -> RecordsBuf {
    let mut batch = RecordsBuf::new(Columns::ALL);
    for record in records {
        let key = record.key.as_ref().map(|key| &key.0[..]);
        let value = record.value.as_ref().map(|value| &value.0[..]);
        let headers = record.headers.iter().map(|(name, value)| (&name[..], value.as_ref().map(|value| &value.0[..])));
        batch.push(record.timestamp, key, value, headers).expect("a line of input is below 4 GiB");
    }
    batch
}

fn changed(changed: millstream_stage::Changed) -> Value {
    let column = |column: ColumnBuf| column.iter().map(|row| row.map_or(Value::Null, bytes)).collect::<Value>();
    let mut columns = Map::new();
    for (name, new) in [("keys", changed.keys), ("values", changed.values)] {
        if let Some(new) = new {
            columns.insert(name.into(), column(new));
        }
    }
    json!({ "changed": columns })
}

fn failure(error: &StageError) -> Value {
    match &error.fault {
        Fault::Rows(rows) => {
            let rows: Vec<Value> = rows.iter().map(|bad| json!({ "row": bad.row, "message": bad.message })).collect();
            json!({ "rows": rows })
        }
        Fault::Batch(message) => json!({ "batch": message }),
        Fault::Config { field, message } => json!({ "config": { "field": field, "message": message } }),
        fault if fault.is_trap() => json!({ "trap": fault.to_string() }),
        fault => json!({ "batch": fault.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_both_ways() {
        for (text, expected) in [(r#""é""#, "é".as_bytes()), (r#"{"hex":"00fF"}"#, &[0, 255])] {
            let read: Bytes = serde_json::from_str(text).unwrap();
            assert_eq!(read.0, expected);
            assert_eq!(serde_json::from_value::<Bytes>(bytes(expected)).unwrap().0, expected);
        }
        for text in [r#"{"hex":"0"}"#, r#"{"hex":"zz"}"#, "7", r#"{"hax":""}"#] {
            assert!(serde_json::from_str::<Bytes>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_field_of_a_call_is_an_error() {
        assert!(serde_json::from_str::<Call>(r#"{"call":"filter","record":[]}"#).is_err());
    }
}
