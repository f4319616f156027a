//! DeleteRecords: removes the records below an offset.

use crate::{ErrorCode, Message, Str};

/// Moves the log start offset of partitions forward.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DeleteRecords, response = DeleteRecordsResponse, versions = 0..=2, flexible = 2)]
pub struct DeleteRecordsRequest {
    pub topics: Vec<DeleteRecordsTopic>,
    pub timeout_ms: i32,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DeleteRecordsTopic {
    pub name: Str,
    pub partitions: Vec<DeleteRecordsPartition>,
}

/// Names the new start of one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DeleteRecordsPartition {
    pub partition_index: i32,
    /// The first offset to keep; -1 for the high watermark.
    pub offset: i64,
}

/// Reports the result for each partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=2, flexible = 2)]
pub struct DeleteRecordsResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<DeleteRecordsTopicResult>,
}

/// Reports the results for one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DeleteRecordsTopicResult {
    pub name: Str,
    pub partitions: Vec<DeleteRecordsPartitionResult>,
}

/// Reports the result for one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DeleteRecordsPartitionResult {
    pub partition_index: i32,
    /// The log start offset after the deletion; -1 after an error.
    pub low_watermark: i64,
    pub error_code: ErrorCode,
}
