//! Replication as state machines without I/O: what a leader knows of its followers, and what a follower does with a
//! response. Time comes in as milliseconds of a clock that never goes back.

mod follower;
mod leader;

pub use follower::{EpochLookup, FetchPosition, FollowerState, NextStep, RecordsEnd, ReplicaResponse, ResponseError};
pub use leader::{FollowerPosition, InSyncProposal, LeaderState, LeaderView, LogEnds, ReadableFollower};
