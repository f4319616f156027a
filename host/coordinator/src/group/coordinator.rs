//! The coordinator: all groups of this broker, their locks, their timers and their waiting requests.
//!
//! A group is a [`Slot`] behind a mutex. A call locks it, asks the pure state machine, and carries out the effects.
//! Responses go through oneshot channels. Records are appended to the page cache in the order of the decisions. The
//! lock is released before the call waits for anything. A task of its own waits for the commit of a record.
//!
//! Locks are taken in one order: first a slot, then the table of groups or the timers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millstream_partition::{ErrorLog, InternalAppend, InternalTopic, PartitionError, now_ms};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::classic::ClassicGroup;
use super::classic::model::*;
use super::config::GroupConfig;
use super::kind::Group;
use super::log::{Batch, CONSUMER_OFFSETS, partition_of};
use super::offsets::Offsets;
use super::timers::Timers;

/// Whether the groups of a partition of `__consumer_offsets` can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartitionState {
    /// The log is being replayed.
    Loading,
    /// The log could not be replayed. Serving its groups would lose their offsets.
    Failed,
    Active,
}

/// A group with what belongs to it outside of the state machine.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) group: Group,
    pub(super) offsets: Offsets,
    joins: HashMap<Ticket, oneshot::Sender<JoinReply>>,
    syncs: HashMap<Ticket, oneshot::Sender<SyncReply>>,
    /// Writes of offsets that are not committed yet. The group has to stay for them.
    pub(super) writes_in_flight: usize,
    /// The group's deadline in the timers.
    armed_ms: Option<u64>,
    /// The group is no longer in the table. A caller that finds this under the lock has to look up the group again.
    removed: bool,
}

impl Slot {
    pub(super) fn new(group: Group, offsets: Offsets) -> Self {
        let (joins, syncs) = (HashMap::new(), HashMap::new());
        Self { group, offsets, joins, syncs, writes_in_flight: 0, armed_ms: None, removed: false }
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

/// What to do for a group that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Reject(GroupError),
}

/// The group coordinator of this broker.
pub struct GroupCoordinator {
    pub(super) config: Arc<GroupConfig>,
    pub(super) topic: Box<dyn InternalTopic>,
    /// By number; empty until `__consumer_offsets` exists.
    pub(super) partitions: RwLock<Vec<PartitionState>>,
    groups: Mutex<HashMap<Arc<str>, Arc<Mutex<Slot>>>>,
    timers: Timers,
    tickets: AtomicU64,
    /// The zero of the monotonic milliseconds.
    started: Instant,
    stopped: AtomicBool,
    stop: Notify,
    write_errors: ErrorLog,
}

impl std::fmt::Debug for GroupCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupCoordinator").field("groups", &self.groups.lock().len()).finish_non_exhaustive()
    }
}

impl GroupCoordinator {
    /// Makes a coordinator without groups. [`GroupCoordinator::start`] loads those of the topic.
    #[must_use]
    pub fn new(config: GroupConfig, topic: Box<dyn InternalTopic>) -> Arc<Self> {
        Arc::new(Self {
            config: Arc::new(config),
            topic,
            partitions: RwLock::default(),
            groups: Mutex::default(),
            timers: Timers::default(),
            tickets: AtomicU64::new(0),
            started: Instant::now(),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
            write_errors: ErrorLog::default(),
        })
    }

    /// Handles a JoinGroup. Returns when the rebalance ends.
    ///
    /// # Errors
    /// The member may not join; the group is not served here, or not yet.
    pub async fn join(self: &Arc<Self>, group_id: &str, request: JoinRequest) -> JoinReply {
        let sent_id = Arc::clone(&request.member_id);
        let reject = |error| Err(JoinRejected { error, member_id: Arc::clone(&sent_id) });
        if let Err(error) = check_group_id(group_id) {
            return reject(error);
        }
        let missing =
            if request.member_id.is_empty() { Missing::Create } else { Missing::Reject(GroupError::UnknownMemberId) };
        let new_id = new_member_id(&request);
        let (sender, receiver) = oneshot::channel();
        let joined = self.with_group(group_id, missing, |slot, now, effects| {
            let ticket = self.ticket();
            slot.joins.insert(ticket, sender);
            slot.group.classic().join(now, request, new_id, ticket, effects);
        });
        match joined {
            Ok(()) => receiver.await.unwrap_or_else(|_| reject(GroupError::NotCoordinator)),
            Err(error) => reject(error),
        }
    }

