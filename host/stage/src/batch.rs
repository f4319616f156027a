//! Holds a batch of records as columns: borrowed ([`Column`], [`Headers`], [`Records`]) when it is passed to a plug-in,
//! owned ([`ColumnBuf`], [`RecordsBuf`], [`Bitmap`]) when it is built or returned.
//!
//! Row `i` of a column is `data[ends[i - 1]..ends[i]]`, with `ends[-1]` = 0. Lowering a column is one
//! copy of each of its three slices.

#![allow(unsafe_code, reason = "the derive macros expand to `unsafe impl`s, whose layout they check themselves")]

use wasmtime::component::{ComponentType, Lift, Lower};

use crate::contract::Columns;

/// Returns the bytes of a bitmap of `rows` rows.
pub(crate) fn bitmap_bytes(rows: usize) -> usize {
    rows.div_ceil(8)
}

fn bit(bits: &[u8], row: usize) -> bool {
    bits.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1)
}

/// Borrows one column of byte strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct Column<'a> {
    /// The bytes of all rows, one after the other.
    pub data: &'a [u8],
    /// The end of each row in `data`: one entry a row, never decreasing.
    pub ends: &'a [u32],
    /// A bitmap of nulls, row `i` at bit `i % 8` of byte `i / 8`. Empty if no row is null.
    pub nulls: &'a [u8],
}

impl<'a> Column<'a> {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// Returns row `row`, or `None` if it is null.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn get(&self, row: usize) -> Option<&'a [u8]> {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        let bytes = &self.data[start as usize..self.ends[row] as usize];
        (!bit(self.nulls, row)).then_some(bytes)
    }

    /// Iterates over the rows, with `None` for a null.
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let column = *self;
        (0..column.rows()).map(move |row| column.get(row))
    }

    /// Returns whether row `row` is null.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        bit(self.nulls, row)
    }

    fn size_bytes(&self) -> usize {
        self.data.len() + self.ends.len() * 4 + self.nulls.len()
    }
}

/// Borrows the headers of all rows. Row `i` has the headers `ends[i - 1]..ends[i]` of `names` and `values`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct Headers<'a> {
    /// The end of each row's headers, one entry a row.
    pub ends: &'a [u32],
    /// The name of every header, in the order of the records. A name may repeat.
    pub names: Column<'a>,
    /// The value of every header.
    pub values: Column<'a>,
}

impl Headers<'_> {
    fn size_bytes(&self) -> usize {
        self.ends.len() * 4 + self.names.size_bytes() + self.values.size_bytes()
    }
}

/// Borrows a batch. A column that no stage reads may be absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct Records<'a> {
    /// The number of rows.
    pub rows: u32,
    /// Milliseconds since the epoch, one entry a row. Empty if absent.
    pub timestamps: &'a [i64],
    /// The keys.
    pub keys: Option<Column<'a>>,
    /// The values.
    pub values: Option<Column<'a>>,
    /// The headers.
    pub headers: Option<Headers<'a>>,
}

impl Records<'_> {
    /// Returns the same batch with only these columns.
    #[must_use]
    pub fn restricted(self, columns: Columns) -> Self {
        Records {
            rows: self.rows,
            timestamps: if columns.timestamps { self.timestamps } else { &[] },
            keys: self.keys.filter(|_| columns.keys),
            values: self.values.filter(|_| columns.values),
            headers: self.headers.filter(|_| columns.headers),
        }
    }

    /// Returns the bytes that are copied to the guest.
    pub fn size_bytes(&self) -> usize {
        self.timestamps.len() * 8
            + self.keys.map_or(0, |column| column.size_bytes())
            + self.values.map_or(0, |column| column.size_bytes())
            + self.headers.map_or(0, |headers| headers.size_bytes())
    }

    /// Returns the first column of `wanted` that is absent or has another number of rows.
    pub(crate) fn missing(&self, wanted: Columns) -> Option<&'static str> {
        let rows = self.rows as usize;
        let fits = |column: &Column<'_>| {
            column.rows() == rows && (column.nulls.is_empty() || column.nulls.len() == bitmap_bytes(rows))
        };
        if wanted.timestamps && self.timestamps.len() != rows {
            return Some("timestamps");
        }
        if wanted.keys && !self.keys.as_ref().is_some_and(fits) {
            return Some("keys");
        }
        if wanted.values && !self.values.as_ref().is_some_and(fits) {
            return Some("values");
        }
        let headers = self.headers.as_ref();
        if wanted.headers && headers.is_none_or(|headers| headers.ends.len() != rows) {
            return Some("headers");
        }
        None
    }
}

