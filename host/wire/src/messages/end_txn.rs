//! EndTxn: commits or aborts a transaction (KIP-98). From version 5 on the producer gets a new epoch (KIP-890).

use crate::{ErrorCode, Message, Str};

/// Commits or aborts.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = EndTxn, response = EndTxnResponse, versions = 0..=5, flexible = 3)]
pub struct EndTxnRequest {
    pub transactional_id: Str,
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// Whether the transaction is committed; otherwise it is aborted.
    pub committed: bool,
}

/// Holds the producer id and the epoch for the next transaction.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=5, flexible = 3)]
pub struct EndTxnResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    #[wire(versions = 5.., default = -1, ignorable)]
    pub producer_id: i64,
    #[wire(versions = 5.., default = -1, ignorable)]
    pub producer_epoch: i16,
}
