//! BrokerHeartbeat: keeps a broker's registration alive, and asks for its fencing or shutdown (KIP-631).

use uuid::Uuid;

use crate::{ErrorCode, Message};

/// Reports how far a broker is, and what it wants.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = BrokerHeartbeat, response = BrokerHeartbeatResponse, versions = 0..=2, flexible = 0)]
pub struct BrokerHeartbeatRequest {
    pub broker_id: i32,
    #[wire(default = -1)]
    pub broker_epoch: i64,
    /// The offset up to which the broker has applied the metadata.
    pub current_metadata_offset: i64,
    pub want_fence: bool,
    pub want_shut_down: bool,
    /// The ids of the data folders that failed (KIP-858).
    #[wire(versions = 1.., tag = 0)]
    pub offline_log_dirs: Vec<Uuid>,
    /// The ids of the data folders that take no new partitions; null while the broker starts (KIP-1066).
    #[wire(versions = 2.., tag = 1)]
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

/// Reports the state that the controller gives the broker.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=2, flexible = 0)]
pub struct BrokerHeartbeatResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub is_caught_up: bool,
    #[wire(default = true)]
    pub is_fenced: bool,
    pub should_shut_down: bool,
}
