//! ListOffsets: the offset at a time, or at one of the ends of a partition.

use crate::{ErrorCode, Message, Str};

/// Times to look up.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = ListOffsets, response = ListOffsetsResponse, versions = 1..=11, flexible = 6)]
pub struct ListOffsetsRequest {
    /// -1 for a consumer.
    pub replica_id: i32,
    /// 0 reads all, 1 only what is committed.
    #[wire(versions = 2..)]
    pub isolation_level: i8,
    pub topics: Vec<ListOffsetsTopic>,
    #[wire(versions = 10.., ignorable)]
    pub timeout_ms: i32,
}

/// The partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListOffsetsTopic {
    pub name: Str,
    pub partitions: Vec<ListOffsetsPartition>,
}

/// The time to look up in one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListOffsetsPartition {
    pub partition_index: i32,
    #[wire(versions = 4.., default = -1, ignorable)]
    pub current_leader_epoch: i32,
    /// Milliseconds, or -1 the end, -2 the start, -3 the record of the highest timestamp, -4 the start on local
    /// disk, -5 the end of what is in tiered storage.
    pub timestamp: i64,
}

/// Offsets found.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=11, flexible = 6)]
pub struct ListOffsetsResponse {
    #[wire(versions = 2..)]
    pub throttle_time_ms: i32,
    pub topics: Vec<ListOffsetsTopicResponse>,
}

/// The partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListOffsetsTopicResponse {
    pub name: Str,
    pub partitions: Vec<ListOffsetsPartitionResponse>,
}

/// What was found in one partition; no match is an offset and a timestamp of -1 and no error.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListOffsetsPartitionResponse {
    pub partition_index: i32,
    pub error_code: ErrorCode,
    #[wire(default = -1)]
    pub timestamp: i64,
    #[wire(default = -1)]
    pub offset: i64,
    #[wire(versions = 4.., default = -1)]
    pub leader_epoch: i32,
}
