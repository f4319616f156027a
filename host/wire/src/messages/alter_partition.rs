//! AlterPartition: proposes a new in-sync set. Leaders send it to the controller (KIP-497).

use uuid::Uuid;

use crate::{ErrorCode, Message};

/// Proposes the in-sync sets of partitions that the broker leads.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = AlterPartition, response = AlterPartitionResponse, versions = 2..=3, flexible = 0)]
pub struct AlterPartitionRequest {
    pub broker_id: i32,
    #[wire(default = -1)]
    pub broker_epoch: i64,
    pub topics: Vec<AlterPartitionTopicRequest>,
}

/// Names partitions of one topic: `TopicData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterPartitionTopicRequest {
    pub topic_id: Uuid,
    pub partitions: Vec<AlterPartitionPartitionRequest>,
}

/// Proposes the in-sync set of one partition: `PartitionData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterPartitionPartitionRequest {
    pub partition_index: i32,
    pub leader_epoch: i32,
    /// From version 3 in `new_isr_with_epochs`.
    #[wire(versions = ..=2)]
    pub new_isr: Vec<i32>,
    /// The in-sync replicas with the epochs in which they fetched, so that a restarted one is rejected (KIP-903).
    #[wire(versions = 3..)]
    pub new_isr_with_epochs: Vec<BrokerState>,
    /// 1 while the leader recovers from an unclean election, otherwise 0 (KIP-704).
    pub leader_recovery_state: i8,
    /// The epoch of the partition state that the proposal changes.
    pub partition_epoch: i32,
}

/// Identifies one in-sync replica.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct BrokerState {
    pub broker_id: i32,
    /// -1 when the epoch is not checked.
    #[wire(default = -1)]
    pub broker_epoch: i64,
}

/// Holds the state of each partition that the controller committed.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 2..=3, flexible = 0)]
pub struct AlterPartitionResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub topics: Vec<AlterPartitionTopicResponse>,
}

/// Holds the partitions of one topic: `TopicData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterPartitionTopicResponse {
    pub topic_id: Uuid,
    pub partitions: Vec<AlterPartitionPartitionResponse>,
}

/// Holds the state of one partition: `PartitionData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterPartitionPartitionResponse {
    pub partition_index: i32,
    pub error_code: ErrorCode,
    pub leader_id: i32,
    pub leader_epoch: i32,
    pub isr: Vec<i32>,
    /// 1 while the leader recovers from an unclean election, otherwise 0.
    pub leader_recovery_state: i8,
    pub partition_epoch: i32,
}
