//! The description of a stage.

use crate::columns::Columns;
use crate::compressor::Format;

/// The kind of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Chooses the partition of each record.
    Partitioner,
    /// Changes keys and values.
    Serializer,
    /// Makes batches smaller.
    Compressor,
    /// Decides which records to keep.
    Filter,
}

impl Kind {
    /// Returns the name of the world in the contract.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Partitioner => "partitioner",
            Kind::Serializer => "serializer",
            Kind::Compressor => "compressor",
            Kind::Filter => "filter",
        }
    }
}

/// The name, kind and columns of a stage. The export macros implement it.
pub trait Describe {
    /// The kind of the stage.
    const KIND: Kind;
    /// The name of its crate.
    const PACKAGE: &'static str;
    /// The version of its crate.
    const VERSION: &'static str;
    /// The columns that the stage reads; none for a compressor.
    const READS: Columns;
    /// The format that a compressor writes.
    const WRITES: Option<Format>;

    /// Returns the name that users write: the name of the crate, without the prefix `millstream-plugin-`.
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
    fn the_macro_takes_the_name_and_version_of_the_crate() {
        assert_eq!((All::KIND, All::name(), All::READS), (Kind::Filter, "millstream-sdk", Columns::NONE));
        assert_eq!((All::VERSION, All::WRITES), (env!("CARGO_PKG_VERSION"), None));
    }
}
