//! Moves partitions to other brokers (KIP-455).
//!
//! During a reassignment a partition has the replicas of both sides. It ends when all new replicas are in sync, with
//! the change of the in-sync set that says so.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cluster::{ElectionConfigs, find};
use super::partition_edit::{PartitionEdit, without};
use super::topics::check_replicas;
use super::{ClusterError, TopicRules};
use crate::{MetadataImage, MetadataRecord, PartitionImage};

/// A partition to move.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reassignment {
    /// The id of the topic.
    pub topic: Uuid,
    /// The index of the partition.
    pub partition: i32,
    /// The new replicas, the preferred leader first. `None` cancels the reassignment that is under way.
    pub target: Option<Vec<i32>>,
    /// Whether the number of replicas may change (KIP-860).
    pub allow_replication_factor_change: bool,
}

/// Begins a reassignment, or replaces or cancels the one that is under way. Returns no record if the partition is
/// already on the target.
///
/// # Errors
/// The target is not valid, or there is no reassignment to cancel, or a cancelled one would leave no replica in sync.
pub fn reassign<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    reassignment: &Reassignment,
) -> Result<Vec<MetadataRecord>, ClusterError> {
    let index = reassignment.partition;
    let (topic, partition) = find(image, reassignment.topic, index)?;
    let edit = match &reassignment.target {
        Some(target) => {
            check_replicas(image, target)?;
            if !reassignment.allow_replication_factor_change {
                check_replication_factor(partition, target)?;
            }
            begin(partition, target)
        }
        None => cancel(partition)?,
    };
    let configs = ElectionConfigs::of(image, topic, rules);
    let edit = PartitionEdit { election: configs.online(), ..edit };
    let change = edit.finish(|id| image.is_active(id), configs.min_isr);
    let records = change.map(|change| MetadataRecord::PartitionChanged { id: topic.id, partition: index, change });
    Ok(records.into_iter().collect())
}

/// Checks that a target has as many replicas as the partition, or as the target of the reassignment that is under way.
fn check_replication_factor(partition: &PartitionImage, target: &[i32]) -> Result<(), ClusterError> {
    let (before, after) = (without(&partition.replicas, &partition.removing).len(), target.len());
    if before == after { Ok(()) } else { Err(ClusterError::ReplicationFactorChanged { before, after }) }
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
