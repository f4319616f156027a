//! Makes appended batches durable: tracks what is not on disk yet, and runs the fsync outside of the partition's lock.
//!
//! The broker's group commit calls `sync_target()` under the lock, then `target.sync()` outside of it while appends
//! continue. Under the lock again it calls `synced(&target)`, and then acknowledges everything below `target.upto()`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::checksums::CHECKSUM_FILE;
use crate::error::LogError;
use crate::folder::FolderChange;
use crate::fsutil::segment_file;
use crate::leader_epochs::EpochCache;
use crate::log::{Log, Shared};
use crate::partition_metadata::PARTITION_METADATA;
use crate::seeded_bug::{self, Bug};
use crate::segment::{SEGMENT_SUFFIXES, Segment};

/// The parts of a log that may not be on disk.
pub(crate) struct Unsynced {
    /// Everything below is on disk.
    pub(crate) recovery_point: i64,
    /// Segments with unsynced writes, oldest first. Their descriptors are kept open: the kernel reports a writeback
    /// error only to descriptors that were open when it happened.
    segments: Vec<(Arc<Segment>, Arc<File>)>,
    /// A file was created in the folder.
    pub(crate) dir: bool,
    /// The folder itself is new: its entry in the parent.
    pub(crate) parent: Option<FolderChange>,
    /// `leader-epoch-checkpoint` is out of date.
    pub(crate) epochs: bool,
    /// Segments whose index of aborted transactions has changed.
    transactions: Vec<Arc<Segment>>,
    /// Grows with every truncation. A sync that started before a truncation does not count after it.
    generation: u64,
}

impl Unsynced {
    pub(crate) fn new(recovery_point: i64) -> Self {
        Self {
            recovery_point,
            segments: Vec::new(),
            dir: false,
            parent: None,
            epochs: false,
            transactions: Vec::new(),
            generation: 0,
        }
    }

    pub(crate) fn note(&mut self, segment: &Arc<Segment>, file: &Arc<File>) {
        if self.segments.last().is_none_or(|(last, _)| !Arc::ptr_eq(last, segment)) {
            self.segments.push((Arc::clone(segment), Arc::clone(file)));
        }
    }

    /// Notes a change of a segment's index of aborted transactions. The file may be new.
    pub(crate) fn note_transactions(&mut self, segment: &Arc<Segment>) {
        self.dir = true;
        if self.transactions.last().is_none_or(|last| !Arc::ptr_eq(last, segment)) {
            self.transactions.push(Arc::clone(segment));
        }
    }

    /// Records that the log now ends at `log_end_offset`, with `active` as its last segment.
    pub(crate) fn truncated(&mut self, log_end_offset: i64, active: &Segment) {
        self.recovery_point = self.recovery_point.min(log_end_offset);
        self.segments.retain(|(segment, _)| segment.base_offset() <= active.base_offset());
        self.transactions.retain(|segment| segment.base_offset() <= active.base_offset());
        self.generation += 1;
    }

    /// Records that the log is empty and starts at `offset`, with its file on disk.
    pub(crate) fn restarted(&mut self, offset: i64) {
        self.recovery_point = offset;
        self.segments.clear();
        self.transactions.clear();
        (self.dir, self.epochs) = (false, true);
        self.generation += 1;
    }

    /// Records that other segments, which are on disk, have taken the place of some.
    pub(crate) fn replaced(&mut self, replaced: &[Arc<Segment>]) {
        let is_left = |segment: &Arc<Segment>| !replaced.iter().any(|other| Arc::ptr_eq(other, segment));
        self.segments.retain(|(segment, _)| is_left(segment));
        self.transactions.retain(is_left);
        self.dir = true;
    }

    /// Records that segments below `base_offset` were deleted.
    pub(crate) fn deleted_below(&mut self, base_offset: i64) {
        self.segments.retain(|(segment, _)| segment.base_offset() >= base_offset);
        self.transactions.retain(|segment| segment.base_offset() >= base_offset);
    }
}

