//! Keeps a library of plug-ins up to date with a cluster: what is active there serves here, from the next
//! batch on, and a version that does not work here is refused here alone.
//!
//! One task reads the topic. It learns of a version when its manifest comes, gets its bytes and has the
//! library prepare it for every stage that lives; only then does it take over. Names that nothing here has
//! used are not loaded before they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Duration;

use millstream_registry::format::{Manifest, TOPIC};
use millstream_registry::image::{Change, PluginImage};
use millstream_registry::plan::good_versions;
use millstream_stage::{
    Digest, EMBEDDED_NUMBER, FetchError, Kind, Library, Origin, Spike, Stage, StageSpec, VersionSource,
};
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::attached::{FromTopic, StageSet, TopicSource};
use super::error::PluginError;
use super::reader::Reader;
use super::topic_stages::TopicStages;
use crate::admin::Admin;
use crate::config::ClientConfig;
use crate::consumer::ConsumerBuilder;
use crate::edge::{self, ConsumerStages, ProducerStages};
use crate::producer::ProducerBuilder;

/// How long one wait for records lasts, and how often a topic that is not there yet is looked for.
const POLL: Duration = Duration::from_secs(1);

/// How long a stage that is being made may wait for the bytes of its plug-in.
const BYTES_WAIT: Duration = Duration::from_secs(60);

/// The plug-ins of a cluster, in a library of this process. Cheap to clone; the library is kept up to
/// date while a clone lives, and so it is by a producer or consumer that was built with one.
#[derive(Clone)]
pub struct ClusterPlugins {
    shared: Arc<Shared>,
}

struct Shared {
    library: Arc<Library>,
    admin: Admin,
    metadata_max_age: Duration,
    known: Arc<Mutex<Known>>,
    changes: watch::Sender<u64>,
    task: JoinHandle<()>,
}

/// What the task has learnt.
#[derive(Default)]
struct Known {
    image: Arc<PluginImage>,
    /// What serves here in the place of what is active in the cluster.
    instead: BTreeMap<String, u32>,
}

enum Request {
    /// The bytes of a version, for a stage that is being made.
    Bytes { name: String, number: u32, answer: std_mpsc::Sender<Result<Vec<u8>, String>> },
    /// A version goes wrong here.
    Spike(Spike),
}

impl std::fmt::Debug for ClusterPlugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterPlugins").field("library", &self.shared.library).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ClusterPlugins {
    /// Reads what the cluster has and follows it on the current tokio runtime. Plug-ins of the library
    /// itself serve where the cluster has none of their name. A cluster without the topic has none at all.
    ///
    /// # Errors
    /// The cluster cannot be read.
    pub async fn follow(config: &ClientConfig, library: Arc<Library>) -> Result<Self, PluginError> {
        let mut reader = Reader::new(config)?;
        reader.catch_up().await?;
        let admin = reader.admin().clone();
        let known = Known { image: Arc::new(reader.image.clone()), instead: BTreeMap::new() };
        let known = Arc::new(Mutex::new(known));
        let (sender, requests) = unbounded_channel();
        library.set_source(Arc::new(Source { known: known.clone(), requests: sender.clone() }));
        library.on_spike(move |spike| {
            // Once the task has ended nobody follows any more.
            let _ = sender.send(Request::Spike(spike));
        });
        let seen = reader.image.plugins().map(|manifest| (manifest.name.clone(), manifest.active)).collect();
        let changes = watch::Sender::new(0);
        let follower = Follower {
            reader,
            library: library.clone(),
            known: known.clone(),
            changes: changes.clone(),
            seen,
            bad: BTreeSet::new(),
        };
        let task = tokio::spawn(follower.run(requests));
        let metadata_max_age = config.metadata_max_age;
        Ok(Self { shared: Arc::new(Shared { library, admin, metadata_max_age, known, changes, task }) })
    }

    /// The library that is kept up to date.
    pub fn library(&self) -> &Arc<Library> {
        &self.shared.library
    }

    /// Makes a stage as it is written, of a plug-in of the cluster or of the library.
    ///
    /// # Errors
    /// There is no such plug-in, or it does not start with its configuration.
    pub async fn stage(&self, text: &str, kind: Kind) -> Result<Arc<Stage>, PluginError> {
        let spec = StageSpec::parse(text).map_err(|error| PluginError::Stage(error.to_string()))?;
        let library = self.shared.library.clone();
        let made = edge::run(move || library.resolve(&spec, kind)).await;
        made.map_err(|error| PluginError::Stage(error.to_string()))
    }

    /// Makes a chain of stages as it is written, of plug-ins of the cluster or of the library.
    ///
    /// # Errors
    /// As [`ClusterPlugins::stage`], for the first that fails.
    pub async fn chain(&self, text: &str, kind: Kind) -> Result<Vec<Arc<Stage>>, PluginError> {
        let (text, library) = (text.to_owned(), self.shared.library.clone());
        let made = edge::run(move || library.resolve_chain(&text, kind)).await;
        made.map_err(|error| PluginError::Stage(error.to_string()))
    }

    /// The stages that the topic wants its applications to run: its own options, and what stands in the
    /// store where the cluster takes no such options.
    ///
    /// # Errors
    /// The topic does not exist, or one of its stages is not written as a stage is.
    pub async fn topic_stages(&self, topic: &str) -> Result<TopicStages, PluginError> {
        let image = self.shared.known.lock().image.clone();
        TopicStages::of(&self.shared.admin, topic, image.topic(topic)).await
    }

    /// Ticks when a record of the store may have changed what topics ask for.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    pub(super) fn metadata_max_age(&self) -> Duration {
        self.shared.metadata_max_age
    }
}

