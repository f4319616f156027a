//! Produce: appends record batches.
//!
//! Versions 0 to 2 carry record sets of magic 0 and 1. They decode here so that a broker can reject them with
//! a response.

use uuid::Uuid;

use super::leader::{LeaderIdAndEpoch, NodeEndpoint};
use crate::{ErrorCode, Message, Records, Str};

/// Appends batches to partitions.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = Produce, response = ProduceResponse, versions = 0..=13, flexible = 9)]
pub struct ProduceRequest {
    /// Null unless the producer is transactional.
    #[wire(versions = 3..)]
    pub transactional_id: Option<Str>,
    /// 0 for no response, 1 for the leader, -1 for all in-sync replicas.
    pub acks: i16,
    pub timeout_ms: i32,
    pub topic_data: Vec<TopicProduceData>,
}

/// Holds the batches of one topic: by name, from version 13 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct TopicProduceData {
    #[wire(versions = ..=12, ignorable)]
    pub name: Str,
    #[wire(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    pub partition_data: Vec<PartitionProduceData>,
}

/// Holds the batches of one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct PartitionProduceData {
    pub index: i32,
    pub records: Records,
}

/// Reports the result for each partition. Not sent with acks 0.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=13, flexible = 9)]
pub struct ProduceResponse {
    pub responses: Vec<TopicProduceResponse>,
    #[wire(versions = 1..)]
    pub throttle_time_ms: i32,
    #[wire(versions = 10.., tag = 0)]
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// Holds the batches of one topic: by name, from version 13 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct TopicProduceResponse {
    #[wire(versions = ..=12)]
    pub name: Str,
    #[wire(versions = 13..)]
    pub topic_id: Uuid,
    pub partition_responses: Vec<PartitionProduceResponse>,
}

/// Reports the result for one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct PartitionProduceResponse {
    pub index: i32,
    pub error_code: ErrorCode,
    pub base_offset: i64,
    /// -1 unless the topic uses the time of the append.
    #[wire(versions = 2.., default = -1)]
    pub log_append_time_ms: i64,
    #[wire(versions = 5.., default = -1)]
    pub log_start_offset: i64,
    #[wire(versions = 8..)]
    pub record_errors: Vec<BatchIndexAndErrorMessage>,
    #[wire(versions = 8..)]
    pub error_message: Option<Str>,
    /// The current leader, with `NOT_LEADER_OR_FOLLOWER`.
    #[wire(versions = 10.., tag = 0)]
    pub current_leader: LeaderIdAndEpoch,
}

/// Names a record because of which the batch was rejected.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct BatchIndexAndErrorMessage {
    /// The place of the record in the batch, from 0.
    pub batch_index: i32,
    pub batch_index_error_message: Option<Str>,
}
