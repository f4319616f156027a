//! One partition's log.
//!
//! # Locking
//!
//! [`Log`] is the writer. Every change of the log takes `&mut self`, so the broker keeps it behind the partition's
//! lock. Reads take `&self` and do not need that lock: [`Log::reader`] returns a [`LogReader`], a handle that is cheap
//! to clone and reads while an append runs. The two share one short inner lock (a list of segments and two offsets). An
//! append takes it only to publish what is already written. An fsync runs outside of every lock; see [`SyncTarget`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};

use crate::config::LogConfig;
use crate::durability::Unsynced;
use crate::error::LogError;
use crate::fault::Faults;
use crate::file_cache::FileCache;
use crate::leader_epochs::{EpochCache, EpochEntry};
use crate::producer_state::{ProducerState, Producers};
use crate::segment::Segment;
use crate::verification::Verifications;

/// Writes one partition's log. The module's docs explain its locking.
pub struct Log {
    pub(crate) reader: LogReader,
    pub(crate) config: Arc<LogConfig>,
    pub(crate) files: Arc<FileCache>,
    pub(crate) producers: Producers,
    pub(crate) epochs: EpochCache,
    /// Offset of the newest producer snapshot on disk.
    pub(crate) snapshot_offset: Option<i64>,
    pub(crate) unsynced: Unsynced,
    pub(crate) verifications: Verifications,
    /// The first offset that was not compacted; 0 if none was.
    pub(crate) first_dirty: i64,
    /// The files of deleted segments that are still on the disk.
    pub(crate) deleted_files: Vec<PathBuf>,
}

/// Reads one partition's log while it is written to.
#[derive(Clone)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) dir: Arc<Path>,
    pub(crate) list: RwLock<SegmentList>,
    /// Held by a running fsync, since two would write the same temporary file.
    pub(crate) syncing: Mutex<()>,
    pub(crate) faults: Faults,
}

/// What readers see. There is always a segment; the last one is the active one.
pub(crate) struct SegmentList {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) log_start_offset: i64,
    pub(crate) log_end_offset: i64,
}

impl SegmentList {
    pub(crate) fn active(&self) -> &Arc<Segment> {
        &self.segments[self.segments.len() - 1]
    }

    /// Returns whether a segment is one of the list.
    pub(crate) fn holds(&self, segment: &Arc<Segment>) -> bool {
        let at = self.segments.binary_search_by_key(&segment.base_offset(), |other| other.base_offset());
        at.is_ok_and(|at| Arc::ptr_eq(&self.segments[at], segment))
    }

    /// Returns the segment after another one.
    pub(crate) fn after(&self, segment: &Segment) -> Option<&Arc<Segment>> {
        self.segments.get(self.segments.partition_point(|other| other.base_offset() <= segment.base_offset()))
    }

    /// Returns the index of the segment that would hold `offset`.
    pub(crate) fn segment_of(&self, offset: i64) -> usize {
        self.segments.partition_point(|segment| segment.base_offset() <= offset).saturating_sub(1)
    }
}

impl Log {
    /// Returns a handle that reads this log without the lock that guards `self`.
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// Returns the partition's folder.
    pub fn dir(&self) -> &Path {
        &self.shared().dir
    }

    /// Returns the configuration in force.
    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// Replaces the configuration; it applies from the next append on.
    pub fn set_config(&mut self, config: impl Into<Arc<LogConfig>>) {
        self.config = config.into();
    }

    /// Returns the first offset that can be read.
    pub fn log_start_offset(&self) -> i64 {
        self.reader.log_start_offset()
    }

    /// Returns the offset that the next record will get.
    pub fn log_end_offset(&self) -> i64 {
        self.reader.log_end_offset()
    }

    /// Returns the offset below which everything is durable.
    pub fn recovery_point(&self) -> i64 {
        self.unsynced.recovery_point
    }

    /// Returns the size of all segments in bytes, as DescribeLogDirs reports it.
    pub fn size(&self) -> u64 {
        self.reader.size()
    }

    /// Returns the number of segments.
    pub fn segment_count(&self) -> usize {
        self.shared().list.read().segments.len()
    }

    /// Returns where the oldest open transaction starts.
    pub fn first_open_transaction(&self) -> Option<i64> {
        self.producers.transactions.first_open()
    }

    /// Returns the number of producers with a state in this log.
    pub fn producer_count(&self) -> usize {
        self.producers.by_id.len()
    }

    /// Returns the largest id of a producer with a state in this log.
    pub fn newest_producer_id(&self) -> Option<i64> {
        self.producers.by_id.keys().max().copied()
    }

    /// Returns the state of every producer in this log, by id, for DescribeProducers.
    pub fn producers(&self) -> Vec<ProducerState> {
        let mut states: Vec<ProducerState> =
            self.producers.by_id.iter().map(|(id, entry)| ProducerState::of(*id, entry)).collect();
        states.sort_unstable_by_key(|state| state.producer_id);
        states
    }

    /// Removes producers that have been idle for `producer.id.expiration.ms`; returns their number.
    pub fn expire_producers(&mut self, now_ms: i64) -> usize {
        self.verifications.expire(now_ms, self.config.producer_id_expiration_ms);
        self.producers.expire(now_ms, self.config.producer_id_expiration_ms)
    }

    /// Returns the newest leader epoch of the log.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest().map(|entry| entry.epoch)
    }

    /// Returns all leader epochs with their start offsets, oldest first.
    pub fn epochs(&self) -> &[EpochEntry] {
        self.epochs.entries()
    }

    /// Returns the leader epoch of the record at `offset`.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        self.epochs.epoch_of(offset)
    }

    /// Returns the end of the largest epoch at or below `epoch`, for OffsetForLeaderEpoch; `None` is its "undefined",
    /// -1.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        self.epochs.end_offset(epoch, self.log_end_offset())
    }

    /// Records that a leader epoch starts at an offset, usually the log end. Appends do it by themselves.
    ///
    /// An epoch without a record is not kept on disk, since nothing in the log needs it.
    pub fn assign_epoch(&mut self, epoch: i32, start_offset: i64) {
        if self.epochs.assign(epoch, start_offset) && start_offset < self.log_end_offset() {
            self.unsynced.epochs = true;
        }
    }

    /// Returns whether the log is out of service for ever: every append and sync fails, reads still work.
    pub fn is_poisoned(&self) -> bool {
        self.reader.is_poisoned()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.reader.shared
    }

    pub(crate) fn check_not_poisoned(&self) -> Result<(), LogError> {
        if self.is_poisoned() {
            return Err(LogError::Poisoned { path: self.dir().to_path_buf() });
        }
        Ok(())
    }

    pub(crate) fn active(&self) -> Arc<Segment> {
        Arc::clone(self.shared().list.read().active())
    }
}

impl LogReader {
    /// Returns the first offset that can be read.
    pub fn log_start_offset(&self) -> i64 {
        self.shared.list.read().log_start_offset
    }

    /// Returns the offset that the next record will get.
    pub fn log_end_offset(&self) -> i64 {
        self.shared.list.read().log_end_offset
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.shared.faults.poisoned.load(Ordering::Acquire)
    }

    /// Returns the size of all segments in bytes, as DescribeLogDirs reports it.
    pub fn size(&self) -> u64 {
        self.shared.list.read().segments.iter().map(|segment| segment.size()).sum()
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reader.fmt(f)
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = self.shared.list.read();
        f.debug_struct("Log")
            .field("dir", &self.shared.dir)
            .field("log_start_offset", &list.log_start_offset)
            .field("log_end_offset", &list.log_end_offset)
            .finish_non_exhaustive()
    }
}
