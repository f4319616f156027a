//! One partition as this broker holds it.
//!
//! # State
//!
//! | State | Written | Read without the lock |
//! |---|---|---|
//! | the log | under the lock, by appends, truncations and retention | yes, through a [`LogReader`] |
//! | the role, the leader epoch | under the lock, when the leader changes | yes, [`Partition::leader_epoch`] |
//! | the high watermark | under the lock, when the replicas in sync have more | yes, [`Partition::high_watermark`] |
//! | the last stable offset | with the high watermark | yes, [`Partition::last_stable_offset`] |
//! | the recovery point | under the lock, after an fsync | no |
//!
//! Always: log start offset <= high watermark <= log end offset, and recovery point <= log end offset. The leader epoch
//! never goes down. Consumers see records below the high watermark only, and those of committed records below the last
//! stable offset, which is at most the high watermark. `replication.rs` has what replicas do.
//!
//! The lock is a plain mutex. It is held for a write to the page cache, and never across an await or the fsync of
//! records. Consumers' fetches do not take it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::time::Duration;

use millstream_log::{
    AbortedTransaction, AppendOrigin, Appended, AppendedBatch, Log, LogConfig, LogReader, LogSlice, SyncTarget,
    Verification,
};
use millstream_record::CheckedBatch;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::clock::now_ms;
use crate::commit::{CommitWaiters, FlushMode};
use crate::error::PartitionError;
use crate::error_log::ErrorLog;
use crate::fetch_waiters::FetchWaiters;
use crate::fsync_queue::{FsyncQueue, SyncSource, SyncWaiters};
use crate::open::PartitionSpec;
use crate::replica::{FollowerState, LeaderState, LogEnds};

/// The config of a topic, as far as its partitions use it.
#[derive(Debug, Clone)]
pub struct PartitionConfig {
    /// The configs of the log.
    pub log: Arc<LogConfig>,
    /// `flush.messages`: a write waits for stable storage once this many records are not synced; `i64::MAX` for never.
    pub flush_messages: i64,
    /// `flush.ms`: the background job syncs records after this time; `i64::MAX` for never.
    pub flush_ms: i64,
}

/// A partition of a topic.
#[derive(Debug)]
pub struct Partition {
    topic: Arc<str>,
    index: i32,
    /// The id of this broker.
    pub(crate) node_id: i32,
    data_dir: Option<Arc<Path>>,
    pub(crate) state: Mutex<PartitionState>,
    pub(crate) published: Published,
    /// Reads the log without the lock; `None` if the log could not be opened.
    reader: Option<LogReader>,
    /// Fetches that wait for the high watermark.
    waiters: FetchWaiters,
    /// Followers' fetches, which wait for the end of the log.
    follower_waiters: FetchWaiters,
    pub(crate) sync_waiters: SyncWaiters,
    commit_waiters: CommitWaiters,
    /// Notified when a follower has deleted records, and when another broker leads.
    log_starts: Notify,
    fsync_queue: Arc<FsyncQueue>,
    flush: FlushRules,
    errors: ErrorLog,
    stalls: ErrorLog,
}

/// The state that changes in a partition's life. Guarded by the partition's lock.
#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) role: Role,
    pub(crate) log: LogState,
    pub(crate) uncommitted: Uncommitted,
    /// A truncation to this offset has been decided. Its checkpoint comes first.
    pub(crate) truncating_to: Option<i64>,
    /// Another broker may lead by now.
    pub(crate) is_suspended: bool,
    /// The last records are copied to another data folder, so that no others may come.
    pub(crate) is_moving: bool,
}

/// This broker's role for the partition.
#[derive(Debug)]
pub(crate) enum Role {
    /// Appends the producers' records, and serves the followers.
    Leader(LeaderState),
    /// Fetches from the leader, or waits for one if its id is -1.
    Follower { leader: i32, state: FollowerState },
}

/// What a publication of offsets completes.
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "fetches and writes wait for it"]
pub(crate) struct Progress {
    /// The bytes that consumers see now and did not before.
    visible: usize,
    /// The same for consumers of committed records.
    stable: usize,
    /// Writes that wait may be committed now.
    commits: bool,
}

/// The sizes of batches that consumers do not see yet, each with the offset after it.
#[derive(Debug, Default)]
pub(crate) struct Uncommitted(VecDeque<(i64, usize)>);

