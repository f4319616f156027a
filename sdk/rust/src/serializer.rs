//! Serializers: new keys and values, on the way out and on the way in.

use std::io;

use serde::de::DeserializeOwned;

use crate::batch::{Batch, Column, Record};
use crate::buffer::ColumnBuf;
use crate::columns::Columns;
use crate::error::{BadRows, ConfigError, Error, Result};

/// Changes keys and values, or refuses them, on the way to the topic and on the way back.
///
/// The type is the stage's configuration: its fields are read from the JSON object that the user gives, and an error
/// names the field. What is not set on the [`Change`] stays as it is, so a serializer that only checks sets nothing.
/// Export the type with [`serializer!`](crate::serializer).
///
/// ```
/// use millstream_sdk::{Change, Record, Result, Serializer};
///
/// /// Values in capitals.
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
    /// What the stage reads of a record; the host sends nothing else.
    const COLUMNS: Columns = Columns::VALUES;

    /// As [`Filter::prepare`](crate::Filter::prepare).
    ///
    /// # Errors
    /// The configuration is refused.
    fn prepare(&mut self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// On the way to the topic.
    ///
    /// # Errors
    /// The record cannot be serialized; the others of the batch can.
    fn serialize(&self, record: &Record<'_>, change: &mut Change<'_>) -> Result<()>;

    /// On the way from the topic. Without it, records are left as they are.
    ///
    /// # Errors
    /// The record cannot be deserialized; the others of the batch can.
    fn deserialize(&self, _record: &Record<'_>, _change: &mut Change<'_>) -> Result<()> {
        Ok(())
    }

    /// [`serialize`](Self::serialize) for every row. Write this one too where going through whole columns is faster.
    ///
    /// # Errors
    /// Some rows are bad, or the batch as a whole.
    fn serialize_batch(&self, batch: &Batch<'_>) -> Result<Changed, Error> {
        change_rows(batch, |record, change| self.serialize(record, change))
    }

    /// [`deserialize`](Self::deserialize) for every row.
    ///
    /// # Errors
    /// Some rows are bad, or the batch as a whole.
    fn deserialize_batch(&self, batch: &Batch<'_>) -> Result<Changed, Error> {
        change_rows(batch, |record, change| self.deserialize(record, change))
    }
}

/// The columns that a serializer changed; one that is absent is left as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// One key a row.
    pub keys: Option<ColumnBuf>,
    /// One value a row.
    pub values: Option<ColumnBuf>,
}

/// What a serializer makes of one record.
#[derive(Debug)]
pub struct Change<'a> {
    keys: ColumnChange<'a>,
    values: ColumnChange<'a>,
}

impl Change<'_> {
    /// The record has this key now.
    pub fn set_key(&mut self, key: &[u8]) {
        self.keys.start().extend_from_slice(key);
    }

    /// The record has no key now.
    pub fn clear_key(&mut self) {
        self.keys.clear();
    }

    /// The record has this value now.
    pub fn set_value(&mut self, value: &[u8]) {
        self.values.start().extend_from_slice(value);
    }

    /// The record is a tombstone now.
    pub fn clear_value(&mut self) {
        self.values.clear();
    }

    /// The record's new key is what is written here: no need for a buffer in between.
    pub fn key_writer(&mut self) -> impl io::Write + '_ {
        self.keys.start()
    }

    /// The record's new value is what is written here.
    pub fn value_writer(&mut self) -> impl io::Write + '_ {
        self.values.start()
    }
}

/// One column of a [`Change`]: nothing is copied before the first row that is set.
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

    /// Where the new bytes of this row are written.
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

    /// The new column, with the rows so far copied from the old one when it is first wanted.
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

    /// The new column, if any row was set.
    fn finish(self, name: &str) -> Result<Option<ColumnBuf>, Error> {
        match self.unread_row {
            Some(row) => Err(Error::Batch(format!(
                "row {row} keeps its old {name} while others get a new one: add Columns::{}S to COLUMNS, so that it can be copied",
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

/// One call of a serializer on the way out, as the host makes it.
///
/// # Errors
/// Those of the stage.
pub fn serialize<S: Serializer>(stage: &S, batch: &Batch<'_>) -> Result<Changed, Error> {
    check_rows(stage.serialize_batch(&batch.select(S::COLUMNS))?, batch)
}

/// One call of a serializer on the way in, as the host makes it.
///
/// # Errors
/// Those of the stage.
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

    /// Deletes `delete`, leaves `leave`, refuses `bad`, shouts the rest; takes the key away of `unkey`.
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
    fn a_batch_that_nothing_is_done_to_is_not_copied() {
        assert_eq!(run(&["leave", "leave"]).unwrap(), Changed::default());
    }

    #[test]
    fn rows_that_are_not_set_stay() {
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
    fn a_column_that_is_not_read_cannot_be_kept_in_part() {
        for values in [&["unkey", "a"][..], &["a", "unkey"]] {
            let error = run(values).unwrap_err().to_string();
            assert!(error.contains("add Columns::KEYS"), "{error}");
        }
        assert_eq!(rows(&run(&["unkey", "unkey"]).unwrap().keys.unwrap()), [None, None]);
    }
}
