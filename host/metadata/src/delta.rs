//! The difference between two images, for everything that acts on a change.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::{AllBrokerConfigs, MetadataImage, MetadataRecord, TopicImage};

/// A topic before and after a change. The two are equal if the requested configs were already set.
#[derive(Debug, Clone)]
pub struct TopicChange {
    /// The topic before the change.
    pub before: Arc<TopicImage>,
    /// The topic after the change.
    pub after: Arc<TopicImage>,
}

/// The topics that differ between two images.
#[derive(Debug, Clone, Default)]
pub struct MetadataDelta {
    /// Deleted topics, as they were before.
    pub deleted: Vec<Arc<TopicImage>>,
    /// Changed topics.
    pub changed: Vec<TopicChange>,
    /// New topics.
    pub created: Vec<Arc<TopicImage>>,
    /// The configs of brokers after the change. They set the defaults of topics, so a change of them changes all
    /// topics.
    pub broker_configs: Arc<AllBrokerConfigs>,
}

impl MetadataDelta {
    /// Returns the difference in the topics with these ids, or in all topics if configs of brokers differ.
    pub fn between(before: &MetadataImage, after: &MetadataImage, touched: impl IntoIterator<Item = Uuid>) -> Self {
        let mut touched: BTreeSet<Uuid> = touched.into_iter().collect();
        if before.all_broker_configs() != after.all_broker_configs() {
            touched.extend(after.topics().map(|topic| topic.id));
        }
        Self::from_topics(touched.into_iter().map(|id| (id, before.topic_by_id(id).cloned())), after)
    }

    /// Returns the difference in these topics, given as they were before.
    pub(crate) fn from_topics(
        before: impl IntoIterator<Item = (Uuid, Option<Arc<TopicImage>>)>,
        after: &MetadataImage,
    ) -> Self {
        let mut delta = Self { broker_configs: Arc::clone(after.all_broker_configs()), ..Self::default() };
        for (id, before) in before {
            match (before, after.topic_by_id(id)) {
                (None, None) => {}
                (Some(before), None) => delta.deleted.push(before),
                (None, Some(after)) => delta.created.push(Arc::clone(after)),
                (Some(before), Some(after)) => delta.changed.push(TopicChange { before, after: Arc::clone(after) }),
            }
        }
        delta
    }

    /// Returns all differences of two images. Topics that both share by pointer are skipped.
    pub fn between_images(before: &MetadataImage, after: &MetadataImage) -> Self {
        let same = |topic: &Arc<TopicImage>, other: &MetadataImage| {
            other.topic_by_id(topic.id).is_some_and(|other| Arc::ptr_eq(topic, other))
        };
        let differ = |image: &MetadataImage, other: &MetadataImage| {
            image.topics().filter(|topic| !same(topic, other)).map(|topic| topic.id).collect::<BTreeSet<_>>()
        };
        let mut touched = differ(before, after);
        touched.extend(differ(after, before));
        Self::between(before, after, touched)
    }

    /// Returns an image as a difference to an empty one: every topic is created. The broker applies it at start.
    pub fn of_image(image: &MetadataImage) -> Self {
        let broker_configs = Arc::clone(image.all_broker_configs());
        Self { created: image.topics().cloned().collect(), broker_configs, ..Self::default() }
    }
}

/// Returns the ids of the topics that records may change.
pub(crate) fn touched(image: &MetadataImage, records: &[MetadataRecord]) -> BTreeSet<Uuid> {
    let mut ids = BTreeSet::new();
    for record in records {
        match record {
            MetadataRecord::TopicCreated { id, .. }
            | MetadataRecord::TopicDeleted { id }
            | MetadataRecord::PartitionsAdded { id, .. }
            | MetadataRecord::TopicConfigChanged { id, .. }
            | MetadataRecord::PartitionChanged { id, .. }
            | MetadataRecord::PartitionRestored { id, .. }
            | MetadataRecord::DecoderNeeded { id, .. } => drop(ids.insert(*id)),
            MetadataRecord::LeaderEpochRaised { .. } => ids.extend(image.topics().map(|topic| topic.id)),
            MetadataRecord::ClusterCreated { .. }
            | MetadataRecord::FeatureLevelSet { .. }
            | MetadataRecord::FeatureChanged { .. }
            | MetadataRecord::BrokerRegistered { .. }
            | MetadataRecord::BrokerChanged { .. }
            | MetadataRecord::BrokerUnregistered { .. }
            | MetadataRecord::BrokerConfigChanged { .. }
            | MetadataRecord::BrokerEpochsAllocated { .. }
            | MetadataRecord::ProducerIdsAllocated { .. } => {}
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_created_and_deleted_is_not_a_difference() {
        let id = Uuid::from_u128;
        let created = |n: u128| MetadataRecord::TopicCreated {
            name: format!("t{n}"),
            id: id(n),
            partitions: 1,
            configs: Default::default(),
            replicas: Vec::new(),
        };
        let mut before = MetadataImage::new(0);
        for n in [1, 2, 3] {
            before.apply(&created(n)).expect("a new topic");
        }
        let records = [
            MetadataRecord::TopicDeleted { id: id(1) },
            MetadataRecord::PartitionsAdded { id: id(2), partitions: 2, replicas: Vec::new() },
            created(4),
            MetadataRecord::TopicDeleted { id: id(4) },
            created(5),
        ];
        let mut after = before.clone();
        for record in &records {
            after.apply(record).expect("it fits");
        }
        let delta = MetadataDelta::between(&before, &after, touched(&before, &records));
        let ids = |topics: &[Arc<TopicImage>]| topics.iter().map(|topic| topic.id).collect::<Vec<_>>();
        assert_eq!((ids(&delta.deleted), ids(&delta.created)), (vec![id(1)], vec![id(5)]));
        let [TopicChange { before, after }] = &delta.changed[..] else { panic!("one topic has changed") };
        assert_eq!((before.partition_count(), after.partition_count()), (1, 2));
    }
}
