//! The config of the coordinator: the checked values of Kafka's `transaction.*` and `transactional.*` keys.

use std::time::Duration;

/// The limits and periods of the transaction coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`: the longest timeout that a producer may ask for.
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`: how long an id is kept that has no transaction.
    pub id_expiration: Duration,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`
    pub abort_interval: Duration,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub expiry_interval: Duration,
    /// `transaction.state.log.num.partitions`, used when the topic is created.
    pub topic_partitions: i32,
    /// `transaction.state.log.replication.factor`, used when the topic is created.
    pub topic_replication_factor: i32,
    /// `transaction.state.log.segment.bytes`, used when the topic is created.
    pub topic_segment_bytes: i32,
    /// `transaction.state.log.min.isr`, used when the topic is created.
    pub topic_min_isr: i32,
}

impl Default for TransactionConfig {
    /// Returns the defaults of the broker's table of keys.
    fn default() -> Self {
        Self {
            max_timeout_ms: 900_000,
            id_expiration: Duration::from_secs(7 * 24 * 60 * 60),
            abort_interval: Duration::from_secs(10),
            expiry_interval: Duration::from_secs(3600),
            topic_partitions: 50,
            topic_replication_factor: 3,
            topic_segment_bytes: 104_857_600,
            topic_min_isr: 2,
        }
    }
}
