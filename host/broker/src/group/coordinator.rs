//! The coordinator: all groups of this broker, their locks, their timers and their waiting requests.
//!
//! A group is a [`Slot`] behind a short mutex. Every call locks it, asks the pure state machine, carries out the effects (answers go
//! through oneshot channels, records are appended to the page cache in the order of the decisions) and lets go before it waits for
//! anything. What has to wait for stable storage goes on in a task of its own.
//!
//! Locks are taken in one order: a slot, then the table of groups or the timers. Nobody who holds the table takes a slot.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::config::GroupConfig;
use super::model::*;
use super::offsets::Offsets;
use super::state::Group;
use super::storage::{Appended, Batch, Storage, partition_of};
use super::timers::Timers;

/// Whether the groups of a partition of `__consumer_offsets` can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartitionState {
    /// Its log is being read.
    Loading,
    /// Its log could not be read: serving its groups would lose what it holds.
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
    /// Commits that wait for stable storage: the group must stay for them.
    pub(super) commits_under_way: usize,
    /// Where the group stands in the timers.
    armed_ms: Option<u64>,
    /// The group was taken out of the table: whoever finds that under the lock has to look it up again.
    dead: bool,
}

impl Slot {
    pub(super) fn new(group: Group, offsets: Offsets) -> Self {
        let (joins, syncs) = (HashMap::new(), HashMap::new());
        Self { group, offsets, joins, syncs, commits_under_way: 0, armed_ms: None, dead: false }
    }
}

/// What to do for a group that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Refuse(GroupError),
}

/// The group coordinator of this broker.
pub(crate) struct GroupCoordinator {
    pub(super) config: Arc<GroupConfig>,
    pub(super) storage: Box<dyn Storage>,
    /// By number; empty until `__consumer_offsets` exists.
    pub(super) partitions: RwLock<Vec<PartitionState>>,
    groups: Mutex<HashMap<Arc<str>, Arc<Mutex<Slot>>>>,
    timers: Timers,
    tickets: AtomicU64,
    /// What monotonic milliseconds are counted from.
    started: Instant,
    stopped: AtomicBool,
    stop: Notify,
}

impl std::fmt::Debug for GroupCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupCoordinator").field("groups", &self.groups.lock().len()).finish_non_exhaustive()
    }
}

impl GroupCoordinator {
    /// A coordinator without groups; [`GroupCoordinator::start`] loads those that the storage has.
    pub(crate) fn new(config: GroupConfig, storage: Box<dyn Storage>) -> Arc<Self> {
        Arc::new(Self {
            config: Arc::new(config),
            storage,
            partitions: RwLock::default(),
            groups: Mutex::default(),
            timers: Timers::default(),
            tickets: AtomicU64::new(0),
            started: Instant::now(),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
        })
    }

    /// JoinGroup. Ends when the rebalance does.
    pub(crate) async fn join(self: &Arc<Self>, group_id: &str, request: JoinRequest) -> JoinReply {
        let sent_id = Arc::clone(&request.member_id);
        let refuse = |error| Err(JoinRefused { error, member_id: Arc::clone(&sent_id) });
        if let Err(error) = check_group_id(group_id) {
            return refuse(error);
        }
        if let Err(error) = self.create_topic().await {
            return refuse(error);
        }
        let missing =
            if request.member_id.is_empty() { Missing::Create } else { Missing::Refuse(GroupError::UnknownMemberId) };
        let fresh_id = fresh_member_id(&request);
        let (sender, receiver) = oneshot::channel();
        let joined = self.with_group(group_id, missing, |slot, now, effects| {
            let ticket = self.ticket();
            slot.joins.insert(ticket, sender);
            slot.group.join(now, request, fresh_id, ticket, effects);
        });
        match joined {
            Ok(()) => receiver.await.unwrap_or_else(|_| refuse(GroupError::NotCoordinator)),
            Err(error) => refuse(error),
        }
    }

