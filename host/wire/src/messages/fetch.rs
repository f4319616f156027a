//! Fetch: reads record batches, for consumers and followers.

use uuid::Uuid;

use super::leader::{LeaderIdAndEpoch, NodeEndpoint};
use crate::{ErrorCode, Message, Records, Str};

/// Names the offsets to read from, the most bytes, and the longest wait.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = Fetch, response = FetchResponse, versions = 4..=18, flexible = 12)]
pub struct FetchRequest {
    #[wire(versions = 12.., tag = 0, ignorable)]
    pub cluster_id: Option<Str>,
    /// The follower; -1 for a consumer. From version 15 in `replica_state`.
    #[wire(versions = ..=14, default = -1)]
    pub replica_id: i32,
    #[wire(versions = 15.., tag = 1)]
    pub replica_state: ReplicaState,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    #[wire(default = i32::MAX)]
    pub max_bytes: i32,
    /// 0 reads all records, 1 only committed ones.
    pub isolation_level: i8,
    /// 0 for no session (KIP-227).
    #[wire(versions = 7.., ignorable)]
    pub session_id: i32,
    /// 0 starts a session, -1 ends it or works without one; each request within a session adds 1.
    #[wire(versions = 7.., default = -1, ignorable)]
    pub session_epoch: i32,
    /// The partitions to read. Within a session, only those that are new or changed.
    pub topics: Vec<FetchTopic>,
    #[wire(versions = 7..)]
    pub forgotten_topics_data: Vec<ForgottenTopic>,
    /// The client's rack, to choose a near replica (KIP-392).
    #[wire(versions = 11.., ignorable)]
    pub rack_id: Str,
}

impl FetchRequest {
    /// Returns the follower that sends the request, by the field of either version. Its id is -1 for a consumer, and
    /// -2 for a tool that reads from any replica.
    #[must_use]
    pub fn replica(&self) -> ReplicaState {
        match self.replica_id {
            -1 => self.replica_state.clone(),
            replica_id => ReplicaState { replica_id, ..ReplicaState::default() },
        }
    }
}

/// Identifies a follower.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ReplicaState {
    #[wire(default = -1)]
    pub replica_id: i32,
    /// The broker epoch of the follower, so that the leader rejects one that has restarted since (KIP-903).
    #[wire(default = -1)]
    pub replica_epoch: i64,
}

/// Names partitions of one topic: by name, from version 13 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct FetchTopic {
    #[wire(versions = ..=12, ignorable)]
    pub topic: Str,
    #[wire(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    pub partitions: Vec<FetchPartition>,
}

/// Names the offset to read from in one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct FetchPartition {
    pub partition: i32,
    /// The leader epoch that the client knows; -1 for none.
    #[wire(versions = 9.., default = -1, ignorable)]
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    /// The epoch of the follower's last record.
    #[wire(versions = 12.., default = -1)]
    pub last_fetched_epoch: i32,
    /// The log start offset of the follower.
    #[wire(versions = 5.., default = -1, ignorable)]
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
    /// The id of the folder in which the follower keeps the log. Kafka's brokers send it for the metadata log only
    /// (KIP-853).
    #[wire(versions = 17.., tag = 0, ignorable)]
    pub replica_directory_id: Uuid,
    /// The high watermark that the follower knows. The leader responds at once when it has a higher one (KIP-1166).
    #[wire(versions = 18.., tag = 1, default = i64::MAX, ignorable)]
    pub high_watermark: i64,
    /// The offset below which the follower has the records on stable storage, if it fetches ahead of that; -1 if that
    /// is `fetch_offset`. Kafka has no such field.
    #[wire(versions = 18.., tag = 10_000, default = -1, ignorable)]
    pub synced_offset: i64,
}

/// Removes partitions from the fetch session.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ForgottenTopic {
    #[wire(versions = ..=12, ignorable)]
    pub topic: Str,
    #[wire(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    pub partitions: Vec<i32>,
}

/// Holds the records that were read.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 4..=18, flexible = 12)]
pub struct FetchResponse {
    pub throttle_time_ms: i32,
    #[wire(versions = 7..)]
    pub error_code: ErrorCode,
    /// 0 without a session.
    #[wire(versions = 7..)]
    pub session_id: i32,
    pub responses: Vec<FetchableTopicResponse>,
    #[wire(versions = 16.., tag = 0)]
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// Names partitions of one topic: by name, from version 13 by id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct FetchableTopicResponse {
    #[wire(versions = ..=12)]
    pub topic: Str,
    #[wire(versions = 13..)]
    pub topic_id: Uuid,
    pub partitions: Vec<PartitionData>,
}

/// Holds the records of one partition.
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
    /// For a follower: the end of the leader's log, if the leader knows `synced_offset`; else -1. Kafka has no such
    /// field.
    #[wire(versions = 18.., tag = 10_000, default = -1, ignorable)]
    pub log_end_offset: i64,
    /// Null unless the reader asked for committed records only.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The replica to read from instead; -1 for this one.
    #[wire(versions = 11.., default = -1)]
    pub preferred_read_replica: i32,
    pub records: Records,
}

/// Names where the follower's log and the leader's diverge: `EpochEndOffset` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DivergingEpoch {
    #[wire(default = -1)]
    pub epoch: i32,
    #[wire(default = -1)]
    pub end_offset: i64,
}

/// Names a snapshot to fetch instead.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct SnapshotId {
    #[wire(default = -1)]
    pub end_offset: i64,
    #[wire(default = -1)]
    pub epoch: i32,
}

/// Names an aborted transaction; the reader skips its records.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}
