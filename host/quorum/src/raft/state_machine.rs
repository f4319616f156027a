//! The caller's state below the consensus library's interfaces.

use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError, StoredMembership};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::OpenError;
use super::store::{RaftStorageError, Store, end, meta, run};
use super::types::{SnapshotMeta, Types};
use crate::quorum::{Machine, NodeId, Peer};
use crate::storage::snapshot::{self, StoredSnapshot};

/// The machine, and what is applied to it.
pub(super) struct StateMachine<M> {
    machine: Arc<Mutex<M>>,
    store: Arc<Store>,
    last: Option<LogId<NodeId>>,
    members: StoredMembership<NodeId, Peer>,
    applied_end: watch::Sender<u64>,
}

impl<M: Machine> StateMachine<M> {
    /// Restores the machine from the snapshot of an opened store.
    pub(super) fn open(
        mut machine: M,
        store: Arc<Store>,
        stored: Option<StoredSnapshot>,
        applied_end: watch::Sender<u64>,
    ) -> Result<Self, OpenError> {
        let (mut last, mut members) = (None, StoredMembership::default());
        if let Some(stored) = stored {
            let meta = meta(&*store.disk, &stored)?;
            machine.restore(end(&meta).saturating_sub(1), &stored.state).map_err(OpenError::Restore)?;
            applied_end.send_replace(end(&meta));
            (last, members) = (meta.last_log_id, meta.last_membership);
        }
        Ok(Self { machine: Arc::new(Mutex::new(machine)), store, last, members, applied_end })
    }
}

/// A snapshot that is not yet written.
pub(super) struct Builder {
    store: Arc<Store>,
    meta: SnapshotMeta,
    state: Bytes,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, RaftStorageError> {
        let (meta, state) = (self.meta.clone(), self.state.clone());
        let saved = run(&self.store, move |store| store.save_snapshot(&meta, state)).await;
        saved.map_err(|error| StorageIOError::write_snapshot(Some(self.meta.signature()), &error))?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(self.state.clone()) })
    }
}

impl<M: Machine> RaftStateMachine<Types> for StateMachine<M> {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<NodeId>>, StoredMembership<NodeId, Peer>), RaftStorageError> {
        Ok((self.last, self.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, RaftStorageError>
    where
        I: IntoIterator<Item = openraft::Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut machine = self.machine.lock();
        let mut results = Vec::new();
        for entry in entries {
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(bytes) => machine.apply(entry.log_id.index, &bytes),
                EntryPayload::Membership(members) => self.members = StoredMembership::new(Some(entry.log_id), members),
            }
            self.last = Some(entry.log_id);
            results.push(());
        }
        self.applied_end.send_replace(self.last.map_or(0, |last| last.index + 1));
        Ok(results)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let snapshot_id = self.last.map_or_else(|| "0".to_owned(), |last| last.to_string());
        let meta = SnapshotMeta { last_log_id: self.last, last_membership: self.members.clone(), snapshot_id };
        Builder { store: Arc::clone(&self.store), meta, state: self.machine.lock().snapshot() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, RaftStorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<Bytes>) -> Result<(), RaftStorageError> {
        let store = Arc::clone(&self.store);
        let failed = |error: &dyn std::fmt::Display| {
            store.fail_snapshot();
            let error = std::io::Error::other(error.to_string());
            StorageIOError::write_snapshot(Some(meta.signature()), &error)
        };
        // What cannot be restored is not saved: the old snapshot and the log stay.
        let restored = self.machine.lock().restore(end(meta).saturating_sub(1), &snapshot);
        restored.map_err(|error| failed(&error))?;
        let (saved_meta, state) = (meta.clone(), *snapshot);
        let saved = run(&self.store, move |store| store.save_snapshot(&saved_meta, state)).await;
        saved.map_err(|error| failed(&error))?;
        self.last = meta.last_log_id;
        self.members = meta.last_membership.clone();
        self.applied_end.send_replace(end(meta));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, RaftStorageError> {
        let loaded = run(&self.store, |store| match snapshot::load(&*store.disk)? {
            None => Ok(None),
            Some(stored) => Ok(Some((meta(&*store.disk, &stored)?, stored.state))),
        });
        let loaded = loaded.await.map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        Ok(loaded.map(|(meta, state)| Snapshot { meta, snapshot: Box::new(state) }))
    }
}
