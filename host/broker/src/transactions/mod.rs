//! Transactions as a leader of partitions sees them: what it asks the coordinator before it appends.

pub(crate) mod verifier;
