//! Puts a compacted segment in the place of its sources, in steps that Kafka knows and completes.
//!
//! 1. The copy is complete and on disk, in files that end in `.cleaned`. A start removes them.
//! 2. They are renamed to `.swap`, the log file last, and the folder is synced. After this the copy counts: a start
//!    that finds a `.swap` log file, and no `.cleaned` file from its offset on, completes the swap.
//! 3. The sources that have no name in common with the copy are removed.
//! 4. The suffix is removed, from the log file first: it replaces the first source. A start that finds only `.swap`
//!    indexes renames them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::{CLEANED, CopiedSegment, SUFFIXES};
use crate::batch_walk::{HeaderWalk, WalkError};
use crate::error::LogError;
use crate::fsutil::{parse_segment_file, remove_if_there, segment_file, sync_dir};
use crate::log::Log;
use crate::producer_snapshot::SNAPSHOT_SUFFIX;
use crate::segment::Segment;
use crate::transaction_index::{ENTRY_LEN, TRANSACTION_INDEX_SUFFIX};

/// What follows the suffix of a file that is about to take its place.
pub(crate) const SWAP: &str = ".swap";

/// A copy, and the segments whose place it takes.
pub(crate) struct Swap {
    copied: CopiedSegment,
    sources: Vec<Arc<Segment>>,
}

/// One step of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Rename { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
    SyncDir(PathBuf),
}

impl Step {
    fn run(&self) -> Result<(), LogError> {
        match self {
            Self::Rename { from, to } => fs::rename(from, to).map_err(LogError::io("cannot rename", from)),
            Self::Remove(path) => remove_if_there(path).map_err(LogError::io("cannot remove", path)),
            Self::SyncDir(dir) => sync_dir(dir).map_err(LogError::io("cannot fsync", dir)),
        }
    }
}

impl Swap {
    pub(super) fn new(copied: CopiedSegment, sources: Vec<Arc<Segment>>) -> Self {
        Self { copied, sources }
    }

    pub(super) fn size(&self) -> u64 {
        self.copied.size
    }

    pub(super) fn base_offset(&self) -> i64 {
        self.copied.base_offset
    }

    /// Returns the suffixes of the files of the copy: without aborted transactions it has no index of them.
    fn suffixes(&self) -> impl DoubleEndedIterator<Item = &'static str> {
        let has_aborted = self.copied.aborted > 0;
        SUFFIXES.into_iter().filter(move |suffix| has_aborted || *suffix != TRANSACTION_INDEX_SUFFIX)
    }

    /// Returns the steps up to the one from which on the copy counts.
    fn commit(&self, dir: &Path) -> Vec<Step> {
        let base_offset = self.copied.base_offset;
        let file = |suffix: &str, of: &str| segment_file(dir, base_offset, &format!("{suffix}{of}"));
        let renames =
            self.suffixes().map(|suffix| Step::Rename { from: file(suffix, CLEANED), to: file(suffix, SWAP) });
        renames.chain([Step::SyncDir(dir.to_path_buf())]).collect()
    }

    /// Undoes a part of the steps up to there: the log file first, without which the others do not count.
    fn take_back(&self, dir: &Path) -> Result<(), LogError> {
        let file = |suffix: &str| segment_file(dir, self.copied.base_offset, &format!("{suffix}{SWAP}"));
        SUFFIXES.into_iter().rev().try_for_each(|suffix| Step::Remove(file(suffix)).run())
    }

    /// Returns the steps after that.
    fn complete(&self, dir: &Path) -> Vec<Step> {
        let base_offset = self.copied.base_offset;
        let mut steps = Vec::new();
        for source in self.sources.iter().skip(1) {
            let suffixes = SUFFIXES.into_iter().rev().chain([SNAPSHOT_SUFFIX]);
            steps.extend(suffixes.map(|suffix| Step::Remove(segment_file(dir, source.base_offset(), suffix))));
        }
        if self.copied.aborted == 0 {
            steps.push(Step::Remove(segment_file(dir, base_offset, TRANSACTION_INDEX_SUFFIX)));
        }
        steps.extend(self.suffixes().rev().map(|suffix| Step::Rename {
            from: segment_file(dir, base_offset, &format!("{suffix}{SWAP}")),
            to: segment_file(dir, base_offset, suffix),
        }));
        steps
    }
}

