//! Throttles of replication (KIP-73): the rates that bound how fast followers copy what they lack.
//!
//! The topic configs `*.replication.throttled.replicas` name the replicas, and the broker configs
//! `*.replication.throttled.rate` the bytes for each second. A leader counts what it sends, and a follower what it
//! fetches. Followers in sync are counted and never held back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Replica, ReplicaHost};

/// The pause before a partition that is held back is looked at again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// The bytes of the last windows.
#[derive(Debug)]
pub(crate) struct Quota {
    windows: usize,
    window: Duration,
    /// The start of each window, and its bytes.
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl Quota {
    /// Makes a quota with this number of windows, and the length of each.
    pub(crate) fn new((windows, window): (usize, Duration)) -> Self {
        Self { windows, window, samples: Mutex::default() }
    }

    fn record(&self, bytes: usize, now: Instant) {
        let mut samples = self.samples.lock();
        self.expire(&mut samples, now);
        let bytes = bytes as u64;
        match samples.back_mut() {
            Some((start, sum)) if now - *start < self.window => *sum += bytes,
            _ => samples.push_back((now, bytes)),
        }
    }

    /// Returns the bytes of one second, on average over the windows.
    fn rate(&self, now: Instant) -> f64 {
        let mut samples = self.samples.lock();
        self.expire(&mut samples, now);
        let Some((oldest, _)) = samples.front() else { return 0.0 };
        let elapsed = (now - *oldest).max(self.window);
        let sum: u64 = samples.iter().map(|(_, bytes)| bytes).sum();
        sum as f64 / elapsed.as_secs_f64()
    }

    fn expire(&self, samples: &mut VecDeque<(Instant, u64)>, now: Instant) {
        let age = self.window * u32::try_from(self.windows).unwrap_or(u32::MAX);
        while samples.front().is_some_and(|(start, _)| now - *start >= age) {
            samples.pop_front();
        }
    }
}

/// A quota with the rate that bounds it now.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    quota: Arc<Quota>,
    rate: i64,
}

impl Throttle {
    /// Returns a throttle; `None` if the rate is that of no limit.
    pub(crate) fn new(quota: &Arc<Quota>, rate: i64) -> Option<Self> {
        (rate < i64::MAX).then(|| Self { quota: Arc::clone(quota), rate })
    }

    /// Counts bytes of a throttled replica.
    pub(crate) fn record(&self, bytes: usize) {
        self.quota.record(bytes, Instant::now());
    }

    /// Returns whether more bytes came in the last windows than the rate allows.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.quota.rate(Instant::now()) > self.rate as f64
    }
}

/// Returns the replicas whose fetches wait: they are throttled and out of sync, and the rate is exceeded.
pub(super) fn held_back<'a>(host: &dyn ReplicaHost, followed: &'a [Replica]) -> Vec<&'a Replica> {
    if !host.throttle().is_some_and(|throttle| throttle.is_exceeded()) {
        return Vec::new();
    }
    let lags = |replica: &Replica| replica.partition.offset_lag().is_ok_and(|lag| lag > 0);
    followed.iter().filter(|replica| host.is_throttled(replica) && lags(replica)).collect()
}

/// Counts the bytes that a follower has fetched.
pub(super) fn fetched(host: &dyn ReplicaHost, replica: &Replica, bytes: usize) {
    if bytes > 0
        && let Some(throttle) = host.throttle()
        && host.is_throttled(replica)
    {
        throttle.record(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_average_of_the_last_windows() {
        let quota = Quota::new((3, Duration::from_secs(1)));
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(quota.rate(at(0)), 0.0);
        quota.record(600, at(0));
        quota.record(400, at(500));
        assert_eq!(quota.rate(at(500)), 1000.0, "a window counts as a whole");
        assert_eq!(quota.rate(at(2000)), 500.0);
        quota.record(2000, at(2000));
        assert_eq!(quota.rate(at(2500)), 1200.0);
        assert_eq!(quota.rate(at(3000)), 2000.0, "the first window has expired");
        assert_eq!(quota.rate(at(5000)), 0.0);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let quota = Arc::new(Quota::new((11, Duration::from_secs(1))));
        assert!(Throttle::new(&quota, i64::MAX).is_none());
        let throttle = Throttle::new(&quota, 10).expect("a limit");
        assert!(!throttle.is_exceeded());
        throttle.record(11);
        assert!(throttle.is_exceeded());
    }
}
