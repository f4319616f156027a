//! Opens a log: checks what is whole, and rebuilds the rest.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use super::listing::list;
use super::scan::{From, Scanner, Stop};
use crate::batch_walk::{HeaderWalk, Order};
use crate::checksums::Checksums;
use crate::compaction::complete_swaps;
use crate::config::LogConfig;
use crate::durability::Unsynced;
use crate::error::LogError;
use crate::fault::Faults;
use crate::file_cache::FileCache;
use crate::folder::FolderChange;
use crate::fsutil::{remove_if_there, segment_file};
use crate::index::Summary;
use crate::leader_epochs::EpochCache;
use crate::log::{Log, LogReader, SegmentList, Shared};
use crate::partition_metadata::{PARTITION_METADATA, read_topic_id, write_topic_id};
use crate::producer_state::Producers;
use crate::segment::Segment;
use crate::verification::Verifications;

/// What the broker knows about a log before opening it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// From the recovery-point checkpoint: everything below was durable. 0 if unknown.
    pub recovery_point: i64,
    /// From the log-start checkpoint: records below were deleted. 0 if unknown.
    pub log_start_offset: i64,
    /// Whether the log-start checkpoint is lost. Then the log starts where its leader epochs do.
    pub log_start_is_lost: bool,
    /// From the cleaner checkpoint: records below were compacted. 0 if unknown.
    pub first_dirty_offset: i64,
    /// Whether the last broker left its marker of a clean shutdown. Then nothing is scanned.
    pub clean_shutdown: bool,
    /// The id for `partition.metadata` of a new folder. An existing folder must have the same.
    pub topic_id: Option<Uuid>,
}

impl Log {
    /// Opens the log in `dir`, or creates it.
    ///
    /// After a clean shutdown only the last index entry and the batches after it are read. Otherwise the log is read
    /// from the recovery point on. A torn tail is cut off, the indexes and the producers' state are rebuilt, and the
    /// result is made durable. Damage that cannot be a torn tail is [`LogError::Corrupt`], and then no file but indexes
    /// has been changed.
    pub fn open(dir: &Path, config: impl Into<Arc<LogConfig>>, options: OpenOptions) -> Result<Self, LogError> {
        Self::open_with(dir, config.into(), options, FileCache::of_process())
    }

    /// Opens a log as [`Self::open`] does, but does not wait for the disk. The caller must sync
    /// [`Self::recovery_target`] before it serves the log. A start does so for many logs at once.
    pub fn open_unsynced(
        dir: &Path,
        config: impl Into<Arc<LogConfig>>,
        options: OpenOptions,
    ) -> Result<Self, LogError> {
        Self::open_unsynced_with(dir, config.into(), options, FileCache::of_process())
    }

    pub(crate) fn open_with(
        dir: &Path,
        config: Arc<LogConfig>,
        options: OpenOptions,
        files: Arc<FileCache>,
    ) -> Result<Self, LogError> {
        let mut log = Self::open_unsynced_with(dir, config, options, files)?;
        // An empty log has nothing to make durable: its folder is synced with its first records. Otherwise creating
        // many partitions would wait for the disk three times for each of them.
        if log.recovery_target().is_some() {
            log.flush()?;
        }
        Ok(log)
    }

