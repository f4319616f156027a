//! `json`: a serializer that lets JSON values pass as they are and refuses what is not JSON, by row. Keys are not looked
//! at, and a record without a value is a tombstone.
#![forbid(unsafe_code)]

use millstream_sdk::{Change, Record, Result, Serializer};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Values are JSON texts (RFC 8259).
#[derive(Debug, Deserialize)]
pub struct Json {}

impl Serializer for Json {
    fn serialize(&self, record: &Record<'_>, _change: &mut Change<'_>) -> Result<()> {
        check(record)
    }

    fn deserialize(&self, record: &Record<'_>, _change: &mut Change<'_>) -> Result<()> {
        check(record)
    }
}

fn check(record: &Record<'_>) -> Result<()> {
    if let Some(value) = record.value() {
        // What is skipped is not checked to be UTF-8, so that comes first.
        let text = std::str::from_utf8(value).map_err(|error| format!("not JSON: {error}"))?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("not JSON: {error}"))?;
    }
    Ok(())
}

millstream_sdk::serializer!(Json);
