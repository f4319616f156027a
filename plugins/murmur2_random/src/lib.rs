//! `murmur2_random`: the partitioner of this name of librdkafka, which sends a record with a key where Java's client
//! sends it. For a record without a key [`Sticky`] chooses. An empty key is a key.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, Partitioner, Partitions, Record, Result, Sticky, murmur2};
use serde::Deserialize;

/// Chooses by the murmur2 hash of the key.
#[derive(Debug, Deserialize)]
pub struct Murmur2Random {
    #[serde(skip)]
    sticky: Sticky,
}

impl Partitioner for Murmur2Random {
    /// The timestamps are for [`Sticky`].
    const COLUMNS: Columns = Columns::KEYS.with(Columns::TIMESTAMPS);

    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        Ok(match record.key() {
            Some(key) => (murmur2(key) & 0x7fff_ffff) % partitions.count(),
            None => self.sticky.partition(record, partitions),
        })
    }
}

millstream_sdk::partitioner!(Murmur2Random);