    fn open_unsynced_with(
        dir: &Path,
        config: Arc<LogConfig>,
        options: OpenOptions,
        files: Arc<FileCache>,
    ) -> Result<Self, LogError> {
        let dir: Arc<Path> = Arc::from(dir);
        let mut options = options;
        if create_folder(&dir)? {
            return Self::create(dir, config, options, files);
        }
        let new_id = check_topic_id(&dir, options.topic_id)?;
        if options.log_start_is_lost
            && let Some(first) = EpochCache::read(&dir).ok().and_then(|epochs| epochs.entries().first().copied())
        {
            options.log_start_offset = first.start_offset;
        }
        let mut listing = list(&dir)?;
        if listing.has_swaps {
            complete_swaps(&dir)?;
            listing = list(&dir)?;
        }
        let existing = |(base, size): (&i64, &u64)| {
            let transactions = listing.transactions.get(base).copied().unwrap_or_default();
            Arc::new(Segment::existing(&dir, *base, *size, transactions, &config, &files))
        };
        let mut segments: Vec<Arc<Segment>> = listing.sizes.iter().map(existing).collect();
        if segments.is_empty() {
            let base_offset = options.log_start_offset.max(0);
            check_promises(&dir, base_offset, &options)?;
            segments.push(Arc::new(Segment::create(&dir, base_offset, &config, &files)?));
        }
        let loaded = load(segments, &options)?;
        check_promises(&dir, loaded.log_end_offset, &options)?;
        let list = SegmentList {
            log_start_offset: options.log_start_offset.max(loaded.segments[0].base_offset()).min(loaded.log_end_offset),
            segments: loaded.segments,
            log_end_offset: loaded.log_end_offset,
        };
        let recovery_point = if loaded.scanned { options.recovery_point } else { list.log_end_offset };
        let mut log = Self::of_segments(dir, config, files, list, recovery_point);
        log.first_dirty = options.first_dirty_offset;
        if log.log_end_offset() == 0 {
            log.unsynced.parent = Some(FolderChange::in_parent_of(log.dir()));
        }
        log.unsynced.dir = log.unsynced.parent.is_some() || listing.sizes.is_empty() || new_id;
        log.load_epochs(loaded.last_epoch)?;
        let checksums = if listing.has_checksums { Checksums::read(log.dir()) } else { Checksums::default() };
        let stale =
            log.stale_transactions(&listing.snapshots, &checksums, loaded.scanned.then_some(options.recovery_point))?;
        let reloaded = log.reload(listing.snapshots, &checksums, stale)?;
        // After this, nothing but a failing disk rejects the log. A rejected one keeps all its files: they may be of
        // use beside one that is restored.
        for path in listing.leftovers {
            remove_if_there(&path).map_err(LogError::io("cannot remove", &path))?;
        }
        let was_cut = loaded.cut.is_some();
        log.cut(loaded.cut)?;
        log.install_reloaded(reloaded)?;
        log.skip_to(options.log_start_offset)?;
        if loaded.scanned && (was_cut || log.log_end_offset() > options.recovery_point) {
            log.note_recovered(options.recovery_point)?;
        }
        // An idle partition holds nothing open: there may be ten thousand of them.
        log.active().release();
        Ok(log)
    }

    /// Creates the log of a new folder.
    fn create(
        dir: Arc<Path>,
        config: Arc<LogConfig>,
        options: OpenOptions,
        files: Arc<FileCache>,
    ) -> Result<Self, LogError> {
        let base_offset = options.log_start_offset.max(0);
        check_promises(&dir, base_offset, &options)?;
        if let Some(id) = options.topic_id {
            write_topic_id(&dir, id).map_err(LogError::io("cannot write", &dir.join(PARTITION_METADATA)))?;
        }
        let segments = vec![Arc::new(Segment::create(&dir, base_offset, &config, &files)?)];
        let list = SegmentList { segments, log_start_offset: base_offset, log_end_offset: base_offset };
        let mut log = Self::of_segments(dir, config, files, list, base_offset);
        log.unsynced.parent = Some(FolderChange::in_parent_of(log.dir()));
        log.unsynced.dir = true;
        Ok(log)
    }

    fn of_segments(
        dir: Arc<Path>,
        config: Arc<LogConfig>,
        files: Arc<FileCache>,
        list: SegmentList,
        recovery_point: i64,
    ) -> Self {
        let shared = Shared { dir, list: RwLock::new(list), syncing: Mutex::new(()), faults: Faults::default() };
        Self {
            reader: LogReader { shared: Arc::new(shared) },
            config,
            files,
            producers: Producers::default(),
            epochs: EpochCache::default(),
            snapshot_offset: None,
            unsynced: Unsynced::new(recovery_point),
            verifications: Verifications::default(),
            first_dirty: 0,
            deleted_files: Vec::new(),
        }
    }

    /// Cuts off a torn tail, after everything else was found good.
    fn cut(&mut self, cut: Option<Cut>) -> Result<(), LogError> {
        let Some(cut) = cut else {
            return Ok(());
        };
        let segment = cut.segment.path();
        tracing::warn!(
            segment = %segment.display(),
            position = cut.position,
            reason = cut.reason,
            "a torn tail is cut off"
        );
        let open = cut.segment.open()?;
        open.file.set_len(cut.position).map_err(LogError::io("cannot truncate", &cut.segment.path()))?;
        for segment in cut.removed {
            segment.delete()?;
        }
        Ok(())
    }

