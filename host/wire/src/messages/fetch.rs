//! Fetch: reads record batches, for consumers and followers.

use uuid::Uuid;

use super::leader::{LeaderIdAndEpoch, NodeEndpoint};
use crate::{ErrorCode, Message, Records, Str};

/// Where to read from, how much, and how long to wait for it.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = Fetch, response = FetchResponse, versions = 4..=18, flexible = 12)]
pub struct FetchRequest {
    #[wire(versions = 12.., tag = 0)]
    pub cluster_id: Option<Str>,
    /// -1 for a consumer; from version 15 in `replica_state`.
    #[wire(versions = ..=14, default = -1)]
    pub replica_id: i32,
    #[wire(versions = 15.., tag = 1)]
    pub replica_state: ReplicaState,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    #[wire(default = i32::MAX)]
    pub max_bytes: i32,
    /// 0 reads all, 1 only what is committed.
    pub isolation_level: i8,
    /// 0 for no session (KIP-227).
    #[wire(versions = 7.., ignorable)]
    pub session_id: i32,
    #[wire(versions = 7.., default = -1, ignorable)]
    pub session_epoch: i32,
    pub topics: Vec<FetchTopic>,
    #[wire(versions = 7..)]
    pub forgotten_topics_data: Vec<ForgottenTopic>,
    /// To be sent to a replica nearby (KIP-392).
    #[wire(versions = 11.., ignorable)]
    pub rack_id: Str,
}

/// Which follower asks.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ReplicaState {
    #[wire(default = -1)]
    pub replica_id: i32,
    #[wire(default = -1)]
    pub replica_epoch: i64,
}

/// A topic by name, from version 13 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct FetchTopic {
    #[wire(versions = ..=12, ignorable)]
    pub topic: Str,
    #[wire(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    pub partitions: Vec<FetchPartition>,
}

/// Where to read in one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct FetchPartition {
    pub partition: i32,
    /// The epoch that the client knows; -1 if none.
    #[wire(versions = 9.., default = -1, ignorable)]
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    /// Of a follower: the epoch of its last record.
    #[wire(versions = 12.., default = -1)]
    pub last_fetched_epoch: i32,
    /// Of a follower: where its log starts.
    #[wire(versions = 5.., default = -1, ignorable)]
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
    /// Of a follower of the metadata log.
    #[wire(versions = 17.., tag = 0)]
    pub replica_directory_id: Uuid,
    /// Of a follower: the high watermark that it knows.
    #[wire(versions = 18.., tag = 1, default = i64::MAX)]
    pub high_watermark: i64,
}

/// Partitions to take out of the fetch session.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ForgottenTopic {
    #[wire(versions = ..=12, ignorable)]
    pub topic: Str,
    #[wire(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    pub partitions: Vec<i32>,
}

/// What was read.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 4..=18, flexible = 12)]
pub struct FetchResponse {
    pub throttle_time_ms: i32,
    #[wire(versions = 7..)]
    pub error_code: ErrorCode,
    /// 0 when there is no session.
    #[wire(versions = 7..)]
    pub session_id: i32,
    pub responses: Vec<FetchableTopicResponse>,
    #[wire(versions = 16.., tag = 0)]
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A topic by name, from version 13 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct FetchableTopicResponse {
    #[wire(versions = ..=12)]
    pub topic: Str,
    #[wire(versions = 13..)]
    pub topic_id: Uuid,
    pub partitions: Vec<PartitionData>,
}

/// What was read from one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct PartitionData {
    pub partition_index: i32,
    pub error_code: ErrorCode,
    pub high_watermark: i64,
    #[wire(default = -1)]
    pub last_stable_offset: i64,
    #[wire(versions = 5.., default = -1)]
    pub log_start_offset: i64,
    #[wire(versions = 12.., tag = 0)]
    pub diverging_epoch: DivergingEpoch,
    #[wire(versions = 12.., tag = 1)]
    pub current_leader: LeaderIdAndEpoch,
    #[wire(versions = 12.., tag = 2)]
    pub snapshot_id: SnapshotId,
    /// Null when the reader did not ask for committed records only.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Where to read instead; -1 for here.
    #[wire(versions = 11.., default = -1)]
    pub preferred_read_replica: i32,
    pub records: Records,
}

/// Where the follower's log and the leader's part: `EpochEndOffset` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DivergingEpoch {
    #[wire(default = -1)]
    pub epoch: i32,
    #[wire(default = -1)]
    pub end_offset: i64,
}

/// A snapshot to fetch instead.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct SnapshotId {
    #[wire(default = -1)]
    pub end_offset: i64,
    #[wire(default = -1)]
    pub epoch: i32,
}

/// A transaction in what was read whose records are to be skipped.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}
