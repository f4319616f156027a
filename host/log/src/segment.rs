//! One segment: a log file and its two indexes.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::batch_walk::{BatchHeader, HeaderWalk, Located, WalkError};
use crate::config::LogConfig;
use crate::error::LogError;
use crate::file_cache::{FileCache, OpenSegment, Slot};
use crate::fsutil::{remove_if_there, segment_file};
use crate::index::{Indexes, OffsetPosition, Summary, TimestampOffset};
use crate::transaction_index::{TRANSACTION_INDEX_SUFFIX, TransactionIndex};

/// Suffixes of the files that belong to one segment.
pub(crate) const SEGMENT_SUFFIXES: [&str; 5] = ["log", "index", "timeindex", TRANSACTION_INDEX_SUFFIX, "snapshot"];

/// What follows the name of a file that is to be removed, as in Kafka.
const DELETED: &str = ".deleted";

/// A segment up to this size in bytes is walked from its start, not from an index entry. Thousands of small logs need
/// no indexes then.
const SMALL_BYTES_MAX: u64 = 16 * 1024;

/// A small segment has fewer index entries than this.
const SMALL_ENTRIES: u64 = 4;

pub(crate) struct Segment {
    dir: Arc<Path>,
    base_offset: i64,
    /// Bytes of whole batches. An append raises it only after the bytes are in the file.
    size: AtomicU64,
    index_capacity: u32,
    index_interval: u32,
    files: Arc<FileCache>,
    slot: Slot,
    transactions: TransactionIndex,
    /// The bytes that were there when the segment was opened. Another process has written them.
    inherited: u64,
    /// Up to here, inherited bytes were found undamaged.
    checked: AtomicU64,
    /// `None` until it is needed: an idle partition's indexes are not even opened.
    summary: Mutex<Option<Summary>>,
    /// Keeps the file and its indexes open once another segment has taken their names.
    pinned: Mutex<Option<Arc<OpenSegment>>>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Segment {
    /// Returns a segment whose log file has `size` bytes of whole batches, and whose index of aborted transactions has
    /// `transactions` bytes.
    pub(crate) fn existing(
        dir: &Arc<Path>,
        base_offset: i64,
        size: u64,
        transactions: u64,
        config: &LogConfig,
        files: &Arc<FileCache>,
    ) -> Self {
        Self {
            dir: Arc::clone(dir),
            base_offset,
            size: AtomicU64::new(size),
            index_capacity: config.segment_index_bytes,
            index_interval: config.index_interval_bytes,
            files: Arc::clone(files),
            slot: Slot::default(),
            transactions: TransactionIndex::new(dir, base_offset, transactions),
            inherited: size,
            checked: AtomicU64::new(0),
            summary: Mutex::new((size == 0).then(|| Summary::new(base_offset))),
            pinned: Mutex::default(),
        }
    }

    /// Creates a segment without bytes. An existing file with its name is emptied: only an incomplete append can have
    /// left it there. The first append opens it.
    pub(crate) fn create(
        dir: &Arc<Path>,
        base_offset: i64,
        config: &LogConfig,
        files: &Arc<FileCache>,
    ) -> Result<Self, LogError> {
        let segment = Self::existing(dir, base_offset, 0, 0, config, files);
        let path = segment.path();
        File::create(&path).map_err(LogError::io("cannot create", &path))?;
        Ok(segment)
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Returns whether a range has inherited bytes that may be damaged.
    pub(crate) fn is_unchecked(&self, from: u64, to: u64) -> bool {
        from < self.inherited && to > self.checked.load(Ordering::Acquire)
    }

    /// Notes that the batches of a range are undamaged.
    pub(crate) fn note_checked(&self, from: u64, to: u64) {
        if from <= self.checked.load(Ordering::Acquire) {
            self.checked.fetch_max(to, Ordering::AcqRel);
        }
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// Returns the log file's path.
    pub(crate) fn path(&self) -> PathBuf {
        segment_file(&self.dir, self.base_offset, "log")
    }

    pub(crate) fn open(&self) -> Result<Arc<OpenSegment>, LogError> {
        // The file is nearly always open, and then its path is not needed.
        self.files
            .get(&self.slot, || OpenOptions::new().read(true).write(true).open(self.path()))
            .map_err(|error| LogError::io("cannot open", &self.path())(error))
    }

    fn empty_indexes(&self) -> io::Result<Indexes> {
        Indexes::create(&self.dir, self.base_offset, self.index_capacity)
    }

    /// Runs `look` on the indexes, after loading or rebuilding them if needed.
    fn with_indexes<R>(&self, open: &OpenSegment, look: impl Fn(&Indexes) -> R) -> Result<R, LogError> {
        if let Some(indexes) = &*open.indexes.read() {
            return Ok(look(indexes));
        }
        let mut slot = open.indexes.write();
        if let Some(indexes) = &*slot {
            return Ok(look(indexes));
        }
        let indexes = self.load_indexes(open)?;
        Ok(look(slot.insert(indexes)))
    }

    /// Returns whether the segment is walked from its start where its indexes are not in memory.
    pub(crate) fn is_small(&self) -> bool {
        self.size() <= SMALL_BYTES_MAX.min(SMALL_ENTRIES * u64::from(self.index_interval))
    }

    /// Returns the index entry where a walk starts. `None` is the start of the file.
    fn entry(
        &self,
        open: &OpenSegment,
        look: impl Fn(&Indexes) -> Option<OffsetPosition>,
    ) -> Result<Option<OffsetPosition>, LogError> {
        if self.is_small() {
            return Ok(open.indexes.read().as_ref().and_then(look));
        }
        self.with_indexes(open, look)
    }

    fn load_indexes(&self, open: &OpenSegment) -> Result<Indexes, LogError> {
        let size = self.size();
        if size == 0 {
            return self.empty_indexes().map_err(|e| self.index_error(e));
        }
        match Indexes::load(&self.dir, self.base_offset, self.index_capacity, size).map_err(|e| self.index_error(e))? {
            Some(indexes) => Ok(indexes),
            None => Ok(self.rebuilt(&open.file)?.0),
        }
    }

    fn index_error(&self, error: io::Error) -> LogError {
        LogError::io("cannot use the index of", &self.path())(error)
    }

    /// Rebuilds indexes and summary from the headers in the log file.
    fn rebuilt(&self, file: &File) -> Result<(Indexes, Summary), LogError> {
        let is_small = self.is_small();
        if !is_small {
            // A small segment has none before it grows.
            tracing::info!(segment = %self.path().display(), "rebuilding the indexes");
        }
        let mut indexes = self.empty_indexes().map_err(|e| self.index_error(e))?;
        let mut summary = Summary::new(self.base_offset);
        let mut walk = self.walk(file);
        while let Some(batch) = walk.next().map_err(|e| self.walk_error(e))? {
            summary.add(&batch, &mut indexes, self.index_interval).map_err(|e| self.index_error(e))?;
        }
        if !is_small {
            indexes.push_time(summary.newest).map_err(|e| self.index_error(e))?;
        }
        Ok((indexes, summary))
    }

    /// Returns the error for a log file that cannot be read.
    pub(crate) fn read_error(&self, error: io::Error) -> LogError {
        LogError::io("cannot read", &self.path())(error)
    }

    /// Returns the error for a walk that stopped: damage, or a failing disk.
    pub(crate) fn walk_error(&self, error: WalkError) -> LogError {
        match error {
            WalkError::Io(error) => self.read_error(error),
            WalkError::Bad { position, reason } => LogError::Corrupt { path: self.path(), position, reason },
        }
    }

    /// Rebuilds the indexes, whatever their state.
    pub(crate) fn rebuild(&self) -> Result<(), LogError> {
        let open = self.open()?;
        let mut summary = self.summary.lock();
        let mut slot = open.indexes.write();
        let (indexes, rebuilt) = self.rebuilt(&open.file)?;
        *slot = Some(indexes);
        *summary = Some(rebuilt);
        Ok(())
    }

    /// Installs the result of a scan.
    pub(crate) fn install(&self, indexes: Option<Indexes>, summary: Summary) -> Result<(), LogError> {
        let open = self.open()?;
        *self.summary.lock() = Some(summary);
        *open.indexes.write() = indexes;
        Ok(())
    }

    /// Returns empty indexes and an empty summary, for a scan of the whole file.
    pub(crate) fn begin_scan(&self) -> Result<(Indexes, Summary), LogError> {
        let indexes = self.empty_indexes().map_err(|e| self.index_error(e))?;
        Ok((indexes, Summary::new(self.base_offset)))
    }

    /// Returns the indexes and the summary up to the last index entry below `recovery_point`, and the batch of that
    /// entry. A scan continues after it. `None` if there is no such entry, or if the indexes contradict the file.
    pub(crate) fn indexed_below(
        &self,
        open: &OpenSegment,
        recovery_point: i64,
    ) -> Result<Option<(Indexes, Summary, Located)>, LogError> {
        let size = self.size();
        let loaded = Indexes::load(&self.dir, self.base_offset, self.index_capacity, size);
        let Some(mut indexes) = loaded.map_err(|e| self.index_error(e))? else { return Ok(None) };
        let Some(entry) = indexes.floor_offset(recovery_point - 1) else { return Ok(None) };
        indexes.truncate(entry.offset);
        let Some(newest) = indexes.last_time() else { return Ok(None) };
        let start = indexes.floor_offset(newest.offset).map_or(0, |entry| entry.position);
        let (Some(first), Some((last, newest_at_end))) =
            (self.first_batch(open)?, self.walk_between(open, start, newest, entry)?)
        else {
            return Ok(None);
        };
        let summary = Summary {
            newest: newest_at_end,
            first_timestamp: Some(first.header.max_timestamp),
            bytes_since_entry: last.header.size as u64,
        };
        Ok(Some((indexes, summary, last)))
    }

    fn first_batch(&self, open: &OpenSegment) -> Result<Option<Located>, LogError> {
        match HeaderWalk::new(&open.file, 0, self.size()).next() {
            Ok(first) => Ok(first),
            Err(WalkError::Bad { .. }) => Ok(None),
            Err(WalkError::Io(error)) => Err(self.read_error(error)),
        }
    }

    /// Walks from `start` to the batch that `entry` names, and returns that batch. `None` when there is no such batch,
    /// or when `newest` does not name the newest batch up to there.
    fn walk_between(
        &self,
        open: &OpenSegment,
        start: u64,
        newest: TimestampOffset,
        entry: OffsetPosition,
    ) -> Result<Option<(Located, TimestampOffset)>, LogError> {
        let mut walk = HeaderWalk::new(&open.file, start, self.size());
        let mut found = false;
        loop {
            let batch = match walk.next() {
                Ok(Some(batch)) => batch,
                Ok(None) | Err(WalkError::Bad { .. }) => return Ok(None),
                Err(WalkError::Io(error)) => return Err(self.read_error(error)),
            };
            let is_named = batch.header.last_offset() == newest.offset;
            found |= is_named && batch.header.max_timestamp == newest.timestamp;
            let is_newer = found && batch.header.newest_record() > newest.timestamp;
            if is_newer || batch.position > entry.position {
                return Ok(None);
            }
            if batch.position == entry.position {
                return Ok((found && batch.header.last_offset() == entry.offset).then_some((batch, newest)));
            }
        }
    }

    /// Returns the index of the aborted transactions whose markers are in the segment.
    pub(crate) fn transactions(&self) -> &TransactionIndex {
        &self.transactions
    }

    /// Visits each batch with a base offset in `range`.
    pub(crate) fn for_each_in(
        &self,
        range: Range<i64>,
        mut visit: impl FnMut(&Located) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let Some(first) = self.locate(range.start)? else { return Ok(()) };
        let open = self.open()?;
        let mut walk = HeaderWalk::new(&open.file, first.position, self.size());
        while let Some(batch) = walk.next().map_err(|e| self.walk_error(e))? {
            if batch.header.base_offset >= range.end {
                break;
            }
            if batch.header.base_offset >= range.start {
                visit(&batch)?;
            }
        }
        Ok(())
    }

    pub(crate) fn index_interval(&self) -> u32 {
        self.index_interval
    }

    /// Returns the first batch that ends at or after `offset`, if the segment has one.
    pub(crate) fn locate(&self, offset: i64) -> Result<Option<Located>, LogError> {
        Ok(self.locate_for_read(offset)?.map(|(batch, _)| batch))
    }

    /// Does the same. Also returns whether the batch came from the disk, and not from the page cache.
    pub(crate) fn locate_for_read(&self, offset: i64) -> Result<Option<(Located, bool)>, LogError> {
        let open = self.open()?;
        let entry = self.entry(&open, |indexes| indexes.floor_offset(offset))?;
        self.walk_from(&open, entry, |batch| batch.header.last_offset() >= offset)
    }

    /// Returns the header of the last batch. For a small segment it also fills the summary. `Corrupt` if the file does
    /// not end with a whole batch.
    pub(crate) fn last_batch(&self) -> Result<Option<BatchHeader>, LogError> {
        let open = self.open()?;
        let is_small = self.is_small();
        let entry = self.entry(&open, Indexes::last_offset)?;
        let mut walk = self.walk_at(&open, entry)?;
        let (mut last, mut summary) = (None, Summary::new(self.base_offset));
        while let Some(batch) = walk.next().map_err(|e| self.walk_error(e))? {
            summary.note(&batch, self.index_interval);
            last = Some(batch.header);
        }
        if is_small && entry.is_none() {
            *self.summary.lock() = Some(summary);
        }
        Ok(last)
    }

    /// Closes the descriptor and the maps until they are needed again.
    pub(crate) fn release(&self) {
        self.files.forget(&self.slot);
    }

    /// Returns the offset of an index entry at or before a position, or the base offset if there is none.
    pub(crate) fn offset_at(&self, position: u64) -> Result<i64, LogError> {
        let open = self.open()?;
        let entry = self.entry(&open, |indexes| indexes.floor_position(position))?;
        Ok(entry.map_or(self.base_offset, |entry| entry.offset))
    }

    /// Walks from an index entry to the first batch that `found` accepts. If an entry does not point at the batch it
    /// names, the whole index is treated as corrupt: it is rebuilt, and this walk starts at the first byte.
    fn walk_from(
        &self,
        open: &OpenSegment,
        entry: Option<OffsetPosition>,
        found: impl Fn(&Located) -> bool,
    ) -> Result<Option<(Located, bool)>, LogError> {
        let mut walk = self.walk_at(open, entry)?;
        while let Some(batch) = walk.next().map_err(|e| self.walk_error(e))? {
            if found(&batch) {
                return Ok(Some((batch, walk.is_cold())));
            }
        }
        Ok(None)
    }

    /// Starts a walk at an index entry if the entry is correct, else at the first byte.
    fn walk_at<'a>(&self, open: &'a OpenSegment, entry: Option<OffsetPosition>) -> Result<HeaderWalk<'a>, LogError> {
        let size = self.size();
        let Some(entry) = entry else {
            return Ok(self.walk(&open.file));
        };
        let mut walk = HeaderWalk::new(&open.file, entry.position, size);
        if let Ok(Some(batch)) = walk.next()
            && batch.header.last_offset() == entry.offset
        {
            walk.rewind(entry.position);
            return Ok(walk);
        }
        tracing::warn!(segment = %self.path().display(), offset = entry.offset, "an index entry is wrong");
        self.rebuild()?;
        Ok(self.walk(&open.file))
    }

    /// Starts a walk at the first byte.
    fn walk<'a>(&self, file: &'a File) -> HeaderWalk<'a> {
        HeaderWalk::new(file, 0, self.size()).starting_at(self.base_offset)
    }

    /// Returns where the batches that fit end, and the offset after the last one. These are all whole batches from
    /// `first` on that end at or below `max_position` and have offsets below `max_offset`. The position is at least
    /// `first.position`.
    pub(crate) fn end_of_range(
        &self,
        first: &Located,
        max_position: u64,
        max_offset: i64,
    ) -> Result<(u64, i64), LogError> {
        let open = self.open()?;
        let entry = self.entry(&open, |indexes| {
            let by_offset = indexes.floor_offset(max_offset - 1)?;
            let by_position = indexes.floor_position(max_position)?;
            Some(if by_offset.position < by_position.position { by_offset } else { by_position })
        })?;
        let entry = match entry {
            Some(entry) if entry.position > first.position => entry,
            _ => OffsetPosition { offset: first.header.last_offset(), position: first.position },
        };
        let mut walk = self.walk_at(&open, Some(entry))?;
        let (mut end, mut end_offset) = (first.position, first.header.next_offset());
        while let Some(batch) = walk.next().map_err(|e| self.walk_error(e))? {
            if batch.end() > max_position || batch.header.next_offset() > max_offset {
                end = end.max(batch.position.min(max_position));
                end_offset = end_offset.max(batch.header.base_offset);
                break;
            }
            end = end.max(batch.end());
            end_offset = end_offset.max(batch.header.next_offset());
        }
        Ok((end, end_offset))
    }

    /// Returns the first batch at or after `from` whose max timestamp is `timestamp` or newer.
    pub(crate) fn locate_time(&self, timestamp: i64, from: i64) -> Result<Option<Located>, LogError> {
        let open = self.open()?;
        // Every batch up to an entry of `timestamp - 1` is older than what is looked for.
        let floor = |indexes: &Indexes| indexes.floor_time(timestamp.saturating_sub(1));
        let known = match self.is_small() {
            true => None,
            false => self.with_indexes(&open, floor)?,
        };
        let known = match known {
            Some(entry) if self.named_by(entry)?.is_none() => {
                self.rebuild()?;
                self.with_indexes(&open, floor)?
            }
            known => known,
        };
        let start = known.map_or(from, |entry| entry.offset.max(from));
        let entry = self.entry(&open, |indexes| indexes.floor_offset(start))?;
        let is_found =
            |batch: &Located| batch.header.last_offset() >= from && batch.header.newest_record() >= timestamp;
        Ok(self.walk_from(&open, entry, is_found)?.map(|(batch, _)| batch))
    }

    /// Reads the bytes of a batch.
    pub(crate) fn read_batch(&self, batch: &Located) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; batch.header.size];
        self.open()?.file.read_exact_at(&mut bytes, batch.position).map_err(|e| self.read_error(e))?;
        Ok(bytes)
    }

    /// Returns the newest timestamp, with the last offset of the first batch that has it; -1 without any.
    pub(crate) fn newest(&self) -> Result<TimestampOffset, LogError> {
        Ok(self.summary()?.newest)
    }

    /// Returns the segment's summary, which is computed on first use.
    pub(crate) fn summary(&self) -> Result<Summary, LogError> {
        if let Some(summary) = *self.summary.lock() {
            return Ok(summary);
        }
        let loaded = self.load_summary()?;
        if loaded.is_none() {
            self.rebuild()?;
        }
        let mut summary = self.summary.lock();
        Ok(*summary.get_or_insert(loaded.unwrap_or_else(|| Summary::new(self.base_offset))))
    }

    /// Reads the summary from the indexes; `None` if they are wrong. Retention must not act on a damaged index.
    fn load_summary(&self) -> Result<Option<Summary>, LogError> {
        let open = self.open()?;
        let size = self.size();
        let (last, newest) = self.with_indexes(&open, |indexes| (indexes.last_offset(), indexes.last_time()))?;
        let Some(newest) = newest else {
            return Ok(None);
        };
        let Some(batch) = self.named_by(newest)? else {
            return Ok(None);
        };
        // Entries at the end may be missing. They are few: the last one is written for the newest batch of all.
        let mut walk = HeaderWalk::new(&open.file, batch.end(), size);
        while let Some(later) = walk.next().map_err(|e| self.walk_error(e))? {
            if later.header.newest_record() > newest.timestamp {
                return Ok(None);
            }
        }
        let first = HeaderWalk::new(&open.file, 0, size).next().map_err(|e| self.walk_error(e))?;
        Ok(Some(Summary {
            newest,
            first_timestamp: first.map(|batch| batch.header.max_timestamp),
            bytes_since_entry: size - last.map_or(0, |entry| entry.position.min(size)),
        }))
    }

    /// Returns the batch that a time entry names, if it matches the entry.
    fn named_by(&self, entry: TimestampOffset) -> Result<Option<Located>, LogError> {
        let batch = self.locate(entry.offset)?;
        Ok(batch.filter(|b| b.header.last_offset() == entry.offset && b.header.max_timestamp == entry.timestamp))
    }

    /// Loads what [`Self::note_append`] needs, so that nothing can fail after the bytes are written.
    pub(crate) fn prepare_append(&self, open: &OpenSegment) -> Result<(), LogError> {
        self.summary()?;
        self.with_indexes(open, |_| ())
    }

    /// Adds a batch that was just written at the segment's end.
    ///
    /// If an index cannot grow (a full disk), the append does not fail: the next batch retries.
    pub(crate) fn note_append(&self, open: &OpenSegment, batch: &Located) {
        let mut summary = self.summary.lock();
        let mut slot = open.indexes.write();
        if let (Some(summary), Some(indexes)) = (&mut *summary, &mut *slot)
            && let Err(error) = summary.add(batch, indexes, self.index_interval)
        {
            tracing::warn!(segment = %self.path().display(), %error, "cannot extend the index");
        }
    }

    pub(crate) fn indexes_are_full(&self, open: &OpenSegment) -> Result<bool, LogError> {
        self.with_indexes(open, Indexes::is_full)
    }

    /// Writes the last time entry and trims the indexes, as Kafka does at roll and close.
    pub(crate) fn finish(&self) -> Result<(), LogError> {
        let open = self.open()?;
        let newest = self.newest()?;
        self.with_indexes(&open, |_| ())?;
        if let Some(indexes) = &mut *open.indexes.write() {
            indexes.push_time(newest).and_then(|()| indexes.finish()).map_err(|e| self.index_error(e))?;
        }
        Ok(())
    }

    /// Cuts the index files to the length of their entries, if the indexes are in memory.
    pub(crate) fn finish_loaded(&self) -> Result<(), LogError> {
        let Some(open) = self.slot.lock().upgrade() else { return Ok(()) };
        match &mut *open.indexes.write() {
            Some(indexes) => indexes.trim().map_err(|e| self.index_error(e)),
            None => Ok(()),
        }
    }

    /// Returns when the log file was last written, in milliseconds since 1970. It replaces a timestamp that cannot be
    /// true.
    pub(crate) fn modified_ms(&self) -> Result<i64, LogError> {
        let since = self.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Returns when the log file was last written.
    pub(crate) fn modified(&self) -> Result<SystemTime, LogError> {
        let path = self.path();
        std::fs::metadata(&path).and_then(|file| file.modified()).map_err(LogError::io("cannot stat", &path))
    }

    /// Returns the length of one of the segment's files, by its suffix; 0 if it is missing.
    pub(crate) fn file_len(&self, suffix: &str) -> u64 {
        std::fs::metadata(segment_file(&self.dir, self.base_offset, suffix)).map_or(0, |file| file.len())
    }

    /// Opens the segment for as long as this lives, with all that readers need. Its names are about to become those of
    /// another segment.
    pub(crate) fn pin(&self) -> Result<(), LogError> {
        let open = self.open()?;
        self.with_indexes(&open, |_| ())?;
        self.summary()?;
        *self.pinned.lock() = Some(open);
        Ok(())
    }

    /// Renames the segment's files, so that they do not count any more, and returns them. The next start removes them,
    /// if the caller does not. Readers that hold the file can still read it.
    pub(crate) fn set_aside(&self) -> Result<Vec<PathBuf>, LogError> {
        self.files.forget(&self.slot);
        let mut renamed = Vec::new();
        // The log file goes first: indexes without a log file are removed at the next start.
        for suffix in SEGMENT_SUFFIXES {
            let path = segment_file(&self.dir, self.base_offset, suffix);
            let to = segment_file(&self.dir, self.base_offset, &format!("{suffix}{DELETED}"));
            match std::fs::rename(&path, &to) {
                Ok(()) => renamed.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::io("cannot rename", &path)(error)),
            }
        }
        Ok(renamed)
    }

    /// Removes the segment's files. Readers that hold the file can still read it.
    pub(crate) fn delete(&self) -> Result<(), LogError> {
        self.files.forget(&self.slot);
        // The log file goes first: indexes without a log file are removed at the next start.
        for suffix in SEGMENT_SUFFIXES {
            let path = segment_file(&self.dir, self.base_offset, suffix);
            remove_if_there(&path).map_err(LogError::io("cannot remove", &path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Segment {
    /// Replaces the open log file, to act as a failing disk.
    pub(crate) fn replace_file(&self, file: File) {
        self.files.forget(&self.slot);
        self.files.get(&self.slot, || Ok(file)).unwrap();
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.files.forget(&self.slot);
    }
}