impl ProducerBuilder {
    /// The stages that `topic` wants, by plug-ins of its cluster. While the producer lives, new versions of them take over at
    /// the next batch, and so do other stages once the topic wants those; what cannot be used here is logged, and changes
    /// nothing. A stage that is given by itself is stronger.
    ///
    /// # Errors
    /// The topic does not exist, or one of its stages cannot be made.
    pub async fn stages_from_cluster(self, plugins: &ClusterPlugins, topic: &str) -> Result<Self, PluginError> {
        Ok(self.with_topic(
            TopicSource::new(plugins, topic, &[Kind::Serializer, Kind::Partitioner, Kind::Compressor]).await?,
        ))
    }
}

impl ConsumerBuilder {
    /// The stages that `topic` wants, by plug-ins of its cluster: its serializer deserializes, its compressor decompresses.
    /// While the consumer lives, new versions of them take over at the next batch, and so do other stages once the topic
    /// wants those; what cannot be used here is logged, and changes nothing. A stage that is given by itself is stronger.
    ///
    /// # Errors
    /// The topic does not exist, or one of its stages cannot be made.
    pub async fn stages_from_cluster(self, plugins: &ClusterPlugins, topic: &str) -> Result<Self, PluginError> {
        Ok(self.with_topic(TopicSource::new(plugins, topic, &[Kind::Serializer, Kind::Compressor]).await?))
    }
}

impl StageSet for ProducerStages {
    fn all(&self) -> Vec<&Arc<Stage>> {
        [&self.serializer, &self.partitioner, &self.compressor].into_iter().flatten().collect()
    }

    fn over(&self, topic: &FromTopic) -> Self {
        Self {
            serializer: self.serializer.clone().or_else(|| topic.serializer.clone()),
            partitioner: self.partitioner.clone().or_else(|| topic.partitioner.clone()),
            compressor: self.compressor.clone().or_else(|| topic.compressor.clone()),
        }
    }
}

impl StageSet for ConsumerStages {
    fn all(&self) -> Vec<&Arc<Stage>> {
        self.decompressor.iter().chain(&self.filters).chain(&self.deserializer).collect()
    }

    fn over(&self, topic: &FromTopic) -> Self {
        Self {
            deserializer: self.deserializer.clone().or_else(|| topic.serializer.clone()),
            filters: self.filters.clone(),
            decompressor: self.decompressor.clone().or_else(|| topic.compressor.clone()),
        }
    }
}

/// Where the library gets versions from that nothing here has used yet.
struct Source {
    known: Arc<Mutex<Known>>,
    requests: UnboundedSender<Request>,
}

impl VersionSource for Source {
    fn names(&self) -> Vec<String> {
        let image = self.known.lock().image.clone();
        image.plugins().map(|manifest| manifest.name.clone()).collect()
    }

    fn versions(&self, name: &str) -> Vec<(u32, Digest)> {
        let image = self.known.lock().image.clone();
        let versions = image.plugin(name).map(|manifest| &manifest.versions[..]).unwrap_or_default();
        versions.iter().map(|version| (version.number, version.digest)).collect()
    }

    fn active(&self, name: &str) -> Option<u32> {
        let known = self.known.lock();
        let active = known.image.plugin(name)?.active;
        Some(known.instead.get(name).copied().unwrap_or(active))
    }

    fn bytes(&self, name: &str, number: u32) -> Result<Vec<u8>, FetchError> {
        let (answer, answered) = std_mpsc::channel();
        let request = Request::Bytes { name: name.to_owned(), number, answer };
        self.requests.send(request).map_err(|_| FetchError::new("the cluster is not followed any more"))?;
        // The task responds; this is a thread that may block, or a worker beside it.
        let fetched = answered.recv_timeout(BYTES_WAIT);
        fetched.map_err(|_| FetchError::new("timed out while fetching it from the cluster"))?.map_err(FetchError::new)
    }
}

