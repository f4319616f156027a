//! OffsetForLeaderEpoch: where a leader epoch ended, to find where a log diverged (KIP-320).

use crate::{ErrorCode, Message, Str};

/// Which epochs to look up.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = OffsetForLeaderEpoch, response = OffsetForLeaderEpochResponse, versions = 2..=4, flexible = 4)]
pub struct OffsetForLeaderEpochRequest {
    /// -1 for a consumer, -2 when not said.
    #[wire(versions = 3.., default = -2, ignorable)]
    pub replica_id: i32,
    pub topics: Vec<OffsetForLeaderTopic>,
}

/// The partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetForLeaderTopic {
    pub topic: Str,
    pub partitions: Vec<OffsetForLeaderPartition>,
}

/// The epoch to look up in one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetForLeaderPartition {
    pub partition: i32,
    /// The epoch that the client knows; -1 if none.
    #[wire(default = -1)]
    pub current_leader_epoch: i32,
    pub leader_epoch: i32,
}

/// Where the epochs ended.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 2..=4, flexible = 4)]
pub struct OffsetForLeaderEpochResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<OffsetForLeaderTopicResult>,
}

/// The partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetForLeaderTopicResult {
    pub topic: Str,
    pub partitions: Vec<EpochEndOffset>,
}

/// The largest epoch up to the one asked for, and where it ended; -1 for both when there is none.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct EpochEndOffset {
    pub error_code: ErrorCode,
    pub partition: i32,
    #[wire(default = -1)]
    pub leader_epoch: i32,
    #[wire(default = -1)]
    pub end_offset: i64,
}
