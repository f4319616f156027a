//! The groups of one partition of `__consumer_offsets`, while this broker leads it in one leader epoch.
//!
//! A new leader epoch begins with a new shard, which is loaded from the log. The shard of the old epoch is closed: its
//! waiting requests end, and its groups are dropped. So neither a late response of the log nor a slow load of an old
//! epoch changes the groups of a new one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::classic::model::*;
use super::kind::Group;
use super::offsets::Offsets;

/// Whether the groups of a shard are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShardState {
    /// The log is being replayed.
    Loading,
    /// The log could not be replayed. Serving its groups would lose their offsets.
    Failed,
    Active,
    /// This broker no longer leads the partition in the epoch of the shard.
    Closed,
}

impl ShardState {
    fn check(self) -> Result<(), GroupError> {
        match self {
            Self::Active => Ok(()),
            Self::Loading => Err(GroupError::CoordinatorLoadInProgress),
            Self::Failed => Err(GroupError::CoordinatorNotAvailable),
            Self::Closed => Err(GroupError::NotCoordinator),
        }
    }
}

/// A group with what belongs to it outside of the state machine.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) group: Group,
    pub(super) offsets: Offsets,
    pub(super) joins: HashMap<Ticket, oneshot::Sender<JoinReply>>,
    pub(super) syncs: HashMap<Ticket, oneshot::Sender<SyncReply>>,
    /// Writes of offsets that are not committed yet. The group has to stay for them.
    pub(super) writes_in_flight: usize,
    /// The group's deadline in the timers.
    pub(super) armed_ms: Option<u64>,
    /// The group is no longer in the table. A caller that finds this under the lock has to look up the group again.
    pub(super) removed: bool,
}

impl Slot {
    pub(super) fn new(group: Group, offsets: Offsets) -> Self {
        let (joins, syncs) = (HashMap::new(), HashMap::new());
        Self { group, offsets, joins, syncs, writes_in_flight: 0, armed_ms: None, removed: false }
    }

    /// Ends the waiting requests: they get NOT_COORDINATOR when their channels close.
    pub(super) fn reject_waiting(&mut self) {
        self.joins.clear();
        self.syncs.clear();
    }

    /// Notes that a write of the group has ended, and was applied if it is committed.
    pub(super) fn write_ended(&mut self) {
        self.writes_in_flight = self.writes_in_flight.saturating_sub(1);
        self.settle();
    }

    /// Forgets what only commits that are being written need.
    pub(super) fn settle(&mut self) {
        if self.writes_in_flight == 0 {
            self.offsets.forget_tombstones();
        }
    }

    /// Returns whether nothing would be lost with the group: no members, no offsets, no writes.
    pub(super) fn has_nothing_left(&self) -> bool {
        self.group.is_vacant() && self.offsets.is_empty() && self.writes_in_flight == 0
    }
}

/// A group in the table, with its id.
pub(super) type Entry = (Arc<str>, Arc<Mutex<Slot>>);

/// A partition of `__consumer_offsets` in one leader epoch of this broker.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) partition: i32,
    pub(super) leader_epoch: i32,
    /// The groups with offsets in the open transactions of a producer. It is held over the append of such offsets, so
    /// that a marker that comes after them finds them.
    pub(super) open_transactions: Mutex<OpenTransactions>,
    table: Mutex<Table>,
}

/// Groups by producer id.
pub(super) type OpenTransactions = HashMap<i64, BTreeSet<Arc<str>>>;

#[derive(Debug)]
struct Table {
    state: ShardState,
    groups: HashMap<Arc<str>, Arc<Mutex<Slot>>>,
}

impl Shard {
    /// Makes a shard without groups. One without a log to load is active at once.
    pub(super) fn new(partition: i32, leader_epoch: i32, state: ShardState) -> Self {
        Self {
            partition,
            leader_epoch,
            open_transactions: Mutex::default(),
            table: Mutex::new(Table { state, groups: HashMap::new() }),
        }
    }

    pub(super) fn state(&self) -> ShardState {
        self.table.lock().state
    }

    /// Checks that the groups are served.
    ///
    /// # Errors
    /// The shard is not active.
    pub(super) fn check(&self) -> Result<(), GroupError> {
        self.state().check()
    }

    /// Returns a group; a missing one is made by `make`, or is an error.
    ///
    /// # Errors
    /// The shard is not active, or the error of `make`.
    pub(super) fn group(&self, id: &str, make: impl FnOnce() -> Result<Slot, GroupError>) -> Result<Entry, GroupError> {
        let mut table = self.table.lock();
        table.state.check()?;
        if let Some((id, slot)) = table.groups.get_key_value(id) {
            return Ok((Arc::clone(id), Arc::clone(slot)));
        }
        let entry = (Arc::<str>::from(id), Arc::new(Mutex::new(make()?)));
        table.groups.insert(Arc::clone(&entry.0), Arc::clone(&entry.1));
        Ok(entry)
    }

    /// Returns all groups as they are now.
    pub(super) fn groups(&self) -> Vec<Entry> {
        self.table.lock().groups.iter().map(|(id, slot)| (Arc::clone(id), Arc::clone(slot))).collect()
    }

    /// Takes a group out of the table.
    pub(super) fn remove(&self, id: &str) {
        self.table.lock().groups.remove(id);
    }

    /// Serves the loaded groups from now on. Returns whether it does: a closed shard drops them.
    pub(super) fn activate(&self, groups: impl IntoIterator<Item = (Arc<str>, Slot)>) -> bool {
        let mut table = self.table.lock();
        if table.state != ShardState::Loading {
            return false;
        }
        table.groups = groups.into_iter().map(|(id, slot)| (id, Arc::new(Mutex::new(slot)))).collect();
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

    /// Rejects all requests from now on. Returns the groups, which the caller drops.
    pub(super) fn close(&self) -> Vec<Entry> {
        let mut table = self.table.lock();
        table.state = ShardState::Closed;
        table.groups.drain().collect()
    }
}
