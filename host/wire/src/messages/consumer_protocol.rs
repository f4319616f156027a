//! What consumers tell each other through the group coordinator, which does not look into it: the metadata
//! of JoinGroup and the assignment of SyncGroup for the protocol type `consumer`.
//!
//! Both stand behind their version in 16 bits ([`to_versioned_bytes`](codec::to_versioned_bytes)).

use bytes::Bytes;

use crate::{Message, Str, WireError, codec};

/// What a consumer tells the one that assigns partitions.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=3)]
pub struct ConsumerProtocolSubscription {
    pub topics: Vec<Str>,
    pub user_data: Option<Bytes>,
    #[wire(versions = 1..)]
    pub owned_partitions: Vec<ConsumerTopicPartitions>,
    #[wire(versions = 2.., default = -1)]
    pub generation_id: i32,
    #[wire(versions = 3..)]
    pub rack_id: Option<Str>,
}

/// Partitions of one topic: `TopicPartition` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ConsumerTopicPartitions {
    pub topic: Str,
    pub partitions: Vec<i32>,
}

/// What a consumer is given.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=3)]
pub struct ConsumerProtocolAssignment {
    pub assigned_partitions: Vec<ConsumerTopicPartitions>,
    pub user_data: Option<Bytes>,
}

impl ConsumerProtocolSubscription {
    /// Reads one with its version in front. A newer one is read as the newest that is known, as consumers do.
    ///
    /// # Errors
    /// As [`Message::decode`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, WireError> {
        codec::from_versioned_bytes_or_newer(bytes)
    }
}

impl ConsumerProtocolAssignment {
    /// Reads one with its version in front. A newer one is read as the newest that is known, as consumers do.
    ///
    /// # Errors
    /// As [`Message::decode`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, WireError> {
        codec::from_versioned_bytes_or_newer(bytes)
    }
}