    /// Continues at the log's start if the log ends before it. Deleted records that were never synced are gone, but
    /// their offsets are not reused.
    fn skip_to(&mut self, log_start_offset: i64) -> Result<(), LogError> {
        if self.log_end_offset() >= log_start_offset {
            return Ok(());
        }
        self.roll(log_start_offset)?;
        let mut list = self.shared().list.write();
        list.log_start_offset = log_start_offset;
        list.log_end_offset = log_start_offset;
        Ok(())
    }

    /// Marks the recovered data as not synced. It may still be only in the page cache, and must not be served before
    /// another crash can no longer take it.
    fn note_recovered(&mut self, recovery_point: i64) -> Result<(), LogError> {
        let segments = self.shared().list.read().segments.clone();
        for (at, segment) in segments.iter().enumerate() {
            let reaches_beyond = segments.get(at + 1).is_none_or(|next| next.base_offset() > recovery_point);
            if reaches_beyond && segment.size() > 0 {
                self.unsynced.note(segment, &segment.open()?.file);
                self.unsynced.dir = true;
            }
        }
        Ok(())
    }
}

/// Rejects a log that ends before an offset that was durable, unless those records were deleted since.
fn check_promises(dir: &Path, log_end_offset: i64, options: &OpenOptions) -> Result<(), LogError> {
    let OpenOptions { recovery_point, log_start_offset, clean_shutdown, .. } = *options;
    let promised = match clean_shutdown {
        true => recovery_point.max(log_start_offset),
        false if log_start_offset >= recovery_point => 0,
        false => recovery_point,
    };
    if log_end_offset < promised {
        return Err(LogError::Shorter { path: dir.to_path_buf(), log_end_offset, recovery_point: promised });
    }
    Ok(())
}

/// Creates a partition's folder. Returns whether it is new.
fn create_folder(dir: &Path) -> Result<bool, LogError> {
    let created = match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(dir),
        created => created,
    };
    match created {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(LogError::io("cannot create", dir)(error)),
    }
}

/// Ties a folder to its topic. Returns whether the file had to be written.
fn check_topic_id(dir: &Path, topic_id: Option<Uuid>) -> Result<bool, LogError> {
    let Some(expected) = topic_id else {
        return Ok(false);
    };
    let path = dir.join(PARTITION_METADATA);
    match read_topic_id(dir).map_err(LogError::io("cannot read", &path))? {
        Some(found) if found == expected => Ok(false),
        Some(found) => Err(LogError::TopicId { path, found, expected }),
        None => {
            match fs::metadata(&path).map(|file| file.len()) {
                // A power cut leaves it so if it was not synced.
                Ok(0) => tracing::info!(file = %path.display(), "an empty file is made again"),
                Ok(_) => tracing::warn!(file = %path.display(), "a damaged file is made again"),
                Err(_) => {}
            }
            write_topic_id(dir, expected).map_err(LogError::io("cannot write", &path))?;
            Ok(true)
        }
    }
}

/// The result of reading the segments.
struct Loaded {
    segments: Vec<Arc<Segment>>,
    log_end_offset: i64,
    /// Whether the log was recovered, not just opened.
    scanned: bool,
    /// The leader epoch of the last batch, where it was not scanned.
    last_epoch: Option<i32>,
    cut: Option<Cut>,
}

/// A torn tail.
struct Cut {
    segment: Arc<Segment>,
    position: u64,
    reason: String,
    /// The segments after it, which hold nothing.
    removed: Vec<Arc<Segment>>,
}

fn load(segments: Vec<Arc<Segment>>, options: &OpenOptions) -> Result<Loaded, LogError> {
    if options.clean_shutdown {
        if let Some((log_end_offset, last_epoch)) = clean_end(&segments)? {
            return Ok(Loaded { segments, log_end_offset, scanned: false, last_epoch, cut: None });
        }
        tracing::warn!(
            segment = %segments[segments.len() - 1].path().display(),
            "the end of the log is not as a clean shutdown leaves it; the log is scanned"
        );
    }
    recover(segments, options.recovery_point)
}

