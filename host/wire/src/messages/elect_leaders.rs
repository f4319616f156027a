//! ElectLeaders: elects the leaders of partitions (KIP-460).

use crate::{ErrorCode, Message, Str};

/// Asks for leader elections.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = ElectLeaders, response = ElectLeadersResponse, versions = 0..=2, flexible = 2)]
pub struct ElectLeadersRequest {
    /// 0 elects the preferred replica, 1 the first live replica when none is in sync.
    #[wire(versions = 1..)]
    pub election_type: i8,
    /// Null for all partitions.
    pub topic_partitions: Option<Vec<ElectLeadersTopicPartitions>>,
    #[wire(default = 60_000)]
    pub timeout_ms: i32,
}

/// Names partitions of one topic: `TopicPartitions` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ElectLeadersTopicPartitions {
    pub topic: Str,
    pub partitions: Vec<i32>,
}

/// Reports the result for each partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=2, flexible = 2)]
pub struct ElectLeadersResponse {
    pub throttle_time_ms: i32,
    #[wire(versions = 1..)]
    pub error_code: ErrorCode,
    pub replica_election_results: Vec<ReplicaElectionResult>,
}

/// Reports the results for one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ReplicaElectionResult {
    pub topic: Str,
    pub partition_result: Vec<PartitionElectionResult>,
}

/// Reports the result for one partition: `PartitionResult` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct PartitionElectionResult {
    pub partition_id: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
