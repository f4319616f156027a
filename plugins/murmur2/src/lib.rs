//! `murmur2`: the partitioner of the Java client. A record with a key goes to the same partition as with Java's default
//! partitioner. For a record without a key [`Sticky`] chooses.
#![forbid(unsafe_code)]

use millstream_sdk::{Batch, Columns, Error, Partitioner, Partitions, Record, Result, Sticky, murmur2};
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

millstream_sdk::partitioner!(Murmur2);
