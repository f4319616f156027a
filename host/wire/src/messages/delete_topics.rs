//! DeleteTopics, by name or, from version 6, by id.

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Deletes topics.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DeleteTopics, response = DeleteTopicsResponse, versions = 1..=6, flexible = 4)]
pub struct DeleteTopicsRequest {
    #[wire(versions = 6..)]
    pub topics: Vec<DeleteTopicState>,
    /// Used up to version 5 instead of `topics`.
    #[wire(versions = ..=5, ignorable)]
    pub topic_names: Vec<Str>,
    pub timeout_ms: i32,
}

/// Names one topic by name or by id; the other field is left out.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DeleteTopicState {
    pub name: Option<Str>,
    pub topic_id: Uuid,
}

/// Reports the result for each topic.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=6, flexible = 4)]
pub struct DeleteTopicsResponse {
    pub throttle_time_ms: i32,
    pub responses: Vec<DeletableTopicResult>,
}

/// Reports the result for one topic.
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
