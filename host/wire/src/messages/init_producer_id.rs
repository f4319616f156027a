//! InitProducerId: assigns an id and an epoch to an idempotent or transactional producer (KIP-98, KIP-360).

use crate::{ErrorCode, Message, Str};

/// Asks for a producer id, or for a new epoch of one.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = InitProducerId, response = InitProducerIdResponse, versions = 0..=5, flexible = 2)]
pub struct InitProducerIdRequest {
    /// Null for a producer that is only idempotent.
    pub transactional_id: Option<Str>,
    pub transaction_timeout_ms: i32,
    #[wire(versions = 3.., default = -1)]
    pub producer_id: i64,
    #[wire(versions = 3.., default = -1)]
    pub producer_epoch: i16,
}

/// Holds the producer id and its epoch.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=5, flexible = 2)]
pub struct InitProducerIdResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    #[wire(default = -1)]
    pub producer_id: i64,
    pub producer_epoch: i16,
}
