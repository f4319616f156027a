//! The records of `__consumer_offsets`, byte for byte as Kafka writes them, so that Kafka and this broker can read each
//! other's files.
//!
//! | Record | Key | Value written | Values read |
//! |---|---|---|---|
//! | an offset | 1: group, topic, partition (0 is read too) | 4 with the topic id as a tag; 1 with an expiry | 0 to 4 |
//! | a group | 2: group | 3 | 0 to 4 |
//!
//! A null value is a tombstone. Other keys (3 to 16: groups of newer protocols) are skipped.

use std::sync::Arc;

use bytes::Bytes;
use millstream_wire::codec::{from_versioned_bytes, to_versioned_bytes};
use millstream_wire::records::{
    GroupMemberMetadata, GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};
use millstream_wire::{Str, WireError};

use crate::group::classic::model::{GroupSnapshot, MemberSnapshot, own};
use crate::group::offsets::CommittedOffset;

/// The subject of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// One committed offset.
    Offset { group: Arc<str>, topic: Arc<str>, partition: i32 },
    /// A group's metadata.
    Group { group: Arc<str> },
    /// A record that this broker does not write, by the version of its key.
    Other(i16),
}

impl Key {
    /// Reads a record's key.
    ///
    /// # Errors
    /// The bytes do not match their version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let version = bytes.first_chunk().map_or(0, |version| i16::from_be_bytes(*version));
        let bytes = Bytes::copy_from_slice(bytes);
        match version {
            0 | 1 => {
                let (_, key) = from_versioned_bytes::<OffsetCommitKey>(bytes)?;
                Ok(Self::Offset { group: own(&key.group), topic: own(&key.topic), partition: key.partition })
            }
            2 => Ok(Self::Group { group: own(&from_versioned_bytes::<GroupMetadataKey>(bytes)?.1.group) }),
            version => Ok(Self::Other(version)),
        }
    }
}

/// Writes the key of an offset record.
///
/// # Errors
/// A name is longer than the format allows.
pub(crate) fn encode_offset_key(group: &str, topic: &str, partition: i32) -> Result<Bytes, WireError> {
    to_versioned_bytes(&OffsetCommitKey { group: Str::from(group), topic: Str::from(topic), partition }, 1)
}

/// Writes the key of a group record.
///
/// # Errors
/// As [`encode_offset_key`].
pub(crate) fn encode_group_key(group: &str) -> Result<Bytes, WireError> {
    to_versioned_bytes(&GroupMetadataKey { group: Str::from(group) }, 2)
}

/// Writes the value of an offset record.
///
/// # Errors
/// As [`encode_offset_key`].
pub(crate) fn encode_offset(committed: &CommittedOffset) -> Result<Bytes, WireError> {
    let value = OffsetCommitValue {
        offset: committed.offset,
        leader_epoch: committed.leader_epoch,
        metadata: Str::from(&*committed.metadata),
        commit_timestamp: committed.commit_timestamp_ms,
        expire_timestamp: committed.expires_ms.unwrap_or(-1),
        topic_id: committed.topic_id,
    };
    // Only version 1 has an expiry time. Kafka chooses the version in the same way.
    to_versioned_bytes(&value, if committed.expires_ms.is_some() { 1 } else { 4 })
}

/// Reads the value of an offset record at `log_offset`.
///
/// # Errors
/// As [`Key::decode`].
pub(crate) fn decode_offset(bytes: &[u8], log_offset: i64) -> Result<CommittedOffset, WireError> {
    let (_, value) = from_versioned_bytes::<OffsetCommitValue>(Bytes::copy_from_slice(bytes))?;
    Ok(CommittedOffset {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: own(&value.metadata),
        commit_timestamp_ms: value.commit_timestamp,
        expires_ms: (value.expire_timestamp >= 0).then_some(value.expire_timestamp),
        topic_id: value.topic_id,
        log_offset,
    })
}

/// Writes the value of a group record.
///
/// # Errors
/// As [`encode_offset_key`].
pub(crate) fn encode_group(group: &GroupSnapshot) -> Result<Bytes, WireError> {
    let member = |member: &MemberSnapshot| GroupMemberMetadata {
        member_id: Str::from(&*member.member_id),
        group_instance_id: member.instance_id.as_deref().map(Str::from),
        client_id: Str::from(&*member.client_id),
        client_host: Str::from(&*member.client_host),
        rebalance_timeout: member.rebalance_timeout_ms,
        session_timeout: member.session_timeout_ms,
        subscription: member.subscription.clone(),
        assignment: member.assignment.clone(),
    };
    let value = GroupMetadataValue {
        protocol_type: Str::from(&*group.protocol_type),
        generation: group.generation,
        protocol: group.protocol.as_deref().map(Str::from),
        leader: group.leader.as_deref().map(Str::from),
        current_state_timestamp: group.state_since_ms,
        members: group.members.iter().map(member).collect(),
    };
    to_versioned_bytes(&value, 3)
}

