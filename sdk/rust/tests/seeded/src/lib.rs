//! A plug-in with a bug that shows in the sandbox alone, where `usize` has 32 bits.
#![forbid(unsafe_code)]

use millstream_sdk::{Filter, Record, Result};
use serde::Deserialize;

/// Keeps about half of the records, by a hash of the value. Panics on the value `panic`.
#[derive(Debug, Deserialize)]
pub struct Half {}

impl Filter for Half {
    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        let value = record.value().ok_or("no value")?;
        assert_ne!(value, b"panic", "told to");
        let hash = value.iter().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        Ok(hash % 1_000 < 500)
    }
}

millstream_sdk::filter!(Half);
