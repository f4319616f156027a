//! DescribeQuorum: the leader, the voters and the observers of the metadata quorum (KIP-595).

use uuid::Uuid;

use super::listener::NodeListener;
use crate::{ErrorCode, Message, Str};

/// Asks for the state of the quorum. Kafka's only quorum is partition 0 of the topic `__cluster_metadata`.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeQuorum, response = DescribeQuorumResponse, versions = 0..=2, flexible = 0)]
pub struct DescribeQuorumRequest {
    pub topics: Vec<DescribeQuorumTopicRequest>,
}

/// Names partitions of one topic: `TopicData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeQuorumTopicRequest {
    pub topic_name: Str,
    pub partitions: Vec<DescribeQuorumPartitionRequest>,
}

/// Names one partition: `PartitionData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeQuorumPartitionRequest {
    pub partition_index: i32,
}

/// Describes the quorum.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=2, flexible = 0)]
pub struct DescribeQuorumResponse {
    pub error_code: ErrorCode,
    #[wire(versions = 2..)]
    pub error_message: Option<Str>,
    pub topics: Vec<DescribeQuorumTopicResponse>,
    /// The addresses of the voters (KIP-853).
    #[wire(versions = 2..)]
    pub nodes: Vec<DescribeQuorumNode>,
}

/// Describes the partitions of one topic: `TopicData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeQuorumTopicResponse {
    pub topic_name: Str,
    pub partitions: Vec<DescribeQuorumPartitionResponse>,
}

/// Describes one quorum: `PartitionData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeQuorumPartitionResponse {
    pub partition_index: i32,
    pub error_code: ErrorCode,
    #[wire(versions = 2..)]
    pub error_message: Option<Str>,
    /// -1 when the leader is not known.
    pub leader_id: i32,
    pub leader_epoch: i32,
    pub high_watermark: i64,
    pub current_voters: Vec<QuorumReplicaState>,
    pub observers: Vec<QuorumReplicaState>,
}

/// Describes one voter or observer: `ReplicaState` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct QuorumReplicaState {
    pub replica_id: i32,
    #[wire(versions = 2..)]
    pub replica_directory_id: Uuid,
    /// -1 when it is not known.
    pub log_end_offset: i64,
    /// The leader's clock at the last fetch of this replica, its present time for the leader itself; -1 when it is not
    /// known (KIP-836).
    #[wire(versions = 1.., default = -1)]
    pub last_fetch_timestamp: i64,
    /// The leader's clock when this replica last had all records; -1 when it is not known (KIP-836).
    #[wire(versions = 1.., default = -1)]
    pub last_caught_up_timestamp: i64,
}

/// Holds the addresses of one voter: `Node` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeQuorumNode {
    pub node_id: i32,
    pub listeners: Vec<NodeListener>,
}
