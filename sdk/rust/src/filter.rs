//! Filters: decide which records to keep.

use serde_core::de::DeserializeOwned;

use crate::batch::{Batch, Record};
use crate::bitmap::Bitmap;
use crate::columns::Columns;
use crate::error::{BadRows, ConfigError, Error, Result};

/// Decides which records to keep.
///
/// The type is the configuration of the stage: its fields are read from the JSON object that the user writes, and an
/// error names the field. Implement [`keep`](Self::keep), and export the type with [`filter!`](crate::filter).
///
/// ```
/// use millstream_sdk::{Filter, Record, Result};
///
/// /// Keeps the records whose value has at least `bytes` bytes.
/// #[derive(serde::Deserialize)]
/// struct Longer {
///     bytes: usize,
/// }
///
/// impl Filter for Longer {
///     fn keep(&self, record: &Record<'_>) -> Result<bool> {
///         Ok(record.value().is_some_and(|value| value.len() >= self.bytes))
///     }
/// }
///
/// millstream_sdk::filter!(Longer);
/// # fn main() {}
/// ```
pub trait Filter: DeserializeOwned + 'static {
    /// The columns that [`keep`](Self::keep) reads. The host sends no others.
    const COLUMNS: Columns = Columns::VALUES;

    /// Checks and prepares the configuration. It is called once, before the first batch. Do here what the types of the
    /// fields cannot check, and work that every record needs: keep the result in a field marked `#[serde(skip)]`.
    ///
    /// # Errors
    /// The configuration is not valid.
    fn prepare(&mut self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Returns whether to keep the record.
    ///
    /// # Errors
    /// This record is bad. The other records of the batch are not affected.
    fn keep(&self, record: &Record<'_>) -> Result<bool>;

    /// Sets the bits of the rows to keep. Implement this too if working on whole columns is faster.
    ///
    /// # Errors
    /// Some rows are bad, or the whole batch failed.
    fn keep_batch(&self, batch: &Batch<'_>, keep: &mut Bitmap) -> Result<(), Error> {
        let mut bad = BadRows::new();
        keep.set_where(|row| {
            self.keep(&batch.record(row)).unwrap_or_else(|error| {
                bad.push(row, error);
                false
            })
        });
        bad.check()
    }
}

/// Calls a filter as the host does.
///
/// # Errors
/// The error of the stage.
pub fn filter<F: Filter>(stage: &F, batch: &Batch<'_>) -> Result<Bitmap, Error> {
    let mut keep = Bitmap::new(batch.len());
    stage.keep_batch(&batch.select(F::COLUMNS), &mut keep)?;
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BadRow, BatchBuf};
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Even {}

    impl Filter for Even {
        fn keep(&self, record: &Record<'_>) -> Result<bool> {
            let text = std::str::from_utf8(record.value().ok_or("no value")?)?;
            Ok(text.parse::<u32>()? % 2 == 0)
        }
    }

    #[test]
    fn the_rows_that_the_stage_keeps_are_kept() {
        let batch = BatchBuf::of_values("t", ["1", "2", "3", "4"].map(str::as_bytes));
        let keep = filter(&Even {}, &batch.as_batch()).unwrap();
        assert_eq!(keep.ones().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_bad_row_is_an_error_of_that_row() {
        let mut batch = BatchBuf::of_values("t", ["2", "x"].map(str::as_bytes));
        batch.push(0, None, None, &[]);
        let Err(Error::Rows(rows)) = filter(&Even {}, &batch.as_batch()) else { panic!("two rows are bad") };
        assert_eq!(rows[0], BadRow { row: 1, message: "invalid digit found in string".into() });
        assert_eq!(rows[1], BadRow { row: 2, message: "no value".into() });
    }
}
