//! `protobuf{"id":1,"schema":"syntax = \"proto3\"; message Order { int64 id = 1; }"}`: a serializer that turns JSON
//! values into Protocol Buffers in Confluent's framing, and back. `id` is the id of the schema in the schema registry,
//! which is not asked. `"message":"shop.Order"` names a message of the schema; without it the first one is taken.
//!
//! JSON has the form that Protocol Buffers define for it: names in lowerCamelCase (also as in the schema on the way to
//! the topic), 64-bit numbers as texts (or numbers), bytes in base64. A value that does not fit the message is an
//! error of its row.
//!
//! Records of other schemas can be read if `"read":{"ID":"SCHEMA"}` has theirs. `"imports":{"a.proto":"SCHEMA"}` has
//! the files that these import; those of `google/protobuf` are there. Tombstones stay, and so do keys.
#![forbid(unsafe_code)]

mod index;
mod schema;

use std::collections::BTreeMap;

use millstream_sdk::{Change, ConfigError, Record, Result, Serializer, schema_id};
use prost::Message;
use prost_reflect::{DynamicMessage, FileDescriptor, MessageDescriptor, SerializeOptions};
use serde::Deserialize;

/// Turns JSON into Protocol Buffers.
#[derive(Debug, Deserialize)]
pub struct Protobuf {
    id: u32,
    schema: String,
    message: Option<String>,
    #[serde(default)]
    imports: BTreeMap<String, String>,
    #[serde(default)]
    read: BTreeMap<u32, String>,
    #[serde(skip)]
    writer: Option<Writer>,
    /// By id.
    #[serde(skip)]
    files: BTreeMap<u32, FileDescriptor>,
}

/// The message to write.
#[derive(Debug)]
struct Writer {
    message: MessageDescriptor,
    /// What comes before each message.
    header: Vec<u8>,
}

impl Serializer for Protobuf {
    fn prepare(&mut self) -> Result<(), ConfigError> {
        for (id, text) in &self.read {
            let named = |error| ConfigError::new(format!("/read/{id}"), error);
            self.files.insert(*id, schema::compile(text, &self.imports).map_err(named)?);
        }
        let file = schema::compile(&self.schema, &self.imports).map_err(|error| ConfigError::new("/schema", error))?;
        let message = match &self.message {
            Some(name) => file.parent_pool().get_message_by_name(name).filter(|found| found.parent_file() == file),
            None => file.messages().next(),
        };
        let message = message.ok_or_else(|| match &self.message {
            Some(name) => ConfigError::new("/message", format!("the schema has no message {name}")),
            None => ConfigError::new("/schema", "the schema has no message"),
        })?;
        let header = [&schema_id::header(self.id)[..], &index::of(&message)].concat();
        self.writer = Some(Writer { message, header });
        self.files.insert(self.id, file);
        Ok(())
    }

    fn serialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()> {
        let Some(json) = record.value() else { return Ok(()) };
        let Writer { message, header } = self.writer.as_ref().expect("`prepare` made it");
        let mut reader = serde_json::Deserializer::from_slice(json);
        let message = DynamicMessage::deserialize(message.clone(), &mut reader)?;
        reader.end()?;
        let mut bytes = header.clone();
        message.encode(&mut bytes)?;
        change.set_value(&bytes);
        Ok(())
    }

    fn deserialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()> {
        let Some(value) = record.value() else { return Ok(()) };
        let (id, data) = schema_id::split(value)?;
        let file = self.files.get(&id).ok_or_else(|| {
            format!("the record has schema {id}, which the configuration lacks: add it to \"read\" as \"{id}\":\"...\"")
        })?;
        let (message, data) = index::find(file, data)?;
        let name = message.full_name().to_owned();
        let message =
            DynamicMessage::decode(message, data).map_err(|error| format!("not a message {name}: {error}"))?;
        let mut json = serde_json::Serializer::new(change.value_writer());
        message.serialize_with_options(&mut json, &SerializeOptions::new())?;
        Ok(())
    }
}

millstream_sdk::serializer!(Protobuf);
