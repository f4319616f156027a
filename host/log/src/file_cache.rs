//! Open segments. Descriptors and maps are scarce in a process, so segments are opened on first use. A clock cache
//! shares them between all logs. An idle partition holds neither a descriptor nor a map.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use rustix::process::{Resource, getrlimit};

use crate::index::Indexes;

/// An open segment.
pub(crate) struct OpenSegment {
    pub(crate) file: Arc<File>,
    /// Loaded by the first lookup or append that needs them.
    pub(crate) indexes: RwLock<Option<Indexes>>,
    used: AtomicBool,
    /// Where the cache holds it, if it does. Guarded by the cache's lock.
    place: AtomicUsize,
}

/// A segment's reference to its handle. It is weak, because the cache decides how long the handle lives.
pub(crate) type Slot = Mutex<Weak<OpenSegment>>;

/// The clock cache. It takes its lock only on a miss: a hit upgrades the slot's weak reference.
pub(crate) struct FileCache {
    clock: Mutex<Clock>,
    capacity: usize,
}

#[derive(Default)]
struct Clock {
    open: Vec<Arc<OpenSegment>>,
    hand: usize,
}

impl FileCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { clock: Mutex::default(), capacity: capacity.max(1) }
    }

    /// Returns the cache of the process. It may hold half of the process's descriptors.
    pub(crate) fn of_process() -> Arc<Self> {
        static CACHE: OnceLock<Arc<FileCache>> = OnceLock::new();
        let capacity = || {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(1024);
            // Each segment has two maps: 16,384 segments stay well below Linux's default of 65,530 maps.
            usize::try_from(limit / 2).unwrap_or(usize::MAX).clamp(64, 16_384)
        };
        Arc::clone(CACHE.get_or_init(|| Arc::new(Self::new(capacity()))))
    }

    /// Returns the segment's handle. Opens it with `open` if needed.
    pub(crate) fn get(&self, slot: &Slot, open: impl FnOnce() -> io::Result<File>) -> io::Result<Arc<OpenSegment>> {
        let mut slot = slot.lock();
        if let Some(segment) = slot.upgrade() {
            segment.used.store(true, Ordering::Relaxed);
            return Ok(segment);
        }
        let segment = Arc::new(OpenSegment {
            file: Arc::new(open()?),
            indexes: RwLock::new(None),
            used: AtomicBool::new(true),
            place: AtomicUsize::new(0),
        });
        *slot = Arc::downgrade(&segment);
        drop(self.insert(Arc::clone(&segment)));
        Ok(segment)
    }

    /// Inserts a handle. Returns the evicted one, to be dropped outside of the lock.
    fn insert(&self, segment: Arc<OpenSegment>) -> Option<Arc<OpenSegment>> {
        let mut clock = self.clock.lock();
        let clock = &mut *clock;
        if clock.open.len() < self.capacity {
            segment.place.store(clock.open.len(), Ordering::Relaxed);
            clock.open.push(segment);
            return None;
        }
        while clock.open[clock.hand].used.swap(false, Ordering::Relaxed) {
            clock.hand = (clock.hand + 1) % clock.open.len();
        }
        segment.place.store(clock.hand, Ordering::Relaxed);
        let evicted = std::mem::replace(&mut clock.open[clock.hand], segment);
        clock.hand = (clock.hand + 1) % clock.open.len();
        Some(evicted)
    }

    /// Closes a segment, so that a removed file frees its blocks as soon as its last reader is done.
    pub(crate) fn forget(&self, slot: &Slot) {
        let Some(segment) = std::mem::take(&mut *slot.lock()).upgrade() else {
            return;
        };
        let mut clock = self.clock.lock();
        let place = segment.place.load(Ordering::Relaxed);
        // Another one may have taken its place.
        if clock.open.get(place).is_some_and(|open| Arc::ptr_eq(open, &segment)) {
            clock.open.swap_remove(place);
            if let Some(moved) = clock.open.get(place) {
                moved.place.store(place, Ordering::Relaxed);
            }
            clock.hand = 0;
        }
        drop(clock);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.clock.lock().open.len()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use millstream_record::{BatchBuilder, CheckedBatch, Codec, TimestampType};

    use super::*;
    use crate::{Log, LogConfig, OpenOptions};

    fn open(dir: &Path, files: &Arc<FileCache>) -> Log {
        let config = Arc::new(LogConfig { index_interval_bytes: 100, ..LogConfig::default() });
        Log::open_with(dir, config, OpenOptions::default(), Arc::clone(files)).unwrap()
    }

    fn append(log: &mut Log, at: i64) {
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.append(at, None, Some(b"some value"), []).unwrap();
        let batch = batch.build().unwrap();
        log.append(&CheckedBatch::of_own(&batch).unwrap(), 0, at).unwrap();
    }

    #[test]
    fn more_logs_than_handles_take_turns_and_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let files = Arc::new(FileCache::new(3));
        let mut logs: Vec<Log> = (0..8).map(|at| open(&dir.path().join(at.to_string()), &files)).collect();
        for round in 0..30 {
            for log in &mut logs {
                append(log, round);
                // Descriptors with unsynced bytes are kept; a synced log leaves its own to the cache.
                log.flush().unwrap();
            }
            assert!(files.len() <= 3);
        }
        for log in &logs {
            for offset in 0..30 {
                let slice = log.read(offset, 1, i64::MAX, true).unwrap().unwrap();
                assert_eq!(slice.first_offset, offset);
                assert_eq!(log.offset_for_timestamp(offset).unwrap().unwrap().offset, offset);
            }
        }
        drop(logs);
        assert_eq!(files.len(), 0, "a closed log leaves nothing open");
    }
}
