//! The group coordinator: membership and assignments of consumer groups (the classic protocol), and their offsets.
//!
//! | File | Subject |
//! |---|---|
//! | `state.rs`, `join.rs`, `sync.rs`, `session.rs` | one group as a pure state machine |
//! | `model.rs`, `member.rs` | the words it speaks, one member |
//! | `offsets.rs` | what a group has committed, and when that expires |
//! | `records.rs` | the bytes of `__consumer_offsets`, Kafka's own |
//! | `coordinator.rs`, `timers.rs` | all groups: locks, waiting requests, deadlines |
//! | `commits.rs` | OffsetCommit, OffsetFetch, expiry |
//! | `deletions.rs` | DeleteGroups, OffsetDelete |
//! | `load.rs` | groups come back from the log at the start |
//! | `describe.rs` | what ListGroups and DescribeGroups show |
//! | `storage.rs` | `__consumer_offsets` as a few calls |
//! | `topic.rs` | those calls on the broker's own topic |
//! | `config.rs` | limits and periods |

mod commits;
mod config;
mod coordinator;
#[cfg(test)]
mod coordinator_tests;
mod deletions;
mod describe;
mod join;
mod load;
mod member;
mod model;
mod offsets;
mod records;
mod session;
mod state;
#[cfg(test)]
mod state_tests;
mod storage;
mod sync;
mod timers;
mod topic;

pub(crate) use commits::{CommitRequest, FetchedOffsets, OffsetToCommit};
pub(crate) use config::GroupConfig;
pub(crate) use coordinator::GroupCoordinator;
pub(crate) use describe::CLASSIC;
pub(crate) use model::{
    Caller, GroupError, JoinRefused, JoinRequest, JoinedMember, MemberSnapshot, Protocol, SyncRequest, own, own_option,
};
pub(crate) use offsets::CommittedOffset;
pub(crate) use topic::OffsetsTopic;
