//! AddRaftVoter: makes a controller a voter of the metadata quorum (KIP-853).

use uuid::Uuid;

use super::listener::NodeListener;
use crate::{ErrorCode, Message, Str};

/// Adds a voter.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = AddRaftVoter, response = AddRaftVoterResponse, versions = 0..=1, flexible = 0)]
pub struct AddRaftVoterRequest {
    /// The cluster that is meant; null for any.
    pub cluster_id: Option<Str>,
    pub timeout_ms: i32,
    pub voter_id: i32,
    /// The id of the voter's metadata folder. A voter that lost its disk has a new one.
    pub voter_directory_id: Uuid,
    pub listeners: Vec<NodeListener>,
    /// Whether the response waits until the new set of voters is committed. Otherwise it follows the leader's append.
    #[wire(versions = 1.., default = true)]
    pub ack_when_committed: bool,
}

/// Reports the result.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1, flexible = 0)]
pub struct AddRaftVoterResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
}
