//! DeleteGroups: removes empty groups with their offsets.

use crate::{ErrorCode, Message, Str};

/// Deletes groups by name.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DeleteGroups, response = DeleteGroupsResponse, versions = 0..=3, flexible = 2)]
pub struct DeleteGroupsRequest {
    pub groups_names: Vec<Str>,
}

/// Reports the result for each group.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=3, flexible = 2)]
pub struct DeleteGroupsResponse {
    pub throttle_time_ms: i32,
    pub results: Vec<DeletableGroupResult>,
}

/// Reports the result for one group.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DeletableGroupResult {
    pub group_id: Str,
    pub error_code: ErrorCode,
    #[wire(versions = 3..)]
    pub error_message: Option<Str>,
}
