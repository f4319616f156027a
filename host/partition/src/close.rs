//! Closing the logs of many partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream_log::{LogError, SyncTarget};

use crate::error::PartitionError;
use crate::many::{in_parallel, sync_many};
use crate::partition::Partition;

impl Partition {
    /// Closes the logs of many partitions, so that the next start need not recover them. Blocks for the disk.
    ///
    /// Returns whether all of them are closed. Failures are logged. A partition that is offline is not closed.
    #[must_use]
    pub fn close_all(partitions: &[Arc<Self>]) -> bool {
        let Some(first) = partitions.first() else { return true };
        // Writes that wait for other replicas would wait for ever.
        partitions.iter().for_each(|partition| partition.commit_waiters().end(&PartitionError::ShuttingDown));
        let all_closed = AtomicBool::new(true);
        let failed = |partition: &Self, error: &LogError| {
            all_closed.store(false, Ordering::Relaxed);
            tracing::error!(topic = partition.topic(), partition = partition.index(), "cannot close the log: {error}");
        };
        let hosted = partitions.iter().filter(|partition| partition.is_replica()).collect();
        let prepared = in_parallel(hosted, |partition: &Arc<Self>| match partition.prepare_close() {
            Ok(Ok(target)) => target.map(|target| (partition, target)),
            Ok(Err(error)) => {
                failed(partition, &error);
                None
            }
            // The next start has to recover an offline log.
            Err(_) => {
                all_closed.store(false, Ordering::Relaxed);
                None
            }
        });
        let (unsynced, targets): (Vec<_>, Vec<_>) = prepared.into_iter().flatten().unzip();
        let results = sync_many(first.fsync_queue().file_system(), &targets);
        for ((partition, target), result) in unsynced.into_iter().zip(&targets).zip(results) {
            match result {
                // A log that is deleted meanwhile has nothing to note.
                Ok(()) => drop(partition.with_log(|log| log.synced(target))),
                Err(error) => failed(partition, &error),
            }
        }
        all_closed.into_inner()
    }

    fn prepare_close(&self) -> Result<Result<Option<SyncTarget>, LogError>, PartitionError> {
        self.with_log(|log| log.prepare_close())
    }
}
