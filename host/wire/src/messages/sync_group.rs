//! SyncGroup: the leader of a group hands in the assignment, every member fetches its own.

use bytes::Bytes;

use crate::{ErrorCode, Message, Str};

/// The assignment from the leader, nothing from the others.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = SyncGroup, response = SyncGroupResponse, versions = 0..=5, flexible = 4)]
pub struct SyncGroupRequest {
    pub group_id: Str,
    pub generation_id: i32,
    pub member_id: Str,
    #[wire(versions = 3..)]
    pub group_instance_id: Option<Str>,
    #[wire(versions = 5.., ignorable)]
    pub protocol_type: Option<Str>,
    #[wire(versions = 5.., ignorable)]
    pub protocol_name: Option<Str>,
    pub assignments: Vec<SyncGroupRequestAssignment>,
}

/// What one member is to do.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct SyncGroupRequestAssignment {
    pub member_id: Str,
    pub assignment: Bytes,
}

/// What this member is to do.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=5, flexible = 4)]
pub struct SyncGroupResponse {
    #[wire(versions = 1..)]
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    #[wire(versions = 5..)]
    pub protocol_type: Option<Str>,
    #[wire(versions = 5..)]
    pub protocol_name: Option<Str>,
    pub assignment: Bytes,
}
