//! The partitions that this broker holds.
//!
//! | File | Subject |
//! |---|---|
//! | `partition.rs` | one partition: its log, its role, the high watermark |
//! | `open.rs`, `close.rs` | opening and closing many partitions, in parallel |
//! | `commit.rs` | `committed(end, acks)`: the wait before the response to a write |
//! | `compaction.rs` | what a cleaner does with the log |
//! | `fsync_queue.rs` | one fsync for many writes |
//! | `offset_waiters.rs` | writes that wait for an offset |
//! | `fetch_waiters.rs` | fetches that wait for records |
//! | `internal_topic.rs` | topics in which the broker keeps its own state |
//! | `error.rs` | why a partition cannot serve a request |
//! | `error_log.rs` | log lines about a failing disk, at most one in ten seconds |
//! | `clock.rs` | the wall clock, and one that never goes back |
//! | `fault.rs` | what keeps a replica from being in sync |
//! | `replica/` | leader and follower as state machines without I/O |
//! | `transactions.rs` | transactions: verification, markers, reads of committed records |
//! | `replication.rs` | taking a role, serving followers, following a leader |
//!
//! This crate does not know stages, connections or Kafka's error codes.

mod clock;
mod close;
mod commit;
mod compaction;
mod error;
mod error_log;
mod fault;
mod fetch_waiters;
mod fsync_queue;
mod internal_topic;
mod many;
mod moving;
mod offset_waiters;
mod open;
mod out_of_service;
mod partition;
#[cfg(test)]
mod partition_tests;
pub mod replica;
mod replication;
#[cfg(test)]
mod replication_tests;
mod transactions;

pub use clock::now_ms;
pub use commit::{Acks, Committed, FlushMode, WriteEnd};
pub use error::PartitionError;
pub use error_log::ErrorLog;
pub use fault::ReplicaFault;
pub use fetch_waiters::{Arrival, FetchWaiters};
pub use fsync_queue::{FsyncQueue, SyncSource, SyncWaiters};
pub use internal_topic::{CommittedAtEpoch, InternalAppend, InternalTopic, UNPACKED_BATCH_BYTES_MAX};
pub use millstream_log::{AppendError, Verification, VerificationGuard, seeded_bug};
pub use moving::{CopyStep, FUTURE_MARKER, FutureLog, MoveError, TakenOver};
pub use open::PartitionSpec;
pub use out_of_service::Frozen;
pub use partition::{Partition, PartitionConfig, PartitionRead};
pub use replication::{Assignment, FollowerFetch, FollowerRead, NextFetch};
pub use transactions::MarkerAppend;
