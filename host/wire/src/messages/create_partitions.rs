//! CreatePartitions: more partitions for a topic.

use crate::{ErrorCode, Message, Str};

/// Topics to grow.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = CreatePartitions, response = CreatePartitionsResponse, versions = 0..=3, flexible = 2)]
pub struct CreatePartitionsRequest {
    pub topics: Vec<CreatePartitionsTopic>,
    pub timeout_ms: i32,
    pub validate_only: bool,
}

/// A topic to grow.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatePartitionsTopic {
    pub name: Str,
    /// How many it shall have, those of today included.
    pub count: i32,
    /// Null to let the broker choose.
    pub assignments: Option<Vec<CreatePartitionsAssignment>>,
}

/// The brokers for one new partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatePartitionsAssignment {
    pub broker_ids: Vec<i32>,
}

/// What became of each topic.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=3, flexible = 2)]
pub struct CreatePartitionsResponse {
    pub throttle_time_ms: i32,
    pub results: Vec<CreatePartitionsTopicResult>,
}

/// What became of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatePartitionsTopicResult {
    pub name: Str,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
