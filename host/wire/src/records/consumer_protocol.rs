//! What consumers exchange through the group coordinator: the metadata of JoinGroup and the assignment of SyncGroup for
//! the protocol type `consumer`. The coordinator passes the bytes on unread.

use bytes::Bytes;

use crate::{Message, Str, WireError, codec};

/// Names the topics that a consumer wants and the partitions that it owns.
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

/// Names partitions of one topic: `TopicPartition` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ConsumerTopicPartitions {
    pub topic: Str,
    pub partitions: Vec<i32>,
}

/// Names the partitions that a consumer may read.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=3)]
pub struct ConsumerProtocolAssignment {
    pub assigned_partitions: Vec<ConsumerTopicPartitions>,
    pub user_data: Option<Bytes>,
}

impl ConsumerProtocolSubscription {
    /// Decodes a subscription with its version in front. A newer version is read as the newest known one, as
    /// consumers do.
    ///
    /// # Errors
    /// As [`Message::decode`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, WireError> {
        codec::from_versioned_bytes_or_newer(bytes)
    }
}

impl ConsumerProtocolAssignment {
    /// Decodes an assignment with its version in front. A newer version is read as the newest known one, as
    /// consumers do.
    ///
    /// # Errors
    /// As [`Message::decode`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, WireError> {
        codec::from_versioned_bytes_or_newer(bytes)
    }
}
