//! What can be wrong: a row, a batch, a configuration.

use std::error::Error as StdError;
use std::fmt;

/// Why one record cannot be processed. Whatever is an error becomes one by `?`, and so does a text by `.into()`.
pub type RowError = Box<dyn StdError>;

/// The result of what is done to one record.
pub type Result<T, E = RowError> = std::result::Result<T, E>;

/// One bad row of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The row, from 0.
    pub row: u32,
    /// What is wrong with it.
    pub message: String,
}

/// Why a batch was not processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// These rows are bad, the others are not.
    Rows(Vec<BadRow>),
    /// The whole batch failed.
    Batch(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Batch(message) => f.write_str(message),
            Error::Rows(rows) => {
                for (index, BadRow { row, message }) in rows.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}row {row}: {message}")?;
                }
                Ok(())
            }
        }
    }
}

impl StdError for Error {}

impl From<RowError> for Error {
    fn from(error: RowError) -> Self {
        Error::Batch(error.to_string())
    }
}

/// The rows that failed while a batch was gone through.
#[derive(Debug, Default)]
pub struct BadRows {
    rows: Vec<BadRow>,
    /// Bytes of all messages.
    words: usize,
}

impl BadRows {
    /// The longest message that is kept, in bytes: a message that quotes a record must not be larger than the batch.
    const MESSAGE_BYTES_MAX: usize = 256;

    /// How many bytes of messages a batch may have; the rows after that are named without words. A batch of a hundred
    /// thousand small records that are all bad would not fit the stage's memory otherwise.
    const WORDS_BYTES_MAX: usize = 64 << 10;

    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// This row failed.
    #[cold]
    pub fn push(&mut self, row: usize, error: impl fmt::Display) {
        let mut message = String::new();
        if self.words < Self::WORDS_BYTES_MAX {
            message = error.to_string();
            message.truncate(message.floor_char_boundary(Self::MESSAGE_BYTES_MAX));
            self.words += message.len();
        }
        self.rows.push(BadRow { row: u32::try_from(row).unwrap_or(u32::MAX), message });
    }

    /// An error if any row failed.
    ///
    /// # Errors
    /// [`Error::Rows`] with the rows that failed.
    pub fn check(self) -> Result<(), Error> {
        if self.rows.is_empty() { Ok(()) } else { Err(Error::Rows(self.rows)) }
    }
}

/// A configuration that the stage refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The field as a JSON Pointer (RFC 6901), empty for the whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl ConfigError {
    /// `field` is a JSON Pointer such as `/path`.
    pub fn new(field: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { field: field.into(), message: message.to_string() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}

impl StdError for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named() {
        let mut bad = BadRows::new();
        bad.push(1, "not JSON");
        bad.push(4, "no value");
        assert_eq!(bad.check().unwrap_err().to_string(), "row 1: not JSON; row 4: no value");
        assert_eq!(BadRows::new().check(), Ok(()));
    }

    #[test]
    fn very_many_rows_are_named_and_only_the_first_have_words() {
        let mut bad = BadRows::new();
        (0..100_000).for_each(|row| bad.push(row, "not JSON"));
        let Err(Error::Rows(rows)) = bad.check() else { panic!("rows failed") };
        assert_eq!(rows.len(), 100_000);
        assert_eq!(rows.iter().map(|row| row.message.len()).sum::<usize>(), 64 << 10);
        assert_eq!((rows[0].message.as_str(), rows[99_999].message.as_str()), ("not JSON", ""));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut bad = BadRows::new();
        bad.push(0, "é".repeat(500));
        let Err(Error::Rows(rows)) = bad.check() else { panic!("a row failed") };
        assert_eq!(rows[0].message.len(), 256);
    }
}
