//! Metadata: brokers, topics, partitions and their leaders.

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Asks for topics.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = Metadata, response = MetadataResponse, versions = 0..=13, flexible = 9)]
pub struct MetadataRequest {
    /// Null for all, empty for none. In version 0 empty means all.
    #[wire(nullable = 1..)]
    pub topics: Option<Vec<MetadataRequestTopic>>,
    #[wire(versions = 4.., default = true)]
    pub allow_auto_topic_creation: bool,
    #[wire(versions = 8..=10)]
    pub include_cluster_authorized_operations: bool,
    #[wire(versions = 8..)]
    pub include_topic_authorized_operations: bool,
}

/// Names one topic: by name, from version 10 also by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct MetadataRequestTopic {
    #[wire(versions = 10.., ignorable)]
    pub topic_id: Uuid,
    #[wire(nullable = 10..)]
    pub name: Option<Str>,
}

/// Describes the cluster as the broker sees it.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=13, flexible = 9)]
pub struct MetadataResponse {
    #[wire(versions = 3..)]
    pub throttle_time_ms: i32,
    pub brokers: Vec<MetadataResponseBroker>,
    #[wire(versions = 2..)]
    pub cluster_id: Option<Str>,
    /// -1 for none.
    #[wire(versions = 1.., default = -1)]
    pub controller_id: i32,
    pub topics: Vec<MetadataResponseTopic>,
    /// One bit per [`AclOperation`](crate::AclOperation); `i32::MIN` when it is not asked for.
    #[wire(versions = 8..=10, default = i32::MIN)]
    pub cluster_authorized_operations: i32,
    #[wire(versions = 13..)]
    pub error_code: ErrorCode,
}

/// Describes one broker.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct MetadataResponseBroker {
    pub node_id: i32,
    pub host: Str,
    pub port: i32,
    #[wire(versions = 1..)]
    pub rack: Option<Str>,
}

/// Describes one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct MetadataResponseTopic {
    pub error_code: ErrorCode,
    #[wire(nullable = 12..)]
    pub name: Option<Str>,
    #[wire(versions = 10..)]
    pub topic_id: Uuid,
    #[wire(versions = 1..)]
    pub is_internal: bool,
    pub partitions: Vec<MetadataResponsePartition>,
    /// One bit per [`AclOperation`](crate::AclOperation); `i32::MIN` when it is not asked for.
    #[wire(versions = 8.., default = i32::MIN)]
    pub topic_authorized_operations: i32,
}

/// Describes one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct MetadataResponsePartition {
    pub error_code: ErrorCode,
    pub partition_index: i32,
    /// -1 for none.
    pub leader_id: i32,
    #[wire(versions = 7.., default = -1)]
    pub leader_epoch: i32,
    pub replica_nodes: Vec<i32>,
    pub isr_nodes: Vec<i32>,
    #[wire(versions = 5..)]
    pub offline_replicas: Vec<i32>,
}
