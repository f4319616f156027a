//! A batch of records as a stage sees it: borrowed columns, and a view of one row over them.

use std::fmt;

use crate::columns::Columns;

/// One column of a batch: row `i` is `data[ends[i - 1]..ends[i]]`, or null.
#[derive(Clone, Copy)]
pub struct Column<'a> {
    data: &'a [u8],
    ends: &'a [u32],
    nulls: &'a [u8],
}

impl<'a> Column<'a> {
    /// Makes a column of parts that the host, or a [`ColumnBuf`](crate::ColumnBuf), has checked: `ends` never decreases
    /// and stays within `data`; `nulls` is empty, or a bitmap with a set bit for each null.
    pub(crate) fn new(data: &'a [u8], ends: &'a [u32], nulls: &'a [u8]) -> Self {
        Self { data, ends, nulls }
    }

    /// Returns the number of rows.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no rows.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the bytes of all rows, one after the other. A null has no bytes.
    #[inline]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Returns the end of each row in [`data`](Self::data).
    #[inline]
    pub fn ends(&self) -> &'a [u32] {
        self.ends
    }

    /// Returns whether any row may be null. If none is, a loop can skip the check of each row.
    #[inline]
    pub fn has_nulls(&self) -> bool {
        !self.nulls.is_empty()
    }

    /// Returns whether the row is null.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        !self.nulls.is_empty() && (self.nulls[row / 8] >> (row % 8)) & 1 == 1
    }

    /// Returns the bytes of a row; `None` for a null.
    ///
    /// # Panics
    /// There is no such row.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&'a [u8]> {
        let end = self.ends[row] as usize;
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        if self.is_null(row) { None } else { Some(&self.data[start..end]) }
    }

    /// Iterates over all rows, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&'a [u8]>> + use<'a> {
        let column = *self;
        let mut start = 0;
        column.ends.iter().enumerate().map(move |(row, end)| {
            let bytes = &column.data[start..*end as usize];
            start = *end as usize;
            if column.is_null(row) { None } else { Some(bytes) }
        })
    }
}

impl fmt::Debug for Column<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The headers of a batch: row `i` has the headers `ends[i - 1]..ends[i]` of `names` and `values`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderColumns<'a> {
    pub(crate) ends: &'a [u32],
    pub(crate) names: Column<'a>,
    pub(crate) values: Column<'a>,
}

/// A batch of records of one topic. It has only the columns that the stage declared. Reading another column panics, and
/// the message says which column to declare.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub(crate) topic: &'a str,
    pub(crate) rows: usize,
    pub(crate) timestamps: Option<&'a [i64]>,
    pub(crate) keys: Option<Column<'a>>,
    pub(crate) values: Option<Column<'a>>,
    pub(crate) headers: Option<HeaderColumns<'a>>,
}

impl<'a> Batch<'a> {
    /// Returns the topic of the records.
    #[inline]
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Returns the number of records.
    #[inline]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Returns whether there are no records.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns the keys.
    ///
    /// # Panics
    /// `COLUMNS` of the stage lacks [`Columns::KEYS`].
    #[inline]
    pub fn keys(&self) -> Column<'a> {
        self.keys.unwrap_or_else(|| undeclared("KEYS"))
    }

    /// Returns the values.
    ///
    /// # Panics
    /// `COLUMNS` of the stage lacks [`Columns::VALUES`].
    #[inline]
    pub fn values(&self) -> Column<'a> {
        self.values.unwrap_or_else(|| undeclared("VALUES"))
    }

    /// Returns the timestamps, in milliseconds since the epoch.
    ///
    /// # Panics
    /// `COLUMNS` of the stage lacks [`Columns::TIMESTAMPS`].
    #[inline]
    pub fn timestamps(&self) -> &'a [i64] {
        self.timestamps.unwrap_or_else(|| undeclared("TIMESTAMPS"))
    }

    /// Returns the record at `row`.
    ///
    /// # Panics
    /// There is no such row.
    #[inline]
    pub fn record(&'a self, row: usize) -> Record<'a> {
        assert!(row < self.rows, "row {row} of a batch of {}", self.rows);
        Record { batch: self, row }
    }

    /// Iterates over all records, in order.
    #[inline]
    pub fn records(&'a self) -> impl ExactSizeIterator<Item = Record<'a>> + use<'a> {
        (0..self.rows).map(move |row| Record { batch: self, row })
    }

    /// Returns the batch with only these columns, as the host would send it.
    pub fn select(&self, columns: Columns) -> Batch<'a> {
        Batch {
            timestamps: self.timestamps.filter(|_| columns.contains(Columns::TIMESTAMPS)),
            keys: self.keys.filter(|_| columns.contains(Columns::KEYS)),
            values: self.values.filter(|_| columns.contains(Columns::VALUES)),
            headers: self.headers.filter(|_| columns.contains(Columns::HEADERS)),
            ..*self
        }
    }
}