impl Log {
    /// Puts a compacted segment in the place of its sources, and returns those. A reader that holds one can still read
    /// it, and its files are freed with the last holder. `None` if the sources are not all in the log any more: then
    /// the copy's files are left as they are.
    pub(crate) fn install(&mut self, swap: Swap) -> Result<Option<Vec<Arc<Segment>>>, LogError> {
        let from = {
            let list = self.shared().list.read();
            let first = list.segments.iter().position(|segment| Arc::ptr_eq(segment, &swap.sources[0]));
            let Some(from) = first.filter(|from| from + swap.sources.len() < list.segments.len()) else {
                return Ok(None);
            };
            let same = list.segments[from..].iter().zip(&swap.sources).all(|(one, other)| Arc::ptr_eq(one, other));
            if !same {
                return Ok(None);
            }
            from
        };
        for source in &swap.sources {
            source.pin()?;
        }
        let dir = Arc::clone(&self.shared().dir);
        self.forget_checksums()?;
        if let Err(error) = swap.commit(&dir).iter().try_for_each(Step::run) {
            // The sources are untouched.
            swap.take_back(&dir)?;
            return Err(error);
        }
        let CopiedSegment { base_offset, size, .. } = swap.copied;
        let segment = Segment::existing(
            &dir,
            base_offset,
            size,
            (swap.copied.aborted * ENTRY_LEN) as u64,
            &self.config,
            &self.files,
        );
        // Every byte was checked, and written by this process.
        segment.note_checked(0, size);
        let shared = Arc::clone(self.shared());
        // A reader that misses a file of the sources by its name finds that the list has changed, and looks again.
        let mut list = shared.list.write();
        for step in swap.complete(&dir) {
            // A part of the steps is done, so that the folder and the list differ.
            step.run().inspect_err(|_| shared.faults.poison())?;
        }
        drop(list.segments.splice(from..from + swap.sources.len(), [Arc::new(segment)]));
        drop(list);
        self.unsynced.replaced(&swap.sources);
        if let Err(error) = self.note_checksums(&[base_offset], None) {
            tracing::warn!(%error, "there are no checksums before the next segment");
        }
        Ok(Some(swap.sources))
    }
}

/// Completes the swaps that a stop has interrupted, by this program or by Apache Kafka. Other leftovers stay: the
/// caller removes them.
pub(crate) fn complete_swaps(dir: &Path) -> Result<(), LogError> {
    let mut swaps = BTreeSet::new();
    let mut cleaned_from = i64::MAX;
    let mut logs = BTreeSet::new();
    for (base_offset, name) in names(dir)? {
        let Some((_, suffix)) = parse_segment_file(&name) else { continue };
        if suffix.ends_with(CLEANED) {
            cleaned_from = cleaned_from.min(base_offset);
        } else if let Some(of) = suffix.strip_suffix(SWAP) {
            swaps.insert(base_offset);
            if of == "log" {
                logs.insert(base_offset);
            }
        }
    }
    // A file that is still being written at or below an offset says that not all was renamed there.
    swaps.retain(|base_offset| *base_offset < cleaned_from);
    logs.retain(|base_offset| *base_offset < cleaned_from);
    if swaps.is_empty() {
        return Ok(());
    }
    tracing::info!(folder = %dir.display(), "an interrupted compaction is completed");
    for base_offset in logs {
        let end = end_of(&segment_file(dir, base_offset, "log.swap"))?.max(base_offset + 1);
        for (other, name) in names(dir)? {
            let is_source = (base_offset..end).contains(&other)
                && parse_segment_file(&name).is_some_and(|(_, suffix)| SUFFIXES.contains(&suffix));
            if is_source {
                Step::Remove(dir.join(name)).run()?;
            }
        }
    }
    for base_offset in swaps {
        for suffix in SUFFIXES.into_iter().rev() {
            let from = segment_file(dir, base_offset, &format!("{suffix}{SWAP}"));
            match fs::rename(&from, segment_file(dir, base_offset, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::io("cannot rename", &from)(error));
                }
                _ => {}
            }
        }
    }
    sync_dir(dir).map_err(LogError::io("cannot fsync", dir))
}

/// Returns the names of the files of segments in a folder, with their offsets.
fn names(dir: &Path) -> Result<Vec<(i64, String)>, LogError> {
    let list_error = LogError::io("cannot list", dir);
    let entries: Result<Vec<_>, _> = fs::read_dir(dir).and_then(Iterator::collect);
    let names = entries.map_err(list_error)?.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| Some((parse_segment_file(&name)?.0, name))).collect())
}

