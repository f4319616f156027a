//! Owned columns: what a serializer returns, and batches for tests.

use std::mem;

use crate::batch::{Batch, Column, HeaderColumns};

/// A column that is built row by row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnBuf {
    data: Vec<u8>,
    ends: Vec<u32>,
    /// Empty until the first null.
    nulls: Vec<u8>,
}

impl ColumnBuf {
    /// Makes a column without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a row.
    ///
    /// # Panics
    /// The data of the column grows over 4 GiB. The limits of the host are far lower.
    pub fn push(&mut self, row: Option<&[u8]>) {
        match row {
            Some(bytes) => {
                self.data.extend_from_slice(bytes);
                self.end_row();
            }
            None => self.push_null(),
        }
    }

    /// Adds a null.
    pub fn push_null(&mut self) {
        self.truncate_row();
        let row = self.ends.len();
        self.nulls.resize(row / 8 + 1, 0);
        self.nulls[row / 8] |= 1 << (row % 8);
        self.end_row();
    }

    /// Returns the bytes so far. Append the next row to them, then call [`end_row`](Self::end_row).
    pub(crate) fn data_mut(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// Ends a row: the bytes written since the last row become one.
    pub(crate) fn end_row(&mut self) {
        let end = u32::try_from(self.data.len()).expect("a column is below 4 GiB");
        if !self.nulls.is_empty() {
            self.nulls.resize(self.ends.len() / 8 + 1, 0);
        }
        self.ends.push(end);
    }

    /// Discards the bytes written since the last row.
    pub(crate) fn truncate_row(&mut self) {
        self.data.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    /// Adds the first `rows` rows of a column.
    pub(crate) fn extend(&mut self, column: Column<'_>, rows: usize) {
        for row in column.iter().take(rows) {
            self.push(row);
        }
    }

    /// Returns the column as a stage reads it.
    pub fn as_column(&self) -> Column<'_> {
        Column::new(&self.data, &self.ends, &self.nulls)
    }

    /// Returns `data`, `ends` and `nulls` of the contract.
    #[cfg_attr(
        not(target_arch = "wasm32"),
        allow(dead_code, reason = "used by the exports, which exist only in the sandbox")
    )]
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<u32>, Vec<u8>) {
        (self.data, self.ends, self.nulls)
    }
}

impl<'a> FromIterator<Option<&'a [u8]>> for ColumnBuf {
    fn from_iter<I: IntoIterator<Item = Option<&'a [u8]>>>(rows: I) -> Self {
        let mut column = ColumnBuf::new();
        for row in rows {
            column.push(row);
        }
        column
    }
}

/// A batch that is built record by record, to test a stage with.
///
/// ```
/// let mut batch = millstream_sdk::BatchBuf::new("orders");
/// batch.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[("trace", Some(b"7"))]);
/// assert_eq!(batch.as_batch().record(0).value(), Some(&b"value"[..]));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchBuf {
    topic: String,
    timestamps: Vec<i64>,
    keys: ColumnBuf,
    values: ColumnBuf,
    header_ends: Vec<u32>,
    header_names: ColumnBuf,
    header_values: ColumnBuf,
}

impl BatchBuf {
    /// Makes a batch of a topic, without records.
    pub fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), ..Self::default() }
    }

    /// Makes a batch of records that have only a value, with timestamps from 0.
    pub fn of_values<'a>(topic: &str, values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut batch = Self::new(topic);
        for (timestamp, value) in (0..).zip(values) {
            batch.push(timestamp, None, Some(value), &[]);
        }
        batch
    }

    /// Makes a batch of records that have only a key, with timestamps from 0.
    pub fn of_keys<'a>(topic: &str, keys: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut batch = Self::new(topic);
        for (timestamp, key) in (0..).zip(keys) {
            batch.push(timestamp, Some(key), None, &[]);
        }
        batch
    }

    /// Adds a record; `timestamp` is in milliseconds since the epoch.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        self.timestamps.push(timestamp);
        self.keys.push(key);
        self.values.push(value);
        for (name, value) in headers {
            self.header_names.push(Some(name.as_bytes()));
            self.header_values.push(*value);
        }
        let end = u32::try_from(self.header_names.len()).expect("a batch has below 2^32 headers");
        self.header_ends.push(end);
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Returns whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Returns the batch as a stage reads it, with every column.
    pub fn as_batch(&self) -> Batch<'_> {
        Batch {
            topic: &self.topic,
            rows: self.len(),
            timestamps: Some(&self.timestamps),
            keys: Some(self.keys.as_column()),
            values: Some(self.values.as_column()),
            headers: Some(HeaderColumns {
                ends: &self.header_ends,
                names: self.header_names.as_column(),
                values: self.header_values.as_column(),
            }),
        }
    }

    /// Replaces columns, as the host does with the columns that a serializer returns.
    pub fn replace(&mut self, keys: Option<ColumnBuf>, values: Option<ColumnBuf>) {
        for (column, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            if let Some(new) = new {
                drop(mem::replace(column, new));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_cost_nothing_until_there_is_one() {
        let mut column = ColumnBuf::new();
        for _ in 0..9 {
            column.push(Some(b"x"));
        }
        assert!(!column.as_column().has_nulls());
        column.push_null();
        column.push(Some(b""));
        let column = column.as_column();
        assert_eq!((column.get(8), column.get(9), column.get(10)), (Some(&b"x"[..]), None, Some(&b""[..])));
        assert_eq!(column.len(), 11);
    }

    #[test]
    fn the_bitmap_has_a_bit_for_every_row() {
        let mut column = ColumnBuf::new();
        column.push_null();
        for _ in 0..16 {
            column.push(Some(b"x"));
        }
        let (_, ends, nulls) = column.into_parts();
        assert_eq!((ends.len(), nulls.len()), (17, 3));
        assert_eq!(nulls, [1, 0, 0]);
    }

    #[test]
    fn a_null_discards_a_half_written_row() {
        let mut column = ColumnBuf::new();
        column.push(Some(b"kept"));
        column.data_mut().extend_from_slice(b"half");
        column.push_null();
        assert_eq!(column.as_column().data(), b"kept");
        assert_eq!(column.as_column().get(1), None);
    }
}
