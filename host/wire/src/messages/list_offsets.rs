//! ListOffsets: finds the offset of a time, or an end of a partition.

use crate::{ErrorCode, Message, Str};

/// Looks up offsets by time.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = ListOffsets, response = ListOffsetsResponse, versions = 1..=11, flexible = 6)]
pub struct ListOffsetsRequest {
    /// -1 for a consumer.
    pub replica_id: i32,
    /// 0 sees all records, 1 only committed ones.
    #[wire(versions = 2..)]
    pub isolation_level: i8,
    pub topics: Vec<ListOffsetsTopic>,
    #[wire(versions = 10.., ignorable)]
    pub timeout_ms: i32,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListOffsetsTopic {
    pub name: Str,
    pub partitions: Vec<ListOffsetsPartition>,
}

/// Names the time to look up in one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListOffsetsPartition {
    pub partition_index: i32,
    #[wire(versions = 4.., default = -1, ignorable)]
    pub current_leader_epoch: i32,
    /// Milliseconds; or -1 the end, -2 the start, -3 the record with the highest timestamp, -4 the start on the local
    /// disk, -5 the end of the tiered storage.
    pub timestamp: i64,
}

/// Holds the offsets.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=11, flexible = 6)]
pub struct ListOffsetsResponse {
    #[wire(versions = 2..)]
    pub throttle_time_ms: i32,
    pub topics: Vec<ListOffsetsTopicResponse>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListOffsetsTopicResponse {
    pub name: Str,
    pub partitions: Vec<ListOffsetsPartitionResponse>,
}

/// Holds the offset in one partition. Without a match, offset and timestamp are -1, without an error code.
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
