//! AllocateProducerIds: reserves a block of producer ids for a broker (KIP-730).

use crate::{ErrorCode, Message};

/// Asks the controller for a block of producer ids.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = AllocateProducerIds, response = AllocateProducerIdsResponse, versions = 0..=0, flexible = 0)]
pub struct AllocateProducerIdsRequest {
    pub broker_id: i32,
    #[wire(default = -1)]
    pub broker_epoch: i64,
}

/// Holds the block.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0, flexible = 0)]
pub struct AllocateProducerIdsResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    /// The first id of the block.
    pub producer_id_start: i64,
    /// The number of ids in the block.
    pub producer_id_len: i32,
}
