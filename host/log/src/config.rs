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
#[derive(Clone, Debug, PartialEq)]
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
    /// `min.cleanable.dirty.ratio`: the share of a log above which it is compacted again.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: how long a record stays uncompacted at least.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: how long a record stays uncompacted at most; `i64::MAX` sets no bound.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long compaction keeps tombstones, and markers of transactions.
    pub delete_retention_ms: i64,
    /// `preallocate`: a segment gets its disk space with its first record.
    pub preallocate: bool,
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
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * HOUR_MS,
            preallocate: false,
            producer_id_expiration_ms: 24 * HOUR_MS,
        }
    }
}

impl LogConfig {
    /// Returns the age at which a segment is rolled. A compacted log rolls earlier, so that `max.compaction.lag.ms` can
    /// hold: the active segment is never compacted.
    pub(crate) fn segment_ms(&self) -> i64 {
        match self.cleanup_policy.compact {
            true => self.segment_ms.min(self.max_compaction_lag_ms.max(1)),
            false => self.segment_ms,
        }
    }

    /// Returns the largest segment size within the format's limit: positions in an index are signed 32-bit.
    pub(crate) fn segment_bytes(&self) -> u64 {
        u64::from(self.segment_bytes).clamp(HEADER_LEN as u64, i32::MAX as u64)
    }
}