/// The most bytes that are reserved on a guess.
const GUESS_BYTES_MAX: usize = 64 << 10;

/// Reports that a column is full: its offsets have 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a column holds at most 4 GiB")]
pub struct ColumnFull;

/// Owns a column of byte strings, which was built row by row or returned by a plug-in.
#[derive(Debug, Clone, Default, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct ColumnBuf {
    data: Vec<u8>,
    ends: Vec<u32>,
    nulls: Vec<u8>,
}

impl ColumnBuf {
    /// Creates an empty column.
    pub fn new() -> ColumnBuf {
        ColumnBuf::default()
    }

    /// Creates an empty column with room for `rows` rows.
    fn with_capacity(rows: usize) -> ColumnBuf {
        ColumnBuf { ends: Vec::with_capacity(rows), ..ColumnBuf::default() }
    }

    /// Appends a row; `None` is a null.
    ///
    /// # Errors
    /// [`ColumnFull`] when the column would pass 4 GiB; nothing is appended.
    #[inline]
    pub fn push(&mut self, row: Option<&[u8]>) -> Result<(), ColumnFull> {
        let bytes = row.unwrap_or_default();
        let end = u32::try_from(self.data.len() + bytes.len()).map_err(|_| ColumnFull)?;
        let index = self.ends.len();
        if index == 0 {
            // Rows often have the length of the first.
            self.data.reserve(bytes.len().max(GUESS_BYTES_MAX.min(bytes.len().saturating_mul(self.ends.capacity()))));
        }
        self.data.extend_from_slice(bytes);
        self.ends.push(end);
        if row.is_none() {
            self.nulls.resize(bitmap_bytes(index + 1), 0);
            self.nulls[index / 8] |= 1 << (index % 8);
        } else if !self.nulls.is_empty() {
            self.nulls.resize(bitmap_bytes(index + 1), 0);
        }
        Ok(())
    }

    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
        self.nulls.clear();
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// Returns row `row`, or `None` if it is null.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        self.as_column().get(row)
    }

    /// Iterates over the rows, with `None` for a null.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.as_column().iter()
    }

    /// Borrows the column.
    pub fn as_column(&self) -> Column<'_> {
        Column { data: &self.data, ends: &self.ends, nulls: &self.nulls }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.as_column().size_bytes()
    }

    /// Checks a column that a plug-in returned: `rows` rows, ends in order and inside the data, the bitmap empty or
    /// complete.
    pub(crate) fn check(&self, rows: usize) -> Result<(), ColumnError> {
        if self.ends.len() != rows {
            return Err(ColumnError::Rows { have: self.ends.len(), want: rows });
        }
        if !self.nulls.is_empty() && self.nulls.len() != bitmap_bytes(rows) {
            return Err(ColumnError::Nulls { have: self.nulls.len(), want: bitmap_bytes(rows) });
        }
        let mut before = 0;
        for (row, &end) in self.ends.iter().enumerate() {
            if end < before || end as usize > self.data.len() {
                return Err(ColumnError::End { row: row as u32, end, before, bytes: self.data.len() });
            }
            before = end;
        }
        Ok(())
    }
}

/// A column that a plug-in returned is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ColumnError {
    #[error("the column has {have} rows instead of {want}")]
    Rows { have: usize, want: usize },
    #[error("the bitmap of nulls has {have} bytes instead of 0 or {want}")]
    Nulls { have: usize, want: usize },
    #[error("ends at {end}, outside {before}..={bytes}")]
    End { row: u32, end: u32, before: u32, bytes: usize },
}

impl ColumnError {
    /// Returns the row that is wrong, if it is one.
    pub(crate) fn row(self) -> Option<u32> {
        match self {
            ColumnError::Rows { .. } | ColumnError::Nulls { .. } => None,
            ColumnError::End { row, .. } => Some(row),
        }
    }
}

