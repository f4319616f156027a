//! One fsync for many writes.
//!
//! There is no timer. A log that is idle is synced at once. What is appended while a sync runs waits for the next one.
//! The syncs run on a few threads of their own, outside of the partition's lock.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millstream_log::FileSystem;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::commit::{Committed, FlushMode};
use crate::error::PartitionError;
use crate::offset_waiters::OffsetWaiters;

/// The most sync threads. Each is started when it is first needed. An fsync blocks its thread and needs no CPU, and the
/// file system's journal merges the ones that run at the same time: the first records of many new partitions need
/// several fsyncs each.
const SYNC_THREADS_MAX: usize = 16;

/// A sync that takes this long is reported. A busy disk takes some hundred milliseconds.
const STALL: Duration = Duration::from_secs(2);

/// A log that the queue syncs.
pub trait SyncSource: Debug + Send + Sync + 'static {
    /// Syncs everything appended before the call, and tells [`SyncWaiters::note_synced`] how far that is. Blocks for
    /// the disk.
    ///
    /// # Errors
    /// The disk failed, or the log is gone.
    fn sync(&self) -> Result<(), PartitionError>;

    /// Returns the writes that wait for a sync of this log.
    fn sync_waiters(&self) -> &SyncWaiters;

    /// Learns that a sync took so long that the disk must have stalled.
    fn sync_stalled(&self, _took: Duration) {}

    /// Learns that a requested sync failed, or that none runs any more.
    fn sync_failed(&self, _error: &PartitionError) {}
}

/// The writes of one log that wait for stable storage.
#[derive(Debug, Default)]
pub struct SyncWaiters {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Offsets below this are on stable storage.
    synced: i64,
    /// A sync is wanted up to this offset, with or without a write that waits for it here.
    requested: i64,
    /// Whether a sync of the log runs or is queued.
    running: bool,
    waiting: OffsetWaiters,
}

impl SyncWaiters {
    /// Ends every wait with an error.
    pub fn fail_all(&self, error: &PartitionError) {
        let over = self.inner.lock().waiting.take_all();
        over.report(&Err(error.clone()));
    }

    /// Notes that all offsets below `synced` are on stable storage. The caller excludes truncations.
    pub fn note_synced(&self, synced: i64) {
        let mut inner = self.inner.lock();
        inner.synced = inner.synced.max(synced);
    }

    /// Ends the waits for what is synced. Returns whether another sync is wanted.
    fn complete(&self) -> bool {
        let mut inner = self.inner.lock();
        let synced = inner.synced;
        let over = inner.waiting.take_up_to(synced);
        inner.running = inner.requested > synced;
        let again = inner.running;
        drop(inner);
        over.report(&Ok(()));
        again
    }

    /// Lowers what is synced to the new end of a truncated log.
    pub(crate) fn truncated(&self, end: i64) {
        let mut inner = self.inner.lock();
        inner.synced = inner.synced.min(end);
        inner.requested = inner.requested.min(end);
    }

    /// Ends every wait after a failed sync; the next write starts another one.
    fn failed(&self, error: &PartitionError) {
        let mut inner = self.inner.lock();
        inner.running = false;
        inner.requested = inner.synced;
        drop(inner);
        self.fail_all(error);
    }
}

/// The queue of logs to sync, and its threads.
#[derive(Debug)]
pub struct FsyncQueue {
    flush_mode: FlushMode,
    /// For a start and a stop, which sync many logs at once. The queue does not use it: a write would wait for what
    /// others wrote to the same disk.
    file_system: Option<FileSystem>,
    queue: Arc<Queue>,
}

/// The logs that wait for a sync thread.
#[derive(Debug)]
struct Queue {
    inner: Mutex<Queued>,
    changed: Condvar,
}

#[derive(Debug)]
struct Queued {
    sources: VecDeque<Arc<dyn SyncSource>>,
    threads: Vec<JoinHandle<()>>,
    /// Fewer than [`SYNC_THREADS_MAX`] once the operating system had no more.
    threads_max: usize,
    /// The threads that wait for a log.
    idle: usize,
    stopped: bool,
}

