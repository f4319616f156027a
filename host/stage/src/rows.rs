//! Makes a batch of some rows of another one, to find the rows that a batch fails for.

use std::ops::Range;

use crate::batch::{Column, Headers, Records, RecordsBuf, bitmap_bytes};
use crate::contract::Columns;

/// Holds consecutive rows of a batch. Their `ends` are copied, since they start at 0; the data is borrowed.
#[derive(Debug)]
pub struct Slice<'a> {
    rows: u32,
    timestamps: &'a [i64],
    keys: Option<ColumnSlice<'a>>,
    values: Option<ColumnSlice<'a>>,
    headers: Option<HeadersSlice<'a>>,
}

#[derive(Debug)]
struct ColumnSlice<'a> {
    data: &'a [u8],
    ends: Vec<u32>,
    nulls: Vec<u8>,
}

#[derive(Debug)]
struct HeadersSlice<'a> {
    ends: Vec<u32>,
    names: ColumnSlice<'a>,
    values: ColumnSlice<'a>,
}

impl<'a> Records<'a> {
    /// Returns the rows of `range` as a batch.
    ///
    /// # Panics
    /// When the range is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Slice<'a> {
        Slice {
            rows: range.len() as u32,
            timestamps: if self.timestamps.is_empty() { &[] } else { &self.timestamps[range.clone()] },
            keys: self.keys.map(|column| ColumnSlice::new(&column, range.clone())),
            values: self.values.map(|column| ColumnSlice::new(&column, range.clone())),
            headers: self.headers.map(|headers| {
                let (start, ends) = rebased(headers.ends, range);
                let inner = start..start + ends.last().map_or(0, |end| *end as usize);
                HeadersSlice {
                    names: ColumnSlice::new(&headers.names, inner.clone()),
                    values: ColumnSlice::new(&headers.values, inner),
                    ends,
                }
            }),
        }
    }

    /// Copies these rows, in this order.
    ///
    /// # Panics
    /// When a row is out of bounds.
    pub fn pick(&self, rows: &[u32]) -> RecordsBuf {
        let mut picked = RecordsBuf::new(Columns {
            timestamps: !self.timestamps.is_empty(),
            keys: self.keys.is_some(),
            values: self.values.is_some(),
            headers: self.headers.is_some(),
        });
        for &row in rows {
            let row = row as usize;
            let cell = |column: Option<Column<'a>>| column.and_then(|column| column.get(row));
            let timestamp = self.timestamps.get(row).copied().unwrap_or_default();
            picked
                .push_raw(timestamp, cell(self.keys), cell(self.values), self.row_headers(row))
                .expect("rows of a batch are no larger than the batch");
        }
        picked
    }

    /// Iterates over the names and values of the headers of a row.
    fn row_headers(&self, row: usize) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let range = self.headers.map_or(0..0, |headers| start_of(headers.ends, row)..headers.ends[row] as usize);
        let headers = self.headers;
        range.filter_map(move |index| {
            let headers = headers?;
            Some((headers.names.get(index)?, headers.values.get(index)))
        })
    }
}

impl Slice<'_> {
    /// Borrows the batch.
    pub fn as_records(&self) -> Records<'_> {
        Records {
            rows: self.rows,
            timestamps: self.timestamps,
            keys: self.keys.as_ref().map(ColumnSlice::as_column),
            values: self.values.as_ref().map(ColumnSlice::as_column),
            headers: self.headers.as_ref().map(|headers| Headers {
                ends: &headers.ends,
                names: headers.names.as_column(),
                values: headers.values.as_column(),
            }),
        }
    }
}

impl<'a> ColumnSlice<'a> {
    fn new(column: &Column<'a>, range: Range<usize>) -> ColumnSlice<'a> {
        let (start, ends) = rebased(column.ends, range.clone());
        let mut nulls = Vec::new();
        for (index, _) in range.enumerate().filter(|(_, row)| column.is_null(*row)) {
            nulls.resize(bitmap_bytes(ends.len()), 0);
            nulls[index / 8] |= 1 << (index % 8);
        }
        let bytes = ends.last().map_or(0, |end| *end as usize);
        ColumnSlice { data: &column.data[start..start + bytes], ends, nulls }
    }

    fn as_column(&self) -> Column<'_> {
        Column { data: self.data, ends: &self.ends, nulls: &self.nulls }
    }
}

fn start_of(ends: &[u32], row: usize) -> usize {
    if row == 0 { 0 } else { ends[row - 1] as usize }
}

/// Returns where the rows of `range` start, and the ends of each relative to that.
fn rebased(ends: &[u32], range: Range<usize>) -> (usize, Vec<u32>) {
    let start = start_of(ends, range.start);
    (start, ends[range].iter().map(|end| end - start as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> RecordsBuf {
        let mut batch = RecordsBuf::new(Columns::ALL);
        for row in 0..20u8 {
            let text = "x".repeat(usize::from(row));
            let headers = (0..row % 3).map(|_| ("name", (row % 2 == 0).then_some(text.as_bytes())));
            let value = (row % 4 != 3).then_some(text.as_bytes());
            batch.push(i64::from(row), Some(&[row]), value, headers).unwrap();
        }
        batch
    }

    fn rows(records: &Records<'_>) -> Vec<String> {
        let row = |row: usize| {
            let headers: Vec<_> = records.row_headers(row).collect();
            let (key, value) = (records.keys.unwrap().get(row), records.values.unwrap().get(row));
            format!("{:?}", (records.timestamps[row], key, value, headers))
        };
        (0..records.rows as usize).map(row).collect()
    }

    #[test]
    fn a_slice_has_the_rows_of_its_range() {
        let batch = batch();
        let records = batch.as_records();
        let all = rows(&records);
        for range in [0..20, 0..0, 3..4, 5..17, 19..20, 8..16] {
            let slice = records.slice(range.clone());
            assert_eq!(rows(&slice.as_records()), all[range]);
            assert_eq!(slice.as_records().missing(Columns::ALL), None);
        }
        assert!(records.slice(4..7).as_records().values.unwrap().nulls.is_empty());
    }

    #[test]
    fn picked_rows_are_copied_in_order() {
        let batch = batch();
        let records = batch.as_records();
        let all = rows(&records);
        let picked = records.pick(&[1, 3, 11, 19]);
        assert_eq!(rows(&picked.as_records()), [1, 3, 11, 19].map(|row: usize| all[row].clone()));
        let keys_only = records.restricted(Columns { keys: true, ..Columns::NONE });
        let picked = keys_only.pick(&[7]);
        assert_eq!(picked.as_records().missing(Columns { keys: true, ..Columns::NONE }), None);
        assert!(picked.as_records().values.is_none());
    }
}
