//! UnregisterBroker: removes the registration of a broker that will not come back (KIP-631).

use crate::{ErrorCode, Message, Str};

/// Names the broker to remove.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = UnregisterBroker, response = UnregisterBrokerResponse, versions = 0..=0, flexible = 0)]
pub struct UnregisterBrokerRequest {
    pub broker_id: i32,
}

/// Reports the result.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0, flexible = 0)]
pub struct UnregisterBrokerResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
