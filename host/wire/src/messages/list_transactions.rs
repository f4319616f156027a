//! ListTransactions: lists the transactional ids of a broker (KIP-664, KIP-994, KIP-1152).

use crate::{ErrorCode, Message, Str};

/// Asks for transactional ids.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = ListTransactions, response = ListTransactionsResponse, versions = 0..=2, flexible = 0)]
pub struct ListTransactionsRequest {
    /// Empty for all states.
    pub state_filters: Vec<Str>,
    /// Empty for all producers.
    pub producer_id_filters: Vec<i64>,
    /// Only transactions that are older, in milliseconds; negative for all.
    #[wire(versions = 1.., default = -1)]
    pub duration_filter: i64,
    /// A regular expression; null or empty for all.
    #[wire(versions = 2..)]
    pub transactional_id_pattern: Option<Str>,
}

/// Lists the transactional ids.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=2, flexible = 0)]
pub struct ListTransactionsResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub unknown_state_filters: Vec<Str>,
    pub transaction_states: Vec<ListedTransaction>,
}

/// Lists one transactional id: `TransactionState` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListedTransaction {
    pub transactional_id: Str,
    pub producer_id: i64,
    pub transaction_state: Str,
}