impl Queue {
    /// Starts the first thread.
    fn start() -> std::io::Result<Arc<Self>> {
        let (sources, threads, threads_max) = (VecDeque::new(), Vec::new(), SYNC_THREADS_MAX);
        let inner = Queued { sources, threads, threads_max, idle: 0, stopped: false };
        let queue = Arc::new(Self { inner: Mutex::new(inner), changed: Condvar::new() });
        queue.add_thread(&mut queue.inner.lock())?;
        Ok(queue)
    }

    /// Adds a log, and wakes or starts one thread. Returns the log if the queue has stopped.
    fn push(self: &Arc<Self>, source: Arc<dyn SyncSource>) -> Result<(), Arc<dyn SyncSource>> {
        let mut inner = self.inner.lock();
        if inner.stopped {
            return Err(source);
        }
        inner.sources.push_back(source);
        if inner.sources.len() > inner.idle && inner.threads.len() < inner.threads_max {
            if let Err(error) = self.add_thread(&mut inner) {
                inner.threads_max = inner.threads.len();
                tracing::warn!("no more than {} sync threads: {error}", inner.threads_max);
            }
            return Ok(());
        }
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    fn add_thread(self: &Arc<Self>, inner: &mut Queued) -> std::io::Result<()> {
        let (queue, name) = (Arc::clone(self), format!("sync-{}", inner.threads.len()));
        inner.threads.push(std::thread::Builder::new().name(name).spawn(move || run(&queue))?);
        Ok(())
    }

    /// Returns the next log once there is one. Returns `None` when the queue has stopped and is empty.
    ///
    /// Idle threads sleep on the condition, not on a lock: a contended lock spins before it sleeps.
    fn next(&self) -> Option<Arc<dyn SyncSource>> {
        let mut inner = self.inner.lock();
        loop {
            if let Some(source) = inner.sources.pop_front() {
                return Some(source);
            }
            if inner.stopped {
                return None;
            }
            inner.idle += 1;
            self.changed.wait(&mut inner);
            inner.idle -= 1;
        }
    }

    /// Ends the threads once the queue is empty.
    fn stop(&self) {
        self.inner.lock().stopped = true;
        self.changed.notify_all();
    }
}

impl FsyncQueue {
    /// Starts the first thread, for logs in a data directory.
    ///
    /// # Errors
    /// The data directory cannot be opened, or the operating system has no thread left.
    pub fn start(flush_mode: FlushMode, data_dir: &Path) -> std::io::Result<Arc<Self>> {
        let file_system = FileSystem::of(data_dir)?;
        let queue = Queue::start()?;
        Ok(Arc::new(Self { flush_mode, file_system, queue }))
    }

    /// Returns what acks=all waits for.
    #[must_use]
    pub fn flush_mode(&self) -> FlushMode {
        self.flush_mode
    }

    pub(crate) fn file_system(&self) -> Option<&FileSystem> {
        self.file_system.as_ref()
    }

    /// Returns the wait until all offsets below `end` are on stable storage. The sync starts now, or after the one that
    /// runs.
    pub(crate) fn wait<S: SyncSource>(&self, source: &Arc<S>, end: i64) -> Committed {
        let mut inner = source.sync_waiters().inner.lock();
        if end <= inner.synced {
            return Committed::NOW;
        }
        let reported = inner.waiting.add(end);
        self.enqueue(source, inner, end);
        Committed::when(reported)
    }

    /// Starts a sync of all offsets below `end`, now or after the one that runs. The source learns of its end.
    pub(crate) fn request<S: SyncSource>(&self, source: &Arc<S>, end: i64) {
        let inner = source.sync_waiters().inner.lock();
        if end > inner.synced {
            self.enqueue(source, inner, end);
        }
    }

