//! Filters: which records to keep.

use serde::de::DeserializeOwned;

use crate::batch::{Batch, Record};
use crate::bitmap::Bitmap;
use crate::columns::Columns;
use crate::error::{BadRows, ConfigError, Error, Result};

/// Decides which records to keep.
///
/// The type is the stage's configuration: its fields are read from the JSON object that the user gives, and an error
/// names the field. Write [`keep`](Self::keep), and export the type with [`filter!`](crate::filter).
///
/// ```
/// use millstream_sdk::{Filter, Record, Result};
///
/// /// Keeps the records whose value is at least so long.
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
    /// What [`keep`](Self::keep) reads of a record; the host sends nothing else.
    const COLUMNS: Columns = Columns::VALUES;

    /// Called once, after the configuration was read: the place for what its types cannot say, and for work that need
    /// not be done again for every record (in a field marked `#[serde(skip)]`).
    ///
    /// # Errors
    /// The configuration is refused.
    fn prepare(&mut self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Whether to keep the record.
    ///
    /// # Errors
    /// The record is bad; the others of the batch are not.
    fn keep(&self, record: &Record<'_>) -> Result<bool>;

    /// Sets the bits of the rows to keep. Write this one too where going through whole columns is faster.
    ///
    /// # Errors
    /// Some rows are bad, or the batch as a whole.
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

/// One call of a filter, as the host makes it.
///
/// # Errors
/// Those of the stage.
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
    fn the_rows_that_the_author_keeps_are_kept() {
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
