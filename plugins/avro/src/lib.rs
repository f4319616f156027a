//! `avro{"id":1,"schema":{...}}`: a serializer that turns JSON values into Avro in Confluent's framing, and back. `id`
//! is the id of the schema in the schema registry, which is not asked.
//!
//! JSON has the natural form: a record is an object, and a value of a union is written as it is. Where no branch of a
//! union fits, the form of Avro's specification counts, `{"branch":value}`. `bytes` and `fixed` are texts with a
//! character up to U+00FF for each byte, and logical types have the form of the type below them. Missing fields get
//! their default. A value that does not fit the schema is an error of its row, which says where.
//!
//! Records of other schemas can be read if `"read":{"ID":SCHEMA}` has theirs. `"references":[...]` has schemas of
//! types that these name. Tombstones stay, and so do keys.
#![forbid(unsafe_code)]

mod decode;
mod encode;
mod types;

use std::collections::BTreeMap;

use millstream_sdk::{Change, ConfigError, Record, Result, Serializer, schema_id};
use serde::Deserialize;
use serde_json::Value;

use types::Types;

/// Turns JSON into Avro.
#[derive(Debug, Deserialize)]
pub struct Avro {
    id: u32,
    schema: Value,
    #[serde(default)]
    read: BTreeMap<u32, Value>,
    #[serde(default)]
    references: Vec<Value>,
    /// By id.
    #[serde(skip)]
    types: BTreeMap<u32, Types>,
}

impl Serializer for Avro {
    fn prepare(&mut self) -> Result<(), ConfigError> {
        let references = std::mem::take(&mut self.references);
        for (id, schema) in std::mem::take(&mut self.read) {
            let types = Types::of(schema, &references);
            let named = |error| ConfigError::new(format!("/read/{id}"), error);
            self.types.insert(id, types.map_err(named)?);
        }
        let types = Types::of(self.schema.take(), &references).map_err(|error| ConfigError::new("/schema", error))?;
        self.types.insert(self.id, types);
        Ok(())
    }

    fn serialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()> {
        let Some(json) = record.value() else { return Ok(()) };
        let value = serde_json::from_slice(json).map_err(|error| format!("not JSON: {error}"))?;
        let mut bytes = schema_id::header(self.id).to_vec();
        let types = &self.types[&self.id];
        encode::encode(types, types.root, &value, json.len(), &mut bytes)?;
        change.set_value(&bytes);
        Ok(())
    }

    fn deserialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()> {
        let Some(value) = record.value() else { return Ok(()) };
        let (id, datum) = schema_id::split(value)?;
        let types = self.types.get(&id).ok_or_else(|| {
            format!("the record has schema {id}, which the configuration lacks: add it to \"read\" as \"{id}\":{{...}}")
        })?;
        change.set_value(&decode::decode(types, datum)?);
        Ok(())
    }
}

millstream_sdk::serializer!(Avro);
