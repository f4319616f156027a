//! Serializers: change keys and values on the way to a topic and on the way back.

use std::io;

use serde_core::de::DeserializeOwned;

use crate::batch::{Batch, Column, Record};
use crate::buffer::ColumnBuf;
use crate::columns::Columns;
use crate::error::{BadRows, ConfigError, Error, Result};

/// Changes or checks keys and values, on the way to the topic and on the way back.
///
/// The type is the configuration of the stage: its fields are read from the JSON object that the user writes, and an
/// error names the field. A key or value that is not set on the [`Change`] stays the same, so a serializer that only
/// checks sets nothing. Export the type with [`serializer!`](crate::serializer).
///
/// ```
/// use millstream_sdk::{Change, Record, Result, Serializer};
///
/// /// Writes values in capitals.
/// #[derive(serde::Deserialize)]
/// struct Capitals {}
///
/// impl Serializer for Capitals {
///     fn serialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()> {
///         if let Some(value) = record.value() {
///             change.set_value(&value.to_ascii_uppercase());
///         }
///         Ok(())
///     }
/// }
///
/// millstream_sdk::serializer!(Capitals);
/// # fn main() {}
/// ```
pub trait Serializer: DeserializeOwned + 'static {
    /// The columns that the stage reads. The host sends no others.
    const COLUMNS: Columns = Columns::VALUES;

    /// Checks the configuration, as [`Filter::prepare`](crate::Filter::prepare) does.
    ///
    /// # Errors
    /// The configuration is not valid.
    fn prepare(&mut self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Changes a record on the way to the topic.
    ///
    /// # Errors
    /// This record is bad. The other records of the batch are not affected.
    fn serialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()>;

    /// Changes a record on the way from the topic. The default changes nothing.
    ///
    /// # Errors
    /// This record is bad. The other records of the batch are not affected.
    fn deserialize(&self, _record: &Record<'_>, _change: &mut Change<'_>) -> Result<()> {
        Ok(())
    }

    /// Serializes every row. Implement this too if working on whole columns is faster.
    ///
    /// # Errors
    /// Some rows are bad, or the whole batch failed.
    fn serialize_batch(&self, batch: &Batch<'_>) -> Result<Changed, Error> {
        change_rows(batch, |record, change| self.serialize(record, change))
    }

    /// Deserializes every row. Implement this too if working on whole columns is faster.
    ///
    /// # Errors
    /// Some rows are bad, or the whole batch failed.
    fn deserialize_batch(&self, batch: &Batch<'_>) -> Result<Changed, Error> {
        change_rows(batch, |record, change| self.deserialize(record, change))
    }
}

/// The columns that a serializer changed. An absent column stays the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// One key for each row.
    pub keys: Option<ColumnBuf>,
    /// One value for each row.
    pub values: Option<ColumnBuf>,
}

/// The changes of a serializer to one record.
#[derive(Debug)]
pub struct Change<'a> {
    keys: ColumnChange<'a>,
    values: ColumnChange<'a>,
}

impl Change<'_> {
    /// Sets the key of the record.
    pub fn set_key(&mut self, key: &[u8]) {
        self.keys.start().extend_from_slice(key);
    }

    /// Removes the key of the record.
    pub fn clear_key(&mut self) {
        self.keys.clear();
    }

    /// Sets the value of the record.
    pub fn set_value(&mut self, value: &[u8]) {
        self.values.start().extend_from_slice(value);
    }

    /// Makes the record a tombstone.
    pub fn clear_value(&mut self) {
        self.values.clear();
    }

    /// Returns a writer for the new key, to write it without a buffer in between.
    pub fn key_writer(&mut self) -> impl io::Write + '_ {
        self.keys.start()
    }

    /// Returns a writer for the new value, to write it without a buffer in between.
    pub fn value_writer(&mut self) -> impl io::Write + '_ {
        self.values.start()
    }
}

/// One column of a [`Change`]. It copies nothing before the first row that is set.
#[derive(Debug)]
struct ColumnChange<'a> {
    old: Option<Column<'a>>,
    new: Option<ColumnBuf>,
    row: usize,
    row_is: Row,
    /// A row that was not set, in a column that the stage does not read.
    unread_row: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Unset,
    Set,
    Null,
}

impl<'a> ColumnChange<'a> {
    fn new(old: Option<Column<'a>>) -> Self {
        Self { old, new: None, row: 0, row_is: Row::Unset, unread_row: None }
    }

    /// Starts the new bytes of this row, and returns where to write them.
    fn start(&mut self) -> &mut Vec<u8> {
        let column = self.column();
        column.truncate_row();
        self.row_is = Row::Set;
        self.column().data_mut()
    }

    fn clear(&mut self) {
        self.column();
        self.row_is = Row::Null;
    }

    /// Returns the new column. The first call copies the rows so far from the old one.
    fn column(&mut self) -> &mut ColumnBuf {
        self.new.get_or_insert_with(|| {
            let mut column = ColumnBuf::new();
            match self.old {
                Some(old) => column.extend(old, self.row),
                None if self.row > 0 => self.unread_row = Some(0),
                None => {}
            }
            column
        })
    }

