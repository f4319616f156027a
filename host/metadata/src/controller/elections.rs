//! Elections that an operator or the balancer asks for (KIP-183, KIP-460).

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::cluster::{ElectionConfigs, edit_partitions, find, partitions};
use super::partition_edit::{Election, PartitionEdit};
use super::{ClusterError, TopicRules};
use crate::{MetadataImage, MetadataRecord, NO_LEADER, PartitionImage};

/// Elects the leader of one partition: the preferred one, or with [`Election::Unclean`] any active replica for a
/// partition without a leader.
///
/// # Errors
/// No election is needed, or no replica can be elected.
pub fn elect<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    election: Election,
    topic: Uuid,
    index: i32,
) -> Result<MetadataRecord, ClusterError> {
    let (topic, partition) = find(image, topic, index)?;
    let settled = match election {
        Election::Preferred => is_preferred(partition),
        Election::Clean | Election::Unclean => partition.leader != NO_LEADER,
    };
    if settled {
        return Err(ClusterError::ElectionNotNeeded);
    }
    let edit = PartitionEdit { election, ..PartitionEdit::of(partition) };
    let change = edit.finish(|id| image.is_active(id), ElectionConfigs::of(image, topic, rules).min_isr);
    let elected = change.filter(|change| match (election, change.leader) {
        (Election::Preferred, leader) => leader == partition.replicas.first().copied(),
        (_, leader) => leader.is_some_and(|leader| leader != NO_LEADER),
    });
    match elected {
        Some(change) => Ok(MetadataRecord::PartitionChanged { id: topic.id, partition: index, change }),
        None if election == Election::Preferred => Err(ClusterError::PreferredLeaderNotAvailable),
        None => Err(ClusterError::EligibleLeadersNotAvailable),
    }
}

/// Gives partitions back to their preferred leaders, where those are in sync (`auto.leader.rebalance.enable`).
///
/// A broker counts as imbalanced if it leads fewer than `100 - percentage` percent of the partitions that prefer it
/// (`leader.imbalance.per.broker.percentage`). At most `limit` leaders move at once.
pub fn balance<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    percentage: usize,
    limit: usize,
) -> Vec<MetadataRecord> {
    let imbalanced = imbalanced(image, percentage);
    let mut records = edit_partitions(
        image,
        rules,
        |id| image.is_active(id),
        |partition, _| {
            let preferred = partition.replicas.first()?;
            let wanted = !is_preferred(partition) && imbalanced.contains(preferred);
            let moves = wanted && partition.isr.contains(preferred);
            moves.then(|| PartitionEdit { election: Election::Preferred, ..PartitionEdit::of(partition) })
        },
    );
    records.truncate(limit);
    records
}

/// Returns the active brokers that lead too few of the partitions that prefer them.
fn imbalanced(image: &MetadataImage, percentage: usize) -> BTreeSet<i32> {
    // How many partitions prefer each broker, and how many of them another one leads.
    let mut counts: BTreeMap<i32, (usize, usize)> = BTreeMap::new();
    for partition in partitions(image) {
        let Some(preferred) = partition.replicas.first() else { continue };
        let (prefer, elsewhere) = counts.entry(*preferred).or_default();
        *prefer += 1;
        *elsewhere += usize::from(!is_preferred(partition));
    }
    let too_few = |(prefer, elsewhere): (usize, usize)| elsewhere * 100 > prefer * percentage;
    counts.into_iter().filter(|&(id, counts)| image.is_active(id) && too_few(counts)).map(|(id, _)| id).collect()
}

fn is_preferred(partition: &PartitionImage) -> bool {
    partition.replicas.first() == Some(&partition.leader)
}