impl Uncommitted {
    /// The most entries. Without replicas in sync nothing is committed, and more batches share the last entry.
    const ENTRIES_MAX: usize = 1024;

    pub(crate) fn push(&mut self, end: i64, bytes: usize) {
        let full = self.0.len() >= Self::ENTRIES_MAX;
        match self.0.back_mut() {
            Some(last) if full => *last = (end, last.1.saturating_add(bytes)),
            _ => self.0.push_back((end, bytes)),
        }
    }

    /// Removes what lies below the high watermark, and returns its size.
    fn take_below(&mut self, high_watermark: i64) -> usize {
        let mut taken: usize = 0;
        while let Some((end, bytes)) = self.0.front()
            && *end <= high_watermark
        {
            taken = taken.saturating_add(*bytes);
            self.0.pop_front();
        }
        taken
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[derive(Debug)]
pub(crate) enum LogState {
    Online(Box<Log>),
    /// Accepts no records for now; see [`Partition::freeze`].
    Frozen(Box<Log>),
    /// The log could not be opened, and why.
    Offline {
        reason: Arc<str>,
        /// Its bytes are damaged or missing, so another replica has to be copied.
        is_damaged: bool,
    },
    /// Only other brokers have replicas.
    Elsewhere,
    Deleted,
}

/// The part of the state that requests read without the lock. Written under it only.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) leader: AtomicI32,
    pub(crate) leader_epoch: AtomicI32,
    /// Whether this broker led in the epoch before, so that clients may still send to it.
    pub(crate) has_stepped_down: AtomicBool,
    pub(crate) high_watermark: AtomicI64,
    /// Written after the high watermark, and read before it.
    pub(crate) last_stable_offset: AtomicI64,
    /// The log was closed: the partition is deleted, or its data folder has failed.
    pub(crate) closed: AtomicBool,
}

/// When records are synced without a request of a producer.
#[derive(Debug)]
struct FlushRules {
    messages: AtomicI64,
    ms: AtomicI64,
    /// Since when records wait for a sync, as the background job has seen it, in wall-clock milliseconds; 0 if none
    /// wait.
    unsynced_since_ms: AtomicI64,
}

/// What a fetch reads from one partition.
#[derive(Debug)]
pub struct PartitionRead {
    /// Whole batches; `None` if the offset is at the high watermark.
    pub slice: Option<LogSlice>,
    /// The first offset of the log.
    pub log_start_offset: i64,
    /// The high watermark at the time of the read.
    pub high_watermark: i64,
    /// The last stable offset at the time of the read.
    pub last_stable_offset: i64,
    /// The aborted transactions that have records in the slice; `None` for a reader of all records.
    pub aborted: Option<Vec<AbortedTransaction>>,
}

impl Partition {
    /// Makes a partition of which only other brokers have replicas. It serves nothing, and names its leader.
    #[must_use]
    pub fn elsewhere(spec: PartitionSpec, config: &PartitionConfig, fsync_queue: &Arc<FsyncQueue>) -> Arc<Self> {
        Arc::new(Self::new(spec, Err(LogState::Elsewhere), config, fsync_queue))
    }

