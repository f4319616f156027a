//! A partitioner that chooses by the region of an earthquake. The last partition is for the rest of the world.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, Partitioner, Partitions, Record, Result};
use serde::Deserialize;

/// Boxes in degrees: west, south, east, north. Their order is that of the partitions.
#[derive(Debug, Deserialize)]
pub struct Region {
    boxes: Vec<[f64; 4]>,
}

#[derive(Deserialize)]
struct Place {
    lon: f64,
    lat: f64,
}

impl Partitioner for Region {
    const COLUMNS: Columns = Columns::VALUES;

    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        let Place { lon, lat } = serde_json::from_slice(record.value().unwrap_or_default())?;
        let holds =
            |[west, south, east, north]: &[f64; 4]| (*west..*east).contains(&lon) && (*south..*north).contains(&lat);
        let region = self.boxes.iter().position(holds).unwrap_or(self.boxes.len());
        Ok(u32::try_from(region)?.min(partitions.count() - 1))
    }
}

millstream_sdk::partitioner!(Region);
