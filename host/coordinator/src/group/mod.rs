//! Consumer groups: their members, their assignments and their committed offsets.
//!
//! | File | Subject |
//! |---|---|
//! | `coordinator.rs`, `timers.rs` | all groups: locks, waiting requests, deadlines |
//! | `shard.rs` | the groups of one partition in one leader epoch |
//! | `kind.rs` | a group of any protocol |
//! | `classic/` | the classic protocol, as a pure state machine |
//! | `offsets.rs` | the offsets that a group has committed, and when they expire |
//! | `commits.rs` | OffsetCommit, OffsetFetch, the expiry of offsets |
//! | `transactional.rs` | TxnOffsetCommit, and the markers of transactions |
//! | `delete.rs` | DeleteGroups, OffsetDelete |
//! | `describe.rs` | ListGroups, DescribeGroups |
//! | `load.rs` | groups follow the leaders: a replay of the log, unloading |
//! | `log/` | the records of `__consumer_offsets`, in Kafka's format |
//! | `config.rs` | limits and periods |
//! | `model.rs` | errors, time, the caller of a request |

mod classic;
mod commits;
pub mod config;
mod coordinator;
#[cfg(test)]
mod coordinator_tests;
mod delete;
mod describe;
mod kind;
#[cfg(test)]
mod leader_tests;
mod load;
mod log;
mod model;
mod offsets;
mod shard;
mod timers;
mod transactional;

pub use crate::partition_of::partition_of;
pub use classic::model::{
    JoinRejected, JoinReply, JoinRequest, Joined, JoinedMember, MemberSnapshot, Protocol, SyncReply, SyncRequest,
    Synced,
};
pub use commits::{CommitRequest, FetchedOffsets, OffsetToCommit};
pub use config::GroupConfig;
pub use coordinator::GroupCoordinator;
pub use describe::{DescribedGroup, ListedGroup};
pub use kind::CLASSIC;
pub use log::CONSUMER_OFFSETS;
pub use model::{Caller, GroupError, MemberId, own, own_option};
pub use offsets::CommittedOffset;
pub use transactional::{EndingTransaction, TransactionalCommit};