    /// Makes a partition of an opened log, or of its state without one.
    pub(crate) fn new(
        spec: PartitionSpec,
        opened: Result<Log, LogState>,
        config: &PartitionConfig,
        fsync_queue: &Arc<FsyncQueue>,
    ) -> Self {
        let mode = fsync_queue.flush_mode();
        let (ends, log_start) =
            opened.as_ref().map_or((LogEnds::default(), 0), |log| (log_ends(log, mode), log.log_start_offset()));
        let leader_epoch = spec.assignment.leader_epoch();
        let role = spec.assignment.role(spec.node_id, ends, log_start, spec.high_watermark);
        let high_watermark = role.high_watermark();
        let (reader, last_stable_offset, log) = match opened {
            Ok(mut log) => {
                log.note_high_watermark(high_watermark);
                (Some(log.reader()), log.last_stable_offset(high_watermark), LogState::Online(Box::new(log)))
            }
            Err(state) => (None, high_watermark, state),
        };
        let published = Published {
            leader: AtomicI32::new(role.leader(spec.node_id)),
            leader_epoch: AtomicI32::new(leader_epoch),
            has_stepped_down: AtomicBool::new(false),
            high_watermark: AtomicI64::new(high_watermark),
            last_stable_offset: AtomicI64::new(last_stable_offset),
            closed: AtomicBool::new(false),
        };
        let commit_waiters = CommitWaiters::default();
        match &role {
            Role::Leader(leader) => {
                commit_waiters.begin(leader_epoch);
                commit_waiters.note_committed(committed_offset(leader, mode));
            }
            Role::Follower { leader, .. } => commit_waiters.end(&PartitionError::NotLeader { leader: *leader }),
        }
        let flush = FlushRules {
            messages: AtomicI64::new(config.flush_messages),
            ms: AtomicI64::new(config.flush_ms),
            unsynced_since_ms: AtomicI64::new(0),
        };
        Self {
            topic: spec.topic,
            index: spec.index,
            node_id: spec.node_id,
            data_dir: spec.data_dir,
            state: Mutex::new(PartitionState {
                role,
                log,
                uncommitted: Uncommitted::default(),
                truncating_to: None,
                is_suspended: false,
                is_moving: false,
            }),
            published,
            reader,
            waiters: FetchWaiters::default(),
            follower_waiters: FetchWaiters::default(),
            sync_waiters: SyncWaiters::default(),
            commit_waiters,
            log_starts: Notify::new(),
            fsync_queue: Arc::clone(fsync_queue),
            flush,
            errors: ErrorLog::default(),
            stalls: ErrorLog::default(),
        }
    }

    /// Returns the name of the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the number of the partition within its topic.
    #[must_use]
    pub fn index(&self) -> i32 {
        self.index
    }

    /// Returns the data folder that the log is in; `None` if this broker has no replica, or its folder is lost.
    #[must_use]
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// Returns the epoch of the current leader.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.published.leader_epoch.load(Ordering::Acquire)
    }

    /// Returns the high watermark: consumers see the records below it. 0 for a log that could not be opened.
    #[must_use]
    pub fn high_watermark(&self) -> i64 {
        self.published.high_watermark.load(Ordering::Acquire)
    }

    /// Returns the offset that the next record gets. For writers: readers stop at [`Self::high_watermark`].
    ///
    /// # Errors
    /// The partition is offline or deleted.
    pub fn log_end_offset(&self) -> Result<i64, PartitionError> {
        Ok(self.reader()?.log_end_offset())
    }

    /// Returns the offset below which the log is on stable storage, for the checkpoint. While a truncation is under way
    /// it is at most the new end: a log that is shorter than its checkpoint looks damaged.
    ///
    /// # Errors
    /// The partition is offline or deleted.
    pub fn recovery_point(&self) -> Result<i64, PartitionError> {
        let mut state = self.state.lock();
        let point = state.log.open()?.recovery_point();
        Ok(state.truncating_to.map_or(point, |end| point.min(end)))
    }

    /// Returns the log, for reads without the lock.
    ///
    /// # Errors
    /// The partition is offline or deleted.
    pub fn reader(&self) -> Result<&LogReader, PartitionError> {
        let open = self.reader.as_ref().filter(|_| !self.published.closed.load(Ordering::Acquire));
        open.ok_or_else(|| match &self.state.lock().log {
            LogState::Offline { reason, .. } => PartitionError::Offline(Arc::clone(reason)),
            LogState::Elsewhere => PartitionError::Elsewhere,
            _ => PartitionError::NotHosted,
        })
    }