/// The task.
struct Follower {
    reader: Reader,
    library: Arc<Library>,
    known: Arc<Mutex<Known>>,
    /// Ticks after records that say something new.
    changes: watch::Sender<u64>,
    /// What was active in the cluster when it was last looked at: only a change is acted on.
    seen: BTreeMap<String, u32>,
    /// Versions that went wrong here.
    bad: BTreeSet<(String, u32)>,
}

impl Follower {
    async fn run(mut self, mut requests: UnboundedReceiver<Request>) {
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    None => return,
                    Some(Request::Bytes { name, number, answer }) => {
                        // Whoever asked may have given up.
                        let _ = answer.send(self.bytes(&name, number).await.map_err(|error| error.to_string()));
                    }
                    Some(Request::Spike(spike)) => self.spiked(&spike).await,
                },
                read = self.reader.next(POLL) => match read {
                    Ok(read) if read.is_empty() => {}
                    Ok(read) => {
                        let mut changed = BTreeSet::new();
                        for read in read {
                            match read.outcome {
                                Ok(Change::Plugin(name)) => drop(changed.insert(name)),
                                Ok(Change::Chunk | Change::Topic(_) | Change::Nothing) | Err(_) => {}
                            }
                        }
                        self.known.lock().image = Arc::new(self.reader.image.clone());
                        for name in changed {
                            self.changed(&name).await;
                        }
                        self.changes.send_modify(|ticks| *ticks += 1);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "following {TOPIC}");
                        tokio::time::sleep(POLL).await;
                    }
                },
            }
        }
    }

    async fn bytes(&self, name: &str, number: u32) -> Result<Vec<u8>, PluginError> {
        let version = self.reader.image.version(name, Some(number))?;
        self.reader.load(name, version).await
    }

    /// A manifest came: has what is active now serve here.
    async fn changed(&mut self, name: &str) {
        let active = self.reader.image.plugin(name).map_or(EMBEDDED_NUMBER, |manifest| manifest.active);
        let before = self.seen.insert(name.to_owned(), active).unwrap_or(EMBEDDED_NUMBER);
        if active == before {
            return;
        }
        let serving = self.known.lock().instead.get(name).copied().unwrap_or(before);
        // Nothing here has used it: the first stage will begin with what is active then.
        let is_used = self.library.counts().iter().any(|counts| counts.plugin == name);
        if !is_used || active == serving {
            self.known.lock().instead.remove(name);
            return;
        }
        match self.activate(name, active).await {
            Ok(()) => {
                self.known.lock().instead.remove(name);
                self.bad.remove(&(name.to_owned(), active));
            }
            Err(error) => {
                tracing::error!(plugin = name, version = active, serving, %error, "a version of the cluster is not used here, the one before serves on");
                self.known.lock().instead.insert(name.to_owned(), serving);
            }
        }
    }

    /// A version goes wrong here: the last good one serves again, whatever the cluster does.
    async fn spiked(&mut self, spike: &Spike) {
        let (name, Some(number)) = (spike.plugin.as_str(), spike.number) else { return };
        self.bad.insert((name.to_owned(), number));
        let Some(manifest) = self.reader.image.plugin(name) else { return };
        let mut manifest = Manifest { active: number, ..Manifest::clone(manifest) };
        for version in &mut manifest.versions {
            if self.bad.contains(&(name.to_owned(), version.number)) {
                version.bad = Some(String::new());
            }
        }
        for back in good_versions(&manifest).into_iter().chain([EMBEDDED_NUMBER]) {
            match self.activate(name, back).await {
                Ok(()) => {
                    tracing::error!(plugin = name, version = number, back, "{}: rolled back here", spike.reason);
                    self.known.lock().instead.insert(name.to_owned(), back);
                    return;
                }
                Err(error) => tracing::warn!(plugin = name, version = back, %error, "cannot be gone back to here"),
            }
        }
        tracing::error!(plugin = name, version = number, "{}: there is nothing to go back to", spike.reason);
    }

    /// Has a version take over in every stage of this process that follows the name.
    async fn activate(&self, name: &str, number: u32) -> Result<(), PluginError> {
        let bytes = match number {
            EMBEDDED_NUMBER => None,
            number => Some(self.bytes(name, number).await?),
        };
        let (library, name) = (self.library.clone(), name.to_owned());
        let done = edge::run(move || {
            let (plugin, origin) = match bytes {
                None => (library.version(&name, EMBEDDED_NUMBER).map_err(|error| error.to_string())?, Origin::Embedded),
                Some(bytes) => {
                    let plugin = library.load(&name, &bytes).map_err(|error| error.to_string())?;
                    (plugin, Origin::Store { number })
                }
            };
            let activation = library.prepare(&plugin, origin).map_err(|error| error.to_string())?;
            let published = activation.commit();
            tracing::info!(plugin = name, number, stages = published.swapped.len(), "a version of the cluster serves");
            Ok(())
        });
        done.await.map_err(PluginError::Stage)
    }
}
