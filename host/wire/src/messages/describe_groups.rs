//! DescribeGroups: state and members of groups.

use bytes::Bytes;

use crate::{ErrorCode, Message, Str};

/// Asks for groups by name.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeGroups, response = DescribeGroupsResponse, versions = 0..=6, flexible = 5)]
pub struct DescribeGroupsRequest {
    pub groups: Vec<Str>,
    #[wire(versions = 3..)]
    pub include_authorized_operations: bool,
}

/// Describes each group.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=6, flexible = 5)]
pub struct DescribeGroupsResponse {
    #[wire(versions = 1..)]
    pub throttle_time_ms: i32,
    pub groups: Vec<DescribedGroup>,
}

/// Describes one group. A group that does not exist has the state `Dead`.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribedGroup {
    pub error_code: ErrorCode,
    #[wire(versions = 6..)]
    pub error_message: Option<Str>,
    pub group_id: Str,
    pub group_state: Str,
    pub protocol_type: Str,
    pub protocol_data: Str,
    pub members: Vec<DescribedGroupMember>,
    /// One bit per [`AclOperation`](crate::AclOperation); `i32::MIN` when it is not asked for.
    #[wire(versions = 3.., default = i32::MIN)]
    pub authorized_operations: i32,
}

/// Describes one member.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribedGroupMember {
    pub member_id: Str,
    #[wire(versions = 4..)]
    pub group_instance_id: Option<Str>,
    pub client_id: Str,
    pub client_host: Str,
    pub member_metadata: Bytes,
    pub member_assignment: Bytes,
}