    /// Returns whether the log is open: the partition is neither offline nor deleted.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.reader.is_some() && !self.published.closed.load(Ordering::Acquire)
    }

    /// Returns whether this broker has a replica of the partition, even if its log could not be opened.
    #[must_use]
    pub fn is_replica(&self) -> bool {
        self.is_online() || !matches!(self.state.lock().log, LogState::Elsewhere)
    }

    /// Logs an error that the caller handled. At most one line in ten seconds for each partition: a full disk fails
    /// every write.
    pub fn report(&self, what: &str, error: &dyn std::fmt::Display) {
        if let Some(omitted) = self.errors.count() {
            tracing::error!(topic = self.topic(), partition = self.index, omitted, "{what}: {error}");
        }
    }

    /// Returns the fetches that wait for records of this partition.
    #[must_use]
    pub fn waiters(&self) -> &FetchWaiters {
        &self.waiters
    }

    /// Returns the followers' fetches that wait for records of this partition.
    #[must_use]
    pub fn follower_waiters(&self) -> &FetchWaiters {
        &self.follower_waiters
    }

    /// Returns the signal for [`Self::low_watermark`]: it may be higher, or this broker does not lead any more.
    #[must_use]
    pub fn log_starts(&self) -> &Notify {
        &self.log_starts
    }

    pub(crate) fn fsync_queue(&self) -> &FsyncQueue {
        &self.fsync_queue
    }

    pub(crate) fn commit_waiters(&self) -> &CommitWaiters {
        &self.commit_waiters
    }

    /// Checks that this broker leads, in the epoch that a client knows; -1 for none.
    ///
    /// # Errors
    /// The epochs differ, or another broker leads.
    pub fn check_leader(&self, known: i32) -> Result<(), PartitionError> {
        self.check_epoch(known)?;
        match self.published.leader.load(Ordering::Acquire) {
            leader if leader == self.node_id => Ok(()),
            leader => Err(PartitionError::NotLeader { leader }),
        }
    }

    /// Returns whether a client may know before this broker that it leads: a replica that did not lead before.
    #[must_use]
    pub fn may_lead_soon(&self) -> bool {
        self.published.leader.load(Ordering::Acquire) != self.node_id
            && !self.published.has_stepped_down.load(Ordering::Relaxed)
            && self.is_replica()
    }

    /// Checks the epoch that a client knows; -1 for none.
    ///
    /// # Errors
    /// This broker is in another epoch.
    pub fn check_epoch(&self, known: i32) -> Result<(), PartitionError> {
        let current = self.leader_epoch();
        if known >= 0 && known < current {
            return Err(PartitionError::FencedLeaderEpoch { known, current });
        }
        if known > current {
            return Err(PartitionError::UnknownLeaderEpoch { known, current });
        }
        Ok(())
    }

    /// Runs `work` on the log under the lock.
    ///
    /// # Errors
    /// The partition is offline, frozen or deleted.
    pub fn with_log<T>(&self, work: impl FnOnce(&mut Log) -> T) -> Result<T, PartitionError> {
        self.state.lock().log.writable().map(work)
    }

    /// Appends a batch as the leader, and wakes the fetches that wait for it.
    ///
    /// # Errors
    /// The log rejected the batch, or the partition is offline, frozen or deleted.
    pub fn append(&self, batch: &CheckedBatch<'_>, now_ms: i64) -> Result<Appended, PartitionError> {
        self.append_of(batch, now_ms, AppendOrigin::Client(Verification::Unknown))
    }

    /// Appends a batch as [`Self::append`] does, with what is known of its origin.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_of(
        &self,
        batch: &CheckedBatch<'_>,
        now_ms: i64,
        origin: AppendOrigin,
    ) -> Result<Appended, PartitionError> {
        let mut state = self.state.lock();
        let (log, leader) = state.leader_log()?;
        let appended = log.append_of(batch, leader.epoch(), now_ms, origin)?;
        self.appended(state, appended, batch.size());
        Ok(appended)
    }

    /// Appends a batch if the log ends at `base_offset`; otherwise returns `None`.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_at(
        &self,
        base_offset: i64,
        batch: &CheckedBatch<'_>,
        now_ms: i64,
        origin: AppendOrigin,
    ) -> Result<Option<Appended>, PartitionError> {
        let mut state = self.state.lock();
        let (log, leader) = state.leader_log()?;
        if log.log_end_offset() != base_offset {
            return Ok(None);
        }
        let appended = log.append_of(batch, leader.epoch(), now_ms, origin)?;
        self.appended(state, appended, batch.size());
        Ok(Some(appended))
    }

    /// Publishes an append of the leader, releases the lock, and wakes what waits for records.
    pub(crate) fn appended(&self, mut state: MutexGuard<'_, PartitionState>, appended: Appended, bytes: usize) {
        let Appended::New(stored) = appended else { return };
        state.uncommitted.push(stored.last_offset + 1, bytes);
        let progress = self.publish(&mut state);
        drop(state);
        self.follower_waiters.arrived(bytes);
        self.wake(progress);
    }

    /// Publishes the offsets of a leader after any change of its log or its replicas. Returns what to wake once the
    /// lock is released.
    pub(crate) fn publish(&self, state: &mut PartitionState) -> Progress {
        let PartitionState { role: Role::Leader(leader), log: LogState::Online(log) | LogState::Frozen(log), .. } =
            state
        else {
            return Progress::default();
        };
        let mode = self.fsync_queue.flush_mode();
        leader.set_log(log_ends(log, mode));
        let high_watermark = leader.high_watermark();
        let commits = self.commit_waiters.note_committed(committed_offset(leader, mode));
        let visible = state.uncommitted.take_below(high_watermark);
        let stable = self.published.set_high_watermark(log, high_watermark, visible);
        Progress { visible, stable, commits }
    }

    /// Wakes the fetches and the writes that a publication completes.
    pub(crate) fn wake(&self, progress: Progress) {
        if progress.visible > 0 || progress.stable > 0 {
            self.waiters.moved(progress.visible, progress.stable);
        }
        if progress.commits {
            self.commit_waiters.complete();
        }
    }

    /// Checks the producer of a batch without appending it. Returns where the batch is stored if it was appended
    /// before.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn check_producer(
        &self,
        batch: &CheckedBatch<'_>,
        origin: AppendOrigin,
    ) -> Result<Option<AppendedBatch>, PartitionError> {
        let mut state = self.state.lock();
        let (log, leader) = state.leader_log()?;
        Ok(log.check_producer(batch, leader.epoch(), origin)?)
    }

    /// Reads whole batches from `offset` up to the high watermark.
    ///
    /// # Errors
    /// The offset is outside of the log, the disk failed, or the partition is offline or deleted.
    pub fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Result<PartitionRead, PartitionError> {
        let reader = self.reader()?;
        let last_stable_offset = self.last_stable_offset();
        let high_watermark = self.high_watermark();
        let slice = reader.read(offset, max_bytes, high_watermark, at_least_one)?;
        let log_start_offset = reader.log_start_offset();
        Ok(PartitionRead { slice, log_start_offset, high_watermark, last_stable_offset, aborted: None })
    }

    /// Applies the topic's new config, from the next append on.
    pub fn set_config(&self, config: &PartitionConfig) {
        self.flush.messages.store(config.flush_messages, Ordering::Relaxed);
        self.flush.ms.store(config.flush_ms, Ordering::Relaxed);
        // A partition that is offline or deleted has no log to configure.
        let _ = self.with_log(|log| log.set_config(Arc::clone(&config.log)));
    }

    /// Removes expired producers, and deletes segments past their retention. Returns the number of deleted segments.
    ///
    /// # Errors
    /// The disk failed, or the partition is offline or deleted.
    pub fn apply_retention(&self, now_ms: i64) -> Result<usize, PartitionError> {
        let deleted = {
            let mut state = self.state.lock();
            // A follower keeps what its leader keeps.
            let leads = matches!(state.role, Role::Leader(_));
            let log = state.log.writable()?;
            log.expire_producers(now_ms);
            let deleted = if leads { log.apply_retention(now_ms, self.high_watermark())? } else { 0 };
            if deleted > 0 {
                let progress = self.publish(&mut state);
                drop(state);
                self.wake(progress);
            }
            deleted
        };
        if deleted > 0 {
            // Fetches below the new log start offset have to learn of it.
            self.waiters.wake_all();
        }
        Ok(deleted)
    }

    /// Returns the files of deleted segments, which the caller removes once readers have ended.
    #[must_use]
    pub fn take_deleted_files(&self) -> Vec<PathBuf> {
        self.with_log(|log| log.take_deleted_files()).unwrap_or_default()
    }

    /// Returns whether `flush.messages` asks for a sync before the response to the next write.
    pub(crate) fn flush_messages_reached(&self) -> bool {
        let messages_max = self.flush.messages.load(Ordering::Relaxed);
        messages_max != i64::MAX
            && self.with_log(|log| log.log_end_offset() - log.recovery_point() >= messages_max).unwrap_or(false)
    }

    /// Syncs the log if records have waited for `flush.ms`, or if a full segment is not synced, which a recovery would
    /// have to read. Blocks for the disk.
    ///
    /// # Errors
    /// The disk failed.
    pub fn flush_if_due(&self) -> Result<(), PartitionError> {
        let full_segment = || self.with_log(|log| log.has_full_segment_unsynced()).unwrap_or(false);
        if self.flush_ms_reached(now_ms()) || full_segment() {
            self.sync()?;
        }
        Ok(())
    }

    /// Returns whether records have waited for `flush.ms`, to the precision of the job that asks.
    fn flush_ms_reached(&self, now_ms: i64) -> bool {
        let flush_ms = self.flush.ms.load(Ordering::Relaxed);
        if flush_ms == i64::MAX {
            return false;
        }
        let unsynced = self.with_log(|log| log.log_end_offset() > log.recovery_point()).unwrap_or(false);
        let since_ms = self.flush.unsynced_since_ms.load(Ordering::Relaxed);
        if !unsynced {
            self.flush.unsynced_since_ms.store(0, Ordering::Relaxed);
            return false;
        }
        if since_ms == 0 {
            self.flush.unsynced_since_ms.store(now_ms, Ordering::Relaxed);
            return flush_ms == 0;
        }
        now_ms - since_ms >= flush_ms
    }

    fn sync_target(&self) -> Result<Option<SyncTarget>, PartitionError> {
        Ok(self.state.lock().log.open()?.sync_target())
    }
}

