//! A partitioner: chooses the partition of each record.
#![forbid(unsafe_code)]

use millstream_sdk::{Partitioner, Partitions, Record, Result};
use serde::Deserialize;

/// The configuration: what a user writes as {{name}}{"prefix":2}.
#[derive(Deserialize)]
pub struct {{type}} {
    prefix: usize,
}

impl Partitioner for {{type}} {
    /// Returns a partition, from 0 to `partitions.count() - 1`. Keys with the same prefix go to the same one.
    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        let key = record.key().ok_or("a record needs a key")?;
        let prefix = &key[..self.prefix.min(key.len())];
        let hash = prefix.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
        Ok(hash % partitions.count())
    }
}

millstream_sdk::partitioner!({{type}});
