//! Counters of the broker, independent of a network and an output format.

pub(crate) mod cleaner;
pub(crate) mod requests;

pub use cleaner::CleanerStats;
pub use requests::RequestStats;
