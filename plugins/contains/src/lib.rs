//! A filter that keeps the records that hold a byte string.
#![forbid(unsafe_code)]

use millstream_sdk::{Filter, Record, Result};

/// Keeps the records whose value holds a text.
#[derive(Debug, serde::Deserialize)]
pub struct Contains {
    text: String,
}

impl Filter for Contains {
    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        let value = std::str::from_utf8(record.value().unwrap_or_default())?;
        Ok(value.contains(&self.text))
    }
}

millstream_sdk::filter!(Contains);
