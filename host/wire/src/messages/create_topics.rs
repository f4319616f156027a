//! CreateTopics.

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Topics to create.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = CreateTopics, response = CreateTopicsResponse, versions = 2..=7, flexible = 5)]
pub struct CreateTopicsRequest {
    pub topics: Vec<CreatableTopic>,
    #[wire(default = 60000)]
    pub timeout_ms: i32,
    pub validate_only: bool,
}

/// A topic to create.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableTopic {
    pub name: Str,
    /// -1 for the broker's default or with assignments.
    pub num_partitions: i32,
    /// -1 for the broker's default or with assignments.
    pub replication_factor: i16,
    pub assignments: Vec<CreatableReplicaAssignment>,
    pub configs: Vec<CreatableTopicConfig>,
}

/// The brokers for one partition, the preferred leader first.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableReplicaAssignment {
    pub partition_index: i32,
    pub broker_ids: Vec<i32>,
}

/// A configuration of the topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableTopicConfig {
    pub name: Str,
    pub value: Option<Str>,
}

/// What became of each topic.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 2..=7, flexible = 5)]
pub struct CreateTopicsResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<CreatableTopicResult>,
}

/// What became of one topic; from version 5 with what it was given.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableTopicResult {
    pub name: Str,
    #[wire(versions = 7..)]
    pub topic_id: Uuid,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    /// Set when the configurations may not be told.
    #[wire(versions = 5.., tag = 0)]
    pub topic_config_error_code: ErrorCode,
    #[wire(versions = 5.., default = -1)]
    pub num_partitions: i32,
    #[wire(versions = 5.., default = -1)]
    pub replication_factor: i16,
    #[wire(versions = 5..)]
    pub configs: Option<Vec<CreatableTopicConfigs>>,
}

/// A configuration that the topic has.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct CreatableTopicConfigs {
    pub name: Str,
    pub value: Option<Str>,
    pub read_only: bool,
    /// 1 the topic, 2 the broker at run time, 4 its file, 5 the default.
    #[wire(default = -1)]
    pub config_source: i8,
    pub is_sensitive: bool,
}
