//! The served topics: the metadata image joined with the open partitions.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use millstream_coordinator::group::CONSUMER_OFFSETS;
use millstream_coordinator::transaction::TRANSACTION_STATE;
use millstream_partition::Partition;
use millstream_registry::{LOGS_TOPIC, TOPIC as PLUGINS_TOPIC};
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use crate::config::TopicConfig;
use crate::error::ApiError;

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Str,
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// Set if the partitions belong to another topic. Names that topic.
    pub(crate) shared_from: Option<Str>,
}

impl Topic {
    pub(crate) fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    /// Returns the partitions that do not belong to another topic.
    pub(crate) fn own_partitions(&self) -> &[Arc<Partition>] {
        if self.shared_from.is_some() { &[] } else { &self.partitions }
    }

    /// Returns the number of entries for the topic and its partitions in a response.
    pub(crate) fn entries(&self) -> usize {
        1 + self.partitions.len()
    }

    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// A topic, with the state that a layer above the core keeps for it.
#[derive(Debug)]
pub(crate) struct Served<E> {
    topic: Topic,
    pub(crate) edge: E,
}

impl<E> Deref for Served<E> {
    type Target = Topic;

    fn deref(&self) -> &Topic {
        &self.topic
    }
}

/// All topics. A change of any topic replaces the whole table, so that a request sees all of them at one moment.
#[derive(Debug)]
pub(crate) struct TopicTable<E> {
    by_name: HashMap<Str, Arc<Served<E>>>,
    by_id: HashMap<Uuid, Arc<Served<E>>>,
    /// Whether the table has all topics. In a cluster it is empty until the broker has caught up with the metadata.
    is_complete: bool,
}

impl<E> Default for TopicTable<E> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), by_id: HashMap::new(), is_complete: false }
    }
}

impl<E> Clone for TopicTable<E> {
    fn clone(&self) -> Self {
        Self { by_name: self.by_name.clone(), by_id: self.by_id.clone(), is_complete: self.is_complete }
    }
}

impl<E> TopicTable<E> {
    /// Notes that the table has all topics.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    pub(crate) fn insert(&mut self, topic: Topic, edge: E) {
        let topic = Arc::new(Served { topic, edge });
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.by_name.insert(topic.name.clone(), topic);
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<Served<E>>> {
        let topic = self.by_id.remove(&id)?;
        self.by_name.remove(&topic.name);
        Some(topic)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Served<E>>> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<&Arc<Served<E>>> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Served<E>>> {
        self.by_name.values()
    }

    /// Returns the number of entries for all topics and their partitions in a response.
    pub(crate) fn entries(&self) -> usize {
        self.iter().map(|topic| topic.entries()).sum()
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<&Arc<Partition>> {
        self.by_name(topic)?.partition(index)
    }

    /// Returns the topic that a request names: by name in old versions, by id in new ones. Until the table has all
    /// topics, a missing one is an error that clients retry.
    pub(crate) fn resolve(&self, by_id: bool, name: &str, id: Uuid) -> Result<&Arc<Served<E>>, ApiError> {
        let found = if by_id { self.by_id(id) } else { self.by_name(name) };
        found.ok_or_else(|| match (self.is_complete, by_id) {
            (false, _) => ApiError::new(
                ErrorCode::NOT_LEADER_OR_FOLLOWER,
                "the broker has not yet caught up with the metadata of its cluster",
            ),
            (true, true) => ApiError::new(ErrorCode::UNKNOWN_TOPIC_ID, "This server does not host this topic ID."),
            (true, false) => ApiError::unknown_topic(),
        })
    }
}

/// Returns whether a topic belongs to the broker itself.
pub(crate) fn is_internal(name: &str) -> bool {
    [CONSUMER_OFFSETS, TRANSACTION_STATE, PLUGINS_TOPIC, LOGS_TOPIC].contains(&name)
}
