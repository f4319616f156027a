//! JoinGroup: a member enters a group or takes part in a rebalance.

use bytes::Bytes;

use crate::{ErrorCode, Message, Str};

/// Describes the member that joins.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = JoinGroup, response = JoinGroupResponse, versions = 0..=9, flexible = 6)]
pub struct JoinGroupRequest {
    pub group_id: Str,
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for this member; in version 0 the session timeout.
    #[wire(versions = 1.., default = -1, ignorable)]
    pub rebalance_timeout_ms: i32,
    /// Empty before the coordinator has assigned one.
    pub member_id: Str,
    /// Set for a static member (KIP-345).
    #[wire(versions = 5..)]
    pub group_instance_id: Option<Str>,
    /// `consumer`, or the type of another kind of client.
    pub protocol_type: Str,
    pub protocols: Vec<JoinGroupRequestProtocol>,
    #[wire(versions = 8.., ignorable)]
    pub reason: Option<Str>,
}

/// Describes one protocol that the member supports. The list is in order of preference.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct JoinGroupRequestProtocol {
    pub name: Str,
    pub metadata: Bytes,
}

/// Describes the new generation. Only the leader gets the list of members.
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
    /// Whether the leader keeps the current assignment (KIP-814).
    #[wire(versions = 9..)]
    pub skip_assignment: bool,
    pub member_id: Str,
    pub members: Vec<JoinGroupResponseMember>,
}

/// Describes one member to the leader.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct JoinGroupResponseMember {
    pub member_id: Str,
    #[wire(versions = 5..)]
    pub group_instance_id: Option<Str>,
    pub metadata: Bytes,
}
