//! A leader asks for another in-sync set (KIP-497, KIP-841, KIP-903).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::brokers::registered;
use super::cluster::{ElectionConfigs, find};
use super::partition_edit::PartitionEdit;
use super::{ClusterError, TopicRules};
use crate::{MetadataImage, MetadataRecord};

/// The in-sync set that a leader asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AlterPartition {
    /// The leader.
    pub broker: i32,
    /// The epoch of its registration.
    pub broker_epoch: i64,
    /// The id of the topic.
    pub topic: Uuid,
    /// The index of the partition.
    pub partition: i32,
    /// The leader epoch that the leader knows.
    pub leader_epoch: i32,
    /// The partition epoch that the leader knows.
    pub partition_epoch: i32,
    /// The wanted set. Each member with the epoch of the registration that the leader knows, or -1 to not check it.
    pub isr: Vec<(i32, i64)>,
    /// The leader has recovered from an unclean election, or did not have to.
    pub recovered: bool,
}

/// Changes the in-sync set. A reassignment whose new replicas are all in sync ends in the same step.
///
/// Returns no record if the set is already the wanted one.
///
/// # Errors
/// The request is older than the partition's state, or not possible. The leader then waits for the newer state.
pub fn alter_partition<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    request: &AlterPartition,
) -> Result<Vec<MetadataRecord>, ClusterError> {
    registered(image, request.broker, request.broker_epoch)?;
    let index = request.partition;
    let (topic, partition) = find(image, request.topic, index)?;
    if request.leader_epoch > partition.leader_epoch || request.partition_epoch > partition.partition_epoch {
        return Err(ClusterError::NewerThanController);
    }
    if request.leader_epoch < partition.leader_epoch {
        return Err(ClusterError::FencedLeaderEpoch { epoch: request.leader_epoch, newest: partition.leader_epoch });
    }
    if request.broker != partition.leader {
        return Err(ClusterError::NotLeader(request.broker));
    }
    if request.partition_epoch < partition.partition_epoch {
        return Err(ClusterError::OldPartitionEpoch);
    }
    let isr: Vec<i32> = request.isr.iter().map(|(id, _)| *id).collect();
    check_members(&isr, &partition.replicas, request.broker)?;
    if isr.len() > 1 && !request.recovered {
        return Err(ClusterError::RecoveringWithFollowers);
    }
    if !partition.recovering && !request.recovered {
        return Err(ClusterError::RecoveredTwice);
    }
    for &(id, epoch) in &request.isr {
        let broker = image.broker(id).filter(|broker| broker.is_active());
        let eligible = broker.is_some_and(|broker| epoch == -1 || epoch == broker.epoch);
        // The leader stays in the set even while its own fencing is on its way.
        if !eligible && id != request.broker {
            return Err(ClusterError::IneligibleReplica(id));
        }
    }
    let edit = PartitionEdit { isr, recovering: !request.recovered, ..PartitionEdit::of(partition) };
    let min_isr = ElectionConfigs::of(image, topic, rules).min_isr;
    // The leader stays, unless a reassignment removes it.
    let change = edit.finish(|id| id == request.broker || image.is_active(id), min_isr);
    let records = change.map(|change| MetadataRecord::PartitionChanged { id: topic.id, partition: index, change });
    Ok(records.into_iter().collect())
}

/// Checks that a set is one of replicas, with the leader.
fn check_members(isr: &[i32], replicas: &[i32], leader: i32) -> Result<(), ClusterError> {
    for (place, id) in isr.iter().enumerate() {
        if !replicas.contains(id) || isr[..place].contains(id) {
            return Err(ClusterError::InvalidIsr(isr.to_vec()));
        }
    }
    match isr.contains(&leader) {
        true => Ok(()),
        false => Err(ClusterError::InvalidIsr(isr.to_vec())),
    }
}
