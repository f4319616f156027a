//! ListGroups: the groups that a broker coordinates.

use crate::{ErrorCode, Message, Str};

/// Asks for the groups with some states and types.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = ListGroups, response = ListGroupsResponse, versions = 0..=5, flexible = 3)]
pub struct ListGroupsRequest {
    /// Empty for all.
    #[wire(versions = 4..)]
    pub states_filter: Vec<Str>,
    /// Empty for all.
    #[wire(versions = 5..)]
    pub types_filter: Vec<Str>,
}

/// Lists the groups.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=5, flexible = 3)]
pub struct ListGroupsResponse {
    #[wire(versions = 1..)]
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub groups: Vec<ListedGroup>,
}

/// Describes one group.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListedGroup {
    pub group_id: Str,
    pub protocol_type: Str,
    #[wire(versions = 4..)]
    pub group_state: Str,
    #[wire(versions = 5..)]
    pub group_type: Str,
}
