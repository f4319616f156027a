//! The records of `__consumer_offsets`.
//!
//! The version of a key is the type of the record: 0 and 1 are an [`OffsetCommitKey`] with the same fields
//! (Kafka writes 1), 2 is a [`GroupMetadataKey`]. A null value removes its key.

use bytes::Bytes;
use uuid::Uuid;

use crate::{Message, Str};

/// Names the partition of a committed offset.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1)]
pub struct OffsetCommitKey {
    pub group: Str,
    pub topic: Str,
    pub partition: i32,
}

/// Holds a committed offset.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=4, flexible = 4)]
pub struct OffsetCommitValue {
    pub offset: i64,
    #[wire(versions = 3.., default = -1)]
    pub leader_epoch: i32,
    pub metadata: Str,
    pub commit_timestamp: i64,
    /// -1 when the offset does not expire by itself.
    #[wire(versions = 1..=1, default = -1)]
    pub expire_timestamp: i64,
    #[wire(versions = 4.., tag = 0)]
    pub topic_id: Uuid,
}

/// Names a group.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 2..=2)]
pub struct GroupMetadataKey {
    pub group: Str,
}

/// Holds a group between two rebalances.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=4, flexible = 4)]
pub struct GroupMetadataValue {
    pub protocol_type: Str,
    pub generation: i32,
    pub protocol: Option<Str>,
    pub leader: Option<Str>,
    #[wire(versions = 2.., default = -1)]
    pub current_state_timestamp: i64,
    pub members: Vec<GroupMemberMetadata>,
}

/// Holds one member of a group: `MemberMetadata` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct GroupMemberMetadata {
    pub member_id: Str,
    #[wire(versions = 3..)]
    pub group_instance_id: Option<Str>,
    pub client_id: Str,
    pub client_host: Str,
    #[wire(versions = 1.., default = -1)]
    pub rebalance_timeout: i32,
    pub session_timeout: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}
