//! What a partition does as a replica: taking its role, serving followers as the leader, following a leader.
//!
//! The decisions are those of the state machines in [`crate::replica`]. This file applies them to the log and publishes
//! the results. The fetches between brokers are the broker's.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millstream_log::seeded_bug::{self, Bug};
use millstream_log::{Log, LogSlice};

use crate::clock::monotonic_ms;
use crate::error::PartitionError;
use crate::partition::{Partition, PartitionState, Progress, Role, log_ends};
use crate::replica::{
    EpochLookup, FetchPosition, FollowerPosition, FollowerState, InSyncProposal, LeaderState, LeaderView, LogEnds,
    NextStep, ReadableFollower, ReplicaResponse, ResponseError,
};

/// The size of records that a new leader cannot count: enough for every fetch that waits.
pub(crate) const ANY_FETCH: usize = i32::MAX as usize;

/// The role that the metadata gives a broker for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// The broker leads the partition.
    Leader(LeaderView),
    /// The broker follows the leader.
    Follower {
        /// The leader, or -1 if there is none now.
        leader: i32,
        /// Its epoch.
        leader_epoch: i32,
    },
}

impl Assignment {
    /// Returns the epoch of the leader.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        match self {
            Self::Leader(view) => view.leader_epoch,
            Self::Follower { leader_epoch, .. } => *leader_epoch,
        }
    }

    /// Returns the state that a broker begins its role with.
    /// Notes the epoch of a leader in its log.
    pub(crate) fn begin_epoch(&self, log: &mut Log) {
        if let Self::Leader(view) = self
            && log.latest_epoch().is_none_or(|epoch| epoch < view.leader_epoch)
        {
            log.assign_epoch(view.leader_epoch, log.log_end_offset());
        }
    }

    pub(crate) fn role(self, node_id: i32, ends: LogEnds, log_start: i64, high_watermark: i64) -> Role {
        // A checkpoint may be older than a truncation, or than the deletion of old records.
        let high_watermark = high_watermark.clamp(log_start, ends.end);
        match self {
            Self::Leader(view) => Role::Leader(LeaderState::new(node_id, view, ends, high_watermark, monotonic_ms())),
            Self::Follower { leader, leader_epoch } => {
                Role::Follower { leader, state: FollowerState::new(leader_epoch, high_watermark, log_start) }
            }
        }
    }
}

/// A fetch of a follower.
#[derive(Debug, Clone, Copy)]
pub struct FollowerFetch {
    /// The follower.
    pub id: i32,
    /// The epoch of its registration.
    pub broker_epoch: i64,
    /// Where it fetches, which may be ahead of its log.
    pub position: FetchPosition,
    /// How far its log reaches.
    pub ends: LogEnds,
    /// The first offset of its log, or -1 if the request does not say it.
    pub log_start: i64,
    /// Whether the broker is neither fenced nor shutting down, so that it may join the in-sync set.
    pub eligible: bool,
}

/// What the leader has for a follower.
#[derive(Debug)]
pub struct FollowerRead {
    /// The response, without the records.
    pub response: ReplicaResponse,
    /// Whole batches; `None` at the end of the log, or with an error.
    pub slice: Option<LogSlice>,
    /// The in-sync set that the leader wants now.
    pub proposal: Option<InSyncProposal>,
}

/// Where a follower fetches next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextFetch {
    /// The leader.
    pub leader: i32,
    /// Where to fetch.
    pub position: FetchPosition,
    /// How far this log reaches.
    pub ends: LogEnds,
    /// The first offset of this log.
    pub log_start: i64,
}

impl NextFetch {
    /// Returns the fetch of what is behind records that came and are not appended yet. A newer epoch begins at the end
    /// of the log again: only the leader whose records came has compared this log with its own.
    #[must_use]
    pub fn ahead(self, position: FetchPosition) -> Self {
        if position.leader_epoch != self.position.leader_epoch {
            return self;
        }
        let FetchPosition { offset, last_fetched_epoch, .. } = position;
        Self { position: FetchPosition { offset, last_fetched_epoch, ..self.position }, ..self }
    }

