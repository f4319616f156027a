//! Linking views: gives each view the partitions and filters of its source.

use std::sync::Arc;

use millstream_stage::spec::CHAIN_MAX;
use millstream_wire::{ErrorCode, Str};

use crate::compute_permits::ComputePermits;
use crate::edge::Written;
use crate::edge::topic_stages::Attachments;
use crate::error::ApiError;
use crate::topics::{Topic, TopicTable};

/// What makes a topic a view.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Its source.
    pub(crate) of: Str,
    /// The filters on the way from the records to the view, those of the source first.
    pub(crate) layers: Vec<Layer>,
    /// Who may run the filters now: a slow one holds up those alone who read its view.
    pub(crate) permits: ComputePermits,
    dead_letters: Arc<Written>,
}

/// The filters of one view on that way.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// The view that has them.
    pub(crate) topic: Str,
    pub(crate) stages: Result<Arc<Attachments>, ApiError>,
    /// The dead letters of the view.
    pub(crate) dead_letters: Arc<Written>,
}

impl View {
    /// A view of a topic, before it is linked.
    pub(crate) fn of(source: &str) -> Self {
        Self { of: Str::from(source), layers: Vec::new(), permits: ComputePermits::new(), dead_letters: Arc::default() }
    }
}

/// Gives every view the partitions and the filters that its source has now. A change of any topic is followed by this before
/// the table is published.
pub(crate) fn link(table: &mut TopicTable) {
    let depths = table.iter().filter_map(|topic| Some((depth(table, topic)?, Arc::clone(topic))));
    let mut views: Vec<(usize, Arc<Topic>)> = depths.collect();
    views.sort_by_key(|(depth, _)| *depth);
    for (_, topic) in views {
        let Some(view) = topic.view.as_deref() else { continue };
        let source = table.by_name(&view.of);
        let of_source = source.and_then(|source| source.view.as_ref()).map_or(&[][..], |source| &source.layers);
        let layer = |stages| Layer { topic: topic.name.clone(), stages, dead_letters: Arc::clone(&view.dead_letters) };
        let own = topic.stages.clone().map(layer);
        let layers = of_source.iter().cloned().chain(own).collect();
        let linked = Topic {
            name: topic.name.clone(),
            id: topic.id,
            config: topic.config.clone(),
            stages: topic.stages.clone(),
            decoders: source.and_then(|source| source.decoders.clone()),
            partitions: source.map_or(Vec::new(), |source| source.partitions.clone()),
            view: Some(Arc::new(View { layers, ..view.clone() })),
        };
        table.insert(linked);
    }
}

/// How many views lie between a view and the records; none for a topic with records of its own.
fn depth(table: &TopicTable, topic: &Topic) -> Option<usize> {
    let mut view = topic.view.as_ref()?;
    let mut depth = 0;
    // The rules keep chains shorter: this ends a circle that no change has made.
    while let Some(source) =
        table.by_name(&view.of).and_then(|source| source.view.as_ref()).filter(|_| depth < CHAIN_MAX)
    {
        (view, depth) = (source, depth + 1);
    }
    Some(depth)
}

/// A topic whose partitions take no records while it is made a view. They do again if that fails.
#[derive(Debug)]
pub(crate) struct Sealed {
    topic: Option<Arc<Topic>>,
}

impl Sealed {
    /// Closes the partitions of a topic that has never had a record.
    pub(crate) fn new(topic: &Arc<Topic>) -> Result<Self, ApiError> {
        // From here on a refusal opens again what was closed.
        let sealed = Self { topic: Some(Arc::clone(topic)) };
        for partition in topic.own_partitions() {
            let end = partition.seal()?;
            if end > 0 {
                let message = format!(
                    "topic {}: it has had records (partition {} ends at offset {end}), and only an empty topic can become a \
                     view: create the view under a name of its own",
                    &*topic.name,
                    partition.index()
                );
                return Err(ApiError::new(ErrorCode::INVALID_CONFIG, message));
            }
        }
        Ok(sealed)
    }

    /// Leaves the partitions closed for ever; gives the topic as it was.
    pub(crate) fn keep(mut self) -> Arc<Topic> {
        self.topic.take().expect("it is there until it is kept")
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        let partitions = self.topic.iter().flat_map(|topic| topic.own_partitions());
        partitions.for_each(|partition| partition.unseal());
    }
}
