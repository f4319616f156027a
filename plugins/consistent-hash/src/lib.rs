//! `consistent-hash`: a partitioner by the key that moves few keys when the topic gets more partitions: of `n + 1`
//! partitions the new one gets a share of `1 / (n + 1)` of all keys, and no other key moves. With `murmur2` nearly all
//! keys move.
//!
//! It is the jump consistent hash (Lamping and Veach, 2014) of the XXH64 of the key with seed 0, so other programs can
//! compute the same partition. For a record without a key [`Sticky`] chooses.
#![forbid(unsafe_code)]

use millstream_sdk::{Columns, Partitioner, Partitions, Record, Result, Sticky};
use serde::Deserialize;
use twox_hash::XxHash64;

/// Chooses by the jump hash of the key.
#[derive(Debug, Deserialize)]
pub struct ConsistentHash {
    #[serde(skip)]
    sticky: Sticky,
}

impl Partitioner for ConsistentHash {
    /// The timestamps are for [`Sticky`].
    const COLUMNS: Columns = Columns::KEYS.with(Columns::TIMESTAMPS);

    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
        Ok(match record.key() {
            Some(key) => jump(XxHash64::oneshot(0, key), partitions.count()),
            None => self.sticky.partition(record, partitions),
        })
    }
}

/// Returns the bucket of a key, from 0 to `buckets - 1`. It jumps from each bucket to the next one that the key would
/// move to if the number of buckets grew, until that is beyond the last.
fn jump(mut key: u64, buckets: u32) -> u32 {
    let mut bucket = 0;
    loop {
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let next = (f64::from(bucket) + 1.0) * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64);
        if next >= f64::from(buckets) {
            return bucket;
        }
        bucket = next as u32;
    }
}

millstream_sdk::partitioner!(ConsistentHash);

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of other implementations of the paper, in Go and in Java.
    #[test]
    fn the_jump_hash_is_that_of_others() {
        for (key, buckets, bucket) in
            [(1, 1, 0), (42, 57, 43), (0xdead_10cc, 1, 0), (0xdead_10cc, 666, 361), (256, 1024, 520), (0, 1, 0)]
        {
            assert_eq!(jump(key, buckets), bucket, "{key} in {buckets}");
        }
    }

    #[test]
    fn a_new_partition_takes_its_share_and_no_other_key_moves() {
        const KEYS: u32 = 20_000;
        let hashes: Vec<u64> = (0..KEYS).map(|key| XxHash64::oneshot(0, format!("key-{key}").as_bytes())).collect();
        for count in [1_u32, 2, 6, 7, 12, 100, 1000] {
            let places = |count| hashes.iter().map(move |hash| jump(*hash, count));
            let moved: Vec<u32> =
                places(count).zip(places(count + 1)).filter(|(old, new)| old != new).map(|(_, new)| new).collect();
            assert!(moved.iter().all(|new| *new == count), "{count}: a key moved between old partitions");
            let expected = f64::from(KEYS / (count + 1));
            assert!((moved.len() as f64 - expected).abs() < 5.0 * expected.sqrt() + 5.0, "{count}: {}", moved.len());
        }
    }
}
