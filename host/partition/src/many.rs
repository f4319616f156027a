//! Work on many partitions at the same time: a start and a stop.

use millstream_log::{FileSystem, LogError, SyncTarget};
use parking_lot::Mutex;

/// The number of threads. The file system's journal merges the fsyncs that run at the same time, and those need no CPU.
const THREADS: usize = 32;

/// Runs `work` on each item, on several threads, and returns the results in the order of the items.
pub(crate) fn in_parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = THREADS.min(items.len());
    if threads <= 1 {
        return items.into_iter().map(work).collect();
    }
    // One at a time from a shared queue, since the items that take long are not spread evenly.
    let (count, queue) = (items.len(), Mutex::new(items.into_iter().enumerate()));
    let done = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().next();
                    let Some((place, item)) = next else { return };
                    let result = work(item);
                    done.lock().push((place, result));
                }
            });
        }
    });
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Makes many logs durable: with one sync of their file system where that is possible, else each by itself.
pub(crate) fn sync_many(file_system: Option<&FileSystem>, targets: &[SyncTarget]) -> Vec<Result<(), LogError>> {
    if file_system.is_some_and(|file_system| file_system.sync_all(targets)) {
        return targets.iter().map(|_| Ok(())).collect();
    }
    in_parallel(targets.iter().collect(), SyncTarget::sync)
}
