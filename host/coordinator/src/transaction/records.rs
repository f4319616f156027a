//! The records of `__transaction_state`, byte for byte as Kafka writes them.
//!
//! A key has version 0. A value is written in version 1, or in version 0 if the level of `transaction.version` is 0.
//! Both are read. A null value is a tombstone.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_wire::codec::{from_versioned_bytes, to_versioned_bytes};
use millstream_wire::records::{TransactionLogKey, TransactionLogPartitions, TransactionLogValue};
use millstream_wire::{Str, WireError};

use super::metadata::TransactionMetadata;
use super::model::{NO_PRODUCER_EPOCH, Producer, TransactionError, TransactionState, TransactionVersion};

/// The name of the topic.
pub const TRANSACTION_STATE: &str = "__transaction_state";

/// Returns the batch with the state of a transactional id, or with its tombstone.
///
/// # Errors
/// The record is larger than the format allows.
pub(crate) fn batch(
    id: &str,
    value: Option<&TransactionMetadata>,
    version: TransactionVersion,
    now_ms: i64,
) -> Result<Bytes, TransactionError> {
    let too_large = |_: WireError| TransactionError::RecordTooLarge;
    let key = to_versioned_bytes(&TransactionLogKey { transactional_id: Str::from(id) }, 0).map_err(too_large)?;
    let value = value.map(|value| encode(value, version)).transpose().map_err(too_large)?;
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    let appended = builder.append(now_ms, Some(&key), value.as_deref(), []);
    appended.map_err(|_| TransactionError::RecordTooLarge)?;
    builder.build().map(Bytes::from).map_err(|_| TransactionError::RecordTooLarge)
}

/// Reads a key. Returns `None` for a version that this broker does not write.
///
/// # Errors
/// The bytes do not match their version.
pub(crate) fn decode_key(bytes: &[u8]) -> Result<Option<Arc<str>>, WireError> {
    match bytes.first_chunk().map(|version| i16::from_be_bytes(*version)) {
        Some(version) if version != 0 => Ok(None),
        _ => {
            let (_, key) = from_versioned_bytes::<TransactionLogKey>(Bytes::copy_from_slice(bytes))?;
            Ok(Some(Arc::from(key.transactional_id.as_str())))
        }
    }
}

fn encode(metadata: &TransactionMetadata, version: TransactionVersion) -> Result<Bytes, WireError> {
    let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in &metadata.partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics
        .into_iter()
        .map(|(topic, partition_ids)| TransactionLogPartitions { topic: Str::from(&**topic), partition_ids });
    let value = TransactionLogValue {
        producer_id: metadata.producer.id,
        previous_producer_id: metadata.previous_producer_id,
        next_producer_id: metadata.next_producer_id,
        producer_epoch: metadata.producer.epoch,
        transaction_timeout_ms: metadata.timeout_ms,
        transaction_status: metadata.state.number(),
        transaction_partitions: (metadata.state != TransactionState::Empty).then(|| topics.collect()),
        transaction_last_update_timestamp_ms: metadata.updated_ms,
        transaction_start_timestamp_ms: metadata.started_ms,
        client_transaction_version: metadata.client_version.level().into(),
    };
    to_versioned_bytes(&value, if version == TransactionVersion::V0 { 0 } else { 1 })
}

/// Why a value cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("state {0} is not known")]
    State(i8),
}