    /// SyncGroup. Ends when the leader's assignment is durable.
    pub(crate) async fn sync(self: &Arc<Self>, group_id: &str, request: SyncRequest) -> SyncReply {
        check_group_id(group_id)?;
        let (sender, receiver) = oneshot::channel();
        self.with_group(group_id, Missing::Refuse(GroupError::UnknownMemberId), |slot, now, effects| {
            let ticket = self.ticket();
            slot.syncs.insert(ticket, sender);
            slot.group.sync(now, request, ticket, effects);
        })?;
        receiver.await.unwrap_or(Err(GroupError::NotCoordinator))
    }

    /// Heartbeat.
    ///
    /// # Errors
    /// As [`Group::heartbeat`].
    pub(crate) fn heartbeat(
        self: &Arc<Self>,
        group_id: &str,
        caller: Caller<'_>,
        generation: i32,
    ) -> Result<(), GroupError> {
        check_group_id(group_id)?;
        self.with_group(group_id, Missing::Refuse(GroupError::UnknownMemberId), |slot, now, _| {
            slot.group.heartbeat(now, caller, generation)
        })?
    }

    /// LeaveGroup: one answer for each member.
    ///
    /// # Errors
    /// The group does not exist, or is not served here.
    pub(crate) fn leave(
        self: &Arc<Self>,
        group_id: &str,
        leaving: &[Caller<'_>],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id(group_id)?;
        self.with_group(group_id, Missing::Refuse(GroupError::UnknownMemberId), |slot, now, effects| {
            slot.group.leave(now, leaving, effects)
        })
    }

    /// Makes sure that `__consumer_offsets` exists.
    ///
    /// # Errors
    /// It could not be created.
    pub(crate) async fn create_topic(&self) -> Result<(), GroupError> {
        if !self.partitions.read().is_empty() {
            return Ok(());
        }
        let count = self.storage.create().await?;
        let mut partitions = self.partitions.write();
        if partitions.is_empty() {
            // A topic that has just been created holds nothing to load.
            partitions.resize(usize::try_from(count).unwrap_or(0), PartitionState::Active);
        }
        Ok(())
    }

    /// The partition of a group, if its groups are served.
    ///
    /// # Errors
    /// The topic does not exist yet, is being loaded, or could not be; the broker stops; the id cannot be a group's.
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

    /// Runs `work` on a group under its lock, and carries out what it asks for.
    pub(super) fn with_group<T>(
        self: &Arc<Self>,
        group_id: &str,
        missing: Missing,
        work: impl FnOnce(&mut Slot, Now, &mut Effects) -> T,
    ) -> Result<T, GroupError> {
        self.partition(group_id)?;
        self.with_slot(group_id, missing, work)
    }

    /// As [`GroupCoordinator::with_group`], also while the group's partition is being loaded.
    fn with_slot<T>(
        self: &Arc<Self>,
        group_id: &str,
        missing: Missing,
        work: impl FnOnce(&mut Slot, Now, &mut Effects) -> T,
    ) -> Result<T, GroupError> {
        loop {
            let (id, slot) = self.find_or_create(group_id, missing)?;
            let mut slot = slot.lock();
            if slot.dead {
                continue;
            }
            let mut effects = Effects::default();
            let answer = work(&mut slot, self.now(), &mut effects);
            self.carry_out(&id, &mut slot, effects);
            return Ok(answer);
        }
    }

    fn find_or_create(&self, group_id: &str, missing: Missing) -> Result<(Arc<str>, Arc<Mutex<Slot>>), GroupError> {
        let mut groups = self.groups.lock();
        if let Some((id, slot)) = groups.get_key_value(group_id) {
            return Ok((Arc::clone(id), Arc::clone(slot)));
        }
        match missing {
            Missing::Refuse(error) => Err(error),
            Missing::Create => {
                let id: Arc<str> = Arc::from(group_id);
                let group = Group::new(Arc::clone(&self.config), self.now());
                let slot = Arc::new(Mutex::new(Slot::new(group, Offsets::default())));
                groups.insert(Arc::clone(&id), Arc::clone(&slot));
                Ok((id, slot))
            }
        }
    }

    /// Puts a group in place that was read from the log.
    pub(super) fn install(self: &Arc<Self>, id: Arc<str>, group: Group, offsets: Offsets) {
        let slot = Arc::new(Mutex::new(Slot::new(group, offsets)));
        self.groups.lock().insert(Arc::clone(&id), Arc::clone(&slot));
        self.carry_out(&id, &mut slot.lock(), Effects::default());
    }

    /// All groups as they are now.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<Mutex<Slot>>)> {
        self.groups.lock().iter().map(|(id, slot)| (Arc::clone(id), Arc::clone(slot))).collect()
    }

