//! RemoveRaftVoter: removes a voter from the metadata quorum (KIP-853).

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Removes a voter.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = RemoveRaftVoter, response = RemoveRaftVoterResponse, versions = 0..=0, flexible = 0)]
pub struct RemoveRaftVoterRequest {
    /// The cluster that is meant; null for any.
    pub cluster_id: Option<Str>,
    pub voter_id: i32,
    pub voter_directory_id: Uuid,
}

/// Reports the result.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0, flexible = 0)]
pub struct RemoveRaftVoterResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
