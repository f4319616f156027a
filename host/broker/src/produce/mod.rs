//! Produced batches and their append to a partition, with or without stages.

pub(crate) mod append;
pub(crate) mod expected_leadership;
pub(crate) mod recode;
pub(crate) mod verifier;