    /// Answers, writes, sets the timer, and forgets the group if there was never anything to it.
    fn carry_out(self: &Arc<Self>, id: &Arc<str>, slot: &mut Slot, effects: Effects) {
        // A receiver that has gone is a client that has hung up.
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
        if slot.group.is_untouched() && slot.offsets.is_empty() && slot.commits_under_way == 0 {
            self.forget(id, slot);
        }
    }

    /// All that the groups are kept in is gone: the next request for a group creates it anew.
    pub(super) fn forget_all(&self) {
        self.partitions.write().clear();
        for (id, slot) in self.all() {
            let mut slot = slot.lock();
            // Those who wait are refused by that.
            slot.joins.clear();
            slot.syncs.clear();
            self.forget(&id, &mut slot);
        }
    }

    /// Takes a group out of the table. The caller holds its lock.
    pub(super) fn forget(&self, id: &Arc<str>, slot: &mut Slot) {
        slot.dead = true;
        if let Some(armed_ms) = slot.armed_ms.take() {
            self.timers.clear(id, armed_ms);
        }
        self.groups.lock().remove(id);
    }

    /// Appends a group's record at once, so that the log has the records in the order of the decisions, and tells the group when
    /// it is durable.
    fn write(self: &Arc<Self>, id: &Arc<str>, write: Write) {
        let Write { snapshot, purpose } = write;
        let appended = self.append_group(id, &snapshot);
        let (coordinator, id) = (Arc::clone(self), Arc::clone(id));
        tokio::spawn(async move {
            let outcome = match appended {
                Ok(appended) => appended.durable.await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::error!(group = %id, generation = snapshot.generation, "cannot write the group's record: {error}");
            }
            let refuse = Missing::Refuse(GroupError::UnknownMemberId);
            // A group that is gone meanwhile has nobody who waits.
            let _ = coordinator
                .with_group(&id, refuse, |slot, now, effects| slot.group.written(now, purpose, outcome, effects));
        });
    }

    fn append_group(&self, id: &Arc<str>, snapshot: &GroupSnapshot) -> Result<Appended, GroupError> {
        let partition = self.partition(id)?;
        let mut batch = Batch::at(wall_ms());
        batch.group(id, snapshot)?;
        self.storage.append(partition, batch.build()?)
    }

    /// Does what is due, for as long as the coordinator runs.
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
                let refuse = Missing::Refuse(GroupError::UnknownMemberId);
                // It may have been forgotten since.
                let _ = self.with_slot(&id, refuse, |slot, now, effects| {
                    slot.armed_ms = None;
                    slot.group.tick(now, effects);
                });
            }
        }
    }

    /// Ends the timers and refuses all who wait, now and later: they find their coordinator again once the broker is back.
    pub(crate) fn stop(&self) {
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

    /// This moment.
    pub(super) fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms, wall_ms: wall_ms() }
    }
}

/// Members need a group with a name; offsets alone may be kept under the empty one, as in Kafka.
fn check_group_id(group_id: &str) -> Result<(), GroupError> {
    if group_id.is_empty() { Err(GroupError::InvalidGroupId) } else { Ok(()) }
}

/// Kafka's form: the instance id or the client id, then something that nobody can guess.
fn fresh_member_id(request: &JoinRequest) -> MemberId {
    let name = request.instance_id.as_deref().unwrap_or(&request.client_id);
    Arc::from(format!("{name}-{}", Uuid::new_v4()))
}

/// Milliseconds since the Unix epoch.
pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
