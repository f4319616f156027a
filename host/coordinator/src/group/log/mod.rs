//! The log of the groups: the partitions of `__consumer_offsets` and the records in them.

mod records;

use bytes::Bytes;
use millstream_record::layout::NO_SEQUENCE;
use millstream_record::{BatchBuilder, Codec, TimestampType};

use super::classic::model::GroupSnapshot;
use super::model::GroupError;
use super::offsets::CommittedOffset;
use crate::transaction::Producer;

pub(crate) use records::{Key, decode_group, decode_offset};

/// The name of the topic.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// The records of one append.
pub(crate) struct Batch {
    builder: BatchBuilder,
    timestamp_ms: i64,
}

impl Batch {
    /// Makes an empty batch whose records get this timestamp.
    pub(crate) fn at(timestamp_ms: i64) -> Self {
        Self { builder: BatchBuilder::new(Codec::None, TimestampType::CreateTime), timestamp_ms }
    }

    /// Makes an empty batch of a transaction.
    pub(crate) fn in_transaction(timestamp_ms: i64, producer: Producer) -> Self {
        let mut batch = Self::at(timestamp_ms);
        batch.builder.producer(producer.id, producer.epoch, NO_SEQUENCE).transactional(true);
        batch
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), GroupError> {
        let pushed = self.builder.append(self.timestamp_ms, Some(key), value, []);
        pushed.map_err(|_| GroupError::RecordTooLarge)
    }

    /// Adds a committed offset.
    pub(crate) fn offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        committed: &CommittedOffset,
    ) -> Result<(), GroupError> {
        let key = records::encode_offset_key(group, topic, partition).map_err(|_| GroupError::RecordTooLarge)?;
        let value = records::encode_offset(committed).map_err(|_| GroupError::RecordTooLarge)?;
        self.push(&key, Some(&value))
    }

    /// Adds the tombstone of a committed offset.
    pub(crate) fn offset_tombstone(&mut self, group: &str, topic: &str, partition: i32) -> Result<(), GroupError> {
        let key = records::encode_offset_key(group, topic, partition).map_err(|_| GroupError::RecordTooLarge)?;
        self.push(&key, None)
    }

    /// Adds a group's metadata.
    pub(crate) fn group(&mut self, group: &str, snapshot: &GroupSnapshot) -> Result<(), GroupError> {
        let key = records::encode_group_key(group).map_err(|_| GroupError::RecordTooLarge)?;
        let value = records::encode_group(snapshot).map_err(|_| GroupError::RecordTooLarge)?;
        self.push(&key, Some(&value))
    }

    /// Adds the tombstone of a group.
    pub(crate) fn group_tombstone(&mut self, group: &str) -> Result<(), GroupError> {
        let key = records::encode_group_key(group).map_err(|_| GroupError::RecordTooLarge)?;
        self.push(&key, None)
    }

    /// Returns the bytes to append.
    pub(crate) fn build(self) -> Result<Bytes, GroupError> {
        self.builder.build().map(Bytes::from).map_err(|_| GroupError::RecordTooLarge)
    }
}