    fn end_row(&mut self) {
        if let Some(new) = &mut self.new {
            match (self.row_is, self.old) {
                (Row::Set, _) => new.end_row(),
                (Row::Null, _) => new.push_null(),
                (Row::Unset, Some(old)) => new.push(old.get(self.row)),
                (Row::Unset, None) => self.unread_row = self.unread_row.or(Some(self.row)),
            }
        }
        self.row += 1;
        self.row_is = Row::Unset;
    }

    /// Returns the new column, if any row was set.
    fn finish(self, name: &str) -> Result<Option<ColumnBuf>, Error> {
        match self.unread_row {
            Some(row) => Err(Error::Batch(format!(
                "row {row} keeps its {name} while other rows get a new one: add Columns::{}S to COLUMNS, \
                 so that it can be copied",
                name.to_ascii_uppercase()
            ))),
            None => Ok(self.new),
        }
    }
}

fn change_rows(
    batch: &Batch<'_>,
    mut row: impl FnMut(&Record<'_>, &mut Change<'_>) -> Result<()>,
) -> Result<Changed, Error> {
    let mut bad = BadRows::new();
    let mut change = Change { keys: ColumnChange::new(batch.keys), values: ColumnChange::new(batch.values) };
    for record in batch.records() {
        if let Err(error) = row(&record, &mut change) {
            bad.push(record.row(), error);
        }
        change.keys.end_row();
        change.values.end_row();
    }
    bad.check()?;
    Ok(Changed { keys: change.keys.finish("key")?, values: change.values.finish("value")? })
}

/// Calls a serializer on the way to the topic, as the host does.
///
/// # Errors
/// The error of the stage.
pub fn serialize<S: Serializer>(stage: &S, batch: &Batch<'_>) -> Result<Changed, Error> {
    check_rows(stage.serialize_batch(&batch.select(S::COLUMNS))?, batch)
}

/// Calls a serializer on the way from the topic, as the host does.
///
/// # Errors
/// The error of the stage.
pub fn deserialize<S: Serializer>(stage: &S, batch: &Batch<'_>) -> Result<Changed, Error> {
    check_rows(stage.deserialize_batch(&batch.select(S::COLUMNS))?, batch)
}

fn check_rows(changed: Changed, batch: &Batch<'_>) -> Result<Changed, Error> {
    for column in [&changed.keys, &changed.values].into_iter().flatten() {
        if column.len() != batch.len() {
            return Err(Error::Batch(format!("a column of {} rows for {} records", column.len(), batch.len())));
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuf;
    use serde::Deserialize;
    use std::io::Write;

    /// Deletes `delete`, leaves `leave`, rejects `bad`, removes the key of `unkey`, and adds `!` to the rest.
    #[derive(Deserialize)]
    struct Script {}

    impl Serializer for Script {
        fn serialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()> {
            match record.value().unwrap_or_default() {
                b"delete" => change.clear_value(),
                b"leave" => {}
                b"unkey" => change.clear_key(),
                b"bad" => return Err("bad".into()),
                b"twice" => {
                    change.set_value(b"first");
                    change.set_value(b"second");
                }
                other => write!(change.value_writer(), "{}!", String::from_utf8_lossy(other))?,
            }
            Ok(())
        }
    }

    fn run(values: &[&str]) -> Result<Changed, Error> {
        let batch = BatchBuf::of_values("t", values.iter().map(|value| value.as_bytes()));
        serialize(&Script {}, &batch.as_batch())
    }

    fn rows(column: &ColumnBuf) -> Vec<Option<&str>> {
        column.as_column().iter().map(|row| row.map(|bytes| std::str::from_utf8(bytes).unwrap())).collect()
    }

    #[test]
    fn an_unchanged_batch_is_not_copied() {
        assert_eq!(run(&["leave", "leave"]).unwrap(), Changed::default());
    }

    #[test]
    fn rows_that_are_not_set_stay_the_same() {
        let changed = run(&["leave", "a", "delete", "leave", "twice"]).unwrap();
        assert_eq!(changed.keys, None);
        let values = changed.values.unwrap();
        assert_eq!(rows(&values), [Some("leave"), Some("a!"), None, Some("leave"), Some("second")]);
    }

    #[test]
    fn bad_rows_are_all_named() {
        assert_eq!(run(&["bad", "a", "bad"]).unwrap_err().to_string(), "row 0: bad; row 2: bad");
    }

    #[test]
    fn a_column_that_is_not_read_cannot_stay_in_part() {
        for values in [&["unkey", "a"][..], &["a", "unkey"]] {
            let error = run(values).unwrap_err().to_string();
            assert!(error.contains("add Columns::KEYS"), "{error}");
        }
        assert_eq!(rows(&run(&["unkey", "unkey"]).unwrap().keys.unwrap()), [None, None]);
    }
}
