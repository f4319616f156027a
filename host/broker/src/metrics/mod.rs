//! Counters of the broker, independent of a network and an output format.

pub(crate) mod requests;

pub use requests::RequestStats;