/// An fsync to run, for everything that was appended before [`Log::sync_target`].
#[must_use = "nothing is durable before `sync` has succeeded and `Log::synced` was called"]
pub struct SyncTarget {
    upto: i64,
    generation: u64,
    shared: Arc<Shared>,
    segments: Vec<(Arc<Segment>, Arc<File>)>,
    active_base: i64,
    dir: bool,
    parent: Option<FolderChange>,
    epochs: Option<EpochCache>,
    /// Indexes of aborted transactions, each with its number of entries.
    transactions: Vec<(Arc<Segment>, u64)>,
}

/// Files that are opened for a sync.
struct Beside {
    files: Vec<(PathBuf, File)>,
    /// The folder of the partition's folder, if its entry there may not be on disk.
    parent: Option<File>,
}

impl SyncTarget {
    /// Returns the offset below which every record is durable once [`Self::sync`] has succeeded.
    pub fn upto(&self) -> i64 {
        self.upto
    }

    /// Waits for the disk. Blocks; needs no lock.
    ///
    /// A failed fsync poisons the log at once and for ever. The kernel may count the lost pages as clean, so a second
    /// attempt would succeed without writing them. A file that cannot be opened for it poisons nothing: no page is
    /// lost.
    pub fn sync(&self) -> Result<(), LogError> {
        let _one_at_a_time = self.shared.syncing.lock();
        self.check_not_poisoned()?;
        // No record depends on this file: it is written again by the next sync.
        self.write_epochs().inspect_err(|error| self.shared.faults.note(error))?;
        let beside = self.open_beside().inspect_err(|error| self.shared.faults.note(error))?;
        let result = self.sync_files(&beside);
        if let Err(error) = &result {
            self.shared.faults.poison();
            tracing::error!(%error, "an fsync failed; the log is out of service");
        }
        result
    }

    /// Writes the files that a sync of the whole file system has to include.
    pub(crate) fn prepare_bulk(&self) -> Result<(), LogError> {
        let _one_at_a_time = self.shared.syncing.lock();
        self.check_not_poisoned()?;
        self.write_epochs()
    }

    /// Returns the partition's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.shared.dir
    }

    fn check_not_poisoned(&self) -> Result<(), LogError> {
        if self.shared.faults.poisoned.load(Ordering::Acquire) {
            return Err(LogError::Poisoned { path: self.shared.dir.to_path_buf() });
        }
        Ok(())
    }

    fn write_epochs(&self) -> Result<(), LogError> {
        let dir = self.dir();
        match &self.epochs {
            Some(epochs) => epochs.write(dir).map_err(LogError::io("cannot write the leader epochs in", dir)),
            None => Ok(()),
        }
    }

    /// Opens what has to be synced and is not kept open. Nothing is synced yet.
    ///
    /// After a roll these are the indexes, and the snapshot at the next segment's start. After an abort it is the index
    /// of aborted transactions.
    fn open_beside(&self) -> Result<Beside, LogError> {
        let dir = self.dir();
        let rolled = self.segments.iter().map(|(segment, _)| segment.base_offset());
        let rolled = rolled.filter(|base_offset| *base_offset != self.active_base);
        let mut paths: Vec<PathBuf> = rolled
            .flat_map(|base_offset| SEGMENT_SUFFIXES[1..].iter().map(move |suffix| (base_offset, suffix)))
            .map(|(base_offset, suffix)| segment_file(dir, base_offset, suffix))
            .collect();
        if !paths.is_empty() {
            paths.push(dir.join(CHECKSUM_FILE));
        }
        paths.extend(self.transactions.iter().map(|(segment, _)| segment.transactions().path()));
        if self.dir {
            paths.extend([dir.join(PARTITION_METADATA), dir.to_path_buf()]);
        }
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            match File::open(&path) {
                Ok(file) => files.push((path, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && path != dir => {}
                Err(error) => return Err(LogError::io("cannot open for an fsync", &path)(error)),
            }
        }
        let open_parent =
            |parent: &FolderChange| parent.open().map_err(LogError::io("cannot open for an fsync", parent.path()));
        Ok(Beside { files, parent: self.parent.as_ref().map(open_parent).transpose()? })
    }

    fn sync_files(&self, beside: &Beside) -> Result<(), LogError> {
        for (segment, file) in &self.segments {
            if !seeded_bug::is(Bug::SkipFsync) {
                file.sync_data().map_err(LogError::io("cannot fsync", &segment.path()))?;
            }
        }
        // The folder is the last of them.
        for (path, file) in &beside.files {
            file.sync_all().map_err(LogError::io("cannot fsync", path))?;
        }
        if let (Some(parent), Some(folder)) = (&self.parent, &beside.parent) {
            parent.sync(folder).map_err(LogError::io("cannot fsync", parent.path()))?;
        }
        Ok(())
    }
}

