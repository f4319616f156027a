//! Heartbeat: keeps a member in its group, and informs it of a rebalance.

use crate::{ErrorCode, Message, Str};

/// Renews the session of a member.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = Heartbeat, response = HeartbeatResponse, versions = 0..=4, flexible = 4)]
pub struct HeartbeatRequest {
    pub group_id: Str,
    pub generation_id: i32,
    pub member_id: Str,
    #[wire(versions = 3..)]
    pub group_instance_id: Option<Str>,
}

/// Reports the result. `REBALANCE_IN_PROGRESS` asks the member to join again.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=4, flexible = 4)]
pub struct HeartbeatResponse {
    #[wire(versions = 1..)]
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
}
