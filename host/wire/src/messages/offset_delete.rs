//! OffsetDelete: removes committed offsets of a group.

use crate::{ErrorCode, Message, Str};

/// Deletes the committed offsets of these partitions.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = OffsetDelete, response = OffsetDeleteResponse, versions = 0..=0)]
pub struct OffsetDeleteRequest {
    pub group_id: Str,
    pub topics: Vec<OffsetDeleteRequestTopic>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetDeleteRequestTopic {
    pub name: Str,
    pub partitions: Vec<OffsetDeleteRequestPartition>,
}

/// Names one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetDeleteRequestPartition {
    pub partition_index: i32,
}

/// Reports the result for the group, then for each partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0)]
pub struct OffsetDeleteResponse {
    pub error_code: ErrorCode,
    pub throttle_time_ms: i32,
    pub topics: Vec<OffsetDeleteResponseTopic>,
}

/// Reports the results for one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetDeleteResponseTopic {
    pub name: Str,
    pub partitions: Vec<OffsetDeleteResponsePartition>,
}

/// Reports the result for one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetDeleteResponsePartition {
    pub partition_index: i32,
    pub error_code: ErrorCode,
}
