//! Scans: transactions that are open for too long are aborted, and transactional ids without use are removed.

use std::sync::Arc;

use millstream_partition::now_ms;

use super::coordinator::TransactionCoordinator;

impl TransactionCoordinator {
    /// Aborts transactions that have timed out, until the coordinator stops.
    pub(super) async fn run_aborts(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.config.abort_interval) => self.abort_timed_out(now_ms()),
                () = self.wait_for_stop() => return,
            }
        }
    }

    /// Removes transactional ids that have expired, until the coordinator stops.
    pub(super) async fn run_expiry(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.config.expiry_interval) => self.remove_expired(now_ms()),
                () = self.wait_for_stop() => return,
            }
        }
    }

    /// Begins to abort the transactions that have timed out, and fences their producers. One whose record cannot be
    /// written now is found by the next scan.
    pub(super) fn abort_timed_out(self: &Arc<Self>, now_ms: i64) {
        for (shard, (_, transaction)) in self.shards.all() {
            let mut slot = transaction.slot.lock();
            if slot.is_changing || !slot.metadata.has_timed_out(now_ms) {
                continue;
            }
            let next = slot.metadata.fenced(self.host.version(), now_ms);
            let Ok(appended) = self.append(&shard, &transaction.id, &mut slot, Some(&next)) else { continue };
            drop(slot);
            tracing::info!(transactional_id = &*transaction.id, "a transaction has timed out and is aborted");
            let coordinator = Arc::clone(self);
            tokio::spawn(async move {
                if coordinator.apply(&transaction, next, appended.settle().await).is_ok() {
                    coordinator.complete(shard, transaction).await;
                }
            });
        }
    }

    /// Begins to remove the transactional ids that have expired.
    pub(super) fn remove_expired(self: &Arc<Self>, now_ms: i64) {
        let expiration_ms = i64::try_from(self.config.id_expiration.as_millis()).unwrap_or(i64::MAX);
        for (shard, (_, transaction)) in self.shards.all() {
            let mut slot = transaction.slot.lock();
            if slot.is_changing || slot.removed || !slot.metadata.has_expired(expiration_ms, now_ms) {
                continue;
            }
            let Ok(appended) = self.append(&shard, &transaction.id, &mut slot, None) else { continue };
            drop(slot);
            tracing::info!(transactional_id = &*transaction.id, "a transactional id has expired");
            tokio::spawn(async move {
                if appended.settle().await.is_ok() {
                    transaction.slot.lock().remove_from(&shard, &transaction.id);
                    transaction.changed.notify_waiters();
                }
            });
        }
    }
}