/// Reads a value.
///
/// # Errors
/// The bytes do not match their version, or have a state that does not exist.
pub(crate) fn decode(bytes: &[u8]) -> Result<TransactionMetadata, ValueError> {
    let (_, value) = from_versioned_bytes::<TransactionLogValue>(Bytes::copy_from_slice(bytes))?;
    let unknown = ValueError::State(value.transaction_status);
    let topics = value.transaction_partitions.unwrap_or_default();
    let partitions = topics.iter().flat_map(|topic| {
        let name: Arc<str> = Arc::from(topic.topic.as_str());
        topic.partition_ids.iter().map(move |partition| (Arc::clone(&name), *partition))
    });
    Ok(TransactionMetadata {
        producer: Producer { id: value.producer_id, epoch: value.producer_epoch },
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        last_epoch: NO_PRODUCER_EPOCH,
        timeout_ms: value.transaction_timeout_ms,
        state: TransactionState::of_number(value.transaction_status).ok_or(unknown)?,
        partitions: partitions.collect(),
        started_ms: value.transaction_start_timestamp_ms,
        updated_ms: value.transaction_last_update_timestamp_ms,
        client_version: TransactionVersion::of_level(u16::try_from(value.client_transaction_version).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> TransactionMetadata {
        TransactionMetadata {
            producer: Producer { id: 7, epoch: 3 },
            state: TransactionState::Ongoing,
            partitions: [(Arc::from("a"), 0), (Arc::from("a"), 2), (Arc::from("b"), 1)].into(),
            started_ms: 10,
            client_version: TransactionVersion::V2,
            ..TransactionMetadata::new(7, 60_000, 20)
        }
    }

    #[test]
    fn states_come_back() {
        let rotating = TransactionMetadata {
            previous_producer_id: 6,
            next_producer_id: 8,
            state: TransactionState::PrepareCommit,
            ..metadata()
        };
        // Level 0 of the feature has no room for what level 2 adds.
        let older = decode(&encode(&rotating, TransactionVersion::V0).unwrap()).unwrap();
        assert_eq!((older.next_producer_id, older.client_version), (-1, TransactionVersion::V0));
        let empty = TransactionMetadata { producer: Producer { id: 1, epoch: 0 }, ..TransactionMetadata::new(1, 5, 6) };
        for given in [metadata(), rotating, empty] {
            assert_eq!(decode(&encode(&given, TransactionVersion::V2).unwrap()).unwrap(), given);
        }
    }

    /// The bytes are those of Kafka 4.2, see `TransactionLog.valueToBytes`.
    #[test]
    fn values_have_kafkas_bytes() {
        let given = TransactionMetadata { partitions: [(Arc::from("a"), 2)].into(), ..metadata() };
        let expected = [
            &[0, 1][..],
            &[0, 0, 0, 0, 0, 0, 0, 7, 0, 3, 0, 0, 0xea, 0x60, 1],
            // One topic with one partition.
            &[2, 2, b'a', 2, 0, 0, 0, 2, 0],
            &[0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 10],
            // The tag of the client's version.
            &[1, 2, 2, 0, 2],
        ];
        assert_eq!(encode(&given, TransactionVersion::V2).unwrap()[..], expected.concat());
        assert_eq!(decode_key(&[0, 0, 0, 1, b'i']).unwrap().as_deref(), Some("i"));
        assert_eq!(decode_key(&[0, 9, 1, 1]).unwrap(), None);
    }

    #[test]
    fn values_of_older_versions_are_read() {
        let v0 = [
            &[0, 0][..],
            &[0, 0, 0, 0, 0, 0, 0, 7, 0, 3, 0, 0, 0xea, 0x60, 1],
            &[0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 2],
            &[0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 10],
        ];
        let read = decode(&v0.concat()).unwrap();
        let partitions = [(Arc::from("a"), 2)].into();
        let expected = TransactionMetadata { partitions, client_version: TransactionVersion::V0, ..metadata() };
        assert_eq!(read, expected);
        assert_eq!(encode(&expected, TransactionVersion::V0).unwrap()[..], v0.concat());
    }

    #[test]
    fn a_value_cut_anywhere_is_an_error_and_never_a_panic() {
        let bytes = encode(&metadata(), TransactionVersion::V2).unwrap();
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut unknown = bytes.to_vec();
        unknown[16] = 9;
        assert_eq!(decode(&unknown).unwrap_err().to_string(), "state 9 is not known");
        for broken in [&[][..], &[0], &[0, 0], &[0, 0, 0, 9, b'g']] {
            assert!(decode_key(broken).is_err(), "{broken:?}");
        }
    }
}
