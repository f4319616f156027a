//! OffsetFetch: reads the committed offsets of a group; from version 8 of several groups.

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Asks for committed offsets: of one group up to version 7, of several from version 8.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = OffsetFetch, response = OffsetFetchResponse, versions = 1..=10, flexible = 6)]
pub struct OffsetFetchRequest {
    #[wire(versions = ..=7)]
    pub group_id: Str,
    /// Null for all; from version 2.
    #[wire(versions = ..=7, nullable = 2..)]
    pub topics: Option<Vec<OffsetFetchRequestTopic>>,
    #[wire(versions = 8..)]
    pub groups: Vec<OffsetFetchRequestGroup>,
    /// Whether an offset that an open transaction may still change is an error (KIP-447).
    #[wire(versions = 7..)]
    pub require_stable: bool,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetFetchRequestTopic {
    pub name: Str,
    pub partition_indexes: Vec<i32>,
}

/// Names one group.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetFetchRequestGroup {
    pub group_id: Str,
    #[wire(versions = 9.., ignorable)]
    pub member_id: Option<Str>,
    #[wire(versions = 9.., default = -1, ignorable)]
    pub member_epoch: i32,
    /// Null for all.
    pub topics: Option<Vec<OffsetFetchRequestTopics>>,
}

/// Names partitions of one topic: by name, from version 10 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetFetchRequestTopics {
    #[wire(versions = ..=9, ignorable)]
    pub name: Str,
    #[wire(versions = 10.., ignorable)]
    pub topic_id: Uuid,
    pub partition_indexes: Vec<i32>,
}

/// Holds the offsets: of one group up to version 7, of several from version 8.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=10, flexible = 6)]
pub struct OffsetFetchResponse {
    #[wire(versions = 3..)]
    pub throttle_time_ms: i32,
    #[wire(versions = ..=7)]
    pub topics: Vec<OffsetFetchResponseTopic>,
    #[wire(versions = 2..=7)]
    pub error_code: ErrorCode,
    #[wire(versions = 8..)]
    pub groups: Vec<OffsetFetchResponseGroup>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetFetchResponseTopic {
    pub name: Str,
    pub partitions: Vec<OffsetFetchResponsePartition>,
}

/// Holds the offset of one partition; -1 if none was committed.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetFetchResponsePartition {
    pub partition_index: i32,
    pub committed_offset: i64,
    #[wire(versions = 5.., default = -1)]
    pub committed_leader_epoch: i32,
    pub metadata: Option<Str>,
    pub error_code: ErrorCode,
}

/// Names one group.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetFetchResponseGroup {
    pub group_id: Str,
    pub topics: Vec<OffsetFetchResponseTopics>,
    pub error_code: ErrorCode,
}

/// Names partitions of one topic: by name, from version 10 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetFetchResponseTopics {
    #[wire(versions = ..=9)]
    pub name: Str,
    #[wire(versions = 10..)]
    pub topic_id: Uuid,
    pub partitions: Vec<OffsetFetchResponsePartitions>,
}

/// Holds the offset of one partition; -1 if none was committed.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetFetchResponsePartitions {
    pub partition_index: i32,
    pub committed_offset: i64,
    #[wire(default = -1)]
    pub committed_leader_epoch: i32,
    pub metadata: Option<Str>,
    pub error_code: ErrorCode,
}
