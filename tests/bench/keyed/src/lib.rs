//! A filter that reads only keys. It shows what the broker's edge costs when the values are not needed.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, Filter, Record, Result};
use serde::Deserialize;

/// Keeps the records whose key begins with a prefix.
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
