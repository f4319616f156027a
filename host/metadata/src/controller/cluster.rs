//! What the decisions about brokers and partitions have in common: each partition that a change of a broker touches.

use std::sync::Arc;

use uuid::Uuid;

use super::partition_edit::{Election, PartitionEdit};
use super::{ClusterError, TopicRules};
use crate::{MetadataImage, MetadataRecord, PartitionImage, TopicImage};

/// A topic's configs that elections depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ElectionConfigs {
    /// `min.insync.replicas`.
    pub(crate) min_isr: usize,
    /// `unclean.leader.election.enable`.
    pub(crate) unclean: bool,
}

impl ElectionConfigs {
    /// Returns those of a topic, or the defaults that it inherits.
    pub(crate) fn of<R: TopicRules>(image: &MetadataImage, topic: &TopicImage, rules: &R) -> Self {
        let value = |name: &str| topic.configs.get(name).cloned().or_else(|| rules.inherited(image, name));
        Self {
            min_isr: value("min.insync.replicas").and_then(|text| text.parse().ok()).unwrap_or(1),
            unclean: value("unclean.leader.election.enable").is_some_and(|text| text == "true"),
        }
    }

    /// Returns the election that keeps a partition online.
    pub(crate) fn online(self) -> Election {
        if self.unclean { Election::Unclean } else { Election::Clean }
    }
}

/// Returns a partition with its topic.
///
/// # Errors
/// There is none, or the topic is a view.
pub(crate) fn find(
    image: &MetadataImage,
    topic: Uuid,
    index: i32,
) -> Result<(&TopicImage, &PartitionImage), ClusterError> {
    let found = image.topic_by_id(topic).ok_or(ClusterError::UnknownTopicId(topic))?;
    if let Some(source) = found.view_of() {
        return Err(ClusterError::View { name: found.name.clone(), source_topic: source.to_owned() });
    }
    let partition = image
        .partition(topic, index)
        .ok_or_else(|| ClusterError::UnknownPartition { topic: found.name.clone(), partition: index })?;
    Ok((found, partition))
}

/// Returns every partition that is stored. A view has those of its source.
pub(crate) fn partitions(image: &MetadataImage) -> impl Iterator<Item = &PartitionImage> {
    stored_topics(image).flat_map(|topic| &topic.partitions)
}

/// Edits every partition that `edit` returns something for. `active` tells which brokers may lead after the change.
pub(crate) fn edit_partitions<'a, R: TopicRules>(
    image: &'a MetadataImage,
    rules: &R,
    active: impl Fn(i32) -> bool,
    edit: impl Fn(&'a PartitionImage, ElectionConfigs) -> Option<PartitionEdit<'a>>,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for topic in stored_topics(image) {
        let configs = ElectionConfigs::of(image, topic, rules);
        for (index, partition) in (0..).zip(&topic.partitions) {
            let change = edit(partition, configs).and_then(|edit| edit.finish(&active, configs.min_isr));
            let record = |change| MetadataRecord::PartitionChanged { id: topic.id, partition: index, change };
            records.extend(change.map(record));
        }
    }
    records
}

/// Returns the topics that are no views.
fn stored_topics(image: &MetadataImage) -> impl Iterator<Item = &Arc<TopicImage>> {
    image.topics().filter(|topic| topic.view_of().is_none())
}