impl PartitionState {
    /// Returns the log and the state of a leader.
    pub(crate) fn leader_log(&mut self) -> Result<(&mut Log, &mut LeaderState), PartitionError> {
        let log = self.log.writable()?;
        match &mut self.role {
            Role::Leader(_) if self.is_suspended => Err(PartitionError::Suspended),
            Role::Leader(_) if self.is_moving => Err(PartitionError::Frozen),
            Role::Leader(leader) => Ok((log, leader)),
            Role::Follower { leader, .. } => Err(PartitionError::NotLeader { leader: *leader }),
        }
    }
}

impl Role {
    /// Returns the id of the leader, or -1.
    pub(crate) fn leader(&self, node_id: i32) -> i32 {
        match self {
            Self::Leader(_) => node_id,
            Self::Follower { leader, .. } => *leader,
        }
    }

    pub(crate) fn high_watermark(&self) -> i64 {
        match self {
            Self::Leader(leader) => leader.high_watermark(),
            Self::Follower { state, .. } => state.high_watermark(),
        }
    }
}

/// Returns how far a log reaches. In page-cache mode a replica counts with what it has appended.
pub(crate) fn log_ends(log: &Log, mode: FlushMode) -> LogEnds {
    let end = log.log_end_offset();
    let synced = match mode {
        FlushMode::Fsync => log.recovery_point(),
        FlushMode::PageCache => end,
    };
    LogEnds { end, synced }
}

