//! FindCoordinator: the broker that coordinates a group or a transactional id; from version 4 of several at once.

use crate::{ErrorCode, Message, Str};

/// Asks for the coordinators of keys.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = FindCoordinator, response = FindCoordinatorResponse, versions = 0..=6, flexible = 3)]
pub struct FindCoordinatorRequest {
    #[wire(versions = ..=3)]
    pub key: Str,
    /// 0 a group, 1 a transactional id, 2 a share group.
    #[wire(versions = 1..)]
    pub key_type: i8,
    #[wire(versions = 4..)]
    pub coordinator_keys: Vec<Str>,
}

/// Names the coordinators.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=6, flexible = 3)]
pub struct FindCoordinatorResponse {
    #[wire(versions = 1..)]
    pub throttle_time_ms: i32,
    #[wire(versions = ..=3)]
    pub error_code: ErrorCode,
    #[wire(versions = 1..=3)]
    pub error_message: Option<Str>,
    #[wire(versions = ..=3)]
    pub node_id: i32,
    #[wire(versions = ..=3)]
    pub host: Str,
    #[wire(versions = ..=3)]
    pub port: i32,
    #[wire(versions = 4..)]
    pub coordinators: Vec<Coordinator>,
}

/// Names the coordinator of one key.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct Coordinator {
    pub key: Str,
    pub node_id: i32,
    pub host: Str,
    pub port: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
