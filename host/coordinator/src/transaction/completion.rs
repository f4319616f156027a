//! The end of a transaction whose outcome is decided: its markers are written, then it is complete.
//!
//! The decision is in the log. So another broker that leads the partition later finds it, and goes on.

use std::sync::Arc;
use std::time::Duration;

use millstream_partition::now_ms;

use super::coordinator::TransactionCoordinator;
use super::host::{MarkerResult, Markers};
use super::model::TransactionError;
use super::shard::{Shard, Transaction};

/// The pause before the second attempt. Each later one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The pauses between attempts.
struct Pauses(Duration);

impl Pauses {
    async fn next(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = PAUSE_MAX.min(self.0 * 2);
    }
}

impl TransactionCoordinator {
    /// Writes the markers of a transaction until all partitions have theirs, and notes that it is complete. It ends
    /// early if this broker does not lead in the epoch of the shard any more.
    pub(super) async fn complete(self: Arc<Self>, shard: Arc<Shard>, transaction: Arc<Transaction>) {
        let mut pauses = Pauses(PAUSE_MIN);
        while let Some(markers) = self.missing_markers(&shard, &transaction) {
            let results = self.host.write_markers(markers).await;
            transaction.slot.lock().markers_written(&results);
            let all_done = results.iter().all(|(_, result)| *result == MarkerResult::Written);
            if !all_done {
                pauses.next().await;
            }
        }
        let mut pauses = Pauses(PAUSE_MIN);
        while self.is_current(&shard) {
            match self.write_completion(&shard, &transaction).await {
                Ok(()) => return,
                // If this broker is only suspended, it stays the leader in its epoch. Otherwise another one goes on.
                Err(TransactionError::NotAvailable | TransactionError::NotCoordinator) => pauses.next().await,
                Err(error) => return tracing::error!(id = &*transaction.id, "cannot complete a transaction: {error}"),
            }
        }
    }

    /// Returns the markers that are missing; `None` if there are none, or others write them.
    fn missing_markers(&self, shard: &Shard, transaction: &Transaction) -> Option<Markers> {
        if !self.is_current(shard) {
            return None;
        }
        let slot = transaction.slot.lock();
        let metadata = &slot.metadata;
        if metadata.partitions.is_empty() {
            return None;
        }
        Some(Markers {
            transactional_id: Arc::clone(&transaction.id),
            producer: metadata.producer,
            outcome: metadata.outcome()?,
            coordinator_epoch: shard.leader_epoch,
            version: metadata.client_version,
            partitions: metadata.partitions.iter().cloned().collect(),
        })
    }

    async fn write_completion(&self, shard: &Shard, transaction: &Transaction) -> Result<(), TransactionError> {
        let (next, appended) = {
            let mut slot = transaction.slot.lock();
            let next = slot.metadata.completed(now_ms());
            let appended = self.append(shard, &transaction.id, &mut slot, Some(&next))?;
            (next, appended)
        };
        self.apply(transaction, next, appended.settle().await)
    }
}