    /// Returns whether all that is before the fetched offset is on stable storage.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.ends.synced >= self.position.offset
    }
}

impl EpochLookup for Log {
    fn end(&self) -> i64 {
        self.log_end_offset()
    }

    fn latest_epoch(&self) -> Option<i32> {
        // An epoch without records does not count: the leader compares records.
        self.epoch_of(self.log_end_offset() - 1)
    }

    fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let epochs = self.epochs();
        let above = epochs.partition_point(|entry| entry.epoch <= epoch);
        let found = epochs.get(above.checked_sub(1)?)?;
        Some((found.epoch, epochs.get(above).map_or(self.log_end_offset(), |next| next.start_offset)))
    }
}

impl Partition {
    /// Takes the role that the metadata gives. An older epoch changes nothing, nor does the same role again.
    ///
    /// A leader that becomes a follower rejects the writes that wait for their commit.
    ///
    /// # Errors
    /// The partition is offline or deleted.
    pub fn assign(&self, assignment: Assignment) -> Result<(), PartitionError> {
        let mut state = self.state.lock();
        let epoch = assignment.leader_epoch();
        if epoch < self.leader_epoch() {
            return Ok(());
        }
        let progress = match (&mut state.role, assignment) {
            (Role::Leader(leader), Assignment::Leader(view)) if leader.epoch() == epoch => {
                leader.set_view(view, monotonic_ms());
                self.publish(&mut state)
            }
            (Role::Follower { leader, .. }, Assignment::Follower { leader: same, .. })
                if *leader == same && epoch == self.leader_epoch() =>
            {
                Progress::default()
            }
            (_, assignment) => self.begin(&mut state, assignment)?,
        };
        drop(state);
        self.wake(progress);
        Ok(())
    }