/// Reads the value of a group record.
///
/// # Errors
/// As [`Key::decode`].
pub(crate) fn decode_group(bytes: &[u8]) -> Result<GroupSnapshot, WireError> {
    let (version, value) = from_versioned_bytes::<GroupMetadataValue>(Bytes::copy_from_slice(bytes))?;
    let member = |member: GroupMemberMetadata| MemberSnapshot {
        member_id: own(&member.member_id),
        instance_id: member.group_instance_id.as_ref().map(own),
        client_id: own(&member.client_id),
        client_host: own(&member.client_host),
        // Version 0 has one timeout for both.
        rebalance_timeout_ms: if version == 0 { member.session_timeout } else { member.rebalance_timeout },
        session_timeout_ms: member.session_timeout,
        subscription: Bytes::copy_from_slice(&member.subscription),
        assignment: Bytes::copy_from_slice(&member.assignment),
    };
    Ok(GroupSnapshot {
        protocol_type: own(&value.protocol_type),
        generation: value.generation,
        protocol: value.protocol.as_ref().map(own),
        leader: value.leader.as_ref().map(own),
        state_since_ms: value.current_state_timestamp,
        members: value.members.into_iter().map(member).collect(),
    })
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use uuid::Uuid;

    use super::*;

    fn committed() -> CommittedOffset {
        CommittedOffset {
            offset: 42,
            leader_epoch: 3,
            metadata: Arc::from("wie gewünscht"),
            commit_timestamp_ms: 1_700_000_000_000,
            expires_ms: None,
            topic_id: Uuid::from_u128(7),
            log_offset: 9,
        }
    }

    #[test]
    fn offsets_come_back_in_every_version_that_is_written() {
        for (expires_ms, topic_id, version) in [(None, 7, 4), (None, 0, 4), (Some(5), 0, 1)] {
            let topic_id = Uuid::from_u128(topic_id);
            let leader_epoch = if version == 1 { -1 } else { 3 };
            let given = CommittedOffset { expires_ms, topic_id, leader_epoch, ..committed() };
            let bytes = encode_offset(&given).unwrap();
            assert_eq!(bytes[..2], i16::to_be_bytes(version));
            assert_eq!(decode_offset(&bytes, 9).unwrap(), given);
        }
    }

    #[test]
    fn older_offset_values_are_read() {
        let mut v3 = vec![0, 3];
        v3.put_i64(5);
        v3.put_i32(2);
        v3.put_slice(&[0, 1, b'm']);
        v3.put_i64(77);
        let read = decode_offset(&v3, 0).unwrap();
        assert_eq!((read.offset, read.leader_epoch, &*read.metadata, read.commit_timestamp_ms), (5, 2, "m", 77));
        let mut v0 = vec![0, 0];
        v0.put_i64(5);
        v0.put_i16(0);
        v0.put_i64(77);
        assert_eq!(decode_offset(&v0, 0).unwrap().leader_epoch, -1);
        assert!(decode_offset(&[0, 5], 0).is_err());
    }

    #[test]
    fn keys_have_kafkas_bytes() {
        let key = encode_offset_key("g", "t", 3).unwrap();
        assert_eq!(key[..], [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3]);
        let offset = Key::Offset { group: Arc::from("g"), topic: Arc::from("t"), partition: 3 };
        assert_eq!(Key::decode(&key).unwrap(), offset);
        let key = encode_group_key("g").unwrap();
        assert_eq!(key[..], [0, 2, 0, 1, b'g']);
        assert_eq!(Key::decode(&key).unwrap(), Key::Group { group: Arc::from("g") });
        assert_eq!(Key::decode(&[0, 3, 0, 1, b'g']).unwrap(), Key::Other(3));
        for broken in [&[][..], &[0], &[0, 1], &[0, 1, 0, 9, b'g'], &[0, 2, 0xff, 0xff]] {
            assert!(Key::decode(broken).is_err(), "{broken:?}");
        }
    }

    fn group() -> GroupSnapshot {
        let member = |id: &str, instance: Option<&str>| MemberSnapshot {
            member_id: Arc::from(id),
            instance_id: instance.map(Arc::from),
            client_id: Arc::from("client"),
            client_host: Arc::from("/127.0.0.1"),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"own"),
        };
        GroupSnapshot {
            protocol_type: Arc::from("consumer"),
            generation: 4,
            protocol: Some(Arc::from("range")),
            leader: Some(Arc::from("a")),
            state_since_ms: 1_700_000_000_000,
            members: vec![member("a", Some("static")), member("b", None)],
        }
    }

    #[test]
    fn groups_come_back() {
        let empty = GroupSnapshot { members: Vec::new(), leader: None, protocol: None, ..group() };
        for given in [group(), empty] {
            assert_eq!(decode_group(&encode_group(&given).unwrap()).unwrap(), given);
        }
    }

    #[test]
    fn a_record_cut_anywhere_is_an_error_and_never_a_panic() {
        let (offset, group) = (encode_offset(&committed()).unwrap(), encode_group(&group()).unwrap());
        for cut in 0..offset.len() {
            assert!(decode_offset(&offset[..cut], 0).is_err(), "cut at {cut}");
        }
        for cut in 0..group.len() {
            assert!(decode_group(&group[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode_group(&[0, 3, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]).is_err());
    }
}
