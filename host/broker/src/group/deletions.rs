//! Deletions that clients ask for: groups and offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_wire::Str;

use super::commits::TOMBSTONES_PER_BATCH;
use super::coordinator::{GroupCoordinator, Missing, Slot, wall_ms};
use super::model::GroupError;
use super::state::{Group, GroupState};
use super::storage::{Batch, Later};

/// One result for each partition of an OffsetDelete, and a future that ends when the deletions are durable.
pub(crate) type DeletedOffsets = (Vec<Result<(), GroupError>>, Later<()>);

impl GroupCoordinator {
    /// Deletes an empty group with its offsets. The future ends when the deletion is durable.
    ///
    /// # Errors
    /// The group has members, does not exist, or is not served here.
    pub(crate) fn delete_group(self: &Arc<Self>, group_id: &str) -> Result<Later<()>, GroupError> {
        self.with_group(group_id, Missing::Refuse(GroupError::GroupIdNotFound), |slot, now, _| {
            if slot.group.state() != GroupState::Empty {
                return Err(GroupError::NonEmptyGroup);
            }
            let id = Arc::from(group_id);
            let offsets = slot.offsets.partitions();
            // The group's tombstone follows in the same log: once it is durable, these are.
            drop(self.delete_from(&id, slot, &offsets)?);
            let mut batch = Batch::at(wall_ms());
            batch.group_tombstone(&id)?;
            let appended = self.append(&id, batch)?;
            slot.offsets.removed_all(appended.base_offset);
            // What is left is like new. The caller forgets it, unless a commit is under way.
            slot.group = Group::new(Arc::clone(&self.config), now);
            tracing::info!(group = group_id, "deleted");
            Ok(appended.durable)
        })?
    }

    /// Deletes committed offsets of topics that no member subscribes to.
    ///
    /// # Errors
    /// The group has members whose subscriptions are not known to the broker, does not exist, or is not served here.
    pub(crate) fn delete_offsets(
        self: &Arc<Self>,
        group_id: &str,
        partitions: &[(Arc<str>, i32)],
    ) -> Result<DeletedOffsets, GroupError> {
        self.with_group(group_id, Missing::Refuse(GroupError::GroupIdNotFound), |slot, _, _| {
            let subscribed = subscribed(&slot.group)?;
            let is_free = |topic: &str| subscribed.as_ref().is_some_and(|topics| !topics.contains(topic));
            let result = |topic: &str| if is_free(topic) { Ok(()) } else { Err(GroupError::SubscribedToTopic) };
            let results = partitions.iter().map(|(topic, _)| result(topic)).collect();
            // A commit that is under way has no offset yet, and its record precedes the tombstone.
            let exists =
                |topic: &str, partition| slot.commits_under_way > 0 || slot.offsets.get(topic, partition).is_some();
            let doomed: Vec<_> = partitions
                .iter()
                .filter(|(topic, partition)| is_free(topic) && exists(topic, *partition))
                .cloned()
                .collect();
            let durable = self.delete_from(&Arc::from(group_id), slot, &doomed)?;
            Ok((results, durable))
        })?
    }

    /// Appends tombstones for offsets and removes them from memory. The future ends when the last one is durable.
    pub(super) fn delete_from(
        &self,
        id: &Arc<str>,
        slot: &mut Slot,
        offsets: &[(Arc<str>, i32)],
    ) -> Result<Later<()>, GroupError> {
        let mut durable: Later<()> = Box::pin(async { Ok(()) });
        for chunk in offsets.chunks(TOMBSTONES_PER_BATCH) {
            let mut batch = Batch::at(wall_ms());
            chunk.iter().try_for_each(|(topic, partition)| batch.offset_tombstone(id, topic, *partition))?;
            let appended = self.append(id, batch)?;
            for ((topic, partition), at) in chunk.iter().zip(appended.base_offset..) {
                slot.offsets.remove(topic, *partition, at, slot.commits_under_way > 0);
            }
            durable = appended.durable;
        }
        Ok(durable)
    }
}

/// Returns the topics that the group's members subscribe to; none if that is not known, so that any topic may be one.
fn subscribed(group: &Group) -> Result<Option<BTreeSet<Str>>, GroupError> {
    if group.state() == GroupState::Empty {
        return Ok(Some(BTreeSet::new()));
    }
    if group.protocol_type().is_none_or(|kind| &**kind != "consumer") {
        return Err(GroupError::NonEmptyGroup);
    }
    Ok(group.subscribed_topics())
}
