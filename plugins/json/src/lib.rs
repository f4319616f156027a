//! `json`: a serializer that checks that values are JSON, and changes nothing. A value that is not JSON is an error of
//! its row. Keys are not checked, and neither are tombstones.
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
        // `IgnoredAny` does not check that skipped text is UTF-8, so that check comes first.
        let text = std::str::from_utf8(value).map_err(|error| format!("not JSON: {error}"))?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("not JSON: {error}"))?;
    }
    Ok(())
}

millstream_sdk::serializer!(Json);
