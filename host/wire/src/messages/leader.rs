//! The leader of a partition, as several responses name it to spare the client a metadata request (KIP-951).

use crate::{Message, Str};

/// Names the leader that the broker knows; -1 for both when it knows none.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct LeaderIdAndEpoch {
    #[wire(default = -1)]
    pub leader_id: i32,
    #[wire(default = -1)]
    pub leader_epoch: i32,
}

/// Holds the address of a leader that the response names.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct NodeEndpoint {
    pub node_id: i32,
    pub host: Str,
    pub port: i32,
    pub rack: Option<Str>,
}
