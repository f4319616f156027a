//! TxnOffsetCommit: stores offsets of a group that count once their transaction is committed (KIP-98).

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Stores offsets.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = TxnOffsetCommit, response = TxnOffsetCommitResponse, versions = 0..=6, flexible = 3)]
pub struct TxnOffsetCommitRequest {
    pub transactional_id: Str,
    pub group_id: Str,
    pub producer_id: i64,
    pub producer_epoch: i16,
    #[wire(versions = 3.., default = -1)]
    pub generation_id_or_member_epoch: i32,
    #[wire(versions = 3..)]
    pub member_id: Str,
    #[wire(versions = 3..)]
    pub group_instance_id: Option<Str>,
    pub topics: Vec<TxnOffsetCommitRequestTopic>,
}

/// Names partitions of one topic: by name, from version 6 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct TxnOffsetCommitRequestTopic {
    #[wire(versions = ..=5, ignorable)]
    pub name: Str,
    #[wire(versions = 6.., ignorable)]
    pub topic_id: Uuid,
    pub partitions: Vec<TxnOffsetCommitRequestPartition>,
}

/// Holds the offset of one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct TxnOffsetCommitRequestPartition {
    pub partition_index: i32,
    pub committed_offset: i64,
    #[wire(versions = 2.., default = -1, ignorable)]
    pub committed_leader_epoch: i32,
    pub committed_metadata: Option<Str>,
}

/// Reports the result for each partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=6, flexible = 3)]
pub struct TxnOffsetCommitResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<TxnOffsetCommitResponseTopic>,
}

/// Names partitions of one topic: by name, from version 6 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct TxnOffsetCommitResponseTopic {
    #[wire(versions = ..=5)]
    pub name: Str,
    #[wire(versions = 6..)]
    pub topic_id: Uuid,
    pub partitions: Vec<TxnOffsetCommitResponsePartition>,
}

/// Reports the result for one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct TxnOffsetCommitResponsePartition {
    pub partition_index: i32,
    pub error_code: ErrorCode,
}
