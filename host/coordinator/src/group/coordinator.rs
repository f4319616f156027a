//! The coordinator: all groups of this broker, their locks, their timers and their waiting requests.
//!
//! A group is a [`Slot`] behind a mutex, in the [`Shard`] of its partition. A call locks it, asks the pure state
//! machine, and carries out the effects. Responses go through oneshot channels. Records are appended to the page cache
//! in the order of the decisions, in the leader epoch of the shard. The lock is released before the call waits for
//! anything. A task of its own waits for the commit of a record.
//!
//! Locks are taken in one order: first a slot, then the table of groups or the timers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millstream_partition::{ErrorLog, InternalAppend, InternalTopic, PartitionError, now_ms};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::classic::ClassicGroup;
use super::classic::model::*;
use super::config::GroupConfig;
use super::kind::Group;
use super::log::{Batch, CONSUMER_OFFSETS};
use super::offsets::Offsets;
use super::shard::{Common, Entry, Shard, Slot};
use super::timers::Timers;
use crate::settled::{Unsettled, settled};
use crate::shards::Shards;

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
    pub(super) shards: Shards<Mutex<Slot>, Common>,
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
        f.debug_struct("GroupCoordinator").field("led_partitions", &self.shards.led()).finish_non_exhaustive()
    }
}

