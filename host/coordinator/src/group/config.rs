//! The config of the coordinator: the checked values of Kafka's `group.*` and `offsets.*` keys.

use std::time::Duration;

/// The most bytes of protocol names and metadata in one JoinGroup.
///
/// Kafka has no such limit: a member's metadata only has to fit a request. A group keeps it for every member and sends
/// all of it to the leader, so it is bounded here. Real subscriptions have a few tens of kilobytes at most.
pub const MEMBER_METADATA_MAX_BYTES: usize = 1 << 20;

/// The longest client id, instance id or protocol type of a member, in bytes.
pub const NAME_MAX_BYTES: usize = 4 << 10;

/// How long a member that joined without an id may wait for the end of the rebalance. It cannot send heartbeats yet, so
/// its session timeout does not apply (Kafka's `classicGroupNewMemberJoinTimeoutMs`).
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;

/// The limits and periods of the group coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for more members.
    pub initial_rebalance_delay: Duration,
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.max.size`: the most members of one group, including ids that were handed out and have not joined yet.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`: the longest text that may be committed with an offset.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.commit.timeout.ms`: how long a request waits for the commit of its record.
    pub offsets_commit_timeout: Duration,
    /// `offsets.retention.minutes`.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval: Duration,
    /// `offsets.topic.num.partitions`, used when the topic is created.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.replication.factor`, used when the topic is created.
    pub offsets_topic_replication_factor: i32,
    /// `offsets.topic.segment.bytes`, used when the topic is created.
    pub offsets_topic_segment_bytes: i32,
}

impl GroupConfig {
    /// Returns [`GroupConfig::initial_rebalance_delay`] in milliseconds.
    #[must_use]
    pub fn initial_rebalance_delay_ms(&self) -> u64 {
        u64::try_from(self.initial_rebalance_delay.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns [`GroupConfig::offsets_retention`] in milliseconds.
    #[must_use]
    pub fn offsets_retention_ms(&self) -> i64 {
        i64::try_from(self.offsets_retention.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Default for GroupConfig {
    /// Returns the defaults of the broker's table of keys.
    fn default() -> Self {
        Self {
            initial_rebalance_delay: Duration::from_secs(3),
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            max_size: 10_000,
            offset_metadata_max_bytes: 4_096,
            offsets_commit_timeout: Duration::from_secs(5),
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            offsets_retention_check_interval: Duration::from_secs(600),
            offsets_topic_partitions: 50,
            offsets_topic_replication_factor: 3,
            offsets_topic_segment_bytes: 104_857_600,
        }
    }
}
