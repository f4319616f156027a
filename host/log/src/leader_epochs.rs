//! The offset at which each leader epoch started (KIP-101, KIP-279): Kafka's `leader-epoch-checkpoint`.
//!
//! The file can always be rebuilt from the leader epochs in the batches.

use std::io;
use std::path::Path;

use crate::checkpoint::{CheckpointError, parse_lines};
use crate::fsutil::write_cache;

/// The name of the file in a partition's folder.
pub(crate) const EPOCH_FILE: &str = "leader-epoch-checkpoint";

/// A leader epoch and the offset of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The leader epoch.
    pub epoch: i32,
    /// The offset of its first record.
    pub start_offset: i64,
}

/// Entries in order: both epochs and offsets grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EpochCache {
    entries: Vec<EpochEntry>,
}

impl EpochCache {
    pub(crate) fn read(dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join(EPOCH_FILE);
        let mut cache = Self::default();
        for fields in parse_lines::<2>(&path)? {
            let entry = EpochEntry { epoch: fields.number(0)?, start_offset: fields.number(1)? };
            let grows = cache.latest().is_none_or(|l| entry.epoch > l.epoch && entry.start_offset > l.start_offset);
            if !grows || entry.epoch < 0 || entry.start_offset < 0 {
                return Err(fields.bad("epochs and offsets have to grow"));
            }
            cache.entries.push(entry);
        }
        Ok(cache)
    }

    /// Writes the file without syncing it: a start compares it with the log.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = format!("0\n{}\n", self.entries.len());
        for entry in &self.entries {
            text.push_str(&format!("{} {}\n", entry.epoch, entry.start_offset));
        }
        write_cache(&dir.join(EPOCH_FILE), text.as_bytes())
    }

    pub(crate) fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    pub(crate) fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// Records that `epoch` starts at `start_offset`. Returns whether anything changed. Entries that contradict it are
    /// removed: a newer write wins, as in Kafka.
    pub(crate) fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || self.latest().is_some_and(|l| l.epoch == epoch && l.start_offset <= start_offset) {
            return false;
        }
        while self.latest().is_some_and(|l| l.epoch >= epoch || l.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// Removes entries that start at or after the log's new end. Returns whether there were any.
    pub(crate) fn truncate_from_end(&mut self, log_end_offset: i64) -> bool {
        let keep = self.entries.partition_point(|entry| entry.start_offset < log_end_offset);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// Removes all entries.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Removes entries that end at or before the log's new start. Returns whether anything changed.
    pub(crate) fn truncate_from_start(&mut self, log_start_offset: i64) -> bool {
        let below = self.entries.partition_point(|entry| entry.start_offset <= log_start_offset);
        let Some(last) = below.checked_sub(1) else {
            return false;
        };
        let changed = last > 0 || self.entries[0].start_offset < log_start_offset;
        self.entries.drain(..last);
        self.entries[0].start_offset = log_start_offset;
        changed
    }

    /// Returns the epoch of the record at `offset`.
    pub(crate) fn epoch_of(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// Returns the end of the largest epoch at or below `requested`, as in an OffsetForLeaderEpoch response.
    pub(crate) fn end_offset(&self, requested: i32, log_end_offset: i64) -> Option<(i32, i64)> {
        let latest = self.latest()?;
        if requested == latest.epoch {
            return Some((requested, log_end_offset));
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= requested);
        let next = self.entries.get(above)?;
        // Below all known epochs Kafka returns the requested epoch and the first known offset.
        let epoch = above.checked_sub(1).map_or(requested, |at| self.entries[at].epoch);
        Some((epoch, next.start_offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for &(epoch, start) in entries {
            assert!(cache.assign(epoch, start));
        }
        cache
    }

    #[test]
    fn end_offsets_are_those_of_kafka() {
        let cache = cache(&[(2, 0), (4, 100), (7, 150)]);
        assert_eq!(cache.end_offset(7, 200), Some((7, 200)));
        assert_eq!(cache.end_offset(8, 200), None, "a future epoch is unknown");
        assert_eq!(cache.end_offset(5, 200), Some((4, 150)));
        assert_eq!(cache.end_offset(4, 200), Some((4, 150)));
        assert_eq!(cache.end_offset(1, 200), Some((1, 0)));
        assert_eq!(EpochCache::default().end_offset(0, 5), None);
        assert_eq!(cache.epoch_of(99), Some(2));
        assert_eq!(cache.epoch_of(100), Some(4));
    }

    #[test]
    fn a_newer_assignment_removes_what_contradicts_it() {
        let mut cache = cache(&[(1, 0), (2, 10), (3, 20)]);
        assert!(!cache.assign(3, 25), "the same epoch continues");
        assert!(cache.assign(5, 20));
        assert_eq!(
            cache.entries(),
            [(1, 0), (2, 10), (5, 20)].map(|(epoch, start_offset)| EpochEntry { epoch, start_offset })
        );
        assert!(cache.assign(2, 5));
        assert_eq!(cache.latest(), Some(EpochEntry { epoch: 2, start_offset: 5 }));
    }

    #[test]
    fn truncation_at_both_ends() {
        let mut cache = cache(&[(1, 0), (2, 10), (3, 20)]);
        assert!(cache.truncate_from_end(20));
        assert!(!cache.truncate_from_end(20));
        assert!(cache.truncate_from_start(12));
        assert_eq!(cache.entries(), [EpochEntry { epoch: 2, start_offset: 12 }]);
        assert!(!cache.truncate_from_start(12));
    }

    #[test]
    fn the_file_is_kafkas_and_survives_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let written = cache(&[(0, 0), (3, 17)]);
        written.write(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(EPOCH_FILE)).unwrap(), "0\n2\n0 0\n3 17\n");
        assert_eq!(EpochCache::read(dir.path()).unwrap(), written);
    }
}