/// Returns the log's end and the leader epoch of its last batch, from the batches after the last index entry; `None` if
/// they are not whole.
fn clean_end(segments: &[Arc<Segment>]) -> Result<Option<(i64, Option<i32>)>, LogError> {
    let last = &segments[segments.len() - 1];
    if last.size() == 0 {
        return Ok(Some((last.base_offset(), None)));
    }
    match last.last_batch() {
        Ok(batch) => Ok(batch.map(|batch| (batch.next_offset(), Some(batch.leader_epoch)))),
        Err(LogError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the batches beyond the recovery point. Changes only indexes, which are caches.
fn recover(mut segments: Vec<Arc<Segment>>, recovery_point: i64) -> Result<Loaded, LogError> {
    let ends_below = |pair: &&[Arc<Segment>]| pair[1].base_offset() <= recovery_point;
    let first = segments.windows(2).take_while(ends_below).count();
    let mut end = Order::from(segments[first].base_offset());
    for at in first..segments.len() {
        let segment = Arc::clone(&segments[at]);
        if segment.base_offset() < end.offset {
            let reason = format!("the segment before goes up to offset {}", end.offset);
            return Err(LogError::Corrupt { path: segment.path(), position: 0, reason });
        }
        end.offset = segment.base_offset();
        let scanned = scan(&segment, &mut end, recovery_point)?;
        let log_end_offset = end.offset;
        let Stop::Bad { position, reason, whole } = scanned else {
            continue;
        };
        if whole {
            return Err(LogError::Corrupt { path: segment.path(), position, reason });
        }
        if log_end_offset < recovery_point {
            let reason = format!("{reason}; offsets below {recovery_point} had been made durable");
            return Err(LogError::Corrupt { path: segment.path(), position, reason });
        }
        let removed = segments.split_off(at + 1);
        refuse_batches_after(&segment, position, &reason, log_end_offset, &removed)?;
        segment.set_size(position);
        let cut = Some(Cut { segment, position, reason, removed });
        return Ok(Loaded { segments, log_end_offset, scanned: true, last_epoch: None, cut });
    }
    Ok(Loaded { segments, log_end_offset: end.offset, scanned: true, last_epoch: None, cut: None })
}

/// Scans one segment and moves the log's end up. A small segment is read from its first byte and gets no index. In a
/// larger one the scan starts at the last index entry below the recovery point, since all before that point is on disk.
fn scan(segment: &Segment, end: &mut Order, recovery_point: i64) -> Result<Stop, LogError> {
    let open = segment.open()?;
    let mut scanner = Scanner::new(&open.file, segment.size());
    let whole = From { position: 0, order: *end, checked_from: 0 };
    if segment.is_small() {
        let mut summary = Summary::new(segment.base_offset());
        let stop = scanner.scan(segment.base_offset(), whole, |batch| {
            *end = Order::after(&batch.header);
            summary.note(batch, segment.index_interval());
            Ok(())
        });
        segment.install(None, summary)?;
        return stop.map_err(|e| segment.read_error(e));
    }
    let (from, mut indexes, mut summary) = match segment.indexed_below(&open, recovery_point)? {
        Some((indexes, summary, last)) => {
            *end = Order::after(&last.header);
            let from = From { position: last.end(), order: *end, checked_from: recovery_point };
            (from, indexes, summary)
        }
        None => {
            let (indexes, summary) = segment.begin_scan()?;
            (whole, indexes, summary)
        }
    };
    let stop = scanner
        .scan(segment.base_offset(), from, |batch| {
            *end = Order::after(&batch.header);
            summary.add(batch, &mut indexes, segment.index_interval())
        })
        .map_err(|e| segment.read_error(e))?;
    // The file gets its last time entry and its length now: for a segment that is not active there is no later time.
    indexes.push_time(summary.newest).and_then(|()| indexes.finish()).map_err(|e| segment.read_error(e))?;
    segment.install(Some(indexes), summary)?;
    Ok(stop)
}

/// Fails if good batches follow a bad one. That is damage, and a cut would lose the good ones.
fn refuse_batches_after(
    segment: &Segment,
    bad: u64,
    reason: &str,
    expected: i64,
    later: &[Arc<Segment>],
) -> Result<(), LogError> {
    let open = segment.open()?;
    let after = Scanner::new(&open.file, segment.size()).find_batch_after(bad, segment.base_offset(), expected);
    let after = after.map_err(|e| segment.read_error(e))?;
    let mut found = after.map(|batch| format!("at byte {} of the same file", batch.position));
    for later in later.iter().filter(|later| later.size() > 0) {
        let open = later.open()?;
        let first = HeaderWalk::new(&open.file, 0, later.size()).next();
        if found.is_none() && matches!(first, Ok(Some(_))) {
            found = Some(format!("in {}", segment_file(Path::new(""), later.base_offset(), "log").display()));
        }
    }
    match found {
        None => Ok(()),
        Some(place) => Err(LogError::Corrupt {
            path: segment.path(),
            position: bad,
            reason: format!("{reason}; a good batch follows {place}, so this is not the torn end of the log"),
        }),
    }
}
