//! Heartbeat: keeps a member in its group and tells it of a rebalance.

use crate::{ErrorCode, Message, Str};

/// A sign of life.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = Heartbeat, response = HeartbeatResponse, versions = 0..=4, flexible = 4)]
pub struct HeartbeatRequest {
    pub group_id: Str,
    pub generation_id: i32,
    pub member_id: Str,
    #[wire(versions = 3..)]
    pub group_instance_id: Option<Str>,
}

/// `REBALANCE_IN_PROGRESS` tells the member to join again.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=4, flexible = 4)]
pub struct HeartbeatResponse {
    #[wire(versions = 1..)]
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
}
