//! Linking views: gives each view the partitions and filters of its source.

use std::sync::Arc;

use millstream_partition::Frozen;
use millstream_stage::spec::CHAIN_MAX;
use millstream_wire::{ErrorCode, Str};

use crate::compute_permits::ComputePermits;
use crate::edge::topic_stages::{ActiveStages, TopicStages};
use crate::edge::view::unreadable::LoggedBatches;
use crate::edge::{ServedTopic, ServedTopics, Written};
use crate::error::ApiError;
use crate::topics::Topic;

/// The source and the filters of a view.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Its source.
    pub(crate) of: Str,
    /// The filters from the source's records to the view, those of the source first.
    pub(crate) layers: Vec<Layer>,
    /// The permits for the filters: a slow filter delays only the readers of its view.
    pub(crate) permits: ComputePermits,
    dead_letters: Arc<Written>,
    logged: Arc<LoggedBatches>,
}

/// The filters of one view on that path.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// The view that has them.
    pub(crate) topic: Str,
    pub(crate) stages: Result<Arc<ActiveStages>, ApiError>,
    /// The dead letters of the view.
    pub(crate) dead_letters: Arc<Written>,
    /// The unreadable batches of the source that were logged for the view.
    pub(crate) logged: Arc<LoggedBatches>,
}

impl View {
    /// Returns a view of a topic, before it is linked.
    pub(crate) fn of(source: &str) -> Self {
        Self {
            of: Str::from(source),
            layers: Vec::new(),
            permits: ComputePermits::new(),
            dead_letters: Arc::default(),
            logged: Arc::default(),
        }
    }
}

/// Gives every view the current partitions and filters of its source. Every change of a topic calls this before the
/// table is published.
pub(crate) fn link(table: &mut ServedTopics) {
    let depths = table.iter().filter_map(|topic| Some((depth(table, topic)?, Arc::clone(topic))));
    let mut views: Vec<(usize, Arc<ServedTopic>)> = depths.collect();
    views.sort_by_key(|(depth, _)| *depth);
    for (_, topic) in views {
        let Some(view) = topic.edge.view.as_deref() else { continue };
        let source = table.by_name(&view.of);
        let of_source = source.and_then(|source| source.edge.view.as_ref()).map_or(&[][..], |source| &source.layers);
        let layer = |stages| Layer {
            topic: topic.name.clone(),
            stages,
            dead_letters: Arc::clone(&view.dead_letters),
            logged: Arc::clone(&view.logged),
        };
        let own = match &topic.edge.stages {
            TopicStages::None => None,
            TopicStages::Ready(stages) => Some(layer(Ok(Arc::clone(stages)))),
            TopicStages::Broken(error) => Some(layer(Err(error.clone()))),
        };
        let layers = of_source.iter().cloned().chain(own).collect();
        let view = View { layers, ..view.clone() };
        let linked = Topic {
            name: topic.name.clone(),
            id: topic.id,
            config: topic.config.clone(),
            partitions: source.map_or_else(Vec::new, |source| source.partitions.clone()),
            shared_from: Some(view.of.clone()),
        };
        let edge = topic.edge.linked(Arc::new(view), source.map(|source| &source.edge));
        table.insert(linked, edge);
    }
}

/// Returns the number of views between a view and the records; `None` for a topic with its own records.
fn depth(table: &ServedTopics, topic: &ServedTopic) -> Option<usize> {
    let mut view = topic.edge.view.as_ref()?;
    let mut depth = 0;
    // The rules keep chains shorter. This ends a circle in a damaged metadata log.
    while let Some(source) =
        table.by_name(&view.of).and_then(|source| source.edge.view.as_ref()).filter(|_| depth < CHAIN_MAX)
    {
        (view, depth) = (source, depth + 1);
    }
    Some(depth)
}

/// A topic that is about to become a view. It takes no records until the change is made or dropped.
#[derive(Debug)]
pub(crate) struct BecomingView {
    topic: Arc<ServedTopic>,
    _frozen: Vec<Frozen>,
}

impl BecomingView {
    /// Freezes the partitions of a topic that has never had a record.
    ///
    /// # Errors
    /// The topic has had records, or a partition is offline.
    pub(crate) fn new(topic: &Arc<ServedTopic>) -> Result<Self, ApiError> {
        let mut frozen = Vec::with_capacity(topic.own_partitions().len());
        for partition in topic.own_partitions() {
            frozen.push(partition.freeze()?);
            let end = partition.log_end_offset()?;
            if end > 0 {
                let message = format!(
                    "topic {}: it has had records (partition {} ends at offset {end}), and only an empty topic \
                     can become a view: create the view under a name of its own",
                    &*topic.name,
                    partition.index()
                );
                return Err(ApiError::new(ErrorCode::INVALID_CONFIG, message));
            }
        }
        Ok(Self { topic: Arc::clone(topic), _frozen: frozen })
    }

    /// Returns the topic before the change, with the partitions that the view does not need.
    pub(crate) fn topic(&self) -> &ServedTopic {
        &self.topic
    }
}