/// Returns the offset after the last batch of a log file.
fn end_of(path: &Path) -> Result<i64, LogError> {
    let file = File::open(path).map_err(LogError::io("cannot open", path))?;
    let len = file.metadata().map_err(LogError::io("cannot stat", path))?.len();
    let mut walk = HeaderWalk::new(&file, 0, len);
    let mut end = 0;
    loop {
        match walk.next() {
            Ok(Some(batch)) => end = batch.header.next_offset(),
            Ok(None) => return Ok(end),
            Err(WalkError::Io(error)) => return Err(LogError::io("cannot read", path)(error)),
            Err(WalkError::Bad { position, reason }) => {
                return Err(LogError::Corrupt { path: path.to_path_buf(), position, reason });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millstream_record::{BatchBuilder, CheckedBatch, Codec, EndMarker, TimestampType, batches};
    use parking_lot::Mutex;

    use super::*;
    use crate::compaction::Cleaner;
    use crate::{CleanupPolicy, LogConfig, OpenOptions, TransactionEnd};

    const NOW: i64 = 1_700_000_000_000;

    fn config() -> LogConfig {
        LogConfig {
            segment_bytes: 1500,
            index_interval_bytes: 200,
            cleanup_policy: CleanupPolicy::COMPACT,
            ..LogConfig::default()
        }
    }

    /// Appends records of ten keys, and transactions of which every other one is aborted.
    fn filled(dir: &Path) -> Log {
        let mut log = Log::open(dir, config(), OpenOptions::default()).unwrap();
        for at in 0..120i64 {
            let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
            let is_transaction = at % 6 == 5;
            if is_transaction {
                batch.producer(7, 0, (at / 6) as i32).transactional(true);
            }
            let key = format!("key {}", at * 7 % 10);
            batch.append(NOW + at, Some(key.as_bytes()), Some(format!("value {at}").as_bytes()), []).unwrap();
            let batch = batch.build().unwrap();
            let origin = crate::AppendOrigin::Client(crate::Verification::Disabled);
            log.append_of(&CheckedBatch::of_own(&batch).unwrap(), 0, NOW, origin).unwrap();
            if is_transaction {
                let marker = EndMarker { is_commit: at % 12 == 5, coordinator_epoch: 0 };
                let end = TransactionEnd { producer_id: 7, producer_epoch: 0, marker, transaction_version: 1 };
                log.append_marker(&end, 0, NOW).unwrap();
            }
        }
        log.flush().unwrap();
        log
    }

    /// The offsets of all records, and the last committed record of each key.
    type Content = (Vec<i64>, BTreeMap<Vec<u8>, (i64, Vec<u8>)>);

    /// Returns all records, and what a reader of committed records sees of each key at last.
    fn content(log: &Log) -> Content {
        let reader = log.reader();
        let (mut offsets, mut last, mut from) = (Vec::new(), BTreeMap::new(), 0);
        while let Some(slice) = reader.read(from, 500, i64::MAX, true).unwrap() {
            let aborted = reader.aborted_transactions(&slice).unwrap();
            let bytes = slice.read_to_bytes().unwrap();
            for batch in batches(&bytes).map(Result::unwrap) {
                batch.verify_crc().unwrap();
                from = batch.next_offset();
                let offset = batch.base_offset();
                let hides = |one: &crate::AbortedTransaction| {
                    one.producer_id == batch.producer_id() && (one.first_offset..one.last_offset).contains(&offset)
                };
                let is_hidden = batch.is_control() || (batch.is_transactional() && aborted.iter().any(hides));
                for record in batch.records(1000).unwrap().iter().map(Result::unwrap) {
                    offsets.push(record.offset);
                    if !is_hidden {
                        last.insert(record.key.unwrap().to_vec(), (record.offset, record.value.unwrap().to_vec()));
                    }
                }
            }
        }
        (offsets, last)
    }

    fn copy_folder(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_kill_at_any_step_leaves_the_old_segments_or_the_new_one() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("t-0");
        let log = Mutex::new(filled(&dir));
        let end = log.lock().log_end_offset();
        let before = content(&log.lock());
        // The copies are made, and none takes its place: the folder has all files of the first group.
        let cleaner = Cleaner {
            map_bytes: 1 << 16,
            load_factor: 0.9,
            piece_bytes: 4096,
            batch_bytes_max: 1 << 20,
            decode: &|_, _| Err("no decoder".to_owned()),
            pace: &|_| true,
        };
        let config = LogConfig { segment_bytes: 100_000, ..config() };
        log.lock().set_config(config.clone());
        let wide = log.lock().cleaning_plan(NOW, end).unwrap().unwrap();
        let swap = wide.copy_first_group(&cleaner, &log).unwrap().unwrap();
        assert!(swap.sources.len() > 5, "{}", swap.sources.len());
        assert!(swap.copied.aborted > 0);
        let (commit, complete) = (swap.commit(&dir).len(), swap.complete(&dir).len());
        let mut after = None;
        for clean_shutdown in [false, true] {
            for steps in (0..=commit + complete).rev() {
                let at = root.path().join(format!("{steps}-{clean_shutdown}"));
                copy_folder(&dir, &at);
                let all: Vec<Step> = [swap.commit(&at), swap.complete(&at)].concat();
                all[..steps].iter().try_for_each(Step::run).unwrap();
                let options = OpenOptions { recovery_point: end, clean_shutdown, ..OpenOptions::default() };
                let opened = Log::open(&at, config.clone(), options).unwrap();
                let found = content(&opened);
                assert_eq!(found.1, before.1, "after {steps} steps");
                assert_eq!((opened.log_end_offset(), opened.log_start_offset()), (end, 0));
                // The rename of the log file, before the sync of the folder, decides.
                let is_new = steps >= commit - 1;
                let expected = if is_new { after.get_or_insert_with(|| found.0.clone()) } else { &before.0 };
                assert_eq!(&found.0, expected, "after {steps} steps");
                assert_eq!(opened.segment_count(), if is_new { 2 } else { wide.segments.len() + 1 });
                let left: Vec<String> = names(&at)
                    .into_iter()
                    .filter(|name| [CLEANED, SWAP].iter().any(|suffix| name.ends_with(suffix)))
                    .collect();
                assert_eq!(left, [""; 0], "after {steps} steps");
                fs::remove_dir_all(&at).unwrap();
            }
        }
        assert!(after.unwrap().len() < before.0.len() / 2);
    }

    #[test]
    fn a_swap_that_kafka_began_counts_once_all_files_have_its_suffix() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("t-0");
        drop(filled(&dir));
        let file = |name: &str| dir.join(name);
        // Kafka renames the log file first.
        fs::copy(file("00000000000000000000.log"), file("00000000000000000000.log.swap")).unwrap();
        fs::write(file("00000000000000000000.index.cleaned"), "").unwrap();
        complete_swaps(&dir).unwrap();
        assert!(file("00000000000000000000.log.swap").exists(), "it is left for the removal of leftovers");
        fs::remove_file(file("00000000000000000000.index.cleaned")).unwrap();
        complete_swaps(&dir).unwrap();
        assert!(!file("00000000000000000000.log.swap").exists() && file("00000000000000000000.log").exists());
        assert!(!file("00000000000000000000.index").exists(), "that of the source is gone");
        // Only indexes are left to be renamed.
        fs::write(file("00000000000000000000.index.swap"), "").unwrap();
        complete_swaps(&dir).unwrap();
        assert!(file("00000000000000000000.index").exists() && file("00000000000000000000.log").exists());
    }

    #[test]
    fn a_changed_log_keeps_its_segments() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("t-0");
        let log = Mutex::new(filled(&dir));
        let before = content(&log.lock());
        let end = log.lock().log_end_offset();
        let plan = log.lock().cleaning_plan(NOW, end).unwrap().unwrap();
        let cleaner = Cleaner {
            map_bytes: 1 << 16,
            load_factor: 0.9,
            piece_bytes: 4096,
            batch_bytes_max: 1 << 20,
            decode: &|_, _| Err("no decoder".to_owned()),
            pace: &|_| true,
        };
        let swap = plan.copy_first_group(&cleaner, &log).unwrap().unwrap();
        // The first segment is deleted while it was copied.
        let first_end = plan.segments[1].base_offset();
        log.lock().delete_records(first_end).unwrap();
        assert!(log.lock().install(swap).unwrap().is_none());
        assert_eq!(log.lock().first_dirty_offset(), None);
        let stopped = plan.run(&cleaner, &log).unwrap_err();
        assert!(matches!(stopped, crate::CleanError::Stopped | crate::CleanError::Log(_)), "{stopped}");
        let left = log.lock().read(first_end, 1, i64::MAX, true).unwrap().unwrap();
        assert!(before.0.contains(&left.first_offset));
    }
}