    /// Lets this leader take no records, since another broker may lead by now; or lets it take records again. The
    /// writes that wait are rejected, so that their producers look for the leader.
    pub fn suspend(&self, is_suspended: bool) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_suspended, is_suspended) || !is_suspended {
            return;
        }
        drop(state);
        self.commit_waiters().fail_all(&PartitionError::Suspended);
    }

    /// Begins a role in a new epoch.
    fn begin(&self, state: &mut PartitionState, assignment: Assignment) -> Result<Progress, PartitionError> {
        let epoch = assignment.leader_epoch();
        let (led, leads) = (matches!(state.role, Role::Leader(_)), matches!(assignment, Assignment::Leader(_)));
        let log = state.log.open()?;
        if leads {
            log.assign_epoch(epoch, log.log_end_offset());
        } else if seeded_bug::is(Bug::TruncateToHighWatermark) {
            log.truncate_to(state.role.high_watermark())?;
        }
        let ends = log_ends(log, self.fsync_queue().flush_mode());
        let leader = if let Assignment::Follower { leader, .. } = assignment { leader } else { self.node_id };
        let (topic, partition, log_end) = (self.topic(), self.index(), ends.end);
        tracing::debug!(topic, partition, leader, leader_epoch = epoch, log_end, "a replica takes a role");
        state.role = assignment.role(self.node_id, ends, log.log_start_offset(), state.role.high_watermark());
        state.truncating_to = None;
        // The metadata is newer than the silence of the controller.
        state.is_suspended = false;
        self.published.has_stepped_down.store(led && !leads, Ordering::Relaxed);
        self.published.leader_epoch.store(epoch, Ordering::Release);
        self.published.leader.store(leader, Ordering::Release);
        if leads {
            self.commit_waiters().begin(epoch);
            if !led && ends.end > state.role.high_watermark() {
                state.uncommitted.push(ends.end, ANY_FETCH);
            }
            return Ok(self.publish(state));
        }
        state.uncommitted.clear();
        let error = PartitionError::NotLeader { leader };
        self.commit_waiters().end(&error);
        self.sync_waiters.fail_all(&error);
        self.log_starts().notify_waiters();
        // Fetches have to find out that another broker leads.
        self.waiters().wake_all();
        self.follower_waiters().wake_all();
        Ok(Progress::default())
    }

    /// Returns the id of the leader, or -1.
    #[must_use]
    pub fn leader(&self) -> i32 {
        self.published.leader.load(Ordering::Acquire)
    }

    /// Serves a follower: checks its position against the log, notes it, and reads what comes next.
    ///
    /// # Errors
    /// This broker does not lead with the follower's epoch, the follower is not a replica, or the disk failed.
    pub fn read_for_follower(
        &self,
        fetch: &FollowerFetch,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<FollowerRead, PartitionError> {
        let mut state = self.state.lock();
        let position = fetch.position;
        if !seeded_bug::is(Bug::IgnoreEpoch) {
            self.check_leader(position.leader_epoch)?;
        }
        let PartitionState { role, log, is_moving, .. } = &mut *state;
        let log = log.open()?;
        let leader = match role {
            Role::Leader(leader) => leader,
            Role::Follower { leader, .. } => return Err(PartitionError::NotLeader { leader: *leader }),
        };
        if !leader.is_replica(fetch.id) {
            return Err(PartitionError::NotReplica { id: fetch.id });
        }
        let response = compare(log, leader, position);
        if response.error.is_some() || response.diverging.is_some() {
            return Ok(FollowerRead { response, slice: None, proposal: None });
        }
        let ends = LogEnds { end: fetch.ends.end.min(position.offset), synced: fetch.ends.synced.min(position.offset) };
        let (id, broker_epoch, fetches) = (fetch.id, fetch.broker_epoch, position.offset);
        let follower = FollowerPosition { id, broker_epoch, fetches, ends };
        let proposal = leader.fetched(follower, fetch.eligible && !*is_moving, monotonic_ms());
        let has_deleted = fetch.log_start >= 0 && leader.set_log_start(fetch.id, fetch.log_start);
        let progress = self.publish(&mut state);
        let high_watermark = state.role.high_watermark();
        drop(state);
        if has_deleted {
            self.log_starts().notify_waiters();
        }
        self.wake(progress);
        let slice = self.reader()?.read(position.offset, max_bytes, i64::MAX, at_least_one)?;
        Ok(FollowerRead { response: ReplicaResponse { high_watermark, ..response }, slice, proposal })
    }

    /// Returns a proposal without the followers that lag for longer than `replica.lag.time.max.ms`.
    #[must_use]
    pub fn expire_followers(&self, lag_max_ms: u64) -> Option<InSyncProposal> {
        let mut state = self.state.lock();
        let PartitionState { role, is_moving, .. } = &mut *state;
        match role {
            _ if *is_moving => None,
            Role::Leader(leader) => leader.expire(monotonic_ms(), lag_max_ms),
            Role::Follower { .. } => None,
        }
    }

    /// Forgets a proposal: the controller has rejected it, see [`LeaderState::rejected`].
    pub fn rejected(&self, proposal: &InSyncProposal) {
        let mut state = self.state.lock();
        if let Role::Leader(leader) = &mut state.role
            && leader.epoch() == proposal.leader_epoch
        {
            leader.rejected(proposal.partition_epoch);
            let progress = self.publish(&mut state);
            drop(state);
            self.wake(progress);
        }
    }

    /// Returns where to fetch; `None` for a leader, without a leader, and for a log with a fault.
    ///
    /// The leader counts what a fetch says to be synced, which a log with a fault may lack.
    ///
    /// # Errors
    /// The partition is offline or deleted.
    pub fn next_fetch(&self) -> Result<Option<NextFetch>, PartitionError> {
        let mut state = self.state.lock();
        let PartitionState { role, log, is_moving, .. } = &mut *state;
        let log = log.open()?;
        if log.has_fault() || *is_moving {
            return Ok(None);
        }
        match role {
            Role::Follower { leader, state } if *leader >= 0 => {
                let ends = log_ends(log, self.fsync_queue().flush_mode());
                let log_start = log.log_start_offset();
                Ok(Some(NextFetch { leader: *leader, position: state.position(log), ends, log_start }))
            }
            _ => Ok(None),
        }
    }

    /// Applies a response of the leader to the log. Returns what the caller has to do: fetch again after `Append`,
    /// [`Self::truncate`] or [`Self::restart`] as the step says, or wait.
    ///
    /// The next fetch tells the leader what is on stable storage. A leader that knows only the offset of a fetch counts
    /// all before it, so the caller waits for [`Self::synced`] first.
    ///
    /// # Errors
    /// The records are damaged or do not follow the log, the disk failed, or the partition is offline or deleted.
    pub fn follow(&self, response: &ReplicaResponse, records: &[u8]) -> Result<NextStep, PartitionError> {
        let mut guard = self.state.lock();
        let PartitionState { role, log, truncating_to, is_moving, .. } = &mut *guard;
        let log = log.open()?;
        let Role::Follower { state, .. } = role else { return Ok(NextStep::Ignore) };
        if *is_moving {
            return Ok(NextStep::Ignore);
        }
        let step = state.responded(response, log);
        *truncating_to = match step {
            NextStep::Truncate { end } => Some(end),
            NextStep::Restart { .. } => Some(0),
            NextStep::Append | NextStep::Wait | NextStep::Ignore => None,
        };
        if step != NextStep::Append {
            return Ok(step);
        }
        if !records.is_empty() {
            log.append_as_follower(records, state.leader_epoch())?;
        }
        state.appended(log.log_end_offset());
        let (high_watermark, before) = (state.high_watermark(), self.high_watermark());
        let start = state.log_start().min(high_watermark);
        if start > log.log_start_offset() {
            log.delete_records(start)?;
        }
        let visible = if high_watermark > before { records.len().max(1) } else { 0 };
        let stable = self.published.set_high_watermark(log, high_watermark, visible);
        drop(guard);
        if visible > 0 || stable > 0 {
            self.waiters().moved(visible, stable);
        }
        Ok(step)
    }

    /// Removes the records from `end` on, as [`Self::follow`] has decided in this epoch. Blocks for the disk.
    ///
    /// The caller has written the checkpoint of [`Self::recovery_point`] before, durably, see [`Log::truncate_to`].
    ///
    /// # Errors
    /// The disk failed, or the partition is offline or deleted.
    pub fn truncate(&self, leader_epoch: i32, end: i64) -> Result<(), PartitionError> {
        self.change_end(leader_epoch, |log| log.truncate_to(end))
    }

    /// Removes all records and continues at `start`, as [`Self::follow`] has decided in this epoch. Blocks for the
    /// disk.
    ///
    /// The caller has written the checkpoint of [`Self::recovery_point`] before, durably, see [`Log::restart_at`].
    ///
    /// # Errors
    /// The disk failed, or the partition is offline or deleted.
    pub fn restart(&self, leader_epoch: i32, start: i64) -> Result<(), PartitionError> {
        self.change_end(leader_epoch, |log| log.restart_at(start).map(|()| start))
    }

    fn change_end(
        &self,
        leader_epoch: i32,
        change: impl FnOnce(&mut Log) -> Result<i64, millstream_log::LogError>,
    ) -> Result<(), PartitionError> {
        let mut guard = self.state.lock();
        let PartitionState { role, log, truncating_to, .. } = &mut *guard;
        let log = log.open()?;
        let Role::Follower { state, .. } = role else { return Ok(()) };
        if state.leader_epoch() != leader_epoch {
            return Ok(());
        }
        let before = log.log_end_offset();
        let end = change(log)?;
        let (topic, partition) = (self.topic(), self.index());
        tracing::debug!(
            topic,
            partition,
            leader_epoch,
            before,
            end,
            "a follower removes what its leader does not have"
        );
        *truncating_to = None;
        state.truncated(end);
        let high_watermark = state.high_watermark().max(log.log_start_offset());
        self.published.set_high_watermark(log, high_watermark, 0);
        self.sync_waiters.truncated(end);
        self.commit_waiters().truncated(end);
        drop(guard);
        self.waiters().wake_all();
        Ok(())
    }

    /// Returns whether this broker leads the partition and other brokers have replicas of it.
    #[must_use]
    pub fn has_followers(&self) -> bool {
        matches!(&self.state.lock().role, Role::Leader(leader) if leader.has_followers())
    }

    /// Returns the size of the in-sync set and the smallest one that accepts writes with acks=all. That is
    /// `min.insync.replicas`, and at most the number of replicas.
    ///
    /// # Errors
    /// This broker does not lead.
    pub fn isr_sizes(&self) -> Result<(usize, usize), PartitionError> {
        match &self.state.lock().role {
            Role::Leader(leader) => Ok(leader.isr_sizes()),
            Role::Follower { leader, .. } => Err(PartitionError::NotLeader { leader: *leader }),
        }
    }

    /// Checks that the high watermark is at least that of the earlier leaders. A new leader has to hear of the
    /// followers first.
    ///
    /// # Errors
    /// It may be lower, or this broker does not lead.
    pub fn check_high_watermark(&self) -> Result<(), PartitionError> {
        match &self.state.lock().role {
            Role::Leader(leader) if leader.high_watermark() < leader.epoch_start() => {
                let (high_watermark, epoch_start) = (leader.high_watermark(), leader.epoch_start());
                Err(PartitionError::HighWatermarkLags { high_watermark, epoch_start })
            }
            Role::Leader(_) => Ok(()),
            Role::Follower { leader, .. } => Err(PartitionError::NotLeader { leader: *leader }),
        }
    }

    /// Returns the followers in sync that have an offset; none if this broker does not lead.
    #[must_use]
    pub fn readable_followers(&self, offset: i64) -> Vec<ReadableFollower> {
        match &self.state.lock().role {
            Role::Leader(leader) => leader.readable_followers(offset).collect(),
            Role::Follower { .. } => Vec::new(),
        }
    }

    /// Returns the offset below which this leader and all `alive` followers have deleted their records; -1 if a
    /// follower has not fetched yet.
    ///
    /// # Errors
    /// This broker does not lead, or the partition is offline or deleted.
    pub fn low_watermark(&self, alive: impl Fn(i32) -> bool) -> Result<i64, PartitionError> {
        let mut state = self.state.lock();
        let PartitionState { role, log, .. } = &mut *state;
        let log = log.open()?;
        match role {
            Role::Leader(leader) => Ok(leader.low_watermark(log.log_start_offset(), alive)),
            Role::Follower { leader, .. } => Err(PartitionError::NotLeader { leader: *leader }),
        }
    }

    /// Returns how many committed records the log lacks: 0 for a leader.
    ///
    /// # Errors
    /// The partition is offline or deleted.
    pub fn offset_lag(&self) -> Result<i64, PartitionError> {
        let mut state = self.state.lock();
        let PartitionState { role, log, .. } = &mut *state;
        let end = log.open()?.log_end_offset();
        match role {
            Role::Leader(_) => Ok(0),
            Role::Follower { state, .. } => Ok(state.lag(end)),
        }
    }

    /// Returns the replicas in sync, as this leader knows them; empty for a follower.
    #[must_use]
    pub fn isr(&self) -> Arc<[i32]> {
        match &self.state.lock().role {
            Role::Leader(leader) => Arc::from(leader.isr()),
            Role::Follower { .. } => Arc::default(),
        }
    }
}

/// Compares the position of a follower with the leader's log (KIP-320, KIP-595).
fn compare(log: &Log, leader: &LeaderState, position: FetchPosition) -> ReplicaResponse {
    let mut response = ReplicaResponse {
        position,
        high_watermark: leader.high_watermark(),
        log_start: log.log_start_offset(),
        log_end: Some(log.log_end_offset()),
        diverging: None,
        error: None,
    };
    if position.last_fetched_epoch >= 0 && !seeded_bug::is(Bug::IgnoreEpoch) {
        match log.end_offset_for_epoch(position.last_fetched_epoch) {
            Some((epoch, end)) if epoch < position.last_fetched_epoch || end < position.offset => {
                response.diverging = Some((epoch, end));
            }
            Some(_) => {}
            None => response.error = Some(ResponseError::OffsetOutOfRange),
        }
    }
    if response.diverging.is_none() && !(response.log_start..=log.log_end_offset()).contains(&position.offset) {
        response.error = Some(ResponseError::OffsetOutOfRange);
    }
    response
}
