//! Writes a compacted segment beside the log, in files whose names end in `.cleaned`.

use std::fs::{File, FileTimes};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::CleanError;
use crate::batch_walk::{BatchHeader, Located};
use crate::config::LogConfig;
use crate::error::LogError;
use crate::fsutil::{remove_if_there, segment_file};
use crate::index::{Indexes, Summary};
use crate::transaction_index::{AbortedTransaction, TRANSACTION_INDEX_SUFFIX, encode_all};

/// What follows the suffix of a file that a pass writes.
pub(super) const CLEANED: &str = ".cleaned";

/// The suffixes of the files of a segment that a pass writes, in the order in which they are renamed: the log file is
/// the last, since its name says that all are complete.
pub(super) const SUFFIXES: [&str; 4] = [TRANSACTION_INDEX_SUFFIX, "timeindex", "index", "log"];

/// A segment that is being written.
pub(super) struct Writer {
    dir: Arc<Path>,
    base_offset: i64,
    index_interval: u32,
    file: File,
    buffer: Vec<u8>,
    piece: usize,
    size: u64,
    indexes: Indexes,
    summary: Summary,
    aborted: Vec<AbortedTransaction>,
}

/// A segment that is complete and on disk.
pub(super) struct CopiedSegment {
    pub(super) base_offset: i64,
    pub(super) size: u64,
    pub(super) aborted: usize,
}

impl Writer {
    /// Creates the files. They are written `piece` bytes at a time.
    pub(super) fn create(
        dir: &Arc<Path>,
        base_offset: i64,
        config: &LogConfig,
        piece: usize,
    ) -> Result<Self, LogError> {
        let path = segment_file(dir, base_offset, "log.cleaned");
        let file = File::create(&path).map_err(LogError::io("cannot create", &path))?;
        let indexes = Indexes::create_as(dir, base_offset, config.segment_index_bytes, CLEANED)
            .map_err(LogError::io("cannot create the index of", &path))?;
        Ok(Self {
            dir: Arc::clone(dir),
            base_offset,
            index_interval: config.index_interval_bytes,
            file,
            buffer: Vec::with_capacity(piece),
            piece,
            size: 0,
            indexes,
            summary: Summary::new(base_offset),
            aborted: Vec::new(),
        })
    }

    /// Adds a batch. `pace` is called with the bytes that are written, and may stop it.
    pub(super) fn add(&mut self, batch: &[u8], pace: &dyn Fn(usize) -> bool) -> Result<(), CleanError> {
        let path = || segment_file(&self.dir, self.base_offset, "log.cleaned");
        let position = self.size;
        let corrupt = |reason| LogError::Corrupt { path: path(), position, reason };
        let header = BatchHeader::parse(batch).map_err(corrupt)?;
        if position + batch.len() as u64 > i32::MAX as u64 {
            // Its sources are below the limit, and a batch grows by a few bytes at most.
            return Err(corrupt("the compacted segment would be larger than 2 GiB".to_owned()).into());
        }
        self.summary
            .add(&Located { position, header }, &mut self.indexes, self.index_interval)
            .map_err(LogError::io("cannot extend the index of", &path()))?;
        if self.buffer.len() + batch.len() > self.piece {
            self.write(pace)?;
        }
        self.buffer.extend_from_slice(batch);
        self.size += batch.len() as u64;
        Ok(())
    }

    /// Adds an aborted transaction whose marker was added.
    pub(super) fn add_aborted(&mut self, aborted: AbortedTransaction) {
        self.aborted.push(aborted);
    }

    fn write(&mut self, pace: &dyn Fn(usize) -> bool) -> Result<(), CleanError> {
        let path = || segment_file(&self.dir, self.base_offset, "log.cleaned");
        self.file.write_all(&self.buffer).map_err(|error| LogError::io("cannot write", &path())(error))?;
        let written = self.buffer.len();
        self.buffer.clear();
        if pace(written) { Ok(()) } else { Err(CleanError::Stopped) }
    }

    /// Completes the files, with the time of the last source, and waits until they are on disk.
    pub(super) fn finish(
        mut self,
        modified: SystemTime,
        pace: &dyn Fn(usize) -> bool,
    ) -> Result<CopiedSegment, CleanError> {
        self.write(pace)?;
        let path = |suffix: &str| segment_file(&self.dir, self.base_offset, &format!("{suffix}{CLEANED}"));
        let failed = |what: &'static str| {
            let path = path("log");
            move |error| LogError::io(what, &path)(error)
        };
        self.indexes.push_time(self.summary.newest).map_err(failed("cannot extend the index of"))?;
        self.indexes.finish().map_err(failed("cannot extend the index of"))?;
        let times = FileTimes::new().set_modified(modified);
        self.file.set_times(times).map_err(failed("cannot set the time of"))?;
        self.file.sync_all().map_err(failed("cannot fsync"))?;
        for suffix in ["index", "timeindex"] {
            let path = path(suffix);
            File::open(&path).and_then(|file| file.sync_all()).map_err(LogError::io("cannot fsync", &path))?;
        }
        if !self.aborted.is_empty() {
            let path = path(TRANSACTION_INDEX_SUFFIX);
            let mut file = File::create(&path).map_err(LogError::io("cannot create", &path))?;
            let written = file.write_all(&encode_all(&self.aborted)).and_then(|()| file.sync_all());
            written.map_err(LogError::io("cannot write", &path))?;
        }
        Ok(CopiedSegment { base_offset: self.base_offset, size: self.size, aborted: self.aborted.len() })
    }
}

/// Removes the files of copies that were not completed. A start would take them for a sign that a later swap is not
/// complete.
pub(super) fn remove_leftovers(dir: &Path) -> Result<(), LogError> {
    for entry in std::fs::read_dir(dir).map_err(LogError::io("cannot list", dir))? {
        let path = entry.map_err(LogError::io("cannot list", dir))?.path();
        if path.as_os_str().as_encoded_bytes().ends_with(CLEANED.as_bytes()) {
            remove_if_there(&path).map_err(LogError::io("cannot remove", &path))?;
        }
    }
    Ok(())
}

/// Removes the files of a copy.
pub(super) fn remove(dir: &Path, base_offset: i64) -> Result<(), LogError> {
    for suffix in SUFFIXES {
        let path = segment_file(dir, base_offset, &format!("{suffix}{CLEANED}"));
        remove_if_there(&path).map_err(LogError::io("cannot remove", &path))?;
    }
    Ok(())
}
