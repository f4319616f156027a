//! ListPartitionReassignments: the partitions whose replicas are being changed.

use crate::{ErrorCode, Message, Str};

/// Asks for ongoing reassignments.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(
    api = ListPartitionReassignments,
    response = ListPartitionReassignmentsResponse,
    versions = 0..=0,
    flexible = 0
)]
pub struct ListPartitionReassignmentsRequest {
    #[wire(default = 60_000)]
    pub timeout_ms: i32,
    /// Null for all topics.
    pub topics: Option<Vec<ListPartitionReassignmentsTopics>>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListPartitionReassignmentsTopics {
    pub name: Str,
    pub partition_indexes: Vec<i32>,
}

/// Lists the ongoing reassignments.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0, flexible = 0)]
pub struct ListPartitionReassignmentsResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub topics: Vec<OngoingTopicReassignment>,
}

/// Lists the ongoing reassignments of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OngoingTopicReassignment {
    pub name: Str,
    pub partitions: Vec<OngoingPartitionReassignment>,
}

/// Describes the reassignment of one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OngoingPartitionReassignment {
    pub partition_index: i32,
    pub replicas: Vec<i32>,
    pub adding_replicas: Vec<i32>,
    pub removing_replicas: Vec<i32>,
}
