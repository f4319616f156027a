//! The transactional ids of one partition of `__transaction_state`, in one leader epoch of this broker.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::host::MarkerResult;
use super::metadata::TransactionMetadata;
use super::model::{TopicPartition, TransactionError};

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
    /// Notes which partitions have their marker.
    pub(super) fn markers_written(&mut self, results: &[(TopicPartition, MarkerResult)]) {
        for (partition, _) in results.iter().filter(|(_, result)| *result == MarkerResult::Written) {
            self.metadata.partitions.remove(partition);
        }
    }
}

/// The life of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShardState {
    /// The log is being read.
    Loading,
    Active,
    /// The log could not be read.
    Failed,
    /// Another epoch has begun, or another broker leads.
    Closed,
}

/// A partition of `__transaction_state` in one leader epoch of this broker.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) partition: i32,
    /// Markers carry it as the epoch of their coordinator.
    pub(super) leader_epoch: i32,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    state: ShardState,
    transactions: HashMap<Arc<str>, Arc<Transaction>>,
}

impl Shard {
    /// Makes a shard without ids. One without a log to load is active at once.
    pub(super) fn new(partition: i32, leader_epoch: i32, state: ShardState) -> Self {
        Self { partition, leader_epoch, table: Mutex::new(Table { state, transactions: HashMap::new() }) }
    }

    pub(super) fn state(&self) -> ShardState {
        self.table.lock().state
    }

    /// Checks that the shard serves requests.
    ///
    /// # Errors
    /// It is not active.
    pub(super) fn check(&self) -> Result<(), TransactionError> {
        self.table.lock().check()
    }

    /// Returns a transactional id.
    ///
    /// # Errors
    /// The shard is not active.
    pub(super) fn find(&self, id: &str) -> Result<Option<Arc<Transaction>>, TransactionError> {
        let table = self.table.lock();
        table.check()?;
        Ok(table.transactions.get(id).cloned())
    }

    /// Returns a transactional id. Adds it if it is missing.
    ///
    /// # Errors
    /// The shard is not active.
    pub(super) fn find_or_add(
        &self,
        id: &str,
        make: impl FnOnce() -> TransactionMetadata,
    ) -> Result<Arc<Transaction>, TransactionError> {
        let mut table = self.table.lock();
        table.check()?;
        if let Some(found) = table.transactions.get(id) {
            return Ok(Arc::clone(found));
        }
        let id = Arc::<str>::from(id);
        let added = Transaction::new(Arc::clone(&id), make());
        table.transactions.insert(id, Arc::clone(&added));
        Ok(added)
    }

    /// Returns all transactional ids as they are now.
    pub(super) fn all(&self) -> Vec<Arc<Transaction>> {
        self.table.lock().transactions.values().cloned().collect()
    }

    /// Takes a transactional id out of the table. The caller holds its lock.
    pub(super) fn remove(&self, id: &str, slot: &mut Slot) {
        slot.removed = true;
        self.table.lock().transactions.remove(id);
    }

    /// Serves the loaded ids from now on. Returns whether it does: a closed shard drops them.
    pub(super) fn activate(&self, loaded: impl IntoIterator<Item = (Arc<str>, TransactionMetadata)>) -> bool {
        let mut table = self.table.lock();
        if table.state != ShardState::Loading {
            return false;
        }
        let loaded = loaded.into_iter();
        table.transactions = loaded.map(|(id, metadata)| (Arc::clone(&id), Transaction::new(id, metadata))).collect();
        table.state = ShardState::Active;
        true
    }

    /// Notes that the log could not be loaded.
    pub(super) fn load_failed(&self) {
        let mut table = self.table.lock();
        if table.state == ShardState::Loading {
            table.state = ShardState::Failed;
        }
    }

    /// Rejects all requests from now on, and drops the ids.
    pub(super) fn close(&self) {
        let mut table = self.table.lock();
        table.state = ShardState::Closed;
        let dropped = std::mem::take(&mut table.transactions);
        drop(table);
        dropped.into_values().for_each(|transaction| transaction.changed.notify_waiters());
    }
}

impl Table {
    fn check(&self) -> Result<(), TransactionError> {
        match self.state {
            ShardState::Active => Ok(()),
            ShardState::Loading => Err(TransactionError::LoadInProgress),
            ShardState::Failed => Err(TransactionError::NotAvailable),
            ShardState::Closed => Err(TransactionError::NotCoordinator),
        }
    }
}
