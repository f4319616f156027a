//! The active stages of a producer or consumer. Stages from its topic are replaced while it runs when the topic's
//! configs change. A batch that is being processed keeps its stages; the next batch gets the new ones.

use std::sync::Arc;
use std::time::Duration;

use millstream_stage::{Format, Kind, Stage, StageStats};
use parking_lot::{Mutex, RwLock};
use tokio::task::JoinHandle;

use super::error::PluginError;
use super::follow::ClusterPlugins;
use super::topic_stages::TopicStages;

/// The bounds of the interval for reading the topic's configs, which otherwise is `metadata.max.age.ms`.
const REFRESH_MIN: Duration = Duration::from_millis(100);
const REFRESH_MAX: Duration = Duration::from_secs(10);

/// The maximum replaced stages whose statistics are kept.
const REPLACED_STATS_MAX: usize = 100;

/// The stages of one kind of client.
pub(crate) trait StageSet: Clone + Send + Sync + 'static {
    /// Returns all stages.
    fn all(&self) -> Vec<&Arc<Stage>>;

    /// Adds the stages of a topic for the kinds that are not set.
    fn over(&self, topic: &FromTopic) -> Self;
}

/// The active stages of a client.
pub(crate) struct ActiveStages<S> {
    current: RwLock<Arc<S>>,
    replaced_stats: Mutex<Vec<StageStats>>,
}

impl<S: StageSet> ActiveStages<S> {
    fn new(stages: S) -> Arc<Self> {
        Arc::new(Self { current: RwLock::new(Arc::new(stages)), replaced_stats: Mutex::default() })
    }

    /// Returns the stages for the next batch. Call it once per batch.
    pub(crate) fn current(&self) -> Arc<S> {
        self.current.read().clone()
    }

    fn replace(&self, stages: S) {
        let before = std::mem::replace(&mut *self.current.write(), Arc::new(stages));
        let current = self.current();
        let stays = |stage: &Arc<Stage>| current.all().into_iter().any(|new| Arc::ptr_eq(new, stage));
        let mut replaced = self.replaced_stats.lock();
        replaced.extend(before.all().into_iter().filter(|stage| !stays(stage)).map(|stage| stage.stats()));
        let dropped = replaced.len().saturating_sub(REPLACED_STATS_MAX);
        replaced.drain(..dropped);
    }

    /// Returns the statistics of every stage, the replaced ones first.
    pub(crate) fn stats(&self) -> Vec<StageStats> {
        let mut stats = self.replaced_stats.lock().clone();
        stats.extend(self.current().all().into_iter().map(|stage| stage.stats()));
        stats
    }
}

/// The configured stages of a topic, and the stages created from them.
pub(crate) struct FromTopic {
    wanted: TopicStages,
    pub(super) serializer: Option<Arc<Stage>>,
    pub(super) partitioner: Option<Arc<Stage>>,
    pub(super) compressor: Option<Arc<Stage>>,
}

/// A topic whose stages are followed.
pub(crate) struct TopicSource {
    plugins: ClusterPlugins,
    topic: String,
    kinds: &'static [Kind],
    from: FromTopic,
}

/// Keeps the stages of a client up to date while it lives.
pub(crate) struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Combines explicitly set stages with those of a topic, and starts to follow the topic.
pub(crate) fn attach<S: StageSet>(given: S, topic: Option<TopicSource>) -> (Arc<ActiveStages<S>>, Option<Following>) {
    match topic {
        None => (ActiveStages::new(given), None),
        Some(topic) => {
            let (active, following) = topic.follow(given);
            (active, Some(following))
        }
    }
}

impl TopicSource {
    /// Creates the topic's stages of these kinds.
    pub(crate) async fn new(
        plugins: &ClusterPlugins,
        topic: &str,
        kinds: &'static [Kind],
    ) -> Result<Self, PluginError> {
        let wanted = plugins.topic_stages(topic).await?.of_kinds(kinds);
        let from = FromTopic::make(plugins, wanted, None).await?;
        Ok(Self { plugins: plugins.clone(), topic: topic.to_owned(), kinds, from })
    }

