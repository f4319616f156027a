//! A filter that keeps short records.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, Filter, Record, Result};
use serde::Deserialize;

/// The most bytes that a value may have.
#[derive(Deserialize)]
pub struct Limit {
    bytes: usize,
}

impl Filter for Limit {
    const COLUMNS: Columns = Columns::VALUES;

    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        Ok(record.value().unwrap_or_default().len() <= self.bytes)
    }
}

millstream_sdk::filter!(Limit);
