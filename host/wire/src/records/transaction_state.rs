//! The records of `__transaction_state`: a [`TransactionLogKey`] and a [`TransactionLogValue`]. A null value removes
//! its key.

use crate::{Message, Str};

/// Names a transactional id.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0)]
pub struct TransactionLogKey {
    pub transactional_id: Str,
}

/// Holds the state of a transactional id.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1, flexible = 1)]
pub struct TransactionLogValue {
    pub producer_id: i64,
    #[wire(versions = 1.., tag = 0, default = -1, ignorable)]
    pub previous_producer_id: i64,
    #[wire(versions = 1.., tag = 1, default = -1, ignorable)]
    pub next_producer_id: i64,
    pub producer_epoch: i16,
    pub transaction_timeout_ms: i32,
    pub transaction_status: i8,
    pub transaction_partitions: Option<Vec<TransactionLogPartitions>>,
    pub transaction_last_update_timestamp_ms: i64,
    pub transaction_start_timestamp_ms: i64,
    #[wire(versions = 1.., tag = 2, ignorable)]
    pub client_transaction_version: i16,
}

/// Names partitions of one topic: `PartitionsSchema` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct TransactionLogPartitions {
    pub topic: Str,
    pub partition_ids: Vec<i32>,
}
