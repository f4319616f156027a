//! A replica leaves the in-sync set because its disk fails.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::brokers::registered;
use super::cluster::{ElectionConfigs, find};
use super::partition_edit::{PartitionEdit, without};
use super::{ClusterError, TopicRules};
use crate::{MetadataImage, MetadataRecord};

/// A replica that cannot be in sync.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaveInSync {
    /// The broker of the replica.
    pub broker: i32,
    /// The epoch of its registration.
    pub broker_epoch: i64,
    /// The id of the topic.
    pub topic: Uuid,
    /// The index of the partition.
    pub partition: i32,
    /// The replica may lack records that it has confirmed, so that it must not lead any more.
    pub lossy: bool,
}

/// Takes a replica out of the in-sync set. If it leads, another replica that holds every committed record does.
///
/// Returns no record if the replica is not in sync.
///
/// # Errors
/// No other replica holds every committed record: this one stays what it is.
pub fn leave_in_sync<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    request: &LeaveInSync,
) -> Result<Vec<MetadataRecord>, ClusterError> {
    let LeaveInSync { broker: id, lossy, .. } = *request;
    registered(image, id, request.broker_epoch)?;
    let (topic, partition) = find(image, request.topic, request.partition)?;
    let is_eligible = lossy && partition.elr.contains(&id);
    if !partition.isr.contains(&id) && !is_eligible {
        return Ok(Vec::new());
    }
    if partition.isr.iter().chain(&*partition.elr).all(|holder| *holder == id) {
        return Err(ClusterError::LastInSync(id));
    }
    let edit = PartitionEdit {
        isr: without(&partition.isr, &[id]),
        elr: if lossy { without(&partition.elr, &[id]) } else { partition.elr.to_vec() },
        lossy: if lossy { vec![id] } else { Vec::new() },
        ..PartitionEdit::of(partition)
    };
    let min_isr = ElectionConfigs::of(image, topic, rules).min_isr;
    let change = edit.finish(|id| image.is_active(id), min_isr);
    let record = |change| MetadataRecord::PartitionChanged { id: topic.id, partition: request.partition, change };
    Ok(change.map(record).into_iter().collect())
}
