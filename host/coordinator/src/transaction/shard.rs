//! A transactional id in memory, and the partitions of `__transaction_state` that have the ids.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::host::MarkerResult;
use super::metadata::TransactionMetadata;
use super::model::TopicPartition;

/// A transactional id in the table.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: Arc<str>,
    pub(super) slot: Mutex<Slot>,
    /// Notified when a change is committed, and when the shard is closed.
    pub(super) changed: Notify,
}

/// The state of a transactional id, guarded by its lock.
#[derive(Debug)]
pub(super) struct Slot {
    /// The state whose record is committed.
    pub(super) metadata: TransactionMetadata,
    /// A record with the next state was appended, and its commit is not known.
    pub(super) is_changing: bool,
    /// The id is no longer in the table. A caller that finds this under the lock has to look it up again.
    pub(super) removed: bool,
}

impl Transaction {
    pub(super) fn new(id: Arc<str>, metadata: TransactionMetadata) -> Arc<Self> {
        let slot = Slot { metadata, is_changing: false, removed: false };
        Arc::new(Self { id, slot: Mutex::new(slot), changed: Notify::new() })
    }
}

impl Slot {
    /// Takes the transactional id out of its table.
    pub(super) fn remove_from(&mut self, shard: &Shard, id: &str) {
        self.removed = true;
        shard.remove(id);
    }

    /// Notes which partitions have their marker.
    pub(super) fn markers_written(&mut self, results: &[(TopicPartition, MarkerResult)]) {
        for (partition, _) in results.iter().filter(|(_, result)| *result == MarkerResult::Written) {
            self.metadata.partitions.remove(partition);
        }
    }
}

/// A partition of `__transaction_state` in one leader epoch of this broker. Markers carry the epoch as that of their
/// coordinator.
pub(super) type Shard = crate::shard::Shard<Transaction>;
