//! A serializer: changes keys and values on the way to a topic, and back on the way from it.
#![forbid(unsafe_code)]

use millstream_sdk::{Change, Record, Result, Serializer};
use serde::Deserialize;

/// The configuration: what a user writes as {{name}}{"prefix":"v1:"}.
#[derive(Deserialize)]
pub struct {{type}} {
    prefix: String,
}

impl Serializer for {{type}} {
    /// Adds the prefix. A key or value that is not set on `change` stays the same.
    fn serialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()> {
        if let Some(value) = record.value() {
            change.set_value(&[self.prefix.as_bytes(), value].concat());
        }
        Ok(())
    }

    /// Removes the prefix. An error rejects only this record, and names its row.
    fn deserialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()> {
        if let Some(value) = record.value() {
            change.set_value(value.strip_prefix(self.prefix.as_bytes()).ok_or("the prefix is not there")?);
        }
        Ok(())
    }
}

millstream_sdk::serializer!({{type}});
