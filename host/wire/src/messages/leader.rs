//! Where a leader is, as several answers tell it so that a client need not ask for metadata (KIP-951).

use crate::{Message, Str};

/// The leader that the broker knows of; -1 for both when it has nothing to say.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct LeaderIdAndEpoch {
    #[wire(default = -1)]
    pub leader_id: i32,
    #[wire(default = -1)]
    pub leader_epoch: i32,
}

/// Where to reach a leader that an answer names.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct NodeEndpoint {
    pub node_id: i32,
    pub host: Str,
    pub port: i32,
    pub rack: Option<Str>,
}
