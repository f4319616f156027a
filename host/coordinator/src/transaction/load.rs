//! Loading and unloading: the transactional ids follow the leaders of the partitions of `__transaction_state`.
//!
//! When this broker becomes the leader of a partition, a replay of its log to the end gives the ids. Until a partition
//! is read, requests for its ids get COORDINATOR_LOAD_IN_PROGRESS. Transactions whose outcome was decided are
//! completed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_partition::UNPACKED_BATCH_BYTES_MAX;
use millstream_record::BatchView;

use super::coordinator::TransactionCoordinator;
use super::metadata::TransactionMetadata;
use super::records::{self, TRANSACTION_STATE};
use super::shard::{Shard, Transaction};
use crate::partition_of::partition_of;
use crate::shards::Changed;

/// How long [`TransactionCoordinator::start`] waits for the load.
const LOAD_WAIT: Duration = Duration::from_secs(2);

/// What the log says about transactional ids.
type Loaded = HashMap<Arc<str>, TransactionMetadata>;

impl TransactionCoordinator {
    /// Starts the scans and loads the transactional ids. Returns when all are loaded, or after two seconds, when the
    /// load continues in the background.
    pub async fn start(self: &Arc<Self>) {
        tokio::spawn(Arc::clone(self).run_aborts());
        tokio::spawn(Arc::clone(self).run_expiry());
        self.roles_changed();
        if tokio::time::timeout(LOAD_WAIT, self.shards.loaded()).await.is_err() {
            tracing::info!(
                "transactional ids are still being loaded; requests for them get COORDINATOR_LOAD_IN_PROGRESS"
            );
        }
    }

    /// Follows the leaders of the partitions: loads the ids of those that this broker leads in a new epoch, and drops
    /// the ids of those that it no longer leads. Nothing happens if the leaders are the same.
    ///
    /// It has to be called after every change of the topic or of its leaders, within the runtime.
    pub fn roles_changed(self: &Arc<Self>) {
        if self.is_stopped() {
            return;
        }
        self.shards.follow(&*self.topic, |Changed { closed, to_load }| {
            for (_, transaction) in closed.iter().flat_map(|shard| shard.close()) {
                transaction.changed.notify_waiters();
            }
            for shard in to_load {
                tokio::spawn(Arc::clone(self).run_load(shard));
            }
        });
    }

    async fn run_load(self: Arc<Self>, shard: Arc<Shard>) {
        let (coordinator, loading) = (Arc::clone(&self), Arc::clone(&shard));
        let done = tokio::task::spawn_blocking(move || coordinator.load(&loading)).await;
        if let Err(error) = done {
            tracing::error!("loading a partition of {TRANSACTION_STATE} failed: {error}");
            shard.load_failed();
        }
        for (_, transaction) in shard.entries() {
            let is_prepared = transaction.slot.lock().metadata.state.is_prepared();
            if is_prepared {
                tokio::spawn(Arc::clone(&self).complete(Arc::clone(&shard), transaction));
            }
        }
        self.shards.load_ended.notify_waiters();
    }

    /// Loads the ids of a shard, and serves them from then on. Blocks for the disk.
    fn load(&self, shard: &Arc<Shard>) {
        let (partition, leader_epoch) = (shard.partition, shard.leader_epoch);
        let span = tracing::info_span!("load", topic = TRANSACTION_STATE, partition, leader_epoch);
        let _entered = span.enter();
        let loaded = match self.read(shard) {
            Ok(loaded) => loaded,
            Err(_) if !self.is_current(shard) => return tracing::debug!("the load was overtaken"),
            Err(error) => {
                tracing::error!("cannot load the transactional ids of this partition: {error}");
                return shard.load_failed();
            }
        };
        let count = self.topic.partitions();
        let own = loaded.into_iter().filter(|(id, _)| partition_of(id, count) == partition);
        let own = own.map(|(id, metadata)| (Arc::clone(&id), Transaction::new(id, metadata)));
        if !self.is_current(shard) || !shard.activate(own) {
            tracing::debug!("the load was overtaken");
        }
    }

    /// Returns whether this broker still leads the partition in the epoch of the shard. If it does not, the shard is
    /// closed or will be soon.
    pub(super) fn is_current(&self, shard: &Shard) -> bool {
        !self.is_stopped() && self.topic.led_epoch(shard.partition) == Some(shard.leader_epoch)
    }

    fn read(&self, shard: &Shard) -> Result<Loaded, String> {
        let mut loaded = Loaded::new();
        shard.replay(&*self.topic, || self.is_stopped(), |batch| replay(batch, &mut loaded))?;
        Ok(loaded)
    }
}

/// Applies the records of one batch.
fn replay(batch: &BatchView<'_>, loaded: &mut Loaded) -> Result<(), String> {
    let at = |error: &dyn std::fmt::Display| format!("batch at offset {}: {error}", batch.base_offset());
    batch.verify_crc().map_err(|error| at(&error))?;
    if batch.is_control() {
        return Ok(());
    }
    let records = batch.records(UNPACKED_BATCH_BYTES_MAX).map_err(|error| at(&error))?;
    for record in records.iter() {
        let record = record.map_err(|error| at(&error))?;
        let Some(key) = record.key else { continue };
        let id = match records::decode_key(key) {
            Ok(Some(id)) => id,
            Ok(None) => continue,
            // One record that cannot be read must not fail all ids of the partition.
            Err(error) => {
                tracing::warn!(offset = record.offset, "skipping a record of {TRANSACTION_STATE}: {error}");
                continue;
            }
        };
        match record.value.map(records::decode).transpose() {
            Ok(Some(metadata)) => _ = loaded.insert(id, metadata),
            Ok(None) => _ = loaded.remove(&id),
            Err(error) => {
                tracing::warn!(offset = record.offset, "skipping a record of {TRANSACTION_STATE}: {error}");
            }
        }
    }
    Ok(())
}
