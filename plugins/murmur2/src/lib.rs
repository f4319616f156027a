//! `murmur2`: the partitioner of the Java client. A record with a key goes to the same partition as with Java's default
//! partitioner. For a record without a key [`Sticky`] chooses.
#![forbid(unsafe_code)]

use millstream_sdk::{Batch, Columns, Error, Partitioner, Partitions, Record, Result, Sticky};
use serde::Deserialize;

/// Chooses by the hash of the key.
#[derive(Debug, Deserialize)]
pub struct Murmur2 {
    #[serde(skip)]
    sticky: Sticky,
}

impl Partitioner for Murmur2 {
    /// The timestamps are for [`Sticky`].
    const COLUMNS: Columns = Columns::KEYS.with(Columns::TIMESTAMPS);

    #[inline]
    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        Ok(match record.key() {
            Some(key) => by_key(key, partitions),
            None => self.sticky.partition(record, partitions),
        })
    }

    /// Reads only the column of keys if every record has a key.
    fn partition_batch(
        &mut self,
        batch: &Batch<'_>,
        partitions: &Partitions<'_>,
        chosen: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let keys = batch.keys();
        if keys.has_nulls() {
            for record in batch.records() {
                chosen.push(self.partition(&record, partitions)?);
            }
        } else {
            chosen.extend(keys.iter().map(|key| by_key(key.unwrap_or_default(), partitions)));
        }
        Ok(())
    }
}

#[inline]
fn by_key(key: &[u8], partitions: &Partitions<'_>) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.count()
}

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// Computes Austin Appleby's MurmurHash2 with Kafka's seed, as `org.apache.kafka.common.utils.Utils.murmur2` does.
#[inline]
pub fn murmur2(data: &[u8]) -> u32 {
    // Java takes the length as an int; a key is far below 4 GiB.
    let mut hash = SEED ^ data.len() as u32;
    // Four words in each turn, since the sandbox checks the clock at every turn of a loop.
    let mut blocks = data.chunks_exact(16);
    for block in &mut blocks {
        for word in block.chunks_exact(4) {
            hash = add(hash, word);
        }
    }
    let mut words = blocks.remainder().chunks_exact(4);
    for word in &mut words {
        hash = add(hash, word);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[inline]
fn add(hash: u32, word: &[u8]) -> u32 {
    let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
    k ^= k >> 24;
    hash.wrapping_mul(M) ^ k.wrapping_mul(M)
}

millstream_sdk::partitioner!(Murmur2);
