//! DescribeProducers: lists the producers whose state a partition keeps (KIP-664).

use crate::{ErrorCode, Message, Str};

/// Asks for the producers of partitions.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeProducers, response = DescribeProducersResponse, versions = 0..=0, flexible = 0)]
pub struct DescribeProducersRequest {
    pub topics: Vec<DescribeProducersTopicRequest>,
}

/// Names partitions of one topic: `TopicRequest` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeProducersTopicRequest {
    pub name: Str,
    pub partition_indexes: Vec<i32>,
}

/// Lists the producers by partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0, flexible = 0)]
pub struct DescribeProducersResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<DescribeProducersTopicResponse>,
}

/// Lists the producers of one topic: `TopicResponse` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeProducersTopicResponse {
    pub name: Str,
    pub partitions: Vec<DescribeProducersPartitionResponse>,
}

/// Lists the producers of one partition: `PartitionResponse` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeProducersPartitionResponse {
    pub partition_index: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub active_producers: Vec<ProducerState>,
}

/// Describes one producer.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ProducerState {
    pub producer_id: i64,
    pub producer_epoch: i32,
    #[wire(default = -1)]
    pub last_sequence: i32,
    #[wire(default = -1)]
    pub last_timestamp: i64,
    pub coordinator_epoch: i32,
    /// -1 when no transaction is open.
    #[wire(default = -1)]
    pub current_txn_start_offset: i64,
}
