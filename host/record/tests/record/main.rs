//! The crate from the outside: built and read back, cut and flipped, and against what Java's client writes.

mod allocations;
mod batch;
mod codecs;
mod golden;
mod hostile;
mod produce_rules;
mod support;
