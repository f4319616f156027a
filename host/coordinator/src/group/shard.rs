//! A group in memory, and the partitions of `__consumer_offsets` that have the groups.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::classic::model::*;
use super::kind::Group;
use super::offsets::Offsets;

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
pub(super) type Entry = crate::shard::Entry<Mutex<Slot>>;

/// A partition of `__consumer_offsets` in one leader epoch of this broker.
pub(super) type Shard = crate::shard::Shard<Mutex<Slot>, Common>;

/// What belongs to all groups of a partition.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// The groups with offsets in the open transactions of a producer. It is held over the append of such offsets, so
    /// that a marker that comes after them finds them.
    pub(super) open_transactions: Mutex<OpenTransactions>,
}

/// Groups by producer id.
pub(super) type OpenTransactions = HashMap<i64, BTreeSet<Arc<str>>>;
