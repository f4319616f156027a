//! A filter: decides which records a consumer sees.
#![forbid(unsafe_code)]

use millstream_sdk::{Filter, Record, Result};
use serde::Deserialize;

/// The configuration: what a user writes as {{name}}{"text":"error"}.
#[derive(Deserialize)]
pub struct {{type}} {
    text: String,
}

impl Filter for {{type}} {
    /// Returns whether to keep a record. An error rejects only this record, and names its row.
    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        let value = std::str::from_utf8(record.value().unwrap_or_default())?;
        Ok(value.contains(&self.text))
    }
}

millstream_sdk::filter!({{type}});
