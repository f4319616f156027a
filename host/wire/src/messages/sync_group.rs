//! SyncGroup: takes the assignments from the leader of a group, and returns each member its own.

use bytes::Bytes;

use crate::{ErrorCode, Message, Str};

/// Carries the assignments if the member is the leader.
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

/// Holds the assignment of one member.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct SyncGroupRequestAssignment {
    pub member_id: Str,
    pub assignment: Bytes,
}

/// Holds the assignment of this member.
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
