//! Transactions as a leader of partitions sees them: what it asks the coordinator before it appends, and the markers.

pub(crate) mod markers;
pub(crate) mod verifier;
