//! Partitioners: where each record goes.

use serde::de::DeserializeOwned;

use crate::batch::{Batch, Record};
use crate::columns::Columns;
use crate::error::{BadRows, ConfigError, Error, Result};

/// The partitions of the topic that a batch is for.
#[derive(Debug, Clone, Copy)]
pub struct Partitions<'a> {
    count: u32,
    load: &'a [u64],
}

impl<'a> Partitions<'a> {
    /// The load of a partition that has no leader now.
    pub const UNAVAILABLE: u64 = u64::MAX;

    /// `load` has an entry for every partition, or none where it is not known.
    ///
    /// # Panics
    /// There are no partitions, or entries for some but not for all.
    pub fn new(count: u32, load: &'a [u64]) -> Self {
        assert!(count > 0, "a topic has at least one partition");
        assert!(load.is_empty() || load.len() == count as usize, "one load a partition");
        Self { count, load }
    }

    /// How many there are; a record goes to one from 0 to `count - 1`.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The bytes that wait in a partition's queue; 0 where that is not known, [`UNAVAILABLE`](Self::UNAVAILABLE) where
    /// nobody would take them.
    #[inline]
    pub fn load(&self, partition: u32) -> u64 {
        self.load.get(partition as usize).copied().unwrap_or(0)
    }

    /// Whether the partition has a leader. What goes to one that has none waits until it has: keep away from it where
    /// no key decides.
    #[inline]
    pub fn is_available(&self, partition: u32) -> bool {
        self.load(partition) != Self::UNAVAILABLE
    }

    /// The partition with the fewest bytes that wait, the lowest of several.
    pub fn least_loaded(&self) -> u32 {
        (0..self.count).min_by_key(|partition| self.load(*partition)).unwrap_or(0)
    }
}

/// Decides which partition each record goes to.
///
/// The type is the stage's configuration: its fields are read from the JSON object that the user gives, and an error
/// names the field; fields marked `#[serde(skip)]` are its state. Write [`partition`](Self::partition), and export the
/// type with [`partitioner!`](crate::partitioner).
///
/// ```
/// use millstream_sdk::{Partitioner, Partitions, Record, Result};
///
/// /// By the first byte of the key.
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
    /// What [`partition`](Self::partition) reads of a record; the host sends nothing else.
    const COLUMNS: Columns = Columns::KEYS;

    /// As [`Filter::prepare`](crate::Filter::prepare).
    ///
    /// # Errors
    /// The configuration is refused.
    fn prepare(&mut self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// The record's partition, below [`Partitions::count`].
    ///
    /// # Errors
    /// The record has none; the others of the batch do.
    fn partition(&mut self, record: &Record<'_>, partitions: &Partitions<'_>) -> Result<u32>;

    /// Adds the partition of every row, in order, to `chosen`. Write this one too where going through whole columns is
    /// faster.
    ///
    /// # Errors
    /// Some rows are bad, or the batch as a whole.
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

/// One call of a partitioner, as the host makes it: one partition a row.
///
/// # Errors
/// Those of the stage, and a partition that is not there: it is never folded into the range.
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
    // One pass without a branch a row: that all are good is the rule.
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
    fn a_partition_that_is_not_there_is_an_error_of_its_row() {
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
