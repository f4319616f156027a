//! Records as the consumer returns them.

use std::sync::Arc;

use bytes::Bytes;
pub use millstream_record::TimestampType;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Creates the partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its name; UTF-8 by convention only.
    pub name: Bytes,
    /// Its value, if it has one.
    pub value: Option<Bytes>,
}

/// A record that was read. Key, value and headers are slices of their batch: a clone copies no bytes, and a record
/// keeps its batch in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch; -1 for none.
    pub timestamp: i64,
    /// Whether the producer or the broker set the timestamp.
    pub timestamp_type: TimestampType,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers in order; a name may repeat.
    pub headers: Vec<RecordHeader>,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset of the next record to read.
    pub offset: i64,
    /// The leader epoch of the last record before it; -1 if it is not known.
    pub leader_epoch: i32,
    /// Free text of the application.
    pub metadata: String,
}

impl CommittedOffset {
    /// Creates an offset without metadata.
    pub fn new(offset: i64) -> Self {
        Self { offset, leader_epoch: -1, metadata: String::new() }
    }
}
