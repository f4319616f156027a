//! Counts the requests of each API and the time until their responses.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Connections are spread over this many sets of counters. Two busy connections that count in one set slow each other
/// down.
const SETS: usize = 16;

/// The counts of all APIs. An API is identified by its place in the list of handlers.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    apis: usize,
    /// Set after set.
    counters: Box<[Counters]>,
}

/// The counts of one API. They have their own cache lines, so that produce and fetch do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters {
    requests: AtomicU64,
    responses: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
}

/// The counts of one API since the broker started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestStats {
    /// Kafka's name of the API.
    pub api: &'static str,
    /// Requests whose header was read.
    pub requests: u64,
    /// Responses that were written. A produce with `acks=0` has none.
    pub responses: u64,
    /// Requests that closed their connection instead of getting a response.
    pub errors: u64,
    /// The time from the read of a request to its response, over all responses. Waits for data and the disk count.
    pub total_time: Duration,
}

impl RequestMetrics {
    pub(crate) fn new(apis: usize) -> Self {
        Self { apis, counters: (0..apis * SETS).map(|_| Counters::default()).collect() }
    }

    /// Returns the counters of an API for the requests of one connection.
    fn of(&self, connection: u64, api: usize) -> &Counters {
        let set = (connection % SETS as u64) as usize;
        &self.counters[set * self.apis + api]
    }

    /// Counts a request that starts.
    pub(crate) fn started(&self, connection: u64, api: usize) {
        self.of(connection, api).requests.fetch_add(1, Relaxed);
    }

    /// Counts a response that is ready to be sent.
    pub(crate) fn responded(&self, connection: u64, api: usize, took: Duration) {
        let counters = self.of(connection, api);
        counters.responses.fetch_add(1, Relaxed);
        counters.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts a request that ends its connection.
    pub(crate) fn failed(&self, connection: u64, api: usize) {
        self.of(connection, api).errors.fetch_add(1, Relaxed);
    }

    /// Returns the counts of an API over all connections.
    pub(crate) fn stats(&self, api: usize, name: &'static str) -> RequestStats {
        let sets = || self.counters.iter().skip(api).step_by(self.apis);
        RequestStats {
            api: name,
            requests: sets().map(|set| set.requests.load(Relaxed)).sum(),
            responses: sets().map(|set| set.responses.load(Relaxed)).sum(),
            errors: sets().map(|set| set.errors.load(Relaxed)).sum(),
            total_time: Duration::from_nanos(sets().map(|set| set.nanos.load(Relaxed)).sum()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_has_its_own_counts() {
        let metrics = RequestMetrics::new(2);
        metrics.started(1, 0);
        metrics.started(2, 0);
        metrics.responded(1, 0, Duration::from_millis(3));
        metrics.failed(2, 0);
        metrics.started(3, 1);
        let total_time = Duration::from_millis(3);
        let first = RequestStats { api: "Fetch", requests: 2, responses: 1, errors: 1, total_time };
        assert_eq!(metrics.stats(0, "Fetch"), first);
        let second = RequestStats { api: "Produce", requests: 1, responses: 0, errors: 0, total_time: Duration::ZERO };
        assert_eq!(metrics.stats(1, "Produce"), second);
    }
}
