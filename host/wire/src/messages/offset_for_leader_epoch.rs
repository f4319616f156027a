//! OffsetForLeaderEpoch: finds the end of a leader epoch, by which clients detect a diverged log (KIP-320).

use crate::{ErrorCode, Message, Str};

/// Looks up the ends of leader epochs.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = OffsetForLeaderEpoch, response = OffsetForLeaderEpochResponse, versions = 2..=4, flexible = 4)]
pub struct OffsetForLeaderEpochRequest {
    /// -1 for a consumer, -2 when it is not given.
    #[wire(versions = 3.., default = -2, ignorable)]
    pub replica_id: i32,
    pub topics: Vec<OffsetForLeaderTopic>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetForLeaderTopic {
    pub topic: Str,
    pub partitions: Vec<OffsetForLeaderPartition>,
}

/// Names the epoch to look up in one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetForLeaderPartition {
    pub partition: i32,
    /// The leader epoch that the client knows; -1 for none.
    #[wire(default = -1)]
    pub current_leader_epoch: i32,
    pub leader_epoch: i32,
}

/// Holds the ends of the epochs.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 2..=4, flexible = 4)]
pub struct OffsetForLeaderEpochResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<OffsetForLeaderTopicResult>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetForLeaderTopicResult {
    pub topic: Str,
    pub partitions: Vec<EpochEndOffset>,
}

/// Holds the largest epoch up to the requested one, and its end offset; -1 for both without one.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct EpochEndOffset {
    pub error_code: ErrorCode,
    pub partition: i32,
    #[wire(default = -1)]
    pub leader_epoch: i32,
    #[wire(default = -1)]
    pub end_offset: i64,
}
