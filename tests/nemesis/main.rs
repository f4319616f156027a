//! A cluster of real processes under load and faults, and a check that it kept its promises.
//!
//! Every record has its own value. The check reads all partitions at the end: what was acknowledged is there exactly
//! once, at the offset of its acknowledgement, and in the order of its producer.

mod checker;
mod faults;
mod network;
mod nodes;
mod random;
mod workload;