impl Log {
    /// Returns how often records were removed from the end since the log was opened.
    pub fn truncations(&self) -> u64 {
        self.unsynced.generation
    }

    /// Returns whether a full segment waits for a sync. A broker that seldom syncs should then do so, since recovery
    /// after a crash reads every unsynced segment.
    pub fn has_full_segment_unsynced(&self) -> bool {
        self.unsynced.segments.len() > 1
    }

    /// Returns the sync that makes everything appended so far durable; `None` if it already is.
    pub fn sync_target(&self) -> Option<SyncTarget> {
        let unsynced = &self.unsynced;
        let clean = unsynced.segments.is_empty()
            && !unsynced.dir
            && unsynced.parent.is_none()
            && !unsynced.epochs
            && unsynced.transactions.is_empty();
        if clean && !self.is_poisoned() {
            return None;
        }
        Some(SyncTarget {
            upto: self.log_end_offset(),
            generation: unsynced.generation,
            shared: Arc::clone(self.shared()),
            segments: unsynced.segments.clone(),
            active_base: self.active().base_offset(),
            dir: unsynced.dir,
            parent: unsynced.parent.clone(),
            epochs: unsynced.epochs.then(|| self.epochs.clone()),
            transactions: unsynced
                .transactions
                .iter()
                .map(|segment| (Arc::clone(segment), segment.transactions().entries()))
                .collect(),
        })
    }

    /// Records that `target.sync()` succeeded. Moves the recovery point up and returns it.
    pub fn synced(&mut self, target: &SyncTarget) -> i64 {
        let log_end_offset = self.log_end_offset();
        if target.generation != self.unsynced.generation {
            return self.unsynced.recovery_point;
        }
        let unsynced = &mut self.unsynced;
        unsynced.recovery_point = unsynced.recovery_point.max(target.upto);
        // Segments with newer writes stay in the list: the target's last segment, unless nothing was written to it.
        let last = target.segments.last().map(|(segment, _)| segment.base_offset());
        unsynced.segments.retain(|(segment, _)| {
            let base = segment.base_offset();
            target.segments.iter().all(|(synced, _)| synced.base_offset() != base)
                || (Some(base) == last && log_end_offset > target.upto)
        });
        unsynced.transactions.retain(|segment| {
            let entries = segment.transactions().entries();
            target.transactions.iter().all(|(synced, then)| !Arc::ptr_eq(synced, segment) || *then != entries)
        });
        if target.dir && self.active().base_offset() == target.active_base {
            self.unsynced.dir = false;
        }
        if target.parent.is_some() {
            self.unsynced.parent = None;
        }
        if target.epochs.as_ref() == Some(&self.epochs) {
            self.unsynced.epochs = false;
        }
        self.unsynced.recovery_point
    }

    /// Makes everything durable now: [`Self::sync_target`], `sync` and [`Self::synced`] in one.
    pub fn flush(&mut self) -> Result<i64, LogError> {
        if let Some(target) = self.sync_target() {
            target.sync()?;
            self.synced(&target);
        }
        Ok(self.unsynced.recovery_point)
    }

    /// Ends the log before its folder is renamed or removed. Waits for a running sync and prevents new ones: they write
    /// by the folder's name, which may soon belong to another log.
    pub fn retire(self) {
        // A pass of the cleaner stops at this.
        self.shared().faults.poison();
        drop(self.shared().syncing.lock());
    }

