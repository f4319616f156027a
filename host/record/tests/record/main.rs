//! The crate from the outside: batches that are built and read back, cut and flipped, and compared with Java's client.

mod allocations;
mod batch;
mod codecs;
mod golden;
mod hostile;
mod produce_rules;
mod support;
