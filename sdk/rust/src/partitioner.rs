//! Partitioners: choose the partition of each record.

use serde_core::de::DeserializeOwned;

use crate::batch::{Batch, Record};
use crate::columns::Columns;
use crate::error::{BadRows, ConfigError, Error, Result};

/// The partitions of the topic of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Partitions<'a> {
    count: u32,
    load: &'a [u64],
}

impl<'a> Partitions<'a> {
    /// The load of a partition that has no leader now.
    pub const UNAVAILABLE: u64 = u64::MAX;

    /// Describes a topic with `count` partitions. `load` has an entry for every partition, or is empty where it is not
    /// known.
    ///
    /// # Panics
    /// `count` is 0, or `load` has entries for some partitions only.
    pub fn new(count: u32, load: &'a [u64]) -> Self {
        assert!(count > 0, "a topic has at least one partition");
        assert!(load.is_empty() || load.len() == count as usize, "one load for each partition");
        Self { count, load }
    }

    /// Returns the number of partitions; a record goes to one from 0 to `count - 1`.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the bytes that wait in the queue of a partition: 0 where that is not known,
    /// [`UNAVAILABLE`](Self::UNAVAILABLE) where the partition has no leader.
    #[inline]
    pub fn load(&self, partition: u32) -> u64 {
        self.load.get(partition as usize).copied().unwrap_or(0)
    }

    /// Returns whether the partition has a leader. Records for a partition without one wait, so avoid it where no key
    /// decides.
    #[inline]
    pub fn is_available(&self, partition: u32) -> bool {
        self.load(partition) != Self::UNAVAILABLE
    }

    /// Returns the partition with the fewest waiting bytes; of several, the lowest.
    pub fn least_loaded(&self) -> u32 {
        (0..self.count).min_by_key(|partition| self.load(*partition)).unwrap_or(0)
    }
}

/// Chooses the partition of each record.
///
/// The type is the configuration of the stage: its fields are read from the JSON object that the user writes, and an
/// error names the field. Fields marked `#[serde(skip)]` are state. Implement [`partition`](Self::partition), and
/// export the type with [`partitioner!`](crate::partitioner).
///
/// ```
/// use millstream_sdk::{Partitioner, Partitions, Record, Result};
///
/// /// Chooses by the first byte of the key.
/// #[derive(serde::Deserialize)]
/// struct FirstByte {}
///
/// impl Partitioner for FirstByte {
///     fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32> {
///         let key = record.key().ok_or("no key")?;
///         Ok(u32::from(*key.first().ok_or("an empty key")?) % partitions.count())
///     }
/// }
///
/// millstream_sdk::partitioner!(FirstByte);
/// # fn main() {}
/// ```
pub trait Partitioner: DeserializeOwned + 'static {
    /// The columns that [`partition`](Self::partition) reads. The host sends no others.
    const COLUMNS: Columns = Columns::KEYS;

    /// Checks the configuration, as [`Filter::prepare`](crate::Filter::prepare) does.
    ///
    /// # Errors
    /// The configuration is not valid.
    fn prepare(&mut self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Returns the partition of the record, below [`Partitions::count`].
    ///
    /// # Errors
    /// This record is bad. The other records of the batch are not affected.
    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32>;

    /// Adds the partition of every row, in order, to `chosen`. Implement this too if working on whole columns is
    /// faster.
    ///
    /// # Errors
    /// Some rows are bad, or the whole batch failed.
    fn partition_batch(
        &mut self,
        batch: &Batch<'_>,
        partitions: &Partitions<'_>,
        chosen: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let mut bad = BadRows::new();
        for record in batch.records() {
            match self.partition(&record, partitions) {
                Ok(partition) => chosen.push(partition),
                Err(error) => bad.push(record.row(), error),
            }
        }
        bad.check()
    }
}

/// Calls a partitioner as the host does. Returns one partition for each row.
///
/// # Errors
/// The error of the stage, or a partition that does not exist: it is never folded into the range.
pub fn partition<P: Partitioner>(
    stage: &mut P,
    batch: &Batch<'_>,
    partitions: &Partitions<'_>,
) -> Result<Vec<u32>, Error> {
    let mut chosen = Vec::with_capacity(batch.len());
    stage.partition_batch(&batch.select(P::COLUMNS), partitions, &mut chosen)?;
    if chosen.len() != batch.len() {
        return Err(Error::Batch(format!("{} partitions for {} records", chosen.len(), batch.len())));
    }
    // One pass without a branch for each row: as a rule all are good.
    if chosen.iter().copied().max().is_some_and(|most| most >= partitions.count()) {
        let mut bad = BadRows::new();
        for (row, partition) in chosen.iter().enumerate().filter(|(_, partition)| **partition >= partitions.count()) {
            bad.push(row, format_args!("partition {partition} of a topic that has {}", partitions.count()));
        }
        bad.check()?;
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuf;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct KeyLength {}

    impl Partitioner for KeyLength {
        fn partition(&mut self, record: &Record<'_>, _partitions: &Partitions<'_>) -> Result<u32> {
            Ok(u32::try_from(record.key().ok_or("no key")?.len())?)
        }
    }

    #[test]
    fn every_row_has_its_partition() {
        let batch = BatchBuf::of_keys("t", ["", "abc", "a"].map(str::as_bytes));
        let chosen = partition(&mut KeyLength {}, &batch.as_batch(), &Partitions::new(4, &[]));
        assert_eq!(chosen.unwrap(), [0, 3, 1]);
    }

    #[test]
    fn a_partition_that_does_not_exist_is_an_error_of_its_row() {
        let batch = BatchBuf::of_keys("t", ["", "abc"].map(str::as_bytes));
        let error = partition(&mut KeyLength {}, &batch.as_batch(), &Partitions::new(3, &[])).unwrap_err();
        assert_eq!(error.to_string(), "row 1: partition 3 of a topic that has 3");
    }

    #[test]
    fn the_least_loaded_is_the_lowest_of_several() {
        assert_eq!(Partitions::new(3, &[5, 2, 2]).least_loaded(), 1);
        assert_eq!(Partitions::new(3, &[]).least_loaded(), 0);
        assert_eq!(Partitions::new(3, &[Partitions::UNAVAILABLE, 9, 7]).least_loaded(), 2);
    }
}
