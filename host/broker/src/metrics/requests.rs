//! Counts the requests of each API and the time until their responses.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The counts of all APIs. An API is identified by its place in the list of handlers.
#[derive(Debug)]
pub(crate) struct RequestMetrics(Box<[Counters]>);

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
    /// The time from header to response, over all responses. It includes waits for data, members and the disk.
    pub total_time: Duration,
}

impl RequestMetrics {
    pub(crate) fn new(apis: usize) -> Self {
        Self((0..apis).map(|_| Counters::default()).collect())
    }

    /// Counts a request that starts.
    pub(crate) fn started(&self, api: usize) {
        self.0[api].requests.fetch_add(1, Relaxed);
    }

    /// Counts a response that is ready to be sent.
    pub(crate) fn responded(&self, api: usize, took: Duration) {
        let counters = &self.0[api];
        counters.responses.fetch_add(1, Relaxed);
        counters.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts a request that ends its connection.
    pub(crate) fn failed(&self, api: usize) {
        self.0[api].errors.fetch_add(1, Relaxed);
    }

    /// Returns the counts of an API.
    pub(crate) fn stats(&self, api: usize, name: &'static str) -> RequestStats {
        let counters = &self.0[api];
        RequestStats {
            api: name,
            requests: counters.requests.load(Relaxed),
            responses: counters.responses.load(Relaxed),
            errors: counters.errors.load(Relaxed),
            total_time: Duration::from_nanos(counters.nanos.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_has_its_own_counts() {
        let metrics = RequestMetrics::new(2);
        metrics.started(0);
        metrics.started(0);
        metrics.responded(0, Duration::from_millis(3));
        metrics.failed(0);
        metrics.started(1);
        let total_time = Duration::from_millis(3);
        let first = RequestStats { api: "Fetch", requests: 2, responses: 1, errors: 1, total_time };
        assert_eq!(metrics.stats(0, "Fetch"), first);
        let second = RequestStats { api: "Produce", requests: 1, responses: 0, errors: 0, total_time: Duration::ZERO };
        assert_eq!(metrics.stats(1, "Produce"), second);
    }
}