    fn enqueue<S: SyncSource>(&self, source: &Arc<S>, mut inner: MutexGuard<'_, Inner>, end: i64) {
        inner.requested = inner.requested.max(end);
        let start = !std::mem::replace(&mut inner.running, true);
        drop(inner);
        if start && let Err(source) = self.queue.push(Arc::clone(source) as Arc<dyn SyncSource>) {
            failed(&*source, &PartitionError::ShuttingDown);
        }
    }

    /// Ends the threads once the queue is empty. Blocks for the syncs that still run.
    pub fn stop(&self) {
        self.queue.stop();
        let threads = std::mem::take(&mut self.queue.inner.lock().threads);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a sync thread panicked");
            }
        }
    }
}

impl Drop for FsyncQueue {
    fn drop(&mut self) {
        self.queue.stop();
    }
}

fn run(queue: &Queue) {
    while let Some(source) = queue.next() {
        // Writes that came during the sync are next: the log need not queue again.
        while sync_once(&*source) {}
    }
}

/// Syncs a log once. Returns whether other writes wait for another sync.
fn sync_once(source: &dyn SyncSource) -> bool {
    let begun = Instant::now();
    let synced = source.sync();
    let took = begun.elapsed();
    if took >= STALL {
        source.sync_stalled(took);
    }
    match synced {
        Ok(()) => source.sync_waiters().complete(),
        Err(error) => {
            failed(source, &error);
            false
        }
    }
}

fn failed(source: &dyn SyncSource, error: &PartitionError) {
    source.sync_waiters().failed(error);
    source.sync_failed(error);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use super::*;

    /// A log in memory whose disk fails on demand.
    #[derive(Debug, Default)]
    struct Disk {
        end: AtomicI64,
        syncs: AtomicUsize,
        gate: Mutex<()>,
        fails: std::sync::atomic::AtomicBool,
        waiters: SyncWaiters,
    }

    impl SyncSource for Disk {
        fn sync(&self) -> Result<(), PartitionError> {
            let end = self.end.load(Ordering::Acquire);
            let _gate = self.gate.lock();
            self.syncs.fetch_add(1, Ordering::AcqRel);
            if self.fails.load(Ordering::Acquire) {
                return Err(PartitionError::NotHosted);
            }
            self.waiters.note_synced(end);
            Ok(())
        }

        fn sync_waiters(&self) -> &SyncWaiters {
            &self.waiters
        }
    }

    fn queue() -> Arc<FsyncQueue> {
        FsyncQueue::start(FlushMode::Fsync, &std::env::temp_dir()).unwrap()
    }

    #[test]
    fn writes_that_come_during_a_sync_share_the_next_one() {
        let (queue, disk) = (queue(), Arc::new(Disk::default()));
        let gate = disk.gate.lock();
        disk.end.store(1, Ordering::Release);
        let mut waits = vec![queue.wait(&disk, 1)];
        for end in 2..=100 {
            disk.end.store(end, Ordering::Release);
            waits.push(queue.wait(&disk, end));
        }
        drop(gate);
        for wait in waits {
            wait.wait_blocking().unwrap();
        }
        // The first sync may have started before or after the other writes.
        assert!(disk.syncs.load(Ordering::Acquire) <= 2);
        assert!(queue.wait(&disk, 100).is_now());
        queue.stop();
    }

    #[test]
    fn a_failed_sync_and_a_stopped_queue_reject_the_writes() {
        let (queue, disk) = (queue(), Arc::new(Disk::default()));
        disk.fails.store(true, Ordering::Release);
        assert!(matches!(queue.wait(&disk, 1).wait_blocking(), Err(PartitionError::NotHosted)));
        // The failure does not leave the log marked as being synced.
        disk.fails.store(false, Ordering::Release);
        disk.end.store(1, Ordering::Release);
        queue.wait(&disk, 1).wait_blocking().unwrap();
        queue.stop();
        assert!(matches!(queue.wait(&disk, 2).wait_blocking(), Err(PartitionError::ShuttingDown)));
    }
}
