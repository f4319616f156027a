//! Produced batches on their way into a partition, with or without stages.

pub(crate) mod append;
pub(crate) mod recode;
