//! Decides what a pass over a log would do, and whether it is due.

use std::sync::Arc;

use crate::config::LogConfig;
use crate::error::LogError;
use crate::log::{Log, LogReader};
use crate::segment::Segment;

/// The most segments that become one. All of them are held open when their copy takes their place.
const GROUP_MAX: usize = 128;

/// What a pass over a log would do.
#[derive(Debug)]
pub struct CleaningPlan {
    pub(super) reader: LogReader,
    pub(super) config: Arc<LogConfig>,
    /// The segments below the end, oldest first.
    pub(super) segments: Vec<Arc<Segment>>,
    /// The first offset that was not compacted before.
    pub(super) first_dirty: i64,
    /// The start of the first segment that is left alone.
    pub(super) end: i64,
    pub(super) truncations: u64,
    pub(super) now_ms: i64,
    clean_bytes: u64,
    dirty_bytes: u64,
    /// How long the oldest record has waited beyond `max.compaction.lag.ms`; 0 if it has not.
    delay_ms: i64,
}

impl CleaningPlan {
    /// Returns the share of the log that was not compacted before, from 0 to 1.
    pub fn dirty_ratio(&self) -> f64 {
        let total = self.clean_bytes + self.dirty_bytes;
        if total == 0 { 0.0 } else { self.dirty_bytes as f64 / total as f64 }
    }

    /// Returns whether the pass is due: by `min.cleanable.dirty.ratio`, or by `max.compaction.lag.ms`.
    pub fn is_due(&self) -> bool {
        (self.delay_ms > 0 && self.dirty_bytes > 0) || self.dirty_ratio() > self.config.min_cleanable_dirty_ratio
    }

    /// Returns how long the oldest record has waited beyond `max.compaction.lag.ms`, in milliseconds.
    pub fn delay_ms(&self) -> i64 {
        self.delay_ms
    }

    /// Returns the most disk space that the pass needs at a time: a copy is complete before its sources go.
    pub fn copy_bytes_max(&self) -> u64 {
        let size = |group: &[Arc<Segment>]| group.iter().map(|segment| segment.size()).sum();
        self.groups(self.end).into_iter().map(size).max().unwrap_or(0)
    }

    /// Returns the index of the segment that has the first dirty offset.
    pub(super) fn first_dirty_segment(&self) -> usize {
        let after = self.segments.partition_point(|segment| segment.base_offset() <= self.first_dirty);
        after.saturating_sub(1)
    }

    /// Returns the start of the segment after another one.
    pub(super) fn end_of(&self, at: usize) -> i64 {
        self.segments.get(at + 1).map_or(self.end, |next| next.base_offset())
    }

    /// Returns the segments that start below `end`, in groups that each fit one segment.
    pub(super) fn groups(&self, end: i64) -> Vec<&[Arc<Segment>]> {
        let mut groups = Vec::new();
        let mut from = 0;
        let below = self.segments.partition_point(|segment| segment.base_offset() < end);
        while from < below {
            let base = self.segments[from].base_offset();
            let mut to = from + 1;
            let mut sizes = self.sizes(from);
            while to < below && to - from < GROUP_MAX {
                let added = self.sizes(to);
                let sum = [0, 1, 2].map(|at| sizes[at] + added[at]);
                let fits = sum[0] <= self.config.segment_bytes()
                    && sum[1..].iter().all(|bytes| *bytes <= u64::from(self.config.segment_index_bytes))
                    // An empty segment ends where the next one starts, and has no offset of its own.
                    && (added[0] == 0 || self.end_of(to) - 1 - base <= i64::from(i32::MAX));
                if !fits {
                    break;
                }
                sizes = sum;
                to += 1;
            }
            groups.push(&self.segments[from..to]);
            from = to;
        }
        groups
    }

    /// Returns the bytes of a segment and of its two indexes.
    fn sizes(&self, at: usize) -> [u64; 3] {
        let segment = &self.segments[at];
        [segment.size(), segment.file_len("index"), segment.file_len("timeindex")]
    }
}

impl Log {
    /// Returns what a pass would do, with `stable_offset` the last stable offset: nothing from there on is compacted.
    /// `None` if nothing can be compacted: the policy is another one, or the log is empty or out of service.
    ///
    /// # Errors
    /// An index cannot be read.
    pub fn cleaning_plan(&self, now_ms: i64, stable_offset: i64) -> Result<Option<CleaningPlan>, LogError> {
        let config = &self.config;
        if !config.cleanup_policy.compact || self.is_poisoned() || self.shared().faults.is_damaged() {
            return Ok(None);
        }
        let (segments, start, log_end_offset) = {
            let list = self.shared().list.read();
            (list.segments.clone(), list.log_start_offset, list.log_end_offset)
        };
        let Some((active, inactive)) = segments.split_last() else { return Ok(None) };
        let first_dirty = if (start..=log_end_offset).contains(&self.first_dirty) { self.first_dirty } else { start };
        let holds = |offset: i64| inactive.partition_point(|segment| segment.base_offset() <= offset).saturating_sub(1);
        let dirty = if first_dirty >= active.base_offset() { inactive.len() } else { holds(first_dirty) };
        let mut limit = stable_offset.min(self.recovery_point()).min(active.base_offset());
        if config.min_compaction_lag_ms > 0 {
            let newest_max = now_ms.saturating_sub(config.min_compaction_lag_ms);
            for segment in inactive.iter().skip(dirty) {
                if segment.newest()?.timestamp > newest_max {
                    limit = limit.min(segment.base_offset());
                    break;
                }
            }
        }
        let limit = limit.max(first_dirty);
        // A segment that has the limit is left alone as a whole.
        let below = if limit >= active.base_offset() { inactive.len() } else { holds(limit) };
        let end = segments[below].base_offset();
        let bytes = |some: &[Arc<Segment>]| some.iter().map(|segment| segment.size()).sum::<u64>();
        let clean = inactive[..below].partition_point(|segment| segment.base_offset() < first_dirty);
        let mut delay_ms = 0;
        if config.max_compaction_lag_ms < i64::MAX {
            let oldest_min = now_ms.saturating_sub(config.max_compaction_lag_ms.max(0));
            for segment in inactive.iter().skip(dirty) {
                let first = segment.summary()?.first_timestamp.filter(|first| *first > 0);
                delay_ms = first.map_or(delay_ms, |first| delay_ms.max(oldest_min.saturating_sub(first)));
            }
        }
        let plan = CleaningPlan {
            reader: self.reader(),
            config: Arc::clone(config),
            clean_bytes: bytes(&inactive[..clean]),
            dirty_bytes: bytes(&inactive[dirty.min(below)..below]),
            segments: inactive[..below].to_vec(),
            first_dirty,
            end,
            truncations: self.truncations(),
            now_ms,
            delay_ms,
        };
        Ok((plan.clean_bytes + plan.dirty_bytes > 0).then_some(plan))
    }

    /// Returns the first offset that was not compacted, for the checkpoint; `None` if none was.
    pub fn first_dirty_offset(&self) -> Option<i64> {
        (self.first_dirty > 0).then_some(self.first_dirty)
    }
}
