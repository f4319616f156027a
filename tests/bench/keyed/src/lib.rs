//! A filter that reads keys and nothing else: what the broker's edge costs where it need not look at the values.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, Filter, Record, Result};
use serde::Deserialize;

/// Keeps the records whose key begins so.
#[derive(Debug, Deserialize)]
pub struct Keyed {
    prefix: String,
}

impl Filter for Keyed {
    const COLUMNS: Columns = Columns::KEYS;

    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        Ok(record.key().is_some_and(|key| key.starts_with(self.prefix.as_bytes())))
    }
}

millstream_sdk::filter!(Keyed);
