//! LeaveGroup: removes a member at once instead of by a timeout; from version 3 several members (KIP-345).

use crate::{ErrorCode, Message, Str};

/// Removes members from a group.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = LeaveGroup, response = LeaveGroupResponse, versions = 0..=5, flexible = 4)]
pub struct LeaveGroupRequest {
    pub group_id: Str,
    #[wire(versions = ..=2)]
    pub member_id: Str,
    #[wire(versions = 3..)]
    pub members: Vec<MemberIdentity>,
}

/// Names a member by its id, or a static one by its instance id.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct MemberIdentity {
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
    #[wire(versions = 5.., ignorable)]
    pub reason: Option<Str>,
}

/// Reports the result for each member.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=5, flexible = 4)]
pub struct LeaveGroupResponse {
    #[wire(versions = 1..)]
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    #[wire(versions = 3..)]
    pub members: Vec<MemberResponse>,
}

/// Reports the result for one member.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct MemberResponse {
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
    pub error_code: ErrorCode,
}
