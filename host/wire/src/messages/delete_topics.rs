//! DeleteTopics, by name or, from version 6, by id.

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Topics to delete.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DeleteTopics, response = DeleteTopicsResponse, versions = 1..=6, flexible = 4)]
pub struct DeleteTopicsRequest {
    #[wire(versions = 6..)]
    pub topics: Vec<DeleteTopicState>,
    /// Up to version 5 instead of `topics`.
    #[wire(versions = ..=5, ignorable)]
    pub topic_names: Vec<Str>,
    pub timeout_ms: i32,
}

/// A topic by name or by id, the other left out.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DeleteTopicState {
    pub name: Option<Str>,
    pub topic_id: Uuid,
}

/// What became of each topic.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=6, flexible = 4)]
pub struct DeleteTopicsResponse {
    pub throttle_time_ms: i32,
    pub responses: Vec<DeletableTopicResult>,
}

/// What became of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DeletableTopicResult {
    #[wire(nullable = 6..)]
    pub name: Option<Str>,
    #[wire(versions = 6..)]
    pub topic_id: Uuid,
    pub error_code: ErrorCode,
    #[wire(versions = 5..)]
    pub error_message: Option<Str>,
}
