//! One partition: its log behind a short lock, the fetches that wait for it, and its group commit.
//!
//! The lock is a plain mutex, held for a page-cache write and never across an await or an fsync. Reads do not take it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use millstream_log::{Appended, AppendedBatch, Log, LogConfig, LogError, LogReader, LogSlice, OpenOptions, SyncTarget};
use millstream_record::CheckedBatch;
use millstream_wire::{ErrorCode, Str};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::clock::now_ms;
use crate::error::ApiError;
use crate::fetch_waiters::Waiters;
use crate::fsync_queue::GroupCommit;

/// A partition of a topic.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) topic: Str,
    pub(crate) index: i32,
    /// The epoch of this broker's leadership: fixed while the process lives.
    pub(crate) leader_epoch: i32,
    state: Mutex<State>,
    /// Reads beside the lock; none when the log could not be opened.
    reader: Option<LogReader>,
    /// Tells readers, who do not look at the state, that the topic is gone.
    deleted: AtomicBool,
    /// Whether there may be batches that no client reads as they lie: set before the first of them is appended.
    private_batches: AtomicBool,
    pub(crate) waiters: Waiters,
    pub(crate) commit: GroupCommit,
    /// Held by whoever appends while dead letters of this partition may be on their way, see `edge/dead_letter.rs`.
    pub(crate) dead_letters: Mutex<()>,
    /// Since when records wait for a sync, in wall-clock milliseconds, as the flush tick has seen it; 0 for not at all.
    unflushed_since: AtomicI64,
}

#[derive(Debug)]
enum State {
    Online(Box<Log>),
    /// Takes no records: the topic is about to become a view.
    Sealed(Box<Log>),
    /// The log could not be opened, and why.
    Offline(String),
    Deleted,
}

/// What a fetch gets from one partition.
#[derive(Debug)]
pub(crate) struct PartitionRead {
    /// Whole batches; none when the offset is at the end.
    pub(crate) slice: Option<LogSlice>,
    pub(crate) log_start_offset: i64,
    pub(crate) high_watermark: i64,
}

/// How a partition's log is opened.
#[derive(Debug, Clone)]
pub(crate) struct PartitionSpec {
    pub(crate) topic: Str,
    pub(crate) topic_id: Uuid,
    pub(crate) index: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) recovery_point: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) clean_shutdown: bool,
}

impl PartitionSpec {
    /// The name of the folder, as in Kafka.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.topic.as_str(), self.index)
    }
}

