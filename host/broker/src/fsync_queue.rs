//! Group commit: many acknowledgements by one fsync.
//!
//! There is no timer. A partition that is idle syncs at once; what is appended while a sync runs piles up behind it and goes
//! with the next one. The syncs run on a few threads of their own, outside of the partition's lock.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::ApiError;
use crate::partition::Partition;

/// Threads that sync. An fsync keeps its thread waiting, not busy, and the journal of the file system merges those that
/// run at the same time.
const SYNC_THREADS: usize = 4;

type Outcome = Result<(), ApiError>;

/// The acknowledgements of one partition that wait for stable storage.
#[derive(Debug, Default)]
pub(crate) struct GroupCommit {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Offsets below this are on stable storage.
    durable: i64,
    /// Whether a sync runs or stands in the queue.
    running: bool,
    waiting: Vec<(i64, oneshot::Sender<Outcome>)>,
}

/// A wait for one offset.
pub(crate) type Durable = oneshot::Receiver<Outcome>;

impl GroupCommit {
    /// Ends every wait with an error.
    pub(crate) fn fail_all(&self, error: &ApiError) {
        let waiting = std::mem::take(&mut self.inner.lock().waiting);
        for (_, waiter) in waiting {
            // Whoever waited may have gone.
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// Ends the waits up to `durable`. Whether some are left, for which the next sync has to run.
    fn advance(&self, durable: i64) -> bool {
        let mut inner = self.inner.lock();
        inner.durable = inner.durable.max(durable);
        let (done, waiting) = std::mem::take(&mut inner.waiting).into_iter().partition(|(end, _)| *end <= durable);
        inner.waiting = waiting;
        inner.running = !inner.waiting.is_empty();
        let again = inner.running;
        drop(inner);
        let done: Vec<(i64, oneshot::Sender<Outcome>)> = done;
        for (_, waiter) in done {
            let _ = waiter.send(Ok(()));
        }
        again
    }
}

/// The threads that sync, and the queue before them.
#[derive(Debug)]
pub(crate) struct Syncer {
    queue: Mutex<Option<mpsc::Sender<Arc<Partition>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Syncer {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Arc<Partition>>();
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..SYNC_THREADS).map(|index| {
            let receiver = Arc::clone(&receiver);
            std::thread::Builder::new().name(format!("sync-{index}")).spawn(move || run(&receiver))
        });
        let threads = threads.collect::<Result<_, _>>()?;
        Ok(Self { queue: Mutex::new(Some(sender)), threads: Mutex::new(threads) })
    }

    /// Waits until all below `end` is on stable storage; the sync begins now or after the one that runs.
    pub(crate) fn wait(&self, partition: &Arc<Partition>, end: i64) -> Durable {
        let (sender, receiver) = oneshot::channel();
        let mut inner = partition.commit.inner.lock();
        if end <= inner.durable {
            let _ = sender.send(Ok(()));
            return receiver;
        }
        inner.waiting.push((end, sender));
        let start = !std::mem::replace(&mut inner.running, true);
        drop(inner);
        if start {
            self.push(Arc::clone(partition));
        }
        receiver
    }

    fn push(&self, partition: Arc<Partition>) {
        let queue = self.queue.lock();
        // After the stop nobody syncs any more: the wait ends with the sender that is dropped.
        let refused = queue.as_ref().and_then(|queue| queue.send(partition).err());
        drop(queue);
        drop(refused);
    }

    /// Ends the threads once the queue is empty. Blocks for the syncs that still run.
    pub(crate) fn stop(&self) {
        drop(self.queue.lock().take());
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a sync thread has panicked");
            }
        }
    }
}

fn run(queue: &Mutex<mpsc::Receiver<Arc<Partition>>>) {
    loop {
        let next = queue.lock().recv();
        let Ok(partition) = next else { return };
        // The same thread goes on while arrivals have piled up: they need no queue.
        while sync_once(&partition) {}
    }
}

/// One sync of one partition; whether there is more to sync.
fn sync_once(partition: &Partition) -> bool {
    match sync(partition) {
        Ok(durable) => partition.commit.advance(durable),
        Err(error) => {
            let mut inner = partition.commit.inner.lock();
            inner.running = false;
            drop(inner);
            partition.commit.fail_all(&error);
            false
        }
    }
}

/// Syncs all that is appended now, and says up to which offset. Blocks for the disk, without the partition's lock.
pub(crate) fn sync(partition: &Partition) -> Result<i64, ApiError> {
    let Some(target) = partition.sync_target()? else {
        return partition.with_log(|log| log.recovery_point());
    };
    target.sync()?;
    partition.with_log(|log| log.synced(&target))?;
    Ok(target.upto())
}
