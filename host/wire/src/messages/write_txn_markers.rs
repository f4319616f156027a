//! WriteTxnMarkers: a transaction coordinator ends a transaction in the partitions that it wrote to (KIP-98, KIP-890).

use crate::{ErrorCode, Message, Str};

/// Ends transactions.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = WriteTxnMarkers, response = WriteTxnMarkersResponse, versions = 1..=2, flexible = 1)]
pub struct WriteTxnMarkersRequest {
    pub markers: Vec<WritableTxnMarker>,
}

/// Ends the transaction of one producer.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct WritableTxnMarker {
    pub producer_id: i64,
    /// The epoch of the marker: that of the records, or one above it (`transaction.version` 2).
    pub producer_epoch: i16,
    /// Whether the transaction is committed, and not aborted.
    pub transaction_result: bool,
    pub topics: Vec<WritableTxnMarkerTopic>,
    /// The leader epoch of the coordinator's partition of `__transaction_state`.
    pub coordinator_epoch: i32,
    /// The `transaction.version` that decides which epochs the marker may follow; 0 and 1 are the older protocol.
    #[wire(versions = 2.., ignorable)]
    pub transaction_version: i8,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct WritableTxnMarkerTopic {
    pub name: Str,
    pub partition_indexes: Vec<i32>,
}

/// Reports the result for each partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=2, flexible = 1)]
pub struct WriteTxnMarkersResponse {
    pub markers: Vec<WritableTxnMarkerResult>,
}

/// Reports the results for one producer.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct WritableTxnMarkerResult {
    pub producer_id: i64,
    pub topics: Vec<WritableTxnMarkerTopicResult>,
}

/// Reports the results for one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct WritableTxnMarkerTopicResult {
    pub name: Str,
    pub partitions: Vec<WritableTxnMarkerPartitionResult>,
}

/// Reports the result for one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct WritableTxnMarkerPartitionResult {
    pub partition_index: i32,
    pub error_code: ErrorCode,
}
