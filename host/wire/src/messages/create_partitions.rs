//! CreatePartitions: adds partitions to topics.

use crate::{ErrorCode, Message, Str};

/// Adds partitions to topics.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = CreatePartitions, response = CreatePartitionsResponse, versions = 0..=3, flexible = 2)]
pub struct CreatePartitionsRequest {
    pub topics: Vec<CreatePartitionsTopic>,
    pub timeout_ms: i32,
    pub validate_only: bool,
}

/// Names the new number of partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatePartitionsTopic {
    pub name: Str,
    /// The number of partitions after the change.
    pub count: i32,
    /// Null if the broker chooses the replicas.
    pub assignments: Option<Vec<CreatePartitionsAssignment>>,
}

/// Names the replicas of one new partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatePartitionsAssignment {
    pub broker_ids: Vec<i32>,
}

/// Reports the result for each topic.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=3, flexible = 2)]
pub struct CreatePartitionsResponse {
    pub throttle_time_ms: i32,
    pub results: Vec<CreatePartitionsTopicResult>,
}

/// Reports the result for one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatePartitionsTopicResult {
    pub name: Str,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
