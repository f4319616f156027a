//! JoinGroup: a member enters a group or takes part in a rebalance.

use bytes::Bytes;

use crate::{ErrorCode, Message, Str};

/// Who wants to join and what it can do.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = JoinGroup, response = JoinGroupResponse, versions = 0..=9, flexible = 6)]
pub struct JoinGroupRequest {
    pub group_id: Str,
    pub session_timeout_ms: i32,
    /// How long the others may wait for this one; in version 0 the session time-out.
    #[wire(versions = 1.., default = -1, ignorable)]
    pub rebalance_timeout_ms: i32,
    /// Empty at first.
    pub member_id: Str,
    /// Set for a static member (KIP-345).
    #[wire(versions = 5..)]
    pub group_instance_id: Option<Str>,
    /// `consumer`, or what another kind of client made up.
    pub protocol_type: Str,
    pub protocols: Vec<JoinGroupRequestProtocol>,
    #[wire(versions = 8.., ignorable)]
    pub reason: Option<Str>,
}

/// A protocol that the member speaks, the one it likes best first.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct JoinGroupRequestProtocol {
    pub name: Str,
    pub metadata: Bytes,
}

/// The generation that was formed. Only the leader is told who the members are.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=9, flexible = 6)]
pub struct JoinGroupResponse {
    #[wire(versions = 2..)]
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    #[wire(default = -1)]
    pub generation_id: i32,
    #[wire(versions = 7..)]
    pub protocol_type: Option<Str>,
    #[wire(nullable = 7..)]
    pub protocol_name: Option<Str>,
    pub leader: Str,
    /// The leader need not assign anew (KIP-814).
    #[wire(versions = 9..)]
    pub skip_assignment: bool,
    pub member_id: Str,
    pub members: Vec<JoinGroupResponseMember>,
}

/// A member and what it said of itself.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct JoinGroupResponseMember {
    pub member_id: Str,
    #[wire(versions = 5..)]
    pub group_instance_id: Option<Str>,
    pub metadata: Bytes,
}