    /// Handles a SyncGroup. Returns when the leader's assignment is committed.
    ///
    /// # Errors
    /// The caller is not a member of this generation; the group is not served here, or not yet.
    pub async fn sync(self: &Arc<Self>, group_id: &str, request: SyncRequest) -> SyncReply {
        check_group_id(group_id)?;
        let (sender, receiver) = oneshot::channel();
        self.with_group(group_id, Missing::Reject(GroupError::UnknownMemberId), |slot, now, effects| {
            let ticket = self.ticket();
            slot.syncs.insert(ticket, sender);
            slot.group.classic().sync(now, request, ticket, effects);
        })?;
        receiver.await.unwrap_or(Err(GroupError::NotCoordinator))
    }

    /// Handles a Heartbeat.
    ///
    /// # Errors
    /// [`GroupError::RebalanceInProgress`] tells a member to join again. Otherwise the caller is not a member of this
    /// generation.
    pub fn heartbeat(self: &Arc<Self>, group_id: &str, caller: Caller<'_>, generation: i32) -> Result<(), GroupError> {
        check_group_id(group_id)?;
        self.with_group(group_id, Missing::Reject(GroupError::UnknownMemberId), |slot, now, _| {
            slot.group.classic().heartbeat(now, caller, generation)
        })?
    }

