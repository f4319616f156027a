//! The feature level of a metadata log: which records may be written to it. And the features beside it.

/// The feature whose level says how transactions work. Clients that see [`TRANSACTION_VERSION_NEWEST`] get a new epoch
/// with each transaction (KIP-890). The others work with it as before.
pub const TRANSACTION_VERSION: &str = "transaction.version";

/// The highest level of [`TRANSACTION_VERSION`].
pub const TRANSACTION_VERSION_NEWEST: u16 = 2;

/// The level of the feature `millstream.version`, which is like Kafka's `metadata.version`. A program that knows a
/// level reads all records of it. Nodes of two versions can therefore share a log if both know its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeatureLevel(u16);

impl FeatureLevel {
    /// The level of logs without one: the records of one broker, all in version 0.
    pub const INITIAL: Self = Self(0);

    /// Topics and partitions are written with their brokers.
    pub const ASSIGNMENTS: Self = Self(1);

    /// Brokers are registered, and partitions change their leader and in-sync set.
    pub const CLUSTER: Self = Self(2);

    /// Other features have levels of their own.
    pub const FEATURES: Self = Self(3);

    /// The newest level that this program knows.
    pub const NEWEST: Self = Self::FEATURES;

    /// The level of a new log. A log of one broker needs no more, and programs of before read it.
    pub const OF_NEW_LOGS: Self = Self::ASSIGNMENTS;

    /// Returns the level with this number.
    ///
    /// # Errors
    /// This program does not know it.
    pub fn new(level: u16) -> Result<Self, UnknownLevel> {
        if level > Self::NEWEST.0 { Err(UnknownLevel(level)) } else { Ok(Self(level)) }
    }

    /// Returns the number of the level.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// A level of a newer program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the metadata log has feature level {0}, this program knows up to {newest}: \
     a newer version of the program wrote it, \
     start that one",
    newest = FeatureLevel::NEWEST.0
)]
pub struct UnknownLevel(u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_a_newer_program_is_an_error() {
        assert_eq!(FeatureLevel::new(3), Ok(FeatureLevel::FEATURES));
        let error = FeatureLevel::new(9).expect_err("an unknown level").to_string();
        assert!(error.starts_with("the metadata log has feature level 9, this program knows up to 3: "), "{error}");
    }
}
