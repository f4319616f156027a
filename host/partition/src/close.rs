//! Closing the logs of many partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::partition::Partition;

/// The number of threads. A close waits for several fsyncs and needs little CPU, and the file system's journal merges
/// the fsyncs that run at the same time.
const CLOSE_THREADS: usize = 32;

impl Partition {
    /// Closes the logs of many partitions in parallel, so that the next start need not recover them. Blocks for the disk.
    ///
    /// Returns whether all of them are closed. Failures are logged. A partition that is offline is not closed.
    #[must_use]
    pub fn close_all(partitions: &[Arc<Self>]) -> bool {
        let (next, all_closed) = (AtomicUsize::new(0), AtomicBool::new(true));
        let work = || {
            while let Some(partition) = partitions.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !partition.close() {
                    all_closed.store(false, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..CLOSE_THREADS.min(partitions.len()) {
                scope.spawn(work);
            }
        });
        all_closed.into_inner()
    }

    fn close(&self) -> bool {
        match self.with_log(|log| log.close_clean()) {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::error!(topic = self.topic(), partition = self.index(), "cannot close the log: {error}");
                false
            }
            // The next start has to recover an offline log.
            Err(_) => false,
        }
    }
}
