//! The config of a quorum.

use std::ops::Range;
use std::time::Duration;

use crate::quorum::NodeId;
use crate::storage::SEGMENT_BYTES;

/// The config of a node.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    /// The node's id, Kafka's `node.id`.
    pub node_id: NodeId,
    /// The bounds of the random time without a leader after which a voter starts an election. The lower bound is also
    /// the time for which a voter that hears its leader rejects other candidates.
    pub election_timeout: Range<Duration>,
    /// The time between two heartbeats of a leader.
    pub heartbeat_interval: Duration,
    /// The time after which a proposal fails, with an unknown outcome.
    pub propose_timeout: Duration,
    /// The time after which a change of the voters fails, with an unknown outcome.
    pub change_timeout: Duration,
    /// The time that a snapshot may take to reach another node.
    pub snapshot_timeout: Duration,
    /// The number of entries after which a snapshot is written.
    pub snapshot_entries: u64,
    /// The number of entries that stay in the log after a snapshot, for nodes that are slightly behind.
    pub retained_entries: u64,
    /// The length from which a segment of the log is followed by a new one.
    pub segment_bytes: u64,
}

/// Why a config is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The bounds of the election timeout are in the wrong order.
    #[error("the election timeout must have a lower bound below its upper bound, not {0:?}")]
    ElectionTimeout(Range<Duration>),
    /// Heartbeats are too rare to prevent elections.
    #[error(
        "the heartbeat interval {0:?} must be at least 1 ms and at most half of the election timeout's lower bound"
    )]
    Heartbeat(Duration),
    /// No entry would lead to a snapshot.
    #[error("a snapshot must cover at least 1 entry")]
    SnapshotEntries,
}

impl QuorumConfig {
    /// Returns the default config of a node.
    pub fn new(node_id: NodeId) -> Self {
        Self {
            node_id,
            election_timeout: Duration::from_millis(150)..Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(50),
            propose_timeout: Duration::from_secs(5),
            change_timeout: Duration::from_secs(30),
            snapshot_timeout: Duration::from_secs(60),
            snapshot_entries: 5000,
            retained_entries: 1000,
            segment_bytes: SEGMENT_BYTES,
        }
    }

    /// Returns a random election timeout.
    pub(crate) fn random_timeout(&self) -> Duration {
        let Range { start, end } = self.election_timeout;
        Duration::from_micros(fastrand::u64(start.as_micros() as u64..end.as_micros() as u64))
    }

    /// Returns the consensus library's config.
    ///
    /// The library starts no elections by itself: it draws its timeout once in the life of a process, and looks
    /// at it once in 1.5 heartbeats. Two voters that drew alike would split each vote.
    pub(crate) fn to_openraft(&self) -> Result<openraft::Config, ConfigError> {
        let Range { start, end } = self.election_timeout;
        let (lease, heartbeat) = (start.as_millis() as u64, self.heartbeat_interval.as_millis() as u64);
        if start.as_micros() >= end.as_micros() {
            return Err(ConfigError::ElectionTimeout(start..end));
        }
        if heartbeat == 0 || heartbeat * 2 > lease {
            return Err(ConfigError::Heartbeat(self.heartbeat_interval));
        }
        if self.snapshot_entries == 0 {
            return Err(ConfigError::SnapshotEntries);
        }
        Ok(openraft::Config {
            cluster_name: "metadata".to_owned(),
            // Its upper bound is the lease that voters grant to a leader.
            election_timeout_min: lease - 1,
            election_timeout_max: lease,
            heartbeat_interval: heartbeat,
            enable_elect: false,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.retained_entries,
            replication_lag_threshold: self.snapshot_entries.max(self.retained_entries) + 1000,
            ..openraft::Config::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_that_cannot_act_is_rejected() {
        let good = QuorumConfig::new(1);
        assert!(good.to_openraft().is_ok());
        let ms = Duration::from_millis;
        let reversed = QuorumConfig { election_timeout: ms(300)..ms(150), ..good.clone() };
        assert!(matches!(reversed.to_openraft(), Err(ConfigError::ElectionTimeout(_))));
        for heartbeat in [0, 80] {
            let rare = QuorumConfig { heartbeat_interval: ms(heartbeat), ..good.clone() };
            assert!(matches!(rare.to_openraft(), Err(ConfigError::Heartbeat(_))), "{heartbeat}");
        }
        let never = QuorumConfig { snapshot_entries: 0, ..good };
        assert!(matches!(never.to_openraft(), Err(ConfigError::SnapshotEntries)));
    }
}