    /// Adds the topic's stages for the kinds that `given` does not set, and starts to follow the topic.
    fn follow<S: StageSet>(self, given: S) -> (Arc<ActiveStages<S>>, Following) {
        let active = ActiveStages::new(given.over(&self.from));
        let task = tokio::spawn(self.run(given, active.clone()));
        (active, Following(task))
    }

    async fn run<S: StageSet>(mut self, given: S, active: Arc<ActiveStages<S>>) {
        let interval = self.plugins.metadata_max_age().clamp(REFRESH_MIN, REFRESH_MAX);
        let mut changes = self.plugins.changes();
        // A lasting problem is logged once.
        let mut logged = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                // The sender lives as long as the plug-ins.
                _ = changes.changed() => {}
            }
            match self.refresh().await {
                Ok(is_changed) => {
                    logged = None;
                    if is_changed {
                        active.replace(given.over(&self.from));
                        tracing::info!(
                            topic = self.topic,
                            "the topic's stages changed; the new ones run from the next batch on"
                        );
                    }
                }
                // The cluster is away; the producer or consumer reports that.
                Err(PluginError::Client(error)) => {
                    tracing::debug!(topic = self.topic, %error, "cannot read the stages of the topic")
                }
                Err(error) => {
                    let problem = error.to_string();
                    if logged.as_ref() != Some(&problem) {
                        tracing::error!(
                            topic = self.topic,
                            "cannot use the topic's new stages; keeping the previous ones: {problem}"
                        );
                        logged = Some(problem);
                    }
                }
            }
        }
    }

    /// Reads the topic's configs and creates changed stages. Returns whether any has changed.
    async fn refresh(&mut self) -> Result<bool, PluginError> {
        let wanted = self.plugins.topic_stages(&self.topic).await?.of_kinds(self.kinds);
        if wanted == self.from.wanted {
            return Ok(false);
        }
        self.from = FromTopic::make(&self.plugins, wanted, Some(&self.from)).await?;
        Ok(true)
    }
}

impl FromTopic {
    /// Creates the stages. A stage with the same config as in `before` is reused.
    async fn make(plugins: &ClusterPlugins, wanted: TopicStages, before: Option<&Self>) -> Result<Self, PluginError> {
        let was = |option: fn(&TopicStages) -> &Option<String>, stage: fn(&Self) -> &Option<Arc<Stage>>| {
            before.map(|before| (option(&before.wanted).as_deref(), stage(before)))
        };
        let serializer = was(|wanted| &wanted.serializer, |before| &before.serializer);
        let partitioner = was(|wanted| &wanted.partitioner, |before| &before.partitioner);
        let compressor = was(|wanted| &wanted.compressor, |before| &before.compressor);
        Ok(Self {
            serializer: slot(plugins, Kind::Serializer, wanted.serializer.as_deref(), serializer).await?,
            partitioner: slot(plugins, Kind::Partitioner, wanted.partitioner.as_deref(), partitioner).await?,
            compressor: slot(plugins, Kind::Compressor, wanted.compressor.as_deref(), compressor)
                .await?
                .filter(is_standard),
            wanted,
        })
    }
}

/// Returns whether a compressor writes a standard format. Only the broker uses compressors with a private format.
fn is_standard(stage: &Arc<Stage>) -> bool {
    !matches!(stage.plugin().description().format, Some(Format::Private(_)))
}

/// Returns the stage for one config of a topic. `before` is its previous value and stage.
async fn slot(
    plugins: &ClusterPlugins,
    kind: Kind,
    wanted: Option<&str>,
    before: Option<(Option<&str>, &Option<Arc<Stage>>)>,
) -> Result<Option<Arc<Stage>>, PluginError> {
    match (wanted, before) {
        (wanted, Some((before, stage))) if wanted == before => Ok(stage.clone()),
        (None, _) => Ok(None),
        (Some(text), _) => plugins.stage(text, kind).await.map(Some),
    }
}
