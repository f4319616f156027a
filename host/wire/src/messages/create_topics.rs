//! CreateTopics.

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Creates topics.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = CreateTopics, response = CreateTopicsResponse, versions = 2..=7, flexible = 5)]
pub struct CreateTopicsRequest {
    pub topics: Vec<CreatableTopic>,
    #[wire(default = 60000)]
    pub timeout_ms: i32,
    pub validate_only: bool,
}

/// Describes one topic to create.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableTopic {
    pub name: Str,
    /// -1 for the broker's default, and with assignments.
    pub num_partitions: i32,
    /// -1 for the broker's default, and with assignments.
    pub replication_factor: i16,
    pub assignments: Vec<CreatableReplicaAssignment>,
    pub configs: Vec<CreatableTopicConfig>,
}

/// Names the replicas of one partition, the preferred leader first.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableReplicaAssignment {
    pub partition_index: i32,
    pub broker_ids: Vec<i32>,
}

/// Holds one config of the topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableTopicConfig {
    pub name: Str,
    pub value: Option<Str>,
}

/// Reports the result for each topic.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 2..=7, flexible = 5)]
pub struct CreateTopicsResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<CreatableTopicResult>,
}

/// Reports the result for one topic, from version 5 with the topic's configs.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableTopicResult {
    pub name: Str,
    #[wire(versions = 7..)]
    pub topic_id: Uuid,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    /// Set when the client may not see the configs.
    #[wire(versions = 5.., tag = 0)]
    pub topic_config_error_code: ErrorCode,
    #[wire(versions = 5.., default = -1)]
    pub num_partitions: i32,
    #[wire(versions = 5.., default = -1)]
    pub replication_factor: i16,
    #[wire(versions = 5..)]
    pub configs: Option<Vec<CreatableTopicConfigs>>,
}

/// Holds one config of the new topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableTopicConfigs {
    pub name: Str,
    pub value: Option<Str>,
    pub read_only: bool,
    /// 1 the topic, 2 the broker at run time, 4 the broker's file, 5 the default.
    #[wire(default = -1)]
    pub config_source: i8,
    pub is_sensitive: bool,
}
