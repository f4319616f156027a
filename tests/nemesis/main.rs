//! A cluster of real processes under load and faults, and a check that it kept its promises.
//!
//! Every record has its own value. The check reads all partitions at the end: what was acknowledged is there exactly
//! once, at the offset of its acknowledgement, and in the order of its producer. All replicas have the same batches,
//! and no committed offset of a group is lost. Transactions have a check of their own (`transactions`).

mod checker;
mod clock;
mod commits;
mod compacted;
mod disk;
mod edge;
mod failing_disks;
mod failing_folders;
mod faults;
mod full_disk;
#[path = "../fixtures/guests/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the sandbox, which use all of it")]
mod guests;
mod network;
mod nodes;
mod plugins;
mod power;
mod process_faults;
mod random;
#[path = "../e2e/support/raw.rs"]
#[allow(dead_code, reason = "shared with the tests of one node, which use all of it")]
mod raw;
mod replicas;
mod seeded_bugs;
mod transactions;
mod workload;
