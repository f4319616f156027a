//! A filter that keeps earthquakes deep below the surface.
#![forbid(unsafe_code)]

use millstream_sdk::{Filter, Record, Result};
use serde::Deserialize;

/// The demo edits this line while records flow.
const LEAST_DEPTH_KM: f64 = 100.0;

/// Keeps earthquakes that are at least that deep.
#[derive(Debug, Deserialize)]
pub struct Deep {}

#[derive(Deserialize)]
struct Event {
    depth: f64,
}

impl Filter for Deep {
    fn keep(&self, record: &Record<'_>) -> Result<bool> {
        let Event { depth } = serde_json::from_slice(record.value().unwrap_or_default())?;
        Ok(depth >= LEAST_DEPTH_KM)
    }
}

millstream_sdk::filter!(Deep);