impl Partition {
    /// Opens or creates the logs of many partitions, in their order, on all cores.
    pub(crate) fn open_all(data_dir: &Path, specs: Vec<(PartitionSpec, Arc<LogConfig>)>) -> Vec<Arc<Self>> {
        let open = |(spec, config): (PartitionSpec, Arc<LogConfig>)| Arc::new(Self::open(data_dir, spec, &config));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(specs.len());
        if threads <= 1 {
            return specs.into_iter().map(open).collect();
        }
        // One at a time from a common queue: the partitions that need recovery are not spread evenly.
        let (count, queue) = (specs.len(), Mutex::new(specs.into_iter().enumerate()));
        let opened = Mutex::new(Vec::with_capacity(count));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().next();
                        let Some((place, spec)) = next else { return };
                        let partition = open(spec);
                        opened.lock().push((place, partition));
                    }
                });
            }
        });
        let mut opened = opened.into_inner();
        opened.sort_unstable_by_key(|(place, _)| *place);
        opened.into_iter().map(|(_, partition)| partition).collect()
    }

    /// Opens or creates the log. A log that cannot be opened gives a partition that is offline: the broker serves the rest.
    fn open(data_dir: &Path, spec: PartitionSpec, config: &Arc<LogConfig>) -> Self {
        let folder = data_dir.join(spec.folder());
        let state = match open_log(&folder, &spec, config) {
            Ok(log) => State::Online(Box::new(log)),
            Err(error) => {
                tracing::error!(topic = spec.topic.as_str(), partition = spec.index, "partition is offline: {error}");
                State::Offline(error.to_string())
            }
        };
        let reader = match &state {
            State::Online(log) | State::Sealed(log) => Some(log.reader()),
            State::Offline(_) | State::Deleted => None,
        };
        Self {
            topic: spec.topic,
            index: spec.index,
            leader_epoch: spec.leader_epoch,
            state: Mutex::new(state),
            reader,
            deleted: AtomicBool::new(false),
            private_batches: AtomicBool::new(false),
            waiters: Waiters::default(),
            commit: GroupCommit::default(),
            dead_letters: Mutex::default(),
            unflushed_since: AtomicI64::new(0),
        }
    }

    /// Runs `work` on the log under the lock.
    pub(crate) fn with_log<T>(&self, work: impl FnOnce(&mut Log) -> T) -> Result<T, ApiError> {
        match &mut *self.state.lock() {
            State::Online(log) => Ok(work(log)),
            State::Sealed(_) => {
                Err(ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, "the topic is about to become a view"))
            }
            State::Offline(reason) => Err(ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, reason.clone())),
            State::Deleted => Err(ApiError::unknown_topic()),
        }
    }

    /// The log, for reading beside the lock.
    pub(crate) fn reader(&self) -> Result<&LogReader, ApiError> {
        if self.deleted.load(Ordering::Acquire) {
            return Err(ApiError::unknown_topic());
        }
        let offline = || ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, "the partition's log could not be opened");
        self.reader.as_ref().ok_or_else(offline)
    }

    /// Whether the log can be served.
    pub(crate) fn is_online(&self) -> bool {
        self.reader.is_some()
    }

    /// Checks the epoch that a client knows, -1 for none.
    pub(crate) fn check_epoch(&self, known: i32) -> Result<(), ApiError> {
        if known >= 0 && known < self.leader_epoch {
            return Err(ApiError::new(
                ErrorCode::FENCED_LEADER_EPOCH,
                "the leader epoch is older than the current one",
            ));
        }
        if known > self.leader_epoch {
            return Err(ApiError::new(
                ErrorCode::UNKNOWN_LEADER_EPOCH,
                "the leader epoch is newer than the current one",
            ));
        }
        Ok(())
    }

    /// Appends one checked batch as the leader and wakes the fetches that wait for it.
    pub(crate) fn append(&self, batch: &CheckedBatch<'_>, now_ms: i64) -> Result<Appended, ApiError> {
        let appended = self.with_log(|log| log.append(batch, self.leader_epoch, now_ms))??;
        self.wake(appended, batch);
        Ok(appended)
    }

    /// [`Self::append`], if the log's end is where the batch is meant to go; `None` if it has moved.
    pub(crate) fn append_at(
        &self,
        base_offset: i64,
        batch: &CheckedBatch<'_>,
        now_ms: i64,
    ) -> Result<Option<Appended>, ApiError> {
        let appended = self.with_log(|log| {
            (log.log_end_offset() == base_offset).then(|| log.append(batch, self.leader_epoch, now_ms))
        })?;
        let Some(appended) = appended.transpose()? else { return Ok(None) };
        self.wake(appended, batch);
        Ok(Some(appended))
    }

    fn wake(&self, appended: Appended, batch: &CheckedBatch<'_>) {
        if matches!(appended, Appended::New(_)) {
            self.waiters.arrived(batch.size());
        }
    }

    /// Checks the producer of a batch without appending it; returns where the batch is stored if it was appended before.
    pub(crate) fn check_producer(&self, batch: &CheckedBatch<'_>) -> Result<Option<AppendedBatch>, ApiError> {
        Ok(self.with_log(|log| log.check_producer(batch))??)
    }

    /// Whether there may be batches in a private format. Ask after a read: what it has found was appended after this was set.
    pub(crate) fn has_private_batches(&self) -> bool {
        self.private_batches.load(Ordering::Acquire)
    }

    /// From here on there may be batches in a private format.
    pub(crate) fn expect_private_batches(&self) {
        self.private_batches.store(true, Ordering::Release);
    }

    /// Reads whole batches from `offset` on. One replica: all that is appended is below the high watermark.
    pub(crate) fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Result<PartitionRead, ApiError> {
        let reader = self.reader()?;
        let high_watermark = reader.log_end_offset();
        let slice = reader.read(offset, max_bytes, high_watermark, at_least_one)?;
        Ok(PartitionRead { slice, log_start_offset: reader.log_start_offset(), high_watermark })
    }

    /// Takes over new options of the topic.
    pub(crate) fn set_config(&self, config: &Arc<LogConfig>) {
        // A partition that is offline or gone has nothing to set.
        let _ = self.with_log(|log| log.set_config(Arc::clone(config)));
    }

    /// What has to be synced now, or nothing.
    pub(crate) fn sync_target(&self) -> Result<Option<SyncTarget>, ApiError> {
        self.with_log(|log| log.sync_target())
    }

    /// Whether records have waited for a sync for `flush_ms`, to the precision of the tick that asks.
    pub(crate) fn flush_is_due(&self, flush_ms: i64) -> bool {
        let waiting = self.with_log(|log| log.log_end_offset() > log.recovery_point()).unwrap_or(false);
        let now = now_ms();
        let since = self.unflushed_since.load(Ordering::Relaxed);
        if !waiting {
            self.unflushed_since.store(0, Ordering::Relaxed);
            return false;
        }
        if since == 0 {
            self.unflushed_since.store(now, Ordering::Relaxed);
            return flush_ms == 0;
        }
        now - since >= flush_ms
    }

    /// Has the partition take no records; gives the end of its log.
    pub(crate) fn seal(&self) -> Result<i64, ApiError> {
        let mut state = self.state.lock();
        *state = match std::mem::replace(&mut *state, State::Deleted) {
            State::Online(log) => State::Sealed(log),
            other => other,
        };
        match &*state {
            State::Sealed(log) => Ok(log.log_end_offset()),
            State::Offline(reason) => Err(ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, reason.clone())),
            State::Online(_) | State::Deleted => Err(ApiError::unknown_topic()),
        }
    }

    /// Takes a seal off.
    pub(crate) fn unseal(&self) {
        let mut state = self.state.lock();
        *state = match std::mem::replace(&mut *state, State::Deleted) {
            State::Sealed(log) => State::Online(log),
            other => other,
        };
    }

    /// Takes the partition out of service and gives its log back, for its files to be removed.
    pub(crate) fn delete(&self) -> Option<Log> {
        let state = std::mem::replace(&mut *self.state.lock(), State::Deleted);
        self.deleted.store(true, Ordering::Release);
        self.waiters.wake_all();
        self.commit.fail_all(&ApiError::unknown_topic());
        match state {
            State::Online(log) | State::Sealed(log) => Some(*log),
            State::Offline(_) | State::Deleted => None,
        }
    }
}

fn open_log(folder: &Path, spec: &PartitionSpec, config: &Arc<LogConfig>) -> Result<Log, LogError> {
    let options = OpenOptions {
        recovery_point: spec.recovery_point,
        log_start_offset: spec.log_start_offset,
        clean_shutdown: spec.clean_shutdown,
        topic_id: Some(spec.topic_id),
    };
    let mut log = Log::open(folder, Arc::clone(config), options)?;
    if log.latest_epoch().is_none_or(|epoch| epoch < spec.leader_epoch) {
        let end = log.log_end_offset();
        log.assign_epoch(spec.leader_epoch, end);
    }
    Ok(log)
}
