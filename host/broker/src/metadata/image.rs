//! The cluster's state as its records make it: a pure value, replaced as a whole with every change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::record::MetadataRecord;
use crate::config::TopicOverrides;

/// What the metadata log says of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicImage {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    pub(crate) partitions: i32,
    /// The options that were set on the topic itself.
    pub(crate) configs: TopicOverrides,
    /// The digests of the plug-ins that read batches in private formats.
    pub(crate) decoders: BTreeSet<String>,
}

/// The whole state. Topics are shared between images, so that a change copies pointers alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MetadataImage {
    pub(crate) cluster_id: String,
    pub(crate) leader_epoch: i32,
    /// The first producer id of the next block.
    pub(crate) next_producer_id: i64,
    topics: BTreeMap<String, Arc<TopicImage>>,
    names: HashMap<Uuid, String>,
}

/// A record that does not fit the state before it: the log is not one that this program wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ImageError(String);

impl MetadataImage {
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// All topics, by name.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    /// Applies one record.
    pub(crate) fn apply(&mut self, record: &MetadataRecord) -> Result<(), ImageError> {
        match record {
            MetadataRecord::ClusterCreated { cluster_id } => self.cluster_id.clone_from(cluster_id),
            MetadataRecord::LeaderEpochRaised { epoch } => self.leader_epoch = *epoch,
            MetadataRecord::ProducerIdsAllocated { next } => self.next_producer_id = *next,
            MetadataRecord::TopicCreated { name, id, partitions, configs } => {
                if self.topics.contains_key(name) || self.names.contains_key(id) {
                    return Err(ImageError(format!("topic {name} ({id}) is created twice")));
                }
                let (name, configs) = (name.clone(), configs.clone());
                self.names.insert(*id, name.clone());
                let decoders = BTreeSet::new();
                let topic = TopicImage { name: name.clone(), id: *id, partitions: *partitions, configs, decoders };
                self.topics.insert(name, Arc::new(topic));
            }
            MetadataRecord::TopicDeleted { id } => {
                let name = self.names.remove(id).ok_or_else(|| missing(*id))?;
                self.topics.remove(&name);
            }
            MetadataRecord::PartitionsAdded { id, partitions } => {
                self.change(*id, |topic| topic.partitions = *partitions)?;
            }
            MetadataRecord::DecoderNeeded { id, digest } => {
                self.change(*id, |topic| topic.decoders.extend([digest.clone()]))?;
            }
            MetadataRecord::TopicConfigChanged { id, name, value } => {
                self.change(*id, |topic| match value {
                    Some(value) => drop(topic.configs.insert(name.clone(), value.clone())),
                    None => drop(topic.configs.remove(name)),
                })?;
            }
        }
        Ok(())
    }

    fn change(&mut self, id: Uuid, change: impl FnOnce(&mut TopicImage)) -> Result<(), ImageError> {
        let name = self.names.get(&id).ok_or_else(|| missing(id))?;
        let topic = self.topics.get_mut(name).ok_or_else(|| missing(id))?;
        change(Arc::make_mut(topic));
        Ok(())
    }
}

fn missing(id: Uuid) -> ImageError {
    ImageError(format!("there is no topic with the id {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(name: &str, id: u128) -> MetadataRecord {
        MetadataRecord::TopicCreated {
            name: name.to_owned(),
            id: Uuid::from_u128(id),
            partitions: 1,
            configs: BTreeMap::new(),
        }
    }

    #[test]
    fn a_topic_lives_changes_and_goes() {
        let mut image = MetadataImage::default();
        let id = Uuid::from_u128(1);
        image.apply(&created("a", 1)).expect("created");
        let before = image.clone();
        image.apply(&MetadataRecord::PartitionsAdded { id, partitions: 4 }).expect("grown");
        let set = |value: Option<&str>| MetadataRecord::TopicConfigChanged {
            id,
            name: "retention.ms".to_owned(),
            value: value.map(str::to_owned),
        };
        image.apply(&set(Some("5"))).expect("set");
        let topic = image.topic_by_id(id).expect("there");
        assert_eq!((topic.partitions, topic.configs["retention.ms"].as_str()), (4, "5"));
        assert_eq!(before.topic("a").expect("there").partitions, 1, "an older image does not change");
        image.apply(&set(None)).expect("unset");
        assert!(image.topic("a").expect("there").configs.is_empty());
        image.apply(&MetadataRecord::TopicDeleted { id }).expect("deleted");
        assert!(image.topic("a").is_none() && image.topic_by_id(id).is_none());
        image.apply(&created("a", 2)).expect("the name is free again");
    }

    #[test]
    fn a_record_that_does_not_fit_is_refused() {
        let mut image = MetadataImage::default();
        image.apply(&created("a", 1)).expect("created");
        assert!(image.apply(&created("a", 2)).is_err());
        assert!(image.apply(&created("b", 1)).is_err());
        assert!(image.apply(&MetadataRecord::TopicDeleted { id: Uuid::from_u128(9) }).is_err());
    }
}