/// Returns the offset below which writes with acks=all get their response.
fn committed_offset(leader: &LeaderState, mode: FlushMode) -> i64 {
    match mode {
        FlushMode::Fsync => leader.durable(),
        FlushMode::PageCache => leader.high_watermark(),
    }
}

impl LogState {
    /// Returns the log, also while it accepts no records.
    pub(crate) fn open(&mut self) -> Result<&mut Log, PartitionError> {
        match self {
            Self::Frozen(log) => Ok(log),
            other => other.writable(),
        }
    }

    pub(crate) fn writable(&mut self) -> Result<&mut Log, PartitionError> {
        match self {
            Self::Online(log) => Ok(log),
            Self::Frozen(_) => Err(PartitionError::Frozen),
            Self::Offline { reason, .. } => Err(PartitionError::Offline(Arc::clone(reason))),
            Self::Elsewhere => Err(PartitionError::Elsewhere),
            Self::Deleted => Err(PartitionError::NotHosted),
        }
    }
}

impl SyncSource for Partition {
    fn sync(&self) -> Result<(), PartitionError> {
        let target = self.sync_target()?;
        if let Some(target) = &target {
            target.sync()?;
        }
        let mut state = self.state.lock();
        let log = state.log.open()?;
        let synced = match &target {
            Some(target) => log.synced(target),
            None => log.recovery_point(),
        };
        self.sync_waiters.note_synced(synced);
        let progress = self.publish(&mut state);
        drop(state);
        self.wake(progress);
        Ok(())
    }

    fn sync_waiters(&self) -> &SyncWaiters {
        &self.sync_waiters
    }

    fn sync_stalled(&self, took: Duration) {
        if let Some(omitted) = self.stalls.count() {
            tracing::warn!(
                topic = self.topic(),
                partition = self.index,
                omitted,
                "the disk stalls: an fsync took {took:.1?}"
            );
        }
    }

    fn sync_failed(&self, error: &PartitionError) {
        self.commit_waiters.fail_all(error);
    }
}