impl GroupCoordinator {
    /// Makes a coordinator without groups. [`GroupCoordinator::start`] loads those of the topic.
    #[must_use]
    pub fn new(config: GroupConfig, topic: Box<dyn InternalTopic>) -> Arc<Self> {
        Arc::new(Self {
            config: Arc::new(config),
            topic,
            shards: Shards::default(),
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
        let joined = self.shard(group_id).and_then(|shard| {
            self.with_group(&shard, group_id, missing, |slot, now, effects| {
                let ticket = self.ticket();
                slot.joins.insert(ticket, sender);
                slot.group.classic().join(now, request, new_id, ticket, effects);
            })
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
        let shard = self.shard(group_id)?;
        self.with_group(&shard, group_id, Missing::Reject(GroupError::UnknownMemberId), |slot, now, effects| {
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
        let shard = self.shard(group_id)?;
        self.with_group(&shard, group_id, Missing::Reject(GroupError::UnknownMemberId), |slot, now, _| {
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
        let shard = self.shard(group_id)?;
        self.with_group(&shard, group_id, Missing::Reject(GroupError::UnknownMemberId), |slot, now, effects| {
            slot.group.classic().leave(now, leaving, effects)
        })
    }

    /// Returns whether `__consumer_offsets` exists, as far as the coordinator knows.
    #[must_use]
    pub fn has_topic(&self) -> bool {
        !self.shards.is_empty()
    }

    /// Returns the shard of a group.
    ///
    /// # Errors
    /// The topic does not exist, another broker leads the partition, the broker stops, or the id is too long.
    pub(super) fn shard(&self, group_id: &str) -> Result<Arc<Shard>, GroupError> {
        if self.is_stopped() {
            return Err(GroupError::NotCoordinator);
        }
        if group_id.len() > i16::MAX as usize {
            return Err(GroupError::InvalidGroupId);
        }
        self.shards.of_id(group_id).ok_or(GroupError::NotCoordinator)
    }

    /// Returns the shard of a group for a read of what is in memory.
    ///
    /// # Errors
    /// As for [`Self::shard`], and another broker may lead the partition by now.
    pub(super) fn current_shard(&self, group_id: &str) -> Result<Arc<Shard>, GroupError> {
        let shard = self.shard(group_id)?;
        if self.topic.may_have_moved(shard.partition) { Err(GroupError::NotCoordinator) } else { Ok(shard) }
    }

    /// Runs `work` on a group under its lock, and carries out the effects.
    ///
    /// # Errors
    /// The shard is not active, or the group does not exist.
    pub(super) fn with_group<T>(
        self: &Arc<Self>,
        shard: &Arc<Shard>,
        group_id: &str,
        missing: Missing,
        work: impl FnOnce(&mut Slot, Now, &mut Effects) -> T,
    ) -> Result<T, GroupError> {
        let make = || match missing {
            Missing::Reject(error) => Err(error),
            Missing::Create => {
                let group = ClassicGroup::new(Arc::clone(&self.config), self.now());
                Ok(Slot::new(Group::Classic(group), Offsets::default()))
            }
        };
        loop {
            let (id, slot) = shard.find_or_add(group_id, |_| make().map(Mutex::new).map(Arc::new))?;
            let mut slot = slot.lock();
            if slot.removed {
                continue;
            }
            let mut effects = Effects::default();
            let result = work(&mut slot, self.now(), &mut effects);
            self.carry_out(shard, &id, &mut slot, effects);
            return Ok(result);
        }
    }

    /// Returns all groups as they are now, with their shards.
    pub(super) fn all(&self) -> Vec<(Arc<Shard>, Entry)> {
        self.shards.all()
    }

    /// Sends the responses, writes the records, sets the timer, and removes the group if it never had anything to keep.
    fn carry_out(self: &Arc<Self>, shard: &Arc<Shard>, id: &Arc<str>, slot: &mut Slot, effects: Effects) {
        // A receiver is gone if the client has disconnected.
        for (ticket, reply) in effects.joins {
            slot.joins.remove(&ticket).map(|waiter| waiter.send(reply));
        }
        for (ticket, reply) in effects.syncs {
            slot.syncs.remove(&ticket).map(|waiter| waiter.send(reply));
        }
        for write in effects.writes {
            self.write(shard, id, write);
        }
        if slot.removed {
            return;
        }
        self.arm(id, slot);
        if slot.group.is_untouched() && slot.has_nothing_left() {
            self.remove(shard, id, slot);
        }
    }

    /// Sets the timer to the group's next deadline.
    pub(super) fn arm(&self, id: &Arc<str>, slot: &mut Slot) {
        if let Some(at_ms) = slot.group.wake_at_ms()
            && slot.armed_ms.is_none_or(|armed_ms| at_ms < armed_ms)
        {
            self.timers.set(id, at_ms, slot.armed_ms);
            slot.armed_ms = Some(at_ms);
        }
    }

    /// Takes a group out of the table. The caller holds its lock.
    pub(super) fn remove(&self, shard: &Shard, id: &Arc<str>, slot: &mut Slot) {
        self.retire(id, slot);
        shard.remove(id);
    }

    /// Ends the timer of a group that is or will be out of the table.
    pub(super) fn retire(&self, id: &Arc<str>, slot: &mut Slot) {
        slot.removed = true;
        if let Some(armed_ms) = slot.armed_ms.take() {
            self.timers.clear(id, armed_ms);
        }
    }

    /// Appends a group's record at once, so that the log has the records in the order of the decisions. Tells the group
    /// when the record is committed.
    fn write(self: &Arc<Self>, shard: &Arc<Shard>, id: &Arc<str>, write: Write) {
        let Write { snapshot, purpose } = write;
        let appended = self.append_group(shard, id, &snapshot);
        let (coordinator, shard, id) = (Arc::clone(self), Arc::clone(shard), Arc::clone(id));
        tokio::spawn(async move {
            let outcome = match appended {
                Ok(appended) => coordinator.settled(&id, appended, |outcome| outcome).await,
                Err(error) => Err(error),
            };
            if outcome == Err(GroupError::RecordTooLarge) {
                tracing::warn!(group = %id, generation = snapshot.generation, "{}", GroupError::RecordTooLarge);
            }
            let missing = Missing::Reject(GroupError::UnknownMemberId);
            // A group that was removed meanwhile, or whose shard was closed, has no waiting requests.
            let _ = coordinator.with_group(&shard, &id, missing, |slot, now, effects| {
                slot.group.classic().written(now, purpose, outcome, effects);
            });
        });
    }

    fn append_group(&self, shard: &Shard, id: &str, snapshot: &GroupSnapshot) -> Result<InternalAppend, GroupError> {
        let mut batch = Batch::at(now_ms());
        batch.group(id, snapshot)?;
        self.append(shard, id, batch)
    }

    /// Appends records of a group to its partition, if this broker still leads it in the epoch of the shard.
    pub(super) fn append(&self, shard: &Shard, id: &str, batch: Batch) -> Result<InternalAppend, GroupError> {
        let batch = batch.build()?;
        let appended = self.topic.append(shard.partition, shard.leader_epoch, &batch);
        appended.map_err(|error| self.write_error(id, &error))
    }

    /// Waits until a record of a group is committed or lost, and calls `then` with that outcome, so that memory follows
    /// the log. Returns its result.
    ///
    /// # Errors
    /// `offsets.commit.timeout.ms` has passed, or it is not known whether this broker still leads. `then` is called
    /// later.
    pub(super) async fn settled(
        self: &Arc<Self>,
        id: &Arc<str>,
        appended: InternalAppend,
        then: impl FnOnce(Result<(), GroupError>) -> Result<(), GroupError> + Send + 'static,
    ) -> Result<(), GroupError> {
        let (coordinator, id) = (Arc::clone(self), Arc::clone(id));
        let then = move |outcome: Result<(), PartitionError>| {
            then(outcome.map_err(|error| coordinator.write_error(&id, &error)))
        };
        settled(appended, self.config.offsets_commit_timeout, then).await.unwrap_or_else(|unsettled| match unsettled {
            Unsettled::Late => Err(GroupError::CoordinatorNotAvailable),
            Unsettled::Suspended => Err(GroupError::NotCoordinator),
        })
    }

    /// Logs a failed write, at most one line in ten seconds, and converts the error.
    pub(super) fn write_error(&self, group: &str, error: &PartitionError) -> GroupError {
        use PartitionError as E;
        if error.is_too_large() {
            return GroupError::RecordTooLarge;
        }
        match error {
            E::LeaderEpochChanged { .. } | E::NotLeader { .. } | E::Elsewhere | E::Suspended | E::ShuttingDown => {
                return GroupError::NotCoordinator;
            }
            // Other brokers are down: not a fault of this one.
            E::NotEnoughReplicas { .. } => return GroupError::CoordinatorNotAvailable,
            _ => {}
        }
        if let Some(omitted) = self.write_errors.count() {
            tracing::error!(group, omitted, "cannot write to {CONSUMER_OFFSETS}: {error}");
        }
        GroupError::WriteFailed
    }

    #[cfg(test)]
    pub(super) fn has_timers(&self) -> bool {
        self.timers.first_ms().is_some()
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
                // Another broker may lead the partition by now.
                let Ok(shard) = self.shard(&id) else { continue };
                let missing = Missing::Reject(GroupError::UnknownMemberId);
                // The group may have been removed since.
                let _ = self.with_group(&shard, &id, missing, |slot, now, effects| {
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
        for (_, (_, slot)) in self.all() {
            slot.lock().reject_waiting();
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
