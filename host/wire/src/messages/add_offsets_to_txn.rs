//! AddOffsetsToTxn: adds the offsets of a group to a transaction (KIP-98).

use crate::{ErrorCode, Message, Str};

/// Adds the group's partition of `__consumer_offsets`.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = AddOffsetsToTxn, response = AddOffsetsToTxnResponse, versions = 0..=4, flexible = 3)]
pub struct AddOffsetsToTxnRequest {
    pub transactional_id: Str,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub group_id: Str,
}

/// Reports the result.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=4, flexible = 3)]
pub struct AddOffsetsToTxnResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
}
