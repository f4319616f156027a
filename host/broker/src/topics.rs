//! The topics as they are served: the metadata image joined with the open partitions.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_coordinator::group::CONSUMER_OFFSETS;
use millstream_partition::Partition;
use millstream_registry::LOGS_TOPIC;
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use crate::config::TopicConfig;
use crate::edge::TopicDecoders;
use crate::edge::plugins;
use crate::edge::topic_stages::Attached;
use crate::edge::view::link::View;
use crate::error::ApiError;

/// Where transactions will be kept: clients may not write there today either.
const TRANSACTION_STATE: &str = "__transaction_state";

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Str,
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    pub(crate) stages: Attached,
    /// The plug-ins that read batches in private formats, where there may be any.
    pub(crate) decoders: Option<Arc<TopicDecoders>>,
    /// For a view they are those of the topic that it shows.
    pub(crate) partitions: Vec<Arc<Partition>>,
    pub(crate) view: Option<Arc<View>>,
}

impl Topic {
    pub(crate) fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    /// Refuses to write to a view, in a way that no client tries again.
    pub(crate) fn check_takes_records(&self) -> Result<(), ApiError> {
        let Some(view) = &self.view else { return Ok(()) };
        let message =
            format!("{} is a view of {} and takes no records: produce to {}", &*self.name, &*view.of, &*view.of);
        Err(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message))
    }

    /// The partitions whose logs are the topic's: a view has none.
    pub(crate) fn own_partitions(&self) -> &[Arc<Partition>] {
        if self.view.is_some() { &[] } else { &self.partitions }
    }

    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// All topics; replaced as a whole when one comes, goes or changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicTable {
    by_name: HashMap<Str, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

impl TopicTable {
    pub(crate) fn insert(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.warn_of_compaction(&topic);
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.by_name.insert(topic.name.clone(), topic);
    }

    /// Logs, once for each topic, that nothing is compacted yet.
    fn warn_of_compaction(&self, topic: &Topic) {
        let was_compact = self.by_id(topic.id).is_some_and(|before| before.config.compact);
        if topic.config.compact && !was_compact && !topic.is_internal() {
            tracing::warn!(
                topic = &*topic.name,
                "cleanup.policy=compact has no effect yet: the older records of a key are kept"
            );
        }
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.by_name.remove(&topic.name);
        Some(topic)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<&Arc<Partition>> {
        self.by_name(topic)?.partition(index)
    }

    /// The topic that a request names: by name in old versions, by id in new ones.
    pub(crate) fn resolve(&self, by_id: bool, name: &str, id: Uuid) -> Result<&Arc<Topic>, ApiError> {
        if by_id {
            let unknown = || ApiError::new(ErrorCode::UNKNOWN_TOPIC_ID, "This server does not host this topic ID.");
            self.by_id(id).ok_or_else(unknown)
        } else {
            self.by_name(name).ok_or_else(ApiError::unknown_topic)
        }
    }
}

/// Whether a topic belongs to the broker itself.
pub(crate) fn is_internal(name: &str) -> bool {
    [CONSUMER_OFFSETS, TRANSACTION_STATE, plugins::TOPIC, LOGS_TOPIC].contains(&name)
}
