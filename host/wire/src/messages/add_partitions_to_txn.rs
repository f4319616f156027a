//! AddPartitionsToTxn: adds partitions to a transaction (KIP-98). Producers send it up to version 3, brokers from
//! version 4 on, for several transactions at once (KIP-890).

use crate::{ErrorCode, Message, Str};

/// Adds partitions to transactions, or checks that they are in them.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = AddPartitionsToTxn, response = AddPartitionsToTxnResponse, versions = 0..=5, flexible = 3)]
pub struct AddPartitionsToTxnRequest {
    #[wire(versions = 4..)]
    pub transactions: Vec<AddPartitionsToTxnTransaction>,
    #[wire(versions = ..=3)]
    pub v3_and_below_transactional_id: Str,
    #[wire(versions = ..=3)]
    pub v3_and_below_producer_id: i64,
    #[wire(versions = ..=3)]
    pub v3_and_below_producer_epoch: i16,
    #[wire(versions = ..=3)]
    pub v3_and_below_topics: Vec<AddPartitionsToTxnTopic>,
    /// Partitions that have to be in the transaction already. Brokers name them when they add one of dead letters.
    /// Kafka has no such field.
    #[wire(versions = 3..=3, tag = 10_000)]
    pub v3_required_topics: Vec<AddPartitionsToTxnTopic>,
}

/// Names a transaction, and partitions for it.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AddPartitionsToTxnTransaction {
    pub transactional_id: Str,
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// Whether the partitions are only checked.
    pub verify_only: bool,
    pub topics: Vec<AddPartitionsToTxnTopic>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AddPartitionsToTxnTopic {
    pub name: Str,
    pub partitions: Vec<i32>,
}

/// Reports the result for each partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=5, flexible = 3)]
pub struct AddPartitionsToTxnResponse {
    pub throttle_time_ms: i32,
    #[wire(versions = 4..)]
    pub error_code: ErrorCode,
    #[wire(versions = 4..)]
    pub results_by_transaction: Vec<AddPartitionsToTxnResult>,
    #[wire(versions = ..=3)]
    pub results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult>,
}

/// Reports the results of one transaction.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AddPartitionsToTxnResult {
    pub transactional_id: Str,
    pub topic_results: Vec<AddPartitionsToTxnTopicResult>,
}

/// Reports the results of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AddPartitionsToTxnTopicResult {
    pub name: Str,
    pub results_by_partition: Vec<AddPartitionsToTxnPartitionResult>,
}

/// Reports the result for one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AddPartitionsToTxnPartitionResult {
    pub partition_index: i32,
    pub partition_error_code: ErrorCode,
}
