//! OffsetCommit and OffsetFetch, the expiry of offsets, and what happens to them when a topic goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::coordinator::{GroupCoordinator, Missing, Slot, wall_ms};
use super::model::{Caller, GroupError, Now};
use super::offsets::CommittedOffset;
use super::storage::{Appended, Batch};
use crate::topics::CONSUMER_OFFSETS;

/// Most tombstones of one batch, so that it fits the topic's `max.message.bytes`.
pub(super) const TOMBSTONES_PER_BATCH: usize = 1_000;

/// One offset of an OffsetCommit request.
#[derive(Debug, Clone)]
pub(crate) struct OffsetToCommit {
    pub(crate) topic: Arc<str>,
    /// Nil if not known.
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// -1 if the client does not say.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: Arc<str>,
}

/// An OffsetCommit request, its topics known to exist.
#[derive(Debug)]
pub(crate) struct CommitRequest<'a> {
    pub(crate) caller: Caller<'a>,
    pub(crate) generation: i32,
    /// How long the client wants the offsets kept, in milliseconds; `None` for `offsets.retention.minutes`.
    pub(crate) retention_ms: Option<i64>,
    pub(crate) offsets: Vec<OffsetToCommit>,
}

/// The committed offsets of a group as OffsetFetch answers them.
pub(crate) type FetchedOffsets = BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>>;

impl GroupCoordinator {
    /// OffsetCommit: ends when the offsets are durable. They become visible then, all at once.
    ///
    /// # Errors
    /// As [`super::state::Group::may_commit`]; the offsets could not be written.
    pub(crate) async fn commit(self: &Arc<Self>, group_id: &str, request: CommitRequest<'_>) -> Result<(), GroupError> {
        self.create_topic().await?;
        let partition = self.partition(group_id)?;
        // Whoever names a generation claims to be in a group that exists.
        let missing =
            if request.generation < 0 { Missing::Create } else { Missing::Refuse(GroupError::GroupIdNotFound) };
        let mut committed = Vec::new();
        let appended = self.with_group(group_id, missing, |slot, now, _| {
            slot.group.may_commit(now, request.caller, request.generation)?;
            let mut batch = Batch::at(now.wall_ms);
            for offset in request.offsets {
                let (topic, index) = (Arc::clone(&offset.topic), offset.partition);
                let offset = commit_at(offset, request.retention_ms, now);
                batch.offset(group_id, &topic, index, &offset)?;
                committed.push((topic, index, offset));
            }
            if committed.is_empty() {
                return Ok(None);
            }
            let appended = self.storage.append(partition, batch.build()?)?;
            slot.commits_under_way += 1;
            Ok(Some(appended))
        })??;
        let Some(Appended { base_offset, durable }) = appended else { return Ok(()) };
        // A task of its own: a client that hangs up must not leave memory behind what the log says.
        let (coordinator, group_id) = (Arc::clone(self), Arc::<str>::from(group_id));
        let applied = tokio::spawn(async move {
            let outcome = durable.await;
            coordinator.with_group(&group_id, Missing::Create, |slot, _, _| {
                slot.commits_under_way = slot.commits_under_way.saturating_sub(1);
                let applied = outcome.map(|()| apply(slot, base_offset, committed));
                if slot.commits_under_way == 0 {
                    slot.offsets.forget_tombstones();
                }
                applied
            })?
        });
        applied.await.unwrap_or(Err(GroupError::NotCoordinator))
    }

    /// Whether a text may be committed with an offset.
    pub(crate) fn fits_metadata(&self, metadata: &str) -> bool {
        // Kafka counts Java's characters; a text of ASCII, as in practice, has as many bytes.
        let max = self.config.offset_metadata_max_bytes;
        metadata.len() <= max || metadata.encode_utf16().count() <= max
    }

    /// OffsetFetch of some partitions; those without an offset are left out. A group that does not exist has none.
    ///
    /// # Errors
    /// The group is not served here, or not yet.
    pub(crate) fn fetch_offsets(
        self: &Arc<Self>,
        group_id: &str,
        partitions: &[(Arc<str>, i32)],
    ) -> Result<FetchedOffsets, GroupError> {
        self.with_offsets(group_id, |slot| {
            let mut found = FetchedOffsets::new();
            for (topic, partition) in partitions {
                if let Some(committed) = slot.offsets.get(topic, *partition) {
                    found.entry(Arc::clone(topic)).or_default().insert(*partition, committed.clone());
                }
            }
            found
        })
    }

