//! The stages that a producer or consumer runs. Those that it takes from its topic are replaced while it runs, when the topic
//! asks for others: what is worked on ends with the stages that it began with, what comes next has the new ones.

use std::sync::Arc;
use std::time::Duration;

use millstream_stage::{Format, Kind, Stage, StageStats};
use parking_lot::{Mutex, RwLock};
use tokio::task::JoinHandle;

use super::error::PluginError;
use super::follow::ClusterPlugins;
use super::topic_stages::TopicStages;

/// How often a topic is asked for its stages: as often as metadata is refreshed, within these bounds.
const REFRESH_MIN: Duration = Duration::from_millis(100);
const REFRESH_MAX: Duration = Duration::from_secs(10);

/// The stages that were replaced whose stats are kept.
const PAST_MAX: usize = 100;

/// The stages of one kind of client.
pub(crate) trait StageSet: Clone + Send + Sync + 'static {
    /// All of them.
    fn all(&self) -> Vec<&Arc<Stage>>;

    /// These, and those of a topic in the places that are free.
    fn over(&self, topic: &FromTopic) -> Self;
}

/// The stages of a client.
pub(crate) struct Attached<S> {
    now: RwLock<Arc<S>>,
    past: Mutex<Vec<StageStats>>,
}

impl<S: StageSet> Attached<S> {
    fn new(stages: S) -> Arc<Self> {
        Arc::new(Self { now: RwLock::new(Arc::new(stages)), past: Mutex::default() })
    }

    /// The stages for what is worked on next; one piece of work asks once.
    pub(crate) fn now(&self) -> Arc<S> {
        self.now.read().clone()
    }

    fn replace(&self, stages: S) {
        let before = std::mem::replace(&mut *self.now.write(), Arc::new(stages));
        let now = self.now();
        let stays = |stage: &Arc<Stage>| now.all().into_iter().any(|new| Arc::ptr_eq(new, stage));
        let mut past = self.past.lock();
        past.extend(before.all().into_iter().filter(|stage| !stays(stage)).map(|stage| stage.stats()));
        let forgotten = past.len().saturating_sub(PAST_MAX);
        past.drain(..forgotten);
    }

    /// What every stage did, those that were replaced first.
    pub(crate) fn stats(&self) -> Vec<StageStats> {
        let mut stats = self.past.lock().clone();
        stats.extend(self.now().all().into_iter().map(|stage| stage.stats()));
        stats
    }
}

/// What a topic asked for, and the stages that were made of it.
pub(crate) struct FromTopic {
    wanted: TopicStages,
    pub(super) serializer: Option<Arc<Stage>>,
    pub(super) partitioner: Option<Arc<Stage>>,
    pub(super) compressor: Option<Arc<Stage>>,
}

/// The stages of a topic, to be followed.
pub(crate) struct TopicSource {
    plugins: ClusterPlugins,
    topic: String,
    kinds: &'static [Kind],
    from: FromTopic,
}

/// Keeps the stages of a client up to date for as long as it lives.
pub(crate) struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The stages of a client that is given some, and a topic's in the places that are free, which are followed from here on.
pub(crate) fn attach<S: StageSet>(given: S, topic: Option<TopicSource>) -> (Arc<Attached<S>>, Option<Following>) {
    match topic {
        None => (Attached::new(given), None),
        Some(topic) => {
            let (attached, following) = topic.follow(given);
            (attached, Some(following))
        }
    }
}

impl TopicSource {
    /// The stages of those kinds.
    pub(crate) async fn new(
        plugins: &ClusterPlugins,
        topic: &str,
        kinds: &'static [Kind],
    ) -> Result<Self, PluginError> {
        let wanted = plugins.topic_stages(topic).await?.of_kinds(kinds);
        let from = FromTopic::make(plugins, wanted, None).await?;
        Ok(Self { plugins: plugins.clone(), topic: topic.to_owned(), kinds, from })
    }

    /// Puts the topic's stages where `given` leaves room, and follows the topic from here on.
    fn follow<S: StageSet>(self, given: S) -> (Arc<Attached<S>>, Following) {
        let attached = Attached::new(given.over(&self.from));
        let task = tokio::spawn(self.run(given, attached.clone()));
        (attached, Following(task))
    }

    async fn run<S: StageSet>(mut self, given: S, attached: Arc<Attached<S>>) {
        let refresh = self.plugins.metadata_max_age().clamp(REFRESH_MIN, REFRESH_MAX);
        let mut changes = self.plugins.changes();
        // A problem that lasts is told once.
        let mut told = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(refresh) => {}
                // The task that tells of changes lives as long as the plug-ins.
                _ = changes.changed() => {}
            }
            match self.look().await {
                Ok(is_changed) => {
                    told = None;
                    if is_changed {
                        attached.replace(given.over(&self.from));
                        tracing::info!(topic = self.topic, "the topic's stages are others from here on");
                    }
                }
                // The cluster is away; that is told by whoever sends or reads.
                Err(PluginError::Client(error)) => tracing::debug!(topic = self.topic, %error, "asking for stages"),
                Err(error) => {
                    let problem = error.to_string();
                    if told.as_ref() != Some(&problem) {
                        tracing::error!(
                            topic = self.topic,
                            "the topic's new stages are not used here, those before serve on: {problem}"
                        );
                        told = Some(problem);
                    }
                }
            }
        }
    }

    /// Makes the stages that the topic asks for now; whether they are others is the answer.
    async fn look(&mut self) -> Result<bool, PluginError> {
        let wanted = self.plugins.topic_stages(&self.topic).await?.of_kinds(self.kinds);
        if wanted == self.from.wanted {
            return Ok(false);
        }
        self.from = FromTopic::make(&self.plugins, wanted, Some(&self.from)).await?;
        Ok(true)
    }
}

impl FromTopic {
    /// Makes the stages; what is asked for as `before` stays as it is.
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

/// Whether every client reads the format of a topic's compressor; one of its own is for the broker's edge.
fn is_standard(stage: &Arc<Stage>) -> bool {
    !matches!(stage.plugin().description().format, Some(Format::Private(_)))
}

/// The stage for one option of a topic: `before` is what it was, and the stage that was made of it.
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
