//! `fnv1a_random`: the partitioner of this name of librdkafka, which sends a record with a key where Sarama's default
//! partitioner sends it. For a record without a key [`Sticky`] chooses. An empty key is a key.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, Partitioner, Partitions, Record, Result, Sticky};
use serde::Deserialize;

/// Chooses by the FNV-1a hash of the key.
#[derive(Debug, Deserialize)]
pub struct Fnv1aRandom {
    #[serde(skip)]
    sticky: Sticky,
}

impl Partitioner for Fnv1aRandom {
    /// The timestamps are for [`Sticky`].
    const COLUMNS: Columns = Columns::KEYS.with(Columns::TIMESTAMPS);

    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        Ok(match record.key() {
            Some(key) => fnv1a(key) % partitions.count(),
            None => self.sticky.partition(record, partitions),
        })
    }
}

/// Returns the absolute value of the 32-bit FNV-1a hash (Fowler, Noll and Vo) as a signed number, as Sarama takes it.
fn fnv1a(key: &[u8]) -> u32 {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.cast_signed().unsigned_abs()
}

millstream_sdk::partitioner!(Fnv1aRandom);
