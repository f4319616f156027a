//! Counters of the broker, without a network and without a format.

pub(crate) mod requests;

pub use requests::RequestStats;
