//! What a stage says of itself.

use crate::columns::Columns;
use crate::compressor::Format;

/// What a stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Decides where records go.
    Partitioner,
    /// Changes keys and values.
    Serializer,
    /// Makes batches smaller.
    Compressor,
    /// Decides which records to keep.
    Filter,
}

impl Kind {
    /// The name of the contract's world.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Partitioner => "partitioner",
            Kind::Serializer => "serializer",
            Kind::Compressor => "compressor",
            Kind::Filter => "filter",
        }
    }
}

/// A stage's name and what it does, as the export macros write it down.
pub trait Describe {
    /// What it does.
    const KIND: Kind;
    /// The name of its crate.
    const PACKAGE: &'static str;
    /// The version of its crate.
    const VERSION: &'static str;
    /// The columns that it reads; none for a compressor.
    const READS: Columns;
    /// What a compressor writes.
    const WRITES: Option<Format>;

    /// The name that users write: the crate's, without the prefix that crates of plug-ins may carry.
    fn name() -> &'static str {
        Self::PACKAGE.strip_prefix("millstream-plugin-").unwrap_or(Self::PACKAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Filter, Record, Result};

    #[derive(serde::Deserialize)]
    struct All {}

    impl Filter for All {
        const COLUMNS: Columns = Columns::NONE;

        fn keep(&self, _record: &Record<'_>) -> Result<bool> {
            Ok(true)
        }
    }

    crate::filter!(All);

    #[test]
    fn the_macro_writes_down_what_the_crate_is() {
        assert_eq!((All::KIND, All::name(), All::READS), (Kind::Filter, "millstream-sdk", Columns::NONE));
        assert_eq!((All::VERSION, All::WRITES), (env!("CARGO_PKG_VERSION"), None));
    }
}
