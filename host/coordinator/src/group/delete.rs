//! DeleteGroups and OffsetDelete.
//!
//! Both append tombstones and respond when these are committed. Memory changes after the commit. A commit or a join
//! that comes in between has a later record, and a replay of the log gives the same result: the later record wins. A
//! commit that was appended before a tombstone and is applied after it changes nothing.

use std::sync::Arc;

use millstream_partition::InternalAppend;

use super::commits::TOMBSTONES_PER_BATCH;
use super::coordinator::{GroupCoordinator, Missing};
use super::model::GroupError;
use super::shard::{Shard, Slot};

/// The tombstones of one group's offsets that were appended.
#[derive(Default)]
struct Tombstones {
    /// Each offset with the log offset of its tombstone.
    offsets: Vec<((Arc<str>, i32), i64)>,
    /// The last append. Those before it are in the same epoch, and are committed with it.
    last: Option<InternalAppend>,
}

impl Tombstones {
    fn add(&mut self, offsets: &[(Arc<str>, i32)], appended: InternalAppend) {
        self.offsets.extend(offsets.iter().cloned().zip(appended.base_offset..));
        self.last = Some(appended);
    }

    fn apply(self, slot: &mut Slot) {
        for ((topic, partition), at) in self.offsets {
            slot.offsets.remove_for_good(&topic, partition, at);
        }
    }

    /// Applies the appends before the one that failed, since a replay will find them. Returns the error.
    fn failed(self, slot: &mut Slot, error: GroupError) -> GroupError {
        self.apply(slot);
        slot.settle();
        error
    }
}

impl GroupCoordinator {
    /// Deletes a group with all its offsets. Returns when that is committed.
    ///
    /// # Errors
    /// [`GroupError::GroupIdNotFound`], [`GroupError::NonEmptyGroup`]; the group is not served here, or not yet; the
    /// tombstones could not be written.
    pub async fn delete_group(self: &Arc<Self>, group_id: &str) -> Result<(), GroupError> {
        let shard = self.shard(group_id)?;
        let tombstones = self.with_existing(&shard, group_id, |slot| {
            if !slot.group.is_vacant() || slot.writes_in_flight > 0 {
                return Err(GroupError::NonEmptyGroup);
            }
            let offsets = slot.offsets.partitions();
            let mut tombstones = self.append_all_tombstones(&shard, group_id, slot, &offsets)?;
            match self.append_group_tombstone(&shard, group_id) {
                Ok(appended) => tombstones.add(&[], appended),
                Err(error) => return Err(tombstones.failed(slot, error)),
            }
            slot.writes_in_flight += 1;
            Ok(tombstones)
        })?;
        let of_group = Arc::clone(&shard);
        self.when_committed(&shard, group_id, tombstones, move |coordinator, id, slot| {
            // A member may have joined meanwhile.
            if slot.has_nothing_left() {
                coordinator.remove(&of_group, id, slot);
                tracing::info!(group = %id, "the group was deleted");
            }
        })
        .await
    }

    /// Deletes the offsets of some partitions, and returns one result for each of them. Returns when that is committed.
    /// A partition without an offset is a success.
    ///
    /// # Errors
    /// As [`Self::delete_group`]; the group has members that are not consumers, so that its topics are unknown. A
    /// partition gets [`GroupError::GroupSubscribedToTopic`].
    pub async fn delete_offsets(
        self: &Arc<Self>,
        group_id: &str,
        partitions: &[(Arc<str>, i32)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let mut results = Vec::new();
        let shard = self.shard(group_id)?;
        let tombstones = self.with_existing(&shard, group_id, |slot| {
            slot.group.check_offset_delete()?;
            let subscribed = slot.group.subscribed_topics();
            let is_free = |topic: &str| subscribed.as_ref().is_some_and(|topics| !topics.contains(topic));
            let result = |(topic, _): &(Arc<str>, i32)| {
                if is_free(topic) { Ok(()) } else { Err(GroupError::GroupSubscribedToTopic) }
            };
            results = partitions.iter().map(result).collect();
            let stored = partitions
                .iter()
                .zip(&results)
                .filter(|((topic, partition), result)| result.is_ok() && slot.offsets.get(topic, *partition).is_some());
            let stored: Vec<_> = stored.map(|(partition, _)| partition.clone()).collect();
            let tombstones = self.append_all_tombstones(&shard, group_id, slot, &stored)?;
            slot.writes_in_flight += 1;
            Ok(tombstones)
        })?;
        self.when_committed(&shard, group_id, tombstones, |_, _, _| {}).await?;
        Ok(results)
    }

    /// Runs `work` on a group that exists.
    fn with_existing<T>(
        self: &Arc<Self>,
        shard: &Arc<Shard>,
        group_id: &str,
        work: impl FnOnce(&mut Slot) -> Result<T, GroupError>,
    ) -> Result<T, GroupError> {
        self.with_group(shard, group_id, Missing::Reject(GroupError::GroupIdNotFound), |slot, _, _| work(slot))?
    }

    fn append_all_tombstones(
        &self,
        shard: &Shard,
        group_id: &str,
        slot: &mut Slot,
        offsets: &[(Arc<str>, i32)],
    ) -> Result<Tombstones, GroupError> {
        let mut tombstones = Tombstones::default();
        for chunk in offsets.chunks(TOMBSTONES_PER_BATCH) {
            match self.append_tombstones(shard, group_id, chunk) {
                Ok(appended) => tombstones.add(chunk, appended),
                Err(error) => return Err(tombstones.failed(slot, error)),
            }
        }
        Ok(tombstones)
    }

    /// Waits for the commit, applies the tombstones to memory, and runs `then` under the group's lock. It continues if
    /// the caller's future is dropped or times out, so that memory equals the log.
    async fn when_committed(
        self: &Arc<Self>,
        shard: &Arc<Shard>,
        group_id: &str,
        mut tombstones: Tombstones,
        then: impl FnOnce(&Self, &Arc<str>, &mut Slot) + Send + 'static,
    ) -> Result<(), GroupError> {
        let (coordinator, shard, id) = (Arc::clone(self), Arc::clone(shard), Arc::<str>::from(group_id));
        let group = Arc::clone(&id);
        let last = tombstones.last.take();
        let ended = move |outcome: Result<(), GroupError>| {
            let missing = Missing::Reject(GroupError::GroupIdNotFound);
            coordinator.with_group(&shard, &group, missing, |slot, _, _| {
                let outcome = outcome.map(|()| tombstones.apply(slot));
                slot.write_ended();
                outcome.map(|()| then(&coordinator, &group, slot))
            })?
        };
        match last {
            Some(appended) => self.settled(&id, appended, ended).await,
            None => ended(Ok(())),
        }
    }
}
