//! OffsetCommit and OffsetFetch, the expiry of offsets, and the offsets of a deleted topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_partition::seeded_bug::{self, Bug};
use millstream_partition::{InternalAppend, now_ms};
use uuid::Uuid;

use super::coordinator::{GroupCoordinator, Missing};
use super::log::{Batch, CONSUMER_OFFSETS};
use super::model::{Caller, GroupError, Now};
use super::offsets::CommittedOffset;
use super::shard::{Shard, Slot};

/// The most tombstones of one batch, so that it fits the topic's `max.message.bytes`.
pub(super) const TOMBSTONES_PER_BATCH: usize = 1_000;

/// One offset of an OffsetCommit request.
#[derive(Debug, Clone)]
pub struct OffsetToCommit {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's id; nil if unknown.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
    /// The offset of the next record to consume.
    pub offset: i64,
    /// -1 if the client did not send it.
    pub leader_epoch: i32,
    /// The client's text.
    pub metadata: Arc<str>,
}

/// An OffsetCommit request for topics that exist.
#[derive(Debug)]
pub struct CommitRequest<'a> {
    /// The sender.
    pub caller: Caller<'a>,
    /// The generation that the member knows; negative for a client that is not a member.
    pub generation: i32,
    /// How long the client wants the offsets kept, in milliseconds; `None` for `offsets.retention.minutes`.
    pub retention_ms: Option<i64>,
    /// The offsets.
    pub offsets: Vec<OffsetToCommit>,
}

/// The committed offsets of a group in an OffsetFetch response.
pub type FetchedOffsets = BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>>;

impl GroupCoordinator {
    /// Handles an OffsetCommit. Returns when the offsets are committed to the log. They become visible then, all at
    /// once.
    ///
    /// # Errors
    /// The caller may not commit; the offsets could not be written.
    pub async fn commit(self: &Arc<Self>, group_id: &str, request: CommitRequest<'_>) -> Result<(), GroupError> {
        // A client that sends a generation claims to be in a group that exists.
        let missing =
            if request.generation < 0 { Missing::Create } else { Missing::Reject(GroupError::GroupIdNotFound) };
        let mut committed = Vec::new();
        let shard = self.shard(group_id)?;
        let appended = self.with_group(&shard, group_id, missing, |slot, now, _| {
            slot.group.may_commit(now, request.caller, request.generation)?;
            let mut batch = Batch::at(now.wall_ms);
            for offset in request.offsets {
                let (topic, index) = (Arc::clone(&offset.topic), offset.partition);
                let offset = commit_at(offset, request.retention_ms, now);
                batch.offset(group_id, &topic, index, &offset)?;
                committed.push((topic, index, offset));
            }
            if committed.is_empty() {
                return Ok::<_, GroupError>(None);
            }
            let appended = self.append(&shard, group_id, batch)?;
            slot.writes_in_flight += 1;
            Ok(Some(appended))
        })??;
        let Some(appended) = appended else { return Ok(()) };
        let base_offset = appended.base_offset;
        if seeded_bug::is(Bug::RespondAtAppend) {
            return self.with_group(&shard, group_id, Missing::Create, |slot, _, _| {
                apply(slot, base_offset, committed);
                slot.write_ended();
            });
        }
        let (coordinator, group_id) = (Arc::clone(self), Arc::<str>::from(group_id));
        let group = Arc::clone(&group_id);
        let then = move |outcome: Result<(), GroupError>| {
            coordinator.with_group(&shard, &group, Missing::Create, |slot, _, _| {
                let outcome = outcome.map(|()| apply(slot, base_offset, committed));
                slot.write_ended();
                outcome
            })?
        };
        self.settled(&group_id, appended, then).await
    }

    /// Returns whether a text is short enough to be committed with an offset.
    #[must_use]
    pub fn fits_metadata(&self, metadata: &str) -> bool {
        // Kafka counts Java's characters. ASCII text has the same number of bytes.
        let max = self.config.offset_metadata_max_bytes;
        metadata.len() <= max || metadata.encode_utf16().count() <= max
    }