    /// Closes the log so that the next start needs no scan: [`Self::prepare_close`], then a sync.
    ///
    /// Returns the recovery point, which is the log's end. The log can still be read and even appended to. After an
    /// append it has to be closed again before the broker may write its marker of a clean shutdown.
    pub fn close_clean(&mut self) -> Result<i64, LogError> {
        if let Some(target) = self.prepare_close()? {
            target.sync()?;
            self.synced(&target);
        }
        Ok(self.unsynced.recovery_point)
    }

    /// Writes the last index entries and the producer snapshot, which save the next start a scan. Returns the sync that
    /// is still needed; `None` if all records are on disk.
    ///
    /// The indexes and the snapshot are not synced: the next start compares them with the log. A log of one small
    /// segment gets neither, because every start walks it from its first byte.
    pub fn prepare_close(&mut self) -> Result<Option<SyncTarget>, LogError> {
        self.check_not_poisoned()?;
        let log_end_offset = self.log_end_offset();
        if self.size() == 0 && log_end_offset == 0 {
            // There is nothing to keep, and the next start treats the empty folder as new.
            return Ok(None);
        }
        if self.config.preallocate && self.active().size() > 0 {
            self.active().trim()?;
        }
        if self.snapshot_offset != Some(log_end_offset) {
            let active = self.active();
            if self.is_one_small_segment() {
                active.finish_loaded()?;
            } else {
                if active.size() > 0 {
                    active.finish()?;
                }
                self.write_snapshot(log_end_offset)?;
            }
        }
        Ok(self.sync_target())
    }

    /// Returns whether the whole log, from offset 0 on, is one small segment.
    fn is_one_small_segment(&self) -> bool {
        let list = self.shared().list.read();
        list.segments.len() == 1 && list.active().base_offset() == 0 && list.active().is_small()
    }

