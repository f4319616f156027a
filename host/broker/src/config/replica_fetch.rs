//! The limits of a follower's fetches.

use std::time::Duration;

use super::broker_keys as keys;
use super::{ConfigError, Reader};

/// The limits of a follower's fetches.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaFetchConfig {
    /// `num.replica.fetchers`: the fetchers of each leader.
    pub(crate) fetchers: usize,
    /// `replica.fetch.wait.max.ms`: how long the leader waits for records.
    pub(crate) wait_max: Duration,
    /// `replica.fetch.min.bytes`
    pub(crate) min_bytes: i32,
    /// `replica.fetch.response.max.bytes`
    pub(crate) response_max_bytes: i32,
    /// `replica.fetch.max.bytes`: of one partition.
    pub(crate) partition_max_bytes: i32,
    /// `replica.fetch.backoff.ms`: the pause after a failure.
    pub(crate) backoff: Duration,
    /// `replica.socket.timeout.ms`
    pub(crate) socket_timeout: Duration,
}

impl Reader<'_> {
    pub(super) fn replica_fetch(&self) -> Result<ReplicaFetchConfig, ConfigError> {
        let (wait, lag) = (keys::REPLICA_FETCH_WAIT_MAX_MS, self.millis(keys::REPLICA_LAG_TIME_MAX_MS));
        let wait_max = self.millis(wait);
        if wait_max > lag && self.values.contains_key(wait.row.name) {
            return Err(ConfigError(
                "replica.fetch.wait.max.ms is above replica.lag.time.max.ms: followers would leave the in-sync set"
                    .to_owned(),
            ));
        }
        let config = ReplicaFetchConfig {
            fetchers: usize::try_from(self.get(keys::NUM_REPLICA_FETCHERS)).unwrap_or(1),
            wait_max: wait_max.min(lag),
            min_bytes: self.get(keys::REPLICA_FETCH_MIN_BYTES),
            response_max_bytes: self.get(keys::REPLICA_FETCH_RESPONSE_MAX_BYTES),
            partition_max_bytes: self.get(keys::REPLICA_FETCH_MAX_BYTES),
            backoff: self.millis(keys::REPLICA_FETCH_BACKOFF_MS),
            socket_timeout: self.millis(keys::REPLICA_SOCKET_TIMEOUT_MS),
        };
        if config.socket_timeout <= config.wait_max {
            return Err(ConfigError(
                "replica.socket.timeout.ms is not above replica.fetch.wait.max.ms: every fetch would time out"
                    .to_owned(),
            ));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn checked(pairs: &[&str]) -> Result<ReplicaFetchConfig, ConfigError> {
        let mut raw = RawConfig::default();
        pairs.iter().try_for_each(|pair| raw.set_pair(pair))?;
        Ok(raw.check()?.replica_fetch)
    }

    #[test]
    fn each_key_sets_its_limit() {
        let config = checked(&[
            "num.replica.fetchers=7",
            "replica.fetch.backoff.ms=1",
            "replica.fetch.max.bytes=2",
            "replica.fetch.min.bytes=3",
            "replica.fetch.response.max.bytes=4",
            "replica.fetch.wait.max.ms=5",
            "replica.socket.timeout.ms=6",
        ])
        .expect("good");
        let bytes = (config.partition_max_bytes, config.min_bytes, config.response_max_bytes);
        let times = [config.backoff, config.wait_max, config.socket_timeout].map(|time| time.as_millis());
        assert_eq!((config.fetchers, bytes, times), (7, (2, 3, 4), [1, 5, 6]));
    }

    #[test]
    fn replicas_are_selected_by_rack_on_demand() {
        let by_rack = |pairs: &[&str]| {
            let mut raw = RawConfig::default();
            pairs.iter().try_for_each(|pair| raw.set_pair(pair))?;
            Ok::<_, ConfigError>(raw.check()?.selects_by_rack)
        };
        let class = "replica.selector.class=org.apache.kafka.common.replica";
        assert_eq!(by_rack(&[]), Ok(false));
        assert_eq!(by_rack(&[&format!("{class}.LeaderSelector")]), Ok(false));
        assert_eq!(by_rack(&[&format!("{class}.RackAwareReplicaSelector")]), Ok(true));
        let error = by_rack(&["replica.selector.class=my.Selector"]).expect_err("no class of ours").to_string();
        assert!(error.contains("my.Selector") && error.contains("RackAwareReplicaSelector"), "{error}");
    }

    #[test]
    fn the_windows_of_throttles_are_set() {
        let mut raw = RawConfig::default();
        for pair in ["replication.quota.window.num=3", "replication.quota.window.size.seconds=2"] {
            raw.set_pair(pair).expect("good");
        }
        let windows = raw.check().expect("good").replication_quota_windows;
        assert_eq!(windows, (3, Duration::from_secs(2)));
    }

    #[test]
    fn a_wait_must_fit_the_other_times() {
        let error = |pairs: &[&str]| checked(pairs).expect_err("rejected").to_string();
        let long = error(&["replica.fetch.wait.max.ms=400", "replica.lag.time.max.ms=300"]);
        assert!(long.contains("above replica.lag.time.max.ms"), "{long}");
        let short = error(&["replica.socket.timeout.ms=500"]);
        assert!(short.contains("every fetch would time out"), "{short}");
        let adapted = checked(&["replica.lag.time.max.ms=300"]).expect("the default wait gets shorter");
        assert_eq!(adapted.wait_max.as_millis(), 300);
    }
}