    /// Handles an OffsetFetch of some partitions. Partitions without an offset are left out. A group that does not
    /// exist has none.
    ///
    /// # Errors
    /// The group is not served here, or not yet.
    pub fn fetch_offsets(
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

    /// Handles an OffsetFetch of all offsets of a group.
    ///
    /// # Errors
    /// As [`GroupCoordinator::fetch_offsets`].
    pub fn fetch_all_offsets(self: &Arc<Self>, group_id: &str) -> Result<FetchedOffsets, GroupError> {
        self.with_offsets(group_id, |slot| {
            slot.offsets.topics().map(|(topic, of)| (Arc::clone(topic), of.clone())).collect()
        })
    }

    /// Returns the partitions whose offsets an open transaction may still change.
    ///
    /// A caller that wants stable offsets asks for these first, and for the offsets then.
    ///
    /// # Errors
    /// As [`GroupCoordinator::fetch_offsets`].
    pub fn unstable_offsets(self: &Arc<Self>, group_id: &str) -> Result<BTreeSet<(Arc<str>, i32)>, GroupError> {
        let shard = self.current_shard(group_id)?;
        let unstable = |slot: &mut Slot| -> BTreeSet<_> {
            slot.offsets.unstable().map(|(topic, partition)| (Arc::clone(topic), partition)).collect()
        };
        let missing = Missing::Reject(GroupError::GroupIdNotFound);
        match self.with_group(&shard, group_id, missing, |slot, _, _| unstable(slot)) {
            Err(GroupError::GroupIdNotFound) => Ok(BTreeSet::new()),
            found => found,
        }
    }

    fn with_offsets(
        self: &Arc<Self>,
        group_id: &str,
        work: impl FnOnce(&Slot) -> FetchedOffsets,
    ) -> Result<FetchedOffsets, GroupError> {
        let shard = self.current_shard(group_id)?;
        match self.with_group(&shard, group_id, Missing::Reject(GroupError::GroupIdNotFound), |slot, _, _| work(slot)) {
            Err(GroupError::GroupIdNotFound) => Ok(FetchedOffsets::new()),
            found => found,
        }
    }

    /// Removes the offsets of a deleted topic from every group. A later topic with the same name is a different topic.
    pub fn topic_deleted(self: &Arc<Self>, topic: &str) {
        if topic == CONSUMER_OFFSETS {
            return self.roles_changed();
        }
        for (shard, (id, slot)) in self.all() {
            let found = slot.lock().offsets.of_topic(topic);
            if !found.is_empty() {
                let missing = Missing::Reject(GroupError::GroupIdNotFound);
                // A group that was removed meanwhile has no offsets.
                let _ =
                    self.with_group(&shard, &id, missing, |slot, _, _| self.drop_offsets(&shard, &id, slot, &found));
            }
        }
    }

    /// Looks for expired offsets until the coordinator stops.
    pub(super) async fn run_expiry(self: Arc<Self>) {
        let interval = self.config.offsets_retention_check_interval;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => self.expire_offsets(now_ms()),
                () = self.wait_for_stop() => return,
            }
        }
    }

    /// Removes the offsets that have expired, and the groups that have nothing left.
    pub(super) fn expire_offsets(self: &Arc<Self>, now_wall_ms: i64) {
        for (shard, (id, _)) in self.all() {
            // The group may have been removed, or is not served any more.
            let _ = self.with_group(&shard, &id, Missing::Reject(GroupError::GroupIdNotFound), |slot, _, _| {
                let expired = slot.offsets.expired(&slot.group, self.config.offsets_retention_ms(), now_wall_ms);
                if !expired.is_empty() {
                    tracing::info!(group = %id, offsets = expired.len(), "committed offsets have expired");
                }
                self.drop_offsets(&shard, &id, slot, &expired);
                if slot.has_nothing_left() {
                    self.drop_group(&shard, &id, slot);
                }
            });
        }
    }

    /// Appends tombstones for offsets and removes them from memory. No response waits for the commit: a tombstone that
    /// is lost is written again by the broker that loads the offsets next.
    fn drop_offsets(&self, shard: &Shard, id: &Arc<str>, slot: &mut Slot, offsets: &[(Arc<str>, i32)]) {
        for chunk in offsets.chunks(TOMBSTONES_PER_BATCH) {
            // The error was logged by the write.
            let Ok(appended) = self.append_tombstones(shard, id, chunk) else { break };
            for ((topic, partition), at) in chunk.iter().zip(appended.base_offset..) {
                slot.offsets.remove_for_good(topic, *partition, at);
            }
        }
        slot.settle();
    }

    /// Appends the tombstones of at most [`TOMBSTONES_PER_BATCH`] offsets, in their order.
    pub(super) fn append_tombstones(
        &self,
        shard: &Shard,
        id: &str,
        offsets: &[(Arc<str>, i32)],
    ) -> Result<InternalAppend, GroupError> {
        let mut batch = Batch::at(now_ms());
        for (topic, partition) in offsets {
            batch.offset_tombstone(id, topic, *partition)?;
        }
        self.append(shard, id, batch)
    }

    /// Appends the tombstone of a group that has nothing left, and removes it from memory.
    fn drop_group(&self, shard: &Shard, id: &Arc<str>, slot: &mut Slot) {
        if self.append_group_tombstone(shard, id).is_ok() {
            self.remove(shard, id, slot);
        }
    }

    /// Appends the tombstone of a group.
    pub(super) fn append_group_tombstone(&self, shard: &Shard, id: &str) -> Result<InternalAppend, GroupError> {
        let mut batch = Batch::at(now_ms());
        batch.group_tombstone(id)?;
        self.append(shard, id, batch)
    }
}

pub(super) fn commit_at(given: OffsetToCommit, retention_ms: Option<i64>, now: Now) -> CommittedOffset {
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
