//! Starts the broken stages of topics. A file may be missing when the broker starts, as on a volume that is mounted
//! late, or a plug-in may not load. Such a topic is out of service until its stages run.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::context::{Edge, MetadataChanges};
use super::topic_stages::TopicStages;
use crate::error::ApiError;

/// The delay before the next attempt. It doubles with each attempt, since loading a plug-in may be expensive.
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(60);

/// Retries until the broker stops: at once when a file or an active version changes, and after a delay.
pub(super) async fn run(edge: Arc<Edge>, changes: Arc<dyn MetadataChanges>, mut stop: watch::Receiver<bool>) {
    let changed = edge.plugins.changed();
    let mut delay = DELAY_MIN;
    loop {
        let is_broken = !broken_topics(&edge).is_empty();
        tokio::select! {
            () = changed.notified() => delay = DELAY_MIN,
            () = tokio::time::sleep(delay), if is_broken => delay = DELAY_MAX.min(delay * 2),
            _ = stop.wait_for(|stop| *stop) => return,
        }
        restart_broken(&edge, &changes).await;
    }
}

/// Returns the topics whose stages could not be started, each with the reason.
pub(super) fn broken_stages(edge: &Edge) -> Vec<(String, ApiError)> {
    let topics = edge.topics.load();
    let broken = topics.iter().filter_map(|topic| match &topic.edge.stages {
        TopicStages::Broken(error) => Some((topic.name.as_str().to_owned(), error.clone())),
        _ => None,
    });
    broken.collect()
}

/// Starts the broken stages of all topics.
pub(super) async fn restart_broken(edge: &Edge, changes: &Arc<dyn MetadataChanges>) {
    for id in broken_topics(edge) {
        changes.restart_stages(id).await;
    }
}

/// Returns the topics whose stages could not be started.
fn broken_topics(edge: &Edge) -> Vec<Uuid> {
    let topics = edge.topics.load();
    topics.iter().filter(|topic| matches!(topic.edge.stages, TopicStages::Broken(_))).map(|topic| topic.id).collect()
}
