//! The columns that a stage reads.

use std::fmt;

/// The columns of a batch that a stage reads. The host copies only these into the sandbox, so fewer are faster.
///
/// ```
/// use millstream_sdk::Columns;
/// const COLUMNS: Columns = Columns::KEYS.with(Columns::HEADERS);
/// assert!(COLUMNS.contains(Columns::KEYS) && !COLUMNS.contains(Columns::VALUES));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Columns(u8);

impl Columns {
    /// No column: the topic and the number of rows are enough.
    pub const NONE: Columns = Columns(0);
    /// The timestamps.
    pub const TIMESTAMPS: Columns = Columns(1);
    /// The keys.
    pub const KEYS: Columns = Columns(1 << 1);
    /// The values.
    pub const VALUES: Columns = Columns(1 << 2);
    /// The headers.
    pub const HEADERS: Columns = Columns(1 << 3);
    /// All of them.
    pub const ALL: Columns = Columns(0b1111);

    /// Returns these columns and `more`.
    pub const fn with(self, more: Columns) -> Columns {
        Columns(self.0 | more.0)
    }

    /// Returns whether all of `columns` are among these.
    pub const fn contains(self, columns: Columns) -> bool {
        self.0 & columns.0 == columns.0
    }

    /// Returns the names of these columns, in the order of the contract.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (Columns::TIMESTAMPS, "timestamps"),
            (Columns::KEYS, "keys"),
            (Columns::VALUES, "values"),
            (Columns::HEADERS, "headers"),
        ]
        .into_iter()
        .filter_map(move |(column, name)| self.contains(column).then_some(name))
    }
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
