//! The address of a node, as the APIs of the metadata quorum name it.

use crate::{Message, Str};

/// Holds the address of one listener of a node: `Listener` in Kafka's schemas.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct NodeListener {
    pub name: Str,
    pub host: Str,
    pub port: u16,
}
