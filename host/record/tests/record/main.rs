//! The crate from the outside: built and read back, cut and flipped, and against what Java's client writes.

mod batch;
mod support;
