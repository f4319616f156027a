//! The storage below the consensus library's interfaces.
#![expect(clippy::result_large_err, reason = "the error is the library's")]

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogId, LogState, OptionalSend, RaftLogReader, StorageIOError, Vote};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::types::{Position, SnapshotMeta, StoredEntry, StoredVote, Types, decode, encode};
use crate::quorum::NodeId;
use crate::storage::snapshot::{self, StoredSnapshot};
use crate::storage::{Disk, Purged, StorageError, Wal};

/// The most bytes of entries in one request to another node.
const REQUEST_BYTES: usize = 1 << 20;

pub(super) type RaftStorageError = openraft::StorageError<NodeId>;
type Entry = openraft::Entry<Types>;

/// The files of a voter.
pub(super) struct Store {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) wal: Mutex<Wal>,
    /// Orders writes of the snapshot.
    saved: Mutex<()>,
    /// The index that follows the durable snapshot's last entry. `None` after a failure.
    snapshot_end: watch::Sender<Option<u64>>,
}

impl Store {
    /// Opens the files. Returns the snapshot too, if there is one.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
    ) -> Result<(Self, Option<StoredSnapshot>), StorageError> {
        let wal = Wal::open(Arc::clone(&disk), segment_bytes)?;
        snapshot::remove_unfinished(&*disk)?;
        let stored = snapshot::load(&*disk)?;
        let end = match &stored {
            None => 0,
            Some(stored) => end(&meta(&*disk, stored)?),
        };
        // Entries that are no longer in the log must be in the snapshot.
        if wal.purged().is_some_and(|purged| purged.index >= end) {
            return Err(StorageError::Missing(disk.path(snapshot::NAME)));
        }
        let store =
            Self { disk, wal: Mutex::new(wal), saved: Mutex::default(), snapshot_end: watch::Sender::new(Some(end)) };
        Ok((store, stored))
    }

    /// Saves a snapshot, unless there is a later one.
    pub(super) fn save_snapshot(&self, meta: &SnapshotMeta, state: bytes::Bytes) -> Result<(), StorageError> {
        let _order = self.saved.lock();
        let end = end(meta);
        if self.snapshot_end.borrow().is_some_and(|saved| end < saved) {
            return Ok(());
        }
        let saved = snapshot::save(&*self.disk, &StoredSnapshot { description: describe(meta), state });
        self.snapshot_end.send_replace(saved.is_ok().then_some(end));
        saved
    }

    /// Notes that a snapshot cannot be installed, so that the log is not purged.
    pub(super) fn fail_snapshot(&self) {
        self.snapshot_end.send_replace(None);
    }
}

/// Returns the index that follows a snapshot's last entry.
pub(super) fn end(meta: &SnapshotMeta) -> u64 {
    meta.last_log_id.map_or(0, |id| id.index + 1)
}

/// Returns what a stored snapshot says about itself.
pub(super) fn meta(disk: &dyn Disk, stored: &StoredSnapshot) -> Result<SnapshotMeta, StorageError> {
    let description = decode::<super::types::SnapshotDescription>(&stored.description);
    let description = description.map_err(|_| StorageError::Damaged { path: disk.path(snapshot::NAME), offset: 16 })?;
    Ok(description.into())
}

fn describe(meta: &SnapshotMeta) -> bytes::Bytes {
    encode(&super::types::SnapshotDescription::from(meta))
}

/// Runs an operation on the files, on a thread of its own if it waits for hardware.
pub(super) async fn run<T: Send + 'static>(
    store: &Arc<Store>,
    operation: impl FnOnce(&Store) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    if !store.disk.blocks() {
        return operation(store);
    }
    let shared = Arc::clone(store);
    match tokio::task::spawn_blocking(move || operation(&shared)).await {
        Ok(result) => result,
        Err(error) => Err(StorageError::Io { path: store.disk.path(""), error: std::io::Error::other(error) }),
    }
}

/// The log of the consensus library. All copies share the files.
#[derive(Clone)]
pub(super) struct LogStore(pub(super) Arc<Store>);

impl LogStore {
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, RaftStorageError> {
        let wal = self.0.wal.lock();
        let (mut found, mut size) = (Vec::new(), 0);
        let first = from.max(wal.first());
        for (index, bytes) in (first..).zip(wal.entries(first..to)) {
            size += bytes.len();
            if size > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry(index, bytes)?);
        }
        Ok(found)
    }
}

fn entry(index: u64, bytes: &[u8]) -> Result<Entry, RaftStorageError> {
    let stored: StoredEntry = decode(bytes).map_err(|error| StorageIOError::read_log_at_index(index, &error))?;
    Ok(stored.at(index))
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, RaftStorageError> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, RaftStorageError> {
        self.read(start, end, REQUEST_BYTES)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, RaftStorageError> {
        let (purged, end, first) = {
            let wal = self.0.wal.lock();
            (wal.purged().map(|purged| purged.position.clone()), wal.end(), wal.first())
        };
        let purged = match purged {
            None => None,
            Some(bytes) => {
                let position: Position = decode(&bytes).map_err(|error| StorageIOError::read_logs(&error))?;
                Some(LogId::from(position))
            }
        };
        let last =
            if end > first { self.read(end - 1, end, usize::MAX)?.pop().map(|entry| entry.log_id) } else { None };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Result<(), RaftStorageError> {
        let vote = encode(&StoredVote::from(*vote));
        let saved = run(&self.0, move |store| store.wal.lock().save_vote(vote)).await;
        Ok(saved.map_err(|error| StorageIOError::write_vote(&error))?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<NodeId>>, RaftStorageError> {
        let Some(bytes) = self.0.wal.lock().vote().cloned() else { return Ok(None) };
        let stored: StoredVote = decode(&bytes).map_err(|error| StorageIOError::read_vote(&error))?;
        Ok(Some(stored.into()))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), RaftStorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut first = None;
        let entries = entries.into_iter().map(|entry| {
            first.get_or_insert(entry.log_id.index);
            encode(&StoredEntry::from(entry))
        });
        let entries: Vec<_> = entries.collect();
        if let Some(first) = first {
            let appended = run(&self.0, move |store| store.wal.lock().append(first, entries)).await;
            appended.map_err(|error| StorageIOError::write_logs(&error))?;
        }
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<NodeId>) -> Result<(), RaftStorageError> {
        let truncated = run(&self.0, move |store| store.wal.lock().truncate(log_id.index)).await;
        Ok(truncated.map_err(|error| StorageIOError::write_logs(&error))?)
    }

    async fn purge(&mut self, log_id: LogId<NodeId>) -> Result<(), RaftStorageError> {
        // A snapshot of the leader is installed beside this call: the entries stay until it is durable.
        let mut snapshot_end = self.0.snapshot_end.subscribe();
        let durable = snapshot_end.wait_for(|end| end.is_none_or(|end| end > log_id.index)).await;
        if !durable.is_ok_and(|end| end.is_some()) {
            let error = std::io::Error::other("the snapshot that covers the entries cannot be written");
            return Err(StorageIOError::write_logs(&error).into());
        }
        let purged = Purged { index: log_id.index, position: encode(&Position::from(log_id)) };
        let purged = run(&self.0, move |store| store.wal.lock().purge(purged)).await;
        Ok(purged.map_err(|error| StorageIOError::write_logs(&error))?)
    }
}
