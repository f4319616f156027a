//! OffsetCommit: stores the offsets of a group.

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Stores offsets.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = OffsetCommit, response = OffsetCommitResponse, versions = 2..=10, flexible = 8)]
pub struct OffsetCommitRequest {
    pub group_id: Str,
    /// -1 from a client that is not a member.
    #[wire(default = -1)]
    pub generation_id_or_member_epoch: i32,
    pub member_id: Str,
    #[wire(versions = 7..)]
    pub group_instance_id: Option<Str>,
    /// -1 for the broker's default.
    #[wire(versions = ..=4, default = -1, ignorable)]
    pub retention_time_ms: i64,
    pub topics: Vec<OffsetCommitRequestTopic>,
}

/// Names partitions of one topic: by name, from version 10 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetCommitRequestTopic {
    #[wire(versions = ..=9, ignorable)]
    pub name: Str,
    #[wire(versions = 10.., ignorable)]
    pub topic_id: Uuid,
    pub partitions: Vec<OffsetCommitRequestPartition>,
}

/// Holds the offset of one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetCommitRequestPartition {
    pub partition_index: i32,
    pub committed_offset: i64,
    #[wire(versions = 6.., default = -1, ignorable)]
    pub committed_leader_epoch: i32,
    pub committed_metadata: Option<Str>,
}

/// Reports the result for each partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 2..=10, flexible = 8)]
pub struct OffsetCommitResponse {
    #[wire(versions = 3..)]
    pub throttle_time_ms: i32,
    pub topics: Vec<OffsetCommitResponseTopic>,
}

/// Names partitions of one topic: by name, from version 10 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetCommitResponseTopic {
    #[wire(versions = ..=9)]
    pub name: Str,
    #[wire(versions = 10..)]
    pub topic_id: Uuid,
    pub partitions: Vec<OffsetCommitResponsePartition>,
}

/// Reports the result for one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct OffsetCommitResponsePartition {
    pub partition_index: i32,
    pub error_code: ErrorCode,
}
