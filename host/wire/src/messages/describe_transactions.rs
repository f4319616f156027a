//! DescribeTransactions: describes the state of transactional ids (KIP-664).

use crate::{ErrorCode, Message, Str};

/// Asks for transactional ids.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeTransactions, response = DescribeTransactionsResponse, versions = 0..=0, flexible = 0)]
pub struct DescribeTransactionsRequest {
    pub transactional_ids: Vec<Str>,
}

/// Describes each transactional id.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0, flexible = 0)]
pub struct DescribeTransactionsResponse {
    pub throttle_time_ms: i32,
    pub transaction_states: Vec<DescribedTransaction>,
}

/// Describes one transactional id: `TransactionState` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribedTransaction {
    pub error_code: ErrorCode,
    pub transactional_id: Str,
    pub transaction_state: Str,
    pub transaction_timeout_ms: i32,
    pub transaction_start_time_ms: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub topics: Vec<DescribedTransactionTopic>,
}

/// Names partitions of one topic that have no marker yet: `TopicData` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribedTransactionTopic {
    pub topic: Str,
    pub partitions: Vec<i32>,
}
