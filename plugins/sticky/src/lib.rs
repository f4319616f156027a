//! `sticky{"bytes":16384}`: a partitioner that fills a batch for one partition before it takes another, and ignores
//! keys. It makes fewer and larger batches than `round-robin`.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, ConfigError, Partitioner, Partitions, Record, Result, Sticky};
use serde::Deserialize;

/// Keeps to one partition until a batch is full.
#[derive(Debug, Deserialize)]
pub struct StickyPartitioner {
    /// The bytes of a full batch: the `batch.size` of the producer.
    bytes: Option<u64>,
    #[serde(skip)]
    sticky: Sticky,
}

impl Partitioner for StickyPartitioner {
    /// See [`Sticky`].
    const COLUMNS: Columns = Columns::TIMESTAMPS;

    fn prepare(&mut self) -> Result<(), ConfigError> {
        match self.bytes {
            Some(0) => return Err(ConfigError::new("/bytes", "a batch has at least one byte")),
            Some(bytes) => self.sticky = Sticky::new(bytes),
            None => {}
        }
        Ok(())
    }

    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        Ok(self.sticky.partition(record, partitions))
    }
}

millstream_sdk::partitioner!(StickyPartitioner);
