//! Moves partitions to other brokers (KIP-455).
//!
//! During a reassignment a partition has the replicas of both sides. It ends when all new replicas are in sync, with
//! the change of the in-sync set that says so.

use uuid::Uuid;

use super::cluster::{ElectionConfigs, find};
use super::partition_edit::{PartitionEdit, without};
use super::topics::check_replicas;
use super::{ClusterError, TopicRules};
use crate::{MetadataImage, MetadataRecord, PartitionImage};

/// Begins a reassignment to `target`, the preferred leader first, or replaces the one that is under way. `None` cancels
/// it. Returns no record if the partition is already on the target.
///
/// # Errors
/// The target is not valid, or there is no reassignment to cancel, or a cancelled one would leave no replica in sync.
pub fn reassign<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    topic: Uuid,
    index: i32,
    target: Option<&[i32]>,
) -> Result<Vec<MetadataRecord>, ClusterError> {
    let (topic, partition) = find(image, topic, index)?;
    let edit = match target {
        Some(target) => {
            check_replicas(image, target)?;
            begin(partition, target)
        }
        None => cancel(partition)?,
    };
    let configs = ElectionConfigs::of(topic, rules);
    let edit = PartitionEdit { election: configs.online(), ..edit };
    let change = edit.finish(|id| image.is_active(id), configs.min_isr);
    let records = change.map(|change| MetadataRecord::PartitionChanged { id: topic.id, partition: index, change });
    Ok(records.into_iter().collect())
}

fn begin<'a>(partition: &'a PartitionImage, target: &[i32]) -> PartitionEdit<'a> {
    // Replicas that an earlier reassignment adds are not settled: they are new to the target too.
    let settled = without(&partition.replicas, &partition.adding);
    let removing = without(&partition.replicas, target);
    let adding = without(target, &settled);
    let replicas = [target, &removing].concat();
    PartitionEdit { replicas, adding, removing, ..PartitionEdit::of(partition) }
}

fn cancel(partition: &PartitionImage) -> Result<PartitionEdit<'_>, ClusterError> {
    if !partition.is_reassigning() {
        return Err(ClusterError::NoReassignment);
    }
    let replicas = without(&partition.replicas, &partition.adding);
    let isr = without(&partition.isr, &partition.adding);
    if isr.is_empty() && !partition.isr.is_empty() {
        return Err(ClusterError::CancelLosesIsr);
    }
    Ok(PartitionEdit { replicas, isr, adding: Vec::new(), removing: Vec::new(), ..PartitionEdit::of(partition) })
}
