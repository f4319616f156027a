//! AlterPartitionReassignments: moves partitions to other brokers, or cancels such moves (KIP-455).

use crate::{ErrorCode, Message, Str};

/// Starts and cancels reassignments.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(
    api = AlterPartitionReassignments,
    response = AlterPartitionReassignmentsResponse,
    versions = 0..=1,
    flexible = 0
)]
pub struct AlterPartitionReassignmentsRequest {
    #[wire(default = 60_000)]
    pub timeout_ms: i32,
    /// Whether a reassignment may change the replication factor (KIP-860).
    #[wire(versions = 1.., default = true)]
    pub allow_replication_factor_change: bool,
    pub topics: Vec<ReassignableTopic>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ReassignableTopic {
    pub name: Str,
    pub partitions: Vec<ReassignablePartition>,
}

/// Names the new replicas of one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ReassignablePartition {
    pub partition_index: i32,
    /// The preferred leader first; null cancels the reassignment.
    pub replicas: Option<Vec<i32>>,
}

/// Reports the result for each partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1, flexible = 0)]
pub struct AlterPartitionReassignmentsResponse {
    pub throttle_time_ms: i32,
    #[wire(versions = 1.., default = true)]
    pub allow_replication_factor_change: bool,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub responses: Vec<ReassignableTopicResponse>,
}

/// Reports the results for one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ReassignableTopicResponse {
    pub name: Str,
    pub partitions: Vec<ReassignablePartitionResponse>,
}

/// Reports the result for one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ReassignablePartitionResponse {
    pub partition_index: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