    /// Handles a LeaveGroup, and returns one result for each member.
    ///
    /// # Errors
    /// The group does not exist, or is not served here.
    pub fn leave(
        self: &Arc<Self>,
        group_id: &str,
        leaving: &[Caller<'_>],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id(group_id)?;
        self.with_group(group_id, Missing::Reject(GroupError::UnknownMemberId), |slot, now, effects| {
            slot.group.classic().leave(now, leaving, effects)
        })
    }

    /// Returns whether `__consumer_offsets` exists, as far as the coordinator knows.
    #[must_use]
    pub fn has_topic(&self) -> bool {
        !self.partitions.read().is_empty()
    }

    /// Starts to serve the partitions of `__consumer_offsets`, which was just created.
    pub fn topic_created(&self) {
        let count = self.topic.partitions();
        let mut partitions = self.partitions.write();
        if partitions.is_empty() {
            // A new topic has nothing to load.
            partitions.resize(usize::try_from(count).unwrap_or(0), PartitionState::Active);
        }
    }

    /// Returns the partition of a group, if its groups are served.
    ///
    /// # Errors
    /// The topic does not exist yet, is being loaded, or could not be; the broker stops; the id is too long.
    pub(super) fn partition(&self, group_id: &str) -> Result<i32, GroupError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(GroupError::NotCoordinator);
        }
        if group_id.len() > i16::MAX as usize {
            return Err(GroupError::InvalidGroupId);
        }
        let partitions = self.partitions.read();
        let count = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
        let partition = partition_of(group_id, count);
        match partitions.get(usize::try_from(partition).unwrap_or(0)) {
            Some(PartitionState::Active) => Ok(partition),
            Some(PartitionState::Loading) => Err(GroupError::CoordinatorLoadInProgress),
            Some(PartitionState::Failed) | None => Err(GroupError::CoordinatorNotAvailable),
        }
    }

    /// Runs `work` on a group under its lock, and carries out the effects.
    pub(super) fn with_group<T>(
        self: &Arc<Self>,
        group_id: &str,
        missing: Missing,
        work: impl FnOnce(&mut Slot, Now, &mut Effects) -> T,
    ) -> Result<T, GroupError> {
        self.partition(group_id)?;
        self.with_slot(group_id, missing, work)
    }

    /// Does the same as [`GroupCoordinator::with_group`], also while the group's partition is being loaded.
    fn with_slot<T>(
        self: &Arc<Self>,
        group_id: &str,
        missing: Missing,
        work: impl FnOnce(&mut Slot, Now, &mut Effects) -> T,
    ) -> Result<T, GroupError> {
        loop {
            let (id, slot) = self.find_or_create(group_id, missing)?;
            let mut slot = slot.lock();
            if slot.removed {
                continue;
            }
            let mut effects = Effects::default();
            let result = work(&mut slot, self.now(), &mut effects);
            self.carry_out(&id, &mut slot, effects);
            return Ok(result);
        }
    }

    fn find_or_create(&self, group_id: &str, missing: Missing) -> Result<(Arc<str>, Arc<Mutex<Slot>>), GroupError> {
        let mut groups = self.groups.lock();
        if let Some((id, slot)) = groups.get_key_value(group_id) {
            return Ok((Arc::clone(id), Arc::clone(slot)));
        }
        match missing {
            Missing::Reject(error) => Err(error),
            Missing::Create => {
                let id: Arc<str> = Arc::from(group_id);
                let group = Group::Classic(ClassicGroup::new(Arc::clone(&self.config), self.now()));
                let slot = Arc::new(Mutex::new(Slot::new(group, Offsets::default())));
                groups.insert(Arc::clone(&id), Arc::clone(&slot));
                Ok((id, slot))
            }
        }
    }

    /// Adds a group that was loaded from the log.
    pub(super) fn install(self: &Arc<Self>, id: Arc<str>, group: Group, offsets: Offsets) {
        let slot = Arc::new(Mutex::new(Slot::new(group, offsets)));
        self.groups.lock().insert(Arc::clone(&id), Arc::clone(&slot));
        self.carry_out(&id, &mut slot.lock(), Effects::default());
    }

    /// Returns all groups as they are now.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<Mutex<Slot>>)> {
        self.groups.lock().iter().map(|(id, slot)| (Arc::clone(id), Arc::clone(slot))).collect()
    }

    /// Sends the responses, writes the records, sets the timer, and removes the group if it never had anything to keep.
    fn carry_out(self: &Arc<Self>, id: &Arc<str>, slot: &mut Slot, effects: Effects) {
        // A receiver is gone if the client has disconnected.
        for (ticket, reply) in effects.joins {
            slot.joins.remove(&ticket).map(|waiter| waiter.send(reply));
        }
        for (ticket, reply) in effects.syncs {
            slot.syncs.remove(&ticket).map(|waiter| waiter.send(reply));
        }
        for write in effects.writes {
            self.write(id, write);
        }
        if let Some(at_ms) = slot.group.wake_at_ms()
            && slot.armed_ms.is_none_or(|armed_ms| at_ms < armed_ms)
        {
            self.timers.set(id, at_ms, slot.armed_ms);
            slot.armed_ms = Some(at_ms);
        }
        if slot.group.is_untouched() && slot.has_nothing_left() {
            self.remove(id, slot);
        }
    }

    /// Removes all groups after their topic was deleted. The next request for a group creates it again.
    pub(super) fn remove_all(&self) {
        self.partitions.write().clear();
        for (id, slot) in self.all() {
            let mut slot = slot.lock();
            // The waiting requests end with an error when their channels close.
            slot.joins.clear();
            slot.syncs.clear();
            self.remove(&id, &mut slot);
        }
    }

    /// Takes a group out of the table. The caller holds its lock.
    pub(super) fn remove(&self, id: &Arc<str>, slot: &mut Slot) {
        slot.removed = true;
        if let Some(armed_ms) = slot.armed_ms.take() {
            self.timers.clear(id, armed_ms);
        }
        self.groups.lock().remove(id);
    }

    /// Appends a group's record at once, so that the log has the records in the order of the decisions. Tells the group
    /// when the record is committed.
    fn write(self: &Arc<Self>, id: &Arc<str>, write: Write) {
        let Write { snapshot, purpose } = write;
        let appended = self.append_group(id, &snapshot);
        let (coordinator, id) = (Arc::clone(self), Arc::clone(id));
        tokio::spawn(async move {
            let outcome = match appended {
                Ok(appended) => appended.committed.await.map_err(|error| coordinator.write_error(&id, &error)),
                Err(error) => Err(error),
            };
            if outcome == Err(GroupError::RecordTooLarge) {
                tracing::warn!(group = %id, generation = snapshot.generation, "{}", GroupError::RecordTooLarge);
            }
            let missing = Missing::Reject(GroupError::UnknownMemberId);
            // A group that was removed meanwhile has no waiting requests.
            let _ = coordinator.with_group(&id, missing, |slot, now, effects| {
                slot.group.classic().written(now, purpose, outcome, effects);
            });
        });
    }

    fn append_group(&self, id: &str, snapshot: &GroupSnapshot) -> Result<InternalAppend, GroupError> {
        let mut batch = Batch::at(now_ms());
        batch.group(id, snapshot)?;
        self.append(id, batch)
    }

    /// Appends records of a group to its partition.
    pub(super) fn append(&self, id: &str, batch: Batch) -> Result<InternalAppend, GroupError> {
        let batch = batch.build()?;
        self.topic.append(self.partition(id)?, &batch).map_err(|error| self.write_error(id, &error))
    }

    /// Logs a failed write, at most one line in ten seconds, and converts the error.
    pub(super) fn write_error(&self, group: &str, error: &PartitionError) -> GroupError {
        if error.is_too_large() {
            return GroupError::RecordTooLarge;
        }
        if matches!(error, PartitionError::LeaderEpochChanged { .. } | PartitionError::ShuttingDown) {
            return GroupError::NotCoordinator;
        }
        if let Some(omitted) = self.write_errors.count() {
            tracing::error!(group, omitted, "cannot write to {CONSUMER_OFFSETS}: {error}");
        }
        GroupError::WriteFailed
    }

    /// Handles deadlines until the coordinator stops.
    pub(super) async fn run_timers(self: Arc<Self>) {
        loop {
            let sleep = async {
                match self.timers.first_ms() {
                    Some(at_ms) => tokio::time::sleep_until(self.started + Duration::from_millis(at_ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.timers.wait_for_earlier() => {}
                () = self.wait_for_stop() => return,
            }
            while let Some(id) = self.timers.take_due(self.now().mono_ms) {
                let missing = Missing::Reject(GroupError::UnknownMemberId);
                // The group may have been removed since.
                let _ = self.with_slot(&id, missing, |slot, now, effects| {
                    slot.armed_ms = None;
                    slot.group.tick(now, effects);
                });
            }
        }
    }

    /// Ends the timers and rejects all waiting and later requests. Clients find their coordinator again once the broker
    /// is back.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.stop.notify_waiters();
        for (_, slot) in self.all() {
            let mut slot = slot.lock();
            slot.joins.clear();
            slot.syncs.clear();
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits for [`GroupCoordinator::stop`].
    pub(super) async fn wait_for_stop(&self) {
        let notified = self.stop.notified();
        if !self.is_stopped() {
            notified.await;
        }
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the current time.
    pub(super) fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms, wall_ms: now_ms() }
    }
}

/// Rejects the empty group id. Only offsets may be kept under it, as in Kafka.
fn check_group_id(group_id: &str) -> Result<(), GroupError> {
    if group_id.is_empty() { Err(GroupError::InvalidGroupId) } else { Ok(()) }
}

/// Makes a member id in Kafka's form: the instance id or the client id, then something that cannot be guessed.
fn new_member_id(request: &JoinRequest) -> MemberId {
    let name = request.instance_id.as_deref().unwrap_or(&request.client_id);
    Arc::from(format!("{name}-{}", Uuid::new_v4()))
}
