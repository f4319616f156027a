//! `consistent_random`: librdkafka's default partitioner. A record goes where librdkafka sends it, by the CRC-32 of the
//! key. For a record without a key, and for one whose key is empty, [`Sticky`] chooses.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, Partitioner, Partitions, Record, Result, Sticky};
use serde::Deserialize;

/// Chooses by the CRC-32 of the key.
#[derive(Debug, Deserialize)]
pub struct ConsistentRandom {
    #[serde(skip)]
    sticky: Sticky,
}

impl Partitioner for ConsistentRandom {
    /// The timestamps are for [`Sticky`].
    const COLUMNS: Columns = Columns::KEYS.with(Columns::TIMESTAMPS);

    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        Ok(match record.key() {
            None | Some([]) => self.sticky.partition(record, partitions),
            Some(key) => crc32fast::hash(key) % partitions.count(),
        })
    }
}

millstream_sdk::partitioner!(ConsistentRandom);