impl<'a> FromIterator<Option<&'a [u8]>> for ColumnBuf {
    /// Collects rows.
    ///
    /// # Panics
    /// When they have more than 4 GiB together; [`ColumnBuf::push`] returns an error instead.
    fn from_iter<I: IntoIterator<Item = Option<&'a [u8]>>>(rows: I) -> Self {
        let mut column = ColumnBuf::new();
        for row in rows {
            column.push(row).expect("a column of more than 4 GiB");
        }
        column
    }
}

/// Owns a batch that is built row by row. It keeps only the columns that some stage reads. [`RecordsBuf::clear`] keeps
/// the memory.
#[derive(Debug, Clone, Default)]
pub struct RecordsBuf {
    columns: Columns,
    rows: u32,
    timestamps: Vec<i64>,
    keys: ColumnBuf,
    values: ColumnBuf,
    header_ends: Vec<u32>,
    header_names: ColumnBuf,
    header_values: ColumnBuf,
}

impl RecordsBuf {
    /// Creates an empty batch that keeps `columns`: of one stage, or the union of a chain's.
    pub fn new(columns: Columns) -> RecordsBuf {
        RecordsBuf { columns, ..RecordsBuf::default() }
    }

    /// Creates an empty batch with room for `rows` rows. The caller must know that this many come.
    pub fn with_capacity(columns: Columns, rows: usize) -> RecordsBuf {
        let column = |wanted: bool| if wanted { ColumnBuf::with_capacity(rows) } else { ColumnBuf::new() };
        RecordsBuf {
            timestamps: if columns.timestamps { Vec::with_capacity(rows) } else { Vec::new() },
            keys: column(columns.keys),
            values: column(columns.values),
            header_ends: if columns.headers { Vec::with_capacity(rows) } else { Vec::new() },
            ..RecordsBuf::new(columns)
        }
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`ColumnFull`]. Clear the batch then.
    #[inline]
    pub fn push<'h>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> Result<(), ColumnFull> {
        let headers = headers.into_iter().map(|(name, value)| (name.as_bytes(), value));
        self.push_raw(timestamp_ms, key, value, headers)
    }

    /// Appends a record whose header names are the bytes of a text.
    #[inline]
    pub(crate) fn push_raw<'h>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) -> Result<(), ColumnFull> {
        let rows = self.rows.checked_add(1).ok_or(ColumnFull)?;
        if self.columns.timestamps {
            self.timestamps.push(timestamp_ms);
        }
        if self.columns.keys {
            self.keys.push(key)?;
        }
        if self.columns.values {
            self.values.push(value)?;
        }
        if self.columns.headers {
            for (name, value) in headers {
                self.header_names.push(Some(name))?;
                self.header_values.push(value)?;
            }
            let end = u32::try_from(self.header_names.rows()).map_err(|_| ColumnFull)?;
            self.header_ends.push(end);
        }
        self.rows = rows;
        Ok(())
    }

    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.timestamps.clear();
        self.keys.clear();
        self.values.clear();
        self.header_ends.clear();
        self.header_names.clear();
        self.header_values.clear();
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Returns the columns that are kept.
    pub fn columns(&self) -> Columns {
        self.columns
    }

    /// Borrows the batch.
    pub fn as_records(&self) -> Records<'_> {
        Records {
            rows: self.rows,
            timestamps: &self.timestamps,
            keys: self.columns.keys.then(|| self.keys.as_column()),
            values: self.columns.values.then(|| self.values.as_column()),
            headers: self.columns.headers.then(|| Headers {
                ends: &self.header_ends,
                names: self.header_names.as_column(),
                values: self.header_values.as_column(),
            }),
        }
    }
}

/// The new columns from a serializer. An absent column stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct Changed {
    /// The new keys.
    pub keys: Option<ColumnBuf>,
    /// The new values.
    pub values: Option<ColumnBuf>,
}

/// The rows that a filter keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    rows: usize,
    bits: Vec<u8>,
}

impl Bitmap {
    /// Creates a bitmap of `rows` rows, row `i` at bit `i % 8` of byte `i / 8`. Clears the bits past the last row.
    /// Returns `None` if `bits` has another length than `(rows + 7) / 8`.
    pub fn new(rows: usize, mut bits: Vec<u8>) -> Option<Bitmap> {
        if bits.len() != bitmap_bytes(rows) {
            return None;
        }
        if let (Some(last), used @ 1..) = (bits.last_mut(), rows % 8) {
            *last &= (1u8 << used) - 1;
        }
        Some(Bitmap { rows, bits })
    }