#[cold]
fn undeclared(column: &str) -> ! {
    panic!("the stage reads a column that it did not declare: add Columns::{column} to its COLUMNS")
}

/// One record of a batch: a view that copies nothing.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    batch: &'a Batch<'a>,
    row: usize,
}

impl<'a> Record<'a> {
    /// Returns the topic of the record.
    #[inline]
    pub fn topic(&self) -> &'a str {
        self.batch.topic
    }

    /// Returns the index of the record in its batch, from 0.
    #[inline]
    pub fn row(&self) -> usize {
        self.row
    }

    /// Returns the key, if the record has one.
    ///
    /// # Panics
    /// `COLUMNS` of the stage lacks [`Columns::KEYS`].
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.batch.keys().get(self.row)
    }

    /// Returns the value; `None` for a tombstone.
    ///
    /// # Panics
    /// `COLUMNS` of the stage lacks [`Columns::VALUES`].
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.batch.values().get(self.row)
    }

    /// Returns the timestamp, in milliseconds since the epoch.
    ///
    /// # Panics
    /// `COLUMNS` of the stage lacks [`Columns::TIMESTAMPS`].
    #[inline]
    pub fn timestamp(&self) -> i64 {
        self.batch.timestamps()[self.row]
    }

    /// Iterates over the headers as name and value, in the order of the record. A name may repeat.
    ///
    /// # Panics
    /// `COLUMNS` of the stage lacks [`Columns::HEADERS`].
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let headers = self.batch.headers.unwrap_or_else(|| undeclared("HEADERS"));
        let start = if self.row == 0 { 0 } else { headers.ends[self.row - 1] };
        (start as usize..headers.ends[self.row] as usize).map(move |header| {
            // Kafka's header names are UTF-8, and the host has rejected all others.
            let name = headers.names.get(header).unwrap_or_default();
            (std::str::from_utf8(name).unwrap_or("\u{fffd}"), headers.values.get(header))
        })
    }

    /// Returns the value of the last header of that name, as Kafka's `lastHeader` does; `None` if there is no such
    /// header or its value is null.
    ///
    /// # Panics
    /// `COLUMNS` of the stage lacks [`Columns::HEADERS`].
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().rev().find(|(found, _)| *found == name).and_then(|(_, value)| value)
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut record = f.debug_struct("Record");
        record.field("topic", &self.topic()).field("row", &self.row);
        if self.batch.timestamps.is_some() {
            record.field("timestamp", &self.timestamp());
        }
        if self.batch.keys.is_some() {
            record.field("key", &self.key().map(String::from_utf8_lossy));
        }
        if self.batch.values.is_some() {
            record.field("value", &self.value().map(String::from_utf8_lossy));
        }
        record.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::{BatchBuf, Columns};

    fn two_rows() -> BatchBuf {
        let mut batch = BatchBuf::new("orders");
        batch.push(7, Some(b"k"), Some(b"value"), &[("h", Some(b"1")), ("h", Some(b"2"))]);
        batch.push(8, None, None, &[("none", None)]);
        batch
    }

    #[test]
    fn a_record_reads_its_row_of_every_column() {
        let buffer = two_rows();
        let batch = buffer.as_batch();
        let [first, second] = [batch.record(0), batch.record(1)];
        assert_eq!((first.topic(), first.timestamp()), ("orders", 7));
        assert_eq!((first.key(), first.value()), (Some(&b"k"[..]), Some(&b"value"[..])));
        assert_eq!(first.headers().count(), 2);
        assert_eq!(first.header("h"), Some(&b"2"[..]), "the last header of that name counts");
        assert_eq!((second.key(), second.value(), second.row()), (None, None, 1));
        assert_eq!(second.headers().collect::<Vec<_>>(), [("none", None)]);
        assert_eq!(second.header("h"), None);
    }

    #[test]
    fn a_column_iterates_as_it_indexes() {
        let buffer = two_rows();
        let values = buffer.as_batch().values();
        assert_eq!(values.iter().collect::<Vec<_>>(), [values.get(0), values.get(1)]);
        assert!(values.has_nulls() && values.is_null(1) && !values.is_null(0));
    }

    #[test]
    #[should_panic(expected = "add Columns::KEYS to its COLUMNS")]
    fn reading_an_undeclared_column_says_which_to_add() {
        let buffer = two_rows();
        let batch = buffer.as_batch().select(Columns::VALUES);
        batch.record(0).key();
    }
}
