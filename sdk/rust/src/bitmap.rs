//! One bit for each row.

/// One bit for every row of a batch. A filter returns it with a set bit for each record to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    rows: usize,
}

impl Bitmap {
    /// Makes a bitmap without a set bit.
    pub fn new(rows: usize) -> Self {
        Self { bytes: vec![0; rows.div_ceil(8)], rows }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Sets the bit of a row.
    ///
    /// # Panics
    /// There is no such row.
    #[inline]
    pub fn set(&mut self, row: usize) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.bytes[row / 8] |= 1 << (row % 8);
    }

    /// Sets the bits of the rows for which `keep` returns true. It calls `keep` for all rows, in order. Where `keep` is
    /// short, eight rows are one turn of a loop; in the sandbox, every turn has a cost of its own.
    #[inline]
    pub fn set_where(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let whole = self.rows / 8;
        for (index, byte) in self.bytes.iter_mut().take(whole).enumerate() {
            for bit in 0..8 {
                *byte |= u8::from(keep(8 * index + bit)) << bit;
            }
        }
        for row in 8 * whole..self.rows {
            if keep(row) {
                self.set(row);
            }
        }
    }

    /// Sets the bit of every row.
    pub fn set_all(&mut self) {
        self.bytes.fill(0xff);
        if !self.rows.is_multiple_of(8)
            && let Some(last) = self.bytes.last_mut()
        {
            *last = (1 << (self.rows % 8)) - 1;
        }
    }

    /// Returns whether the bit of a row is set.
    ///
    /// # Panics
    /// There is no such row.
    #[inline]
    pub fn get(&self, row: usize) -> bool {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        (self.bytes[row / 8] >> (row % 8)) & 1 == 1
    }

    /// Iterates over the rows whose bit is set, in order.
    pub fn ones(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.rows).filter(|row| self.get(*row))
    }

    /// Returns the bytes of the contract: row `i` is bit `i % 8` of byte `i / 8`.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_the_contract_has_them() {
        let mut bitmap = Bitmap::new(10);
        bitmap.set(0);
        bitmap.set(9);
        assert_eq!(bitmap.ones().collect::<Vec<_>>(), [0, 9]);
        assert_eq!(bitmap.into_bytes(), [1, 2]);
    }

    #[test]
    fn no_bit_is_set_after_the_last_row() {
        for (rows, bytes) in [(0, vec![]), (8, vec![0xff]), (10, vec![0xff, 3])] {
            let mut bitmap = Bitmap::new(rows);
            bitmap.set_all();
            assert_eq!(bitmap.into_bytes(), bytes);
        }
    }

    #[test]
    #[should_panic(expected = "row 3 of 3")]
    fn a_row_after_the_end_panics() {
        Bitmap::new(3).set(3);
    }
}
