//! Counts what compaction does, with Kafka's names.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What compaction has done since the broker started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CleanerStats {
    /// Passes that have ended well.
    pub passes: u64,
    /// `cleaner-recopy-percent`: the share of its bytes that the last pass kept, from 0 to 100.
    pub recopy_percent: f64,
    /// `max-buffer-utilization-percent`: how much of the memory for keys the last pass filled, from 0 to 100.
    pub max_buffer_utilization_percent: f64,
    /// `max-clean-time-secs`: how long the last pass took.
    pub max_clean_time: Duration,
    /// `max-compaction-delay-secs`: how long the latest log has waited beyond its `max.compaction.lag.ms`.
    pub max_compaction_delay: Duration,
    /// `max-dirty-percent`: the largest share of a log that was not compacted, from 0 to 100.
    pub max_dirty_percent: f64,
    /// `time-since-last-run-ms`: the time since the cleaner has looked at the logs; `None` if it has not.
    pub time_since_last_run: Option<Duration>,
    /// `uncleanable-partitions-count`: the logs over which a pass has failed.
    pub uncleanable_partitions: usize,
    /// `uncleanable-bytes`: the size of those logs.
    pub uncleanable_bytes: u64,
}

/// What a look at all logs has found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// The largest share of a log that was not compacted, from 0 to 1.
    pub(crate) dirty_ratio: f64,
    /// How long the latest log has waited beyond its lag.
    pub(crate) delay: Duration,
    /// The logs over which a pass has failed.
    pub(crate) uncleanable_partitions: usize,
    /// The size of those logs.
    pub(crate) uncleanable_bytes: u64,
}

/// What a pass has done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    /// The share of its bytes that was kept, from 0 to 1.
    pub(crate) kept: f64,
    /// The share of the memory for keys that was filled, from 0 to 1.
    pub(crate) map_filled: f64,
    /// How long it took.
    pub(crate) took: Duration,
}

/// The counters of the cleaner.
#[derive(Debug, Default)]
pub(crate) struct CleanerMetrics {
    inner: Mutex<(CleanerStats, Option<Instant>)>,
}

impl CleanerMetrics {
    /// Notes a look at all logs.
    pub(crate) fn looked(&self, look: Look) {
        let (stats, last) = &mut *self.inner.lock();
        *last = Some(Instant::now());
        stats.max_dirty_percent = 100.0 * look.dirty_ratio;
        stats.max_compaction_delay = look.delay;
        stats.uncleanable_partitions = look.uncleanable_partitions;
        stats.uncleanable_bytes = look.uncleanable_bytes;
    }

    /// Notes a pass that has ended well.
    pub(crate) fn passed(&self, pass: Pass) {
        let (stats, _) = &mut *self.inner.lock();
        stats.passes += 1;
        stats.recopy_percent = 100.0 * pass.kept;
        stats.max_buffer_utilization_percent = 100.0 * pass.map_filled;
        stats.max_clean_time = pass.took;
    }

    /// Returns the counts now.
    pub(crate) fn stats(&self) -> CleanerStats {
        let (stats, last) = &*self.inner.lock();
        CleanerStats { time_since_last_run: last.map(|last| last.elapsed()), ..stats.clone() }
    }
}
