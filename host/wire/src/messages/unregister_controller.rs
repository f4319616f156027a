//! UnregisterController: removes the registration of a controller that will not come back (KIP-1312).

use crate::{ErrorCode, Message, Str};

/// Names the controller to remove.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = UnregisterController, response = UnregisterControllerResponse, versions = 0..=0, flexible = 0)]
pub struct UnregisterControllerRequest {
    pub controller_id: i32,
}

/// Reports the result.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0, flexible = 0)]
pub struct UnregisterControllerResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