    /// OffsetFetch of all that the group has.
    ///
    /// # Errors
    /// As [`GroupCoordinator::fetch_offsets`].
    pub(crate) fn fetch_all_offsets(self: &Arc<Self>, group_id: &str) -> Result<FetchedOffsets, GroupError> {
        self.with_offsets(group_id, |slot| {
            slot.offsets.topics().map(|(topic, of)| (Arc::clone(topic), of.clone())).collect()
        })
    }

    fn with_offsets(
        self: &Arc<Self>,
        group_id: &str,
        work: impl FnOnce(&Slot) -> FetchedOffsets,
    ) -> Result<FetchedOffsets, GroupError> {
        if self.partitions.read().is_empty() {
            return Ok(FetchedOffsets::new()); // Nobody has ever committed anything.
        }
        match self.with_group(group_id, Missing::Refuse(GroupError::GroupIdNotFound), |slot, _, _| work(slot)) {
            Err(GroupError::GroupIdNotFound) => Ok(FetchedOffsets::new()),
            answer => answer,
        }
    }

    /// Forgets the offsets of a topic that was deleted, in every group: a topic of the same name that comes later is another one.
    pub(crate) fn topic_deleted(self: &Arc<Self>, topic: &str) {
        if topic == CONSUMER_OFFSETS {
            return self.forget_all();
        }
        for (id, slot) in self.all() {
            let found = slot.lock().offsets.of_topic(topic);
            if !found.is_empty() {
                let missing = Missing::Refuse(GroupError::GroupIdNotFound);
                // A group that is gone meanwhile has no offsets.
                let _ = self.with_group(&id, missing, |slot, _, _| self.drop_offsets(&id, slot, &found));
            }
        }
    }

    /// Looks for offsets that have expired, for as long as the coordinator runs.
    pub(super) async fn run_expiry(self: Arc<Self>) {
        let interval = self.config.offsets_retention_check_interval;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => self.expire_offsets(wall_ms()),
                () = self.wait_for_stop() => return,
            }
        }
    }

    /// Drops the offsets that have expired by now, and the groups that are left with nothing.
    pub(super) fn expire_offsets(self: &Arc<Self>, now_wall_ms: i64) {
        for (id, _) in self.all() {
            // It may be gone or not served any more: then there is nothing to expire.
            let _ = self.with_group(&id, Missing::Refuse(GroupError::GroupIdNotFound), |slot, _, _| {
                let expired = slot.offsets.expired(&slot.group, self.config.offsets_retention_ms(), now_wall_ms);
                if !expired.is_empty() {
                    tracing::info!(group = %id, offsets = expired.len(), "committed offsets have expired");
                }
                self.drop_offsets(&id, slot, &expired);
                if slot.offsets.is_empty() && slot.group.is_vacant() && slot.commits_under_way == 0 {
                    self.bury(&id, slot);
                }
            });
        }
    }

    /// Writes tombstones for offsets and forgets them. Nobody waits for it: should a tombstone be lost, it is written again after
    /// the next start.
    fn drop_offsets(&self, id: &Arc<str>, slot: &mut Slot, offsets: &[(Arc<str>, i32)]) {
        match self.delete_from(id, slot, offsets) {
            Ok(durable) => drop(durable),
            Err(error) => tracing::error!(group = %id, "cannot write the tombstones of offsets: {error}"),
        }
    }

    /// Writes the tombstone of a group that has nothing left, and forgets it.
    fn bury(&self, id: &Arc<str>, slot: &mut Slot) {
        let mut batch = Batch::at(wall_ms());
        let written = batch.group_tombstone(id).and_then(|()| self.append(id, batch));
        match written {
            Ok(_) => self.forget(id, slot),
            Err(error) => tracing::error!(group = %id, "cannot write the tombstone of a group: {error}"),
        }
    }

    pub(super) fn append(&self, id: &Arc<str>, batch: Batch) -> Result<Appended, GroupError> {
        self.storage.append(self.partition(id)?, batch.build()?)
    }
}

fn commit_at(given: OffsetToCommit, retention_ms: Option<i64>, now: Now) -> CommittedOffset {
    CommittedOffset {
        offset: given.offset,
        leader_epoch: given.leader_epoch,
        metadata: given.metadata,
        commit_timestamp_ms: now.wall_ms,
        expires_ms: retention_ms.map(|keep_ms| now.wall_ms.saturating_add(keep_ms)),
        topic_id: given.topic_id,
        log_offset: -1,
    }
}

fn apply(slot: &mut Slot, base_offset: i64, committed: Vec<(Arc<str>, i32, CommittedOffset)>) {
    for ((topic, partition, offset), log_offset) in committed.into_iter().zip(base_offset..) {
        slot.offsets.apply(&topic, partition, CommittedOffset { log_offset, ..offset });
    }
}