    /// Creates a bitmap of `rows` rows, none of which is kept.
    pub fn none(rows: usize) -> Bitmap {
        Bitmap { rows, bits: vec![0; bitmap_bytes(rows)] }
    }

    /// Creates a bitmap of `rows` rows, all of which are kept.
    pub fn all(rows: usize) -> Bitmap {
        Bitmap::new(rows, vec![0xff; bitmap_bytes(rows)]).expect("the bytes match the rows")
    }

    /// Sets whether row `row` is kept.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn set(&mut self, row: usize, keep: bool) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let mask = 1 << (row % 8);
        if keep {
            self.bits[row / 8] |= mask;
        } else {
            self.bits[row / 8] &= !mask;
        }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns whether row `row` is kept; `false` past the end.
    pub fn get(&self, row: usize) -> bool {
        bit(&self.bits, row)
    }

    /// Returns the number of rows that are kept.
    pub fn count(&self) -> usize {
        self.bits.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Iterates over the rows that are kept, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.rows).filter(|row| self.get(*row))
    }

    /// Returns the bits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_gives_back_what_was_pushed() {
        let rows: Vec<Option<&[u8]>> =
            vec![Some(b"a"), None, Some(b""), Some(b"bcd"), Some(b"e"), Some(b"f"), Some(b"g"), Some(b"h"), Some(b"i")];
        let column: ColumnBuf = rows.iter().copied().collect();
        assert_eq!(column.iter().collect::<Vec<_>>(), rows);
        assert_eq!(column.check(9), Ok(()));
        assert_eq!(column.as_column().nulls, [0b10, 0]);
    }

    #[test]
    fn a_column_without_nulls_has_no_bitmap() {
        let column: ColumnBuf = [Some(&b"a"[..]), Some(b"b")].into_iter().collect();
        assert!(column.as_column().nulls.is_empty());
    }

    #[test]
    fn bad_columns_are_rejected_by_row() {
        let column = |data: &[u8], ends: &[u32], nulls: &[u8]| ColumnBuf {
            data: data.to_vec(),
            ends: ends.to_vec(),
            nulls: nulls.to_vec(),
        };
        assert_eq!(column(b"abc", &[1, 3], &[]).check(2), Ok(()));
        assert_eq!(column(b"abc", &[2, 1], &[]).check(2).unwrap_err().row(), Some(1));
        assert_eq!(column(b"abc", &[1, 4], &[]).check(2).unwrap_err().row(), Some(1));
        assert_eq!(column(b"abc", &[1], &[]).check(2).unwrap_err().row(), None);
        assert_eq!(column(b"abc", &[1, 2], &[0, 0]).check(2).unwrap_err().row(), None);
    }

    #[test]
    fn a_batch_keeps_only_its_columns() {
        let columns = Columns { keys: true, headers: true, ..Columns::NONE };
        let mut batch = RecordsBuf::new(columns);
        batch.push(7, Some(b"k"), Some(b"v"), [("h", None), ("h", Some(&b"x"[..]))]).unwrap();
        batch.push(8, None, None, []).unwrap();
        let records = batch.as_records();
        assert_eq!(records.rows, 2);
        assert!(records.timestamps.is_empty() && records.values.is_none());
        assert_eq!(records.headers.unwrap().ends, [2, 2]);
        assert_eq!(records.missing(columns), None);
        assert_eq!(records.missing(Columns::ALL), Some("timestamps"));
    }

    #[test]
    fn a_bitmap_ignores_bits_past_the_last_row() {
        let bitmap = Bitmap::new(3, vec![0xff]).unwrap();
        assert_eq!(bitmap.count(), 3);
        assert_eq!(bitmap.iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert!(Bitmap::new(8, vec![0xff]).unwrap().get(7));
        assert_eq!(Bitmap::new(3, vec![]), None);
        assert_eq!(Bitmap::new(0, vec![]).unwrap().count(), 0);
    }

    #[test]
    fn bits_are_set_and_cleared() {
        let mut bitmap = Bitmap::none(11);
        bitmap.set(10, true);
        bitmap.set(3, true);
        bitmap.set(3, false);
        assert_eq!(bitmap.iter().collect::<Vec<_>>(), [10]);
        assert_eq!(Bitmap::all(11).count(), 11);
    }
}
