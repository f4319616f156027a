//! Prepares a change on this node before it is committed.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::Node;
use super::topics::stored_stages_of;
use crate::edge::ServedTopic;
use crate::edge::topic_stages::{TopicStages, attach};
use crate::edge::view::link::BecomingView;
use crate::error::ApiError;
use millstream_metadata::{MetadataDelta, TopicChange, TopicImage};

/// The preparations for a change. Dropping them undoes them.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The stages of topics that are created, or whose stages change.
    pub(super) stages: HashMap<Uuid, TopicStages>,
    /// The topics that become views. They take no records.
    pub(super) views: Vec<BecomingView>,
}

impl Prepared {
    /// Returns whether nothing is prepared.
    pub(crate) fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.views.is_empty()
    }

    /// Adds the preparations for a later change.
    pub(crate) fn extend(&mut self, later: Self) {
        self.stages.extend(later.stages);
        self.views.extend(later.views);
    }
}

/// Makes the stages for a change, and freezes topics that become views. Blocks, since a plug-in may have to be
/// compiled.
///
/// # Errors
/// A stage does not exist or does not start, or a topic that is to become a view has records.
pub(crate) fn prepare(node: &Node, delta: &MetadataDelta) -> Result<Prepared, ApiError> {
    let stages = prepare_stages(node, delta)?;
    let becomes_view = |change: &&TopicChange| change.before.view_of().is_none() && change.after.view_of().is_some();
    let served = delta.changed.iter().filter(becomes_view).filter_map(|change| served(node, &change.after));
    let views = served.map(|topic| BecomingView::new(&topic)).collect::<Result<_, _>>()?;
    Ok(Prepared { stages, views })
}

/// Makes the stages that a change asks for.
///
/// # Errors
/// A stage does not exist or does not start.
pub(crate) fn prepare_stages(node: &Node, delta: &MetadataDelta) -> Result<HashMap<Uuid, TopicStages>, ApiError> {
    // An alteration that changes nothing retries broken stages. A change of other things than configs leaves them.
    let is_alteration =
        |change: &&TopicChange| change.before.configs != change.after.configs || change.before == change.after;
    let altered = delta.changed.iter().filter(is_alteration).filter(|change| needs_stages(node, &change.after));
    let altered = altered.map(|change| (&change.after, may_stay_broken(node, change)));
    let mut made = HashMap::new();
    for (topic, may_stay_broken) in delta.created.iter().map(|topic| (topic, false)).chain(altered) {
        let config = node.topic_config(&topic.configs)?;
        match attach(&node.edge, &topic.name, &config) {
            Ok(stages) => drop(made.insert(topic.id, stages)),
            Err(_) if may_stay_broken => {}
            Err(error) => return Err(error),
        }
    }
    Ok(made)
}

/// Completes the preparations for a change that is committed already, by another node. A stage that does not start here
/// puts its topic out of service on this node.
pub(crate) fn prepare_committed(node: &Node, delta: &MetadataDelta, mut prepared: Prepared) -> Prepared {
    for change in &delta.changed {
        let TopicChange { before, after } = change;
        if before.configs == after.configs || prepared.stages.contains_key(&after.id) || !needs_stages(node, after) {
            continue;
        }
        prepared.stages.insert(after.id, stored_stages_of(node, after));
    }
    prepared
}

/// Returns whether a change may leave broken stages as they are, because it alters only other configs.
fn may_stay_broken(node: &Node, change: &TopicChange) -> bool {
    let config = |topic: &TopicImage| node.topic_config(&topic.configs);
    let (Ok(before), Ok(after)) = (config(&change.before), config(&change.after)) else { return false };
    let is_broken =
        served(node, &change.after).is_some_and(|topic| matches!(topic.edge.stages, TopicStages::Broken(_)));
    is_broken
        && change.before.configs != change.after.configs
        && before.stages == after.stages
        && before.view_of == after.view_of
}

/// Returns whether stages have to be made for a topic. Unchanged stages stay in service, with their state.
fn needs_stages(node: &Node, topic: &TopicImage) -> bool {
    let Some(served) = served(node, topic) else { return true };
    // A config that another version stored and this one rejects: the change itself reports the error.
    let Ok(config) = node.topic_config(&topic.configs) else { return true };
    let is_broken = matches!(served.edge.stages, TopicStages::Broken(_));
    is_broken || served.config.stages != config.stages || served.config.view_of != config.view_of
}

fn served(node: &Node, topic: &TopicImage) -> Option<Arc<ServedTopic>> {
    node.topics.load().by_id(topic.id).cloned()
}
