//! The storage configuration of a partition: the topic configs about storage, already checked.

use millstream_record::{HEADER_LEN, TimestampType};

/// Kafka's `cleanup.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are deleted by time and size.
    pub delete: bool,
    /// The log keeps the newest record of each key.
    pub compact: bool,
}

impl CleanupPolicy {
    /// Kafka's default, `delete`.
    pub const DELETE: Self = Self { delete: true, compact: false };
    /// `compact`: no segment is deleted for its age or the log's size.
    pub const COMPACT: Self = Self { delete: false, compact: true };
}

/// The storage configuration of one partition. Every field has Kafka's name and Kafka's default.
///
/// The partitions of a topic share it in an `Arc`, so that an idle partition does not pay for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it would grow beyond this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is rolled when a batch is this much newer than the segment's first one.
    pub segment_ms: i64,
    /// `index.interval.bytes`: the bytes of log between two index entries.
    pub index_interval_bytes: u32,
    /// `segment.index.bytes`: the largest size of an index file; a full index rolls the segment.
    pub segment_index_bytes: u32,
    /// `retention.ms`; `None` (Kafka's -1) keeps records for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` (Kafka's -1) sets no bound.
    pub retention_bytes: Option<u64>,
    /// `max.message.bytes`: the largest record batch that a leader accepts.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `producer.id.expiration.ms`: how long the state of an idle producer is kept.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        const HOUR_MS: i64 = 60 * 60 * 1000;
        Self {
            segment_bytes: 1024 * 1024 * 1024,
            segment_ms: 7 * 24 * HOUR_MS,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 * 1024 * 1024,
            retention_ms: Some(7 * 24 * HOUR_MS),
            retention_bytes: None,
            max_message_bytes: 1024 * 1024 + 12,
            timestamp_type: TimestampType::CreateTime,
            cleanup_policy: CleanupPolicy::DELETE,
            producer_id_expiration_ms: 24 * HOUR_MS,
        }
    }
}

impl LogConfig {
    /// Returns the largest segment size within the format's limit: positions in an index are signed 32-bit.
    pub(crate) fn segment_bytes(&self) -> u64 {
        u64::from(self.segment_bytes).clamp(HEADER_LEN as u64, i32::MAX as u64)
    }
}