    /// Returns the sync that makes the recovered records durable; `None` if there are none that need it.
    pub fn recovery_target(&self) -> Option<SyncTarget> {
        if self.unsynced.segments.is_empty() { None } else { self.sync_target() }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use millstream_record::{BatchBuilder, CheckedBatch, Codec, TimestampType};
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use tempfile::TempDir;

    use super::*;
    use crate::{AppendError, LogConfig, OpenOptions};

    fn new_log() -> (TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { segment_bytes: 300, ..LogConfig::default() };
        let log = Log::open(&dir.path().join("t-0"), config, OpenOptions::default()).unwrap();
        (dir, log)
    }

    fn append(log: &mut Log) -> Result<i64, AppendError> {
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.producer(1, 0, log.log_end_offset() as i32);
        batch.append(1, None, Some(b"some value"), []).unwrap();
        let batch = batch.build().unwrap();
        log.append(&CheckedBatch::of_own(&batch).unwrap(), 0, 1).map(|appended| appended.batch().base_offset)
    }

    #[test]
    fn the_recovery_point_follows_what_was_synced_while_appends_go_on() {
        let (_dir, mut log) = new_log();
        log.flush().unwrap();
        assert!(log.sync_target().is_none());
        for _ in 0..10 {
            append(&mut log).unwrap();
        }
        assert!(log.segment_count() > 2);
        let first = log.sync_target().unwrap();
        assert_eq!((first.upto(), log.recovery_point()), (10, 0));
        append(&mut log).unwrap();
        first.sync().unwrap();
        assert_eq!(log.synced(&first), 10);
        let second = log.sync_target().unwrap();
        assert_eq!(second.segments.len(), 1, "only the active segment was written to since");
        second.sync().unwrap();
        assert_eq!(log.synced(&second), 11);
        assert_eq!(log.synced(&first), 11, "an old sync does not lower the recovery point");
        assert!(log.sync_target().is_none());
    }

    #[test]
    fn a_sync_from_before_a_truncation_does_not_count() {
        let (_dir, mut log) = new_log();
        for _ in 0..10 {
            append(&mut log).unwrap();
        }
        let before = log.sync_target().unwrap();
        before.sync().unwrap();
        log.truncate_to(4).unwrap();
        append(&mut log).unwrap();
        assert_eq!(log.synced(&before), 0);
        assert_eq!(log.flush().unwrap(), 5);
        log.truncate_to(2).unwrap();
        assert_eq!(log.recovery_point(), 2);
    }

    #[test]
    fn a_failed_fsync_poisons_the_log_for_ever() {
        let (_dir, mut log) = new_log();
        append(&mut log).unwrap();
        log.flush().unwrap();
        append(&mut log).unwrap();
        // An fsync of /dev/null fails with EINVAL.
        log.unsynced.segments[0].1 = Arc::new(File::open("/dev/null").unwrap());
        let target = log.sync_target().unwrap();
        let error = target.sync().unwrap_err();
        assert!(error.to_string().contains("cannot fsync"), "{error}");
        assert!(log.is_poisoned());
        assert!(matches!(target.sync(), Err(LogError::Poisoned { .. })), "no second attempt");
        assert!(matches!(log.flush(), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.close_clean(), Err(LogError::Poisoned { .. })));
        assert!(matches!(append(&mut log), Err(AppendError::Log(LogError::Poisoned { .. }))));
        assert_eq!((log.recovery_point(), log.log_end_offset()), (1, 2));
        assert!(log.read(0, 1, i64::MAX, true).unwrap().is_some(), "reads still work");
    }

    #[test]
    fn a_file_that_cannot_be_opened_for_a_sync_poisons_nothing() {
        let (_dir, mut log) = new_log();
        append(&mut log).unwrap();
        let metadata = log.dir().join(PARTITION_METADATA);
        let _ = std::fs::remove_file(&metadata);
        std::os::unix::fs::symlink(&metadata, &metadata).unwrap();
        let error = log.flush().unwrap_err();
        assert!(error.to_string().contains("cannot open for an fsync"), "{error}");
        assert!(!log.is_poisoned());
        assert_eq!(log.recovery_point(), 0);
        std::fs::remove_file(&metadata).unwrap();
        assert_eq!(log.flush().unwrap(), 1);
    }

    #[test]
    fn a_sync_leaves_the_folder_of_a_retired_log_alone() {
        let (dir, mut log) = new_log();
        append(&mut log).unwrap();
        let late = log.sync_target().unwrap();
        let folder = log.dir().to_path_buf();
        log.retire();
        std::fs::rename(&folder, dir.path().join("t-0-delete")).unwrap();
        std::fs::create_dir(&folder).unwrap();
        assert!(matches!(late.sync(), Err(LogError::Poisoned { .. })));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "the new folder is as it was");
    }

    #[test]
    fn a_full_disk_fails_the_append_and_leaves_the_log_as_it_was() {
        let (_dir, mut log) = new_log();
        append(&mut log).unwrap();
        // The file cannot grow by more than half a batch.
        let content = std::fs::read(log.active().path()).unwrap();
        let mut full = File::from(memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap());
        full.write_all(&content).unwrap();
        full.set_len(content.len() as u64 + 30).unwrap();
        fcntl_add_seals(&full, SealFlags::GROW).unwrap();
        log.active().replace_file(full.try_clone().unwrap());
        let error = append(&mut log).unwrap_err();
        assert!(error.to_string().contains("cannot append to"), "{error}");
        assert!(!log.is_poisoned());
        assert_eq!(full.metadata().unwrap().len(), content.len() as u64, "what was written of it is cut off");
        assert_eq!((log.log_end_offset(), log.size()), (1, content.len() as u64));
        // Once there is room, the same batch with the same sequence is appended.
        let path = log.active().path();
        log.active().replace_file(File::options().read(true).write(true).open(&path).unwrap());
        assert_eq!(append(&mut log).unwrap(), 1);
    }

    #[test]
    fn an_append_that_cannot_be_undone_poisons_the_log() {
        let (_dir, mut log) = new_log();
        // Every write fails with ENOSPC, and setting the length fails too.
        log.active().replace_file(File::options().read(true).write(true).open("/dev/full").unwrap());
        append(&mut log).unwrap_err();
        assert!(log.is_poisoned());
        let mut byte = [0];
        assert_eq!(File::open(log.active().path()).unwrap().read_at(&mut byte, 0).unwrap(), 0);
    }
}
