//! A partition of a coordinator's topic, while this broker leads it in one leader epoch.
//!
//! A new leader epoch begins with a new shard, which is loaded from the log. The shard of the old epoch is closed: its
//! entries are dropped. So neither a late response of the log nor a slow load of an old epoch changes the entries of a
//! new one.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use millstream_partition::InternalTopic;
use millstream_record::BatchView;
use parking_lot::Mutex;

/// The life of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardState {
    /// The log is being replayed.
    Loading,
    /// The log could not be replayed. Serving the entries would lose what is in it.
    Failed,
    Active,
    /// This broker no longer leads the partition in the epoch of the shard.
    Closed,
}

/// Why the entries of a shard are not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotServed {
    Loading,
    Failed,
    Closed,
}

/// A group or a transactional id, with its name.
pub(crate) type Entry<T> = (Arc<str>, Arc<T>);

/// The entries of a partition, and what belongs to all of them.
#[derive(Debug)]
pub(crate) struct Shard<T, C = ()> {
    pub(crate) partition: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) common: C,
    table: Mutex<Table<T>>,
}

#[derive(Debug)]
struct Table<T> {
    state: ShardState,
    entries: HashMap<Arc<str>, Arc<T>>,
}

impl<T> Table<T> {
    fn check(&self) -> Result<(), NotServed> {
        match self.state {
            ShardState::Active => Ok(()),
            ShardState::Loading => Err(NotServed::Loading),
            ShardState::Failed => Err(NotServed::Failed),
            ShardState::Closed => Err(NotServed::Closed),
        }
    }
}

impl<T, C: Default> Shard<T, C> {
    /// Makes a shard without entries. One without a log to load is active at once.
    pub(crate) fn new(partition: i32, leader_epoch: i32, state: ShardState) -> Self {
        let table = Mutex::new(Table { state, entries: HashMap::new() });
        Self { partition, leader_epoch, common: C::default(), table }
    }
}

impl<T, C> Shard<T, C> {
    pub(crate) fn state(&self) -> ShardState {
        self.table.lock().state
    }

    /// Checks that the shard serves requests.
    ///
    /// # Errors
    /// It is not active.
    pub(crate) fn check(&self) -> Result<(), NotServed> {
        self.table.lock().check()
    }

    /// Returns an entry.
    ///
    /// # Errors
    /// The shard is not active.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Arc<T>>, NotServed> {
        let table = self.table.lock();
        table.check()?;
        Ok(table.entries.get(id).cloned())
    }

    /// Returns an entry; a missing one is made by `make`, or is an error.
    ///
    /// # Errors
    /// The shard is not active, or the error of `make`.
    pub(crate) fn find_or_add<E: From<NotServed>>(
        &self,
        id: &str,
        make: impl FnOnce(&Arc<str>) -> Result<Arc<T>, E>,
    ) -> Result<Entry<T>, E> {
        let mut table = self.table.lock();
        table.check()?;
        if let Some((id, found)) = table.entries.get_key_value(id) {
            return Ok((Arc::clone(id), Arc::clone(found)));
        }
        let id = Arc::<str>::from(id);
        let added = make(&id)?;
        table.entries.insert(Arc::clone(&id), Arc::clone(&added));
        Ok((id, added))
    }

    /// Returns all entries as they are now.
    pub(crate) fn entries(&self) -> Vec<Entry<T>> {
        self.table.lock().entries.iter().map(|(id, entry)| (Arc::clone(id), Arc::clone(entry))).collect()
    }

    /// Takes an entry out of the table.
    pub(crate) fn remove(&self, id: &str) {
        self.table.lock().entries.remove(id);
    }

    /// Serves the loaded entries from now on. Returns whether it does: a closed shard drops them.
    pub(crate) fn activate(&self, loaded: impl IntoIterator<Item = Entry<T>>) -> bool {
        let mut table = self.table.lock();
        if table.state != ShardState::Loading {
            return false;
        }
        table.entries = loaded.into_iter().collect();
        table.state = ShardState::Active;
        true
    }

    /// Notes that the log could not be loaded.
    pub(crate) fn load_failed(&self) {
        let mut table = self.table.lock();
        if table.state == ShardState::Loading {
            table.state = ShardState::Failed;
        }
    }

    /// Rejects all requests from now on. Returns the entries, which the caller drops.
    pub(crate) fn close(&self) -> Vec<Entry<T>> {
        let mut table = self.table.lock();
        table.state = ShardState::Closed;
        table.entries.drain().collect()
    }

    /// Replays the log of the partition. Blocks for the disk.
    ///
    /// # Errors
    /// The log cannot be read or understood; the shard was closed; `is_stopped` says that the broker stops.
    pub(crate) fn replay(
        &self,
        topic: &dyn InternalTopic,
        is_stopped: impl Fn() -> bool,
        mut apply: impl FnMut(&BatchView<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut outcome = Ok(());
        let replayed = topic.replay(self.partition, &mut |batch| {
            outcome = if is_stopped() {
                Err("the broker stops".to_owned())
            } else if self.state() == ShardState::Closed {
                Err("the leader has changed".to_owned())
            } else {
                apply(batch)
            };
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        replayed.map_err(|error| error.to_string())?;
        outcome
    }
}
