//! What the coordinator is configured with: the checked values of Kafka's `group.*` and `offsets.*` keys.

use std::time::Duration;

/// Most bytes of protocol names and metadata that one member may bring to a JoinGroup.
///
/// Kafka has no such limit: there a member's metadata only has to fit a request. A group keeps it for every member and sends
/// all of it to the leader, so it is bounded here. Real subscriptions are below a few tens of kilobytes.
pub(crate) const MEMBER_METADATA_MAX_BYTES: usize = 1 << 20;

/// Longest client id, instance id or protocol type that a group keeps of a member, in bytes.
pub(crate) const NAME_MAX_BYTES: usize = 4 << 10;

/// How long a member that joined without an id may wait for the rebalance to end: it cannot send heartbeats yet, so its session
/// time-out says nothing (Kafka's `classicGroupNewMemberJoinTimeoutMs`).
pub(crate) const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;

/// The limits and periods of the group coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for more members.
    pub(crate) initial_rebalance_delay: Duration,
    /// `group.min.session.timeout.ms`.
    pub(crate) min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub(crate) max_session_timeout_ms: i32,
    /// `group.max.size`: most members of one group, those who have not joined with their new id yet included.
    pub(crate) max_size: usize,
    /// `offset.metadata.max.bytes`: longest text that may be committed with an offset.
    pub(crate) offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`.
    pub(crate) offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub(crate) offsets_retention_check_interval: Duration,
    /// `offsets.topic.num.partitions`, used when the topic is created.
    pub(crate) offsets_topic_partitions: i32,
    /// `offsets.topic.replication.factor`, used when the topic is created.
    pub(crate) offsets_topic_replication_factor: i32,
    /// `offsets.topic.segment.bytes`, used when the topic is created.
    pub(crate) offsets_topic_segment_bytes: i32,
}

impl GroupConfig {
    /// [`GroupConfig::initial_rebalance_delay`] in milliseconds.
    pub(crate) fn initial_rebalance_delay_ms(&self) -> u64 {
        u64::try_from(self.initial_rebalance_delay.as_millis()).unwrap_or(u64::MAX)
    }

    /// [`GroupConfig::offsets_retention`] in milliseconds.
    pub(crate) fn offsets_retention_ms(&self) -> i64 {
        i64::try_from(self.offsets_retention.as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
impl Default for GroupConfig {
    /// The defaults of the broker's table of keys.
    fn default() -> Self {
        Self {
            initial_rebalance_delay: Duration::from_secs(3),
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            max_size: 10_000,
            offset_metadata_max_bytes: 4_096,
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            offsets_retention_check_interval: Duration::from_secs(600),
            offsets_topic_partitions: 50,
            offsets_topic_replication_factor: 1,
            offsets_topic_segment_bytes: 104_857_600,
        }
    }
}
