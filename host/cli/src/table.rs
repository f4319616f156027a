//! Tables on standard output, with columns as wide as their longest cell.

use std::io::{self, Write};

/// The space between two columns.
const GAP: usize = 2;

/// The alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table of `N` columns.
pub(crate) struct Table<const N: usize> {
    align: [Align; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// Creates a table with these column heads.
    pub(crate) fn new(heads: [&str; N], align: [Align; N]) -> Self {
        Self { align, rows: vec![heads.map(str::to_owned)] }
    }

    /// Appends a row.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// Writes all rows, without trailing spaces.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let widths: [usize; N] =
            std::array::from_fn(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), align) in row.iter().zip(widths).zip(self.align) {
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}")),
                    Align::Right => line.push_str(&format!("{cell:>width$}")),
                }
                line.push_str(&" ".repeat(GAP));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let mut table = Table::new(["NAME", "CALLS", "STATE"], [Align::Left, Align::Right, Align::Left]);
        table.row(["a".repeat(30), "7".into(), "active".into()]);
        table.row(["b".into(), "1000000".into(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let expected = format!(
            "NAME{}    CALLS  STATE\n{}        7  active\nb{}  1000000\n",
            " ".repeat(26),
            "a".repeat(30),
            " ".repeat(29),
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
