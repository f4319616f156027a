//! Errors of a row, of a batch and of a configuration.

use std::error::Error as StdError;
use std::fmt;

/// Why one record cannot be processed. Any error converts with `?`, and a text with `.into()`.
pub type RowError = Box<dyn StdError>;

/// The result of a function that processes one record.
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

/// Collects the rows of a batch that failed.
#[derive(Debug, Default)]
pub struct BadRows {
    rows: Vec<BadRow>,
    /// Bytes of all messages.
    messages_bytes: usize,
}

impl BadRows {
    /// The longest message of a row, in bytes; longer ones are cut. A message that quotes a record could be as large as
    /// the batch.
    const MESSAGE_BYTES_MAX: usize = 256;

    /// The most bytes of all messages of a batch. The rows after that have no message: the messages of a hundred
    /// thousand bad records would not fit into the memory of the stage.
    const MESSAGES_BYTES_MAX: usize = 64 << 10;

    /// Makes an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row that failed.
    #[cold]
    pub fn push(&mut self, row: usize, error: impl fmt::Display) {
        let mut message = String::new();
        if self.messages_bytes < Self::MESSAGES_BYTES_MAX {
            message = error.to_string();
            message.truncate(message.floor_char_boundary(Self::MESSAGE_BYTES_MAX));
            self.messages_bytes += message.len();
        }
        self.rows.push(BadRow { row: u32::try_from(row).unwrap_or(u32::MAX), message });
    }

    /// Returns an error if any row failed.
    ///
    /// # Errors
    /// [`Error::Rows`] with the rows that failed.
    pub fn check(self) -> Result<(), Error> {
        if self.rows.is_empty() { Ok(()) } else { Err(Error::Rows(self.rows)) }
    }
}

/// Why a configuration is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The field as a JSON Pointer (RFC 6901), empty for the whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl ConfigError {
    /// Makes an error for a field, a JSON Pointer such as `/path`.
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
    fn of_very_many_bad_rows_only_the_first_have_messages() {
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
