//! Keeps a library of plug-ins up to date with a cluster. The version that is active in the cluster runs here from the
//! next batch on. A version that does not work here is rejected in this process only.
//!
//! One task reads the topic. For each new manifest it loads the bytes of the active version and prepares it for every
//! live stage; only then the version is activated. Plug-ins that no stage here uses are not loaded.

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

use super::active_stages::{FromTopic, StageSet, TopicSource};
use super::error::PluginError;
use super::reader::{Read, Reader};
use super::topic_stages::TopicStages;
use crate::admin::Admin;
use crate::config::ClientConfig;
use crate::consumer::ConsumerBuilder;
use crate::edge::{self, ConsumerStages, ProducerStages};
use crate::producer::ProducerBuilder;

/// The timeout of one poll, and the interval of checks for a topic that does not exist yet.
const FOLLOW_POLL: Duration = Duration::from_secs(1);

/// How long the creation of a stage waits for the bytes of its plug-in.
const BYTES_TIMEOUT: Duration = Duration::from_secs(60);

/// The plug-ins of a cluster, in a library of this process. Cheap to clone. The library is kept up to date while a
/// clone lives, or a producer or consumer that was built with one.
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

/// The state that the task maintains.
#[derive(Default)]
struct Known {
    image: Arc<PluginImage>,
    /// Versions that run here instead of the active version of the cluster, by plug-in.
    instead: BTreeMap<String, u32>,
}

enum Request {
    /// Loads the bytes of a version, for a stage that is being created.
    Bytes { name: String, number: u32, reply: std_mpsc::Sender<Result<Vec<u8>, String>> },
    /// A version fails too often here.
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
    /// Reads the plug-ins of the cluster and follows their changes on the current tokio runtime. For names that the
    /// cluster does not have, the library's own plug-ins are used. A cluster without the topic has no plug-ins.
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
            // Fails once the task has ended.
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

    /// Returns the library that is kept up to date.
    pub fn library(&self) -> &Arc<Library> {
        &self.shared.library
    }

    /// Creates a stage from its text form, from a plug-in of the cluster or of the library.
    ///
    /// # Errors
    /// There is no such plug-in, or it rejects its configuration.
    pub async fn stage(&self, text: &str, kind: Kind) -> Result<Arc<Stage>, PluginError> {
        let spec = StageSpec::parse(text).map_err(|error| PluginError::Stage(error.to_string()))?;
        let library = self.shared.library.clone();
        let made = edge::run(move || library.resolve(&spec, kind)).await;
        made.map_err(|error| PluginError::Stage(error.to_string()))
    }

    /// Creates a chain of stages from its text form, from plug-ins of the cluster or of the library.
    ///
    /// # Errors
    /// Those of [`ClusterPlugins::stage`], for the first stage that fails.
    pub async fn chain(&self, text: &str, kind: Kind) -> Result<Vec<Arc<Stage>>, PluginError> {
        let (text, library) = (text.to_owned(), self.shared.library.clone());
        let made = edge::run(move || library.resolve_chain(&text, kind)).await;
        made.map_err(|error| PluginError::Stage(error.to_string()))
    }

    /// Returns the stages that the topic asks its applications to run: from its configs, or from the registry if the
    /// cluster has no such configs.
    ///
    /// # Errors
    /// The topic does not exist, or one of its stages is malformed.
    pub async fn topic_stages(&self, topic: &str) -> Result<TopicStages, PluginError> {
        let image = self.shared.known.lock().image.clone();
        TopicStages::of(&self.shared.admin, topic, image.topic(topic)).await
    }

    /// Returns a receiver that changes when a record of the registry may have changed the stages of a topic.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    pub(super) fn metadata_max_age(&self) -> Duration {
        self.shared.metadata_max_age
    }
}

impl ProducerBuilder {
    /// Uses the stages that `topic` asks for, with plug-ins of its cluster. While the producer lives, new versions
    /// and changed stages of the topic are used from the next batch on. A version or stage that does not work here is
    /// logged and changes nothing. Stages that are set explicitly take precedence.
    ///
    /// # Errors
    /// The topic does not exist, or one of its stages cannot be created.
    pub async fn stages_from_cluster(self, plugins: &ClusterPlugins, topic: &str) -> Result<Self, PluginError> {
        Ok(self.with_topic(
            TopicSource::new(plugins, topic, &[Kind::Serializer, Kind::Partitioner, Kind::Compressor]).await?,
        ))
    }
}

impl ConsumerBuilder {
    /// Uses the stages that `topic` asks for, with plug-ins of its cluster: its serializer deserializes, its
    /// compressor decompresses. While the consumer lives, new versions and changed stages of the topic are used from
    /// the next batch on. A version or stage that does not work here is logged and changes nothing. Stages that are
    /// set explicitly take precedence.
    ///
    /// # Errors
    /// The topic does not exist, or one of its stages cannot be created.
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

/// The source of versions that no stage here has used yet.
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
        let (reply, receiver) = std_mpsc::channel();
        let request = Request::Bytes { name: name.to_owned(), number, reply };
        let gone = || FetchError::new("the plug-ins of the cluster are no longer followed");
        self.requests.send(request).map_err(|_| gone())?;
        // The task sends the bytes. This is a blocking thread, or a worker other than the task's.
        let fetched = receiver.recv_timeout(BYTES_TIMEOUT);
        fetched.map_err(|_| FetchError::new("timed out while fetching it from the cluster"))?.map_err(FetchError::new)
    }
}

/// Returns the name of the plug-in that a record has changed.
fn changed_plugin(read: Read) -> Option<String> {
    match read.outcome {
        Ok(Change::Plugin(name)) => Some(name),
        Ok(Change::Chunk | Change::Topic(_) | Change::Nothing) | Err(_) => None,
    }
}

/// The task that follows the topic.
struct Follower {
    reader: Reader,
    library: Arc<Library>,
    known: Arc<Mutex<Known>>,
    /// Incremented after every change of the image.
    changes: watch::Sender<u64>,
    /// The last known active version of each plug-in. Only changes are acted on.
    seen: BTreeMap<String, u32>,
    /// Versions that failed too often here.
    bad: BTreeSet<(String, u32)>,
}

impl Follower {
    async fn run(mut self, mut requests: UnboundedReceiver<Request>) {
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.on_request(request).await,
                    None => return,
                },
                read = self.reader.next(FOLLOW_POLL) => match read {
                    Ok(records) => self.on_records(records).await,
                    Err(error) => {
                        tracing::warn!(%error, "cannot read {TOPIC}; retrying");
                        tokio::time::sleep(FOLLOW_POLL).await;
                    }
                },
            }
        }
    }

    async fn on_request(&mut self, request: Request) {
        match request {
            Request::Bytes { name, number, reply } => {
                let bytes = self.bytes(&name, number).await.map_err(|error| error.to_string());
                // The receiver may have timed out.
                let _ = reply.send(bytes);
            }
            Request::Spike(spike) => self.on_spike(&spike).await,
        }
    }

    /// Applies new records of the topic.
    async fn on_records(&mut self, records: Vec<Read>) {
        if records.is_empty() {
            return;
        }
        let names: BTreeSet<String> = records.into_iter().filter_map(changed_plugin).collect();
        self.known.lock().image = Arc::new(self.reader.image.clone());
        for name in names {
            self.on_manifest(&name).await;
        }
        self.changes.send_modify(|ticks| *ticks += 1);
    }

    async fn bytes(&self, name: &str, number: u32) -> Result<Vec<u8>, PluginError> {
        let version = self.reader.image.version(name, Some(number))?;
        self.reader.load(name, version).await
    }

    /// Activates the version that a new manifest names as active.
    async fn on_manifest(&mut self, name: &str) {
        let active = self.reader.image.plugin(name).map_or(EMBEDDED_NUMBER, |manifest| manifest.active);
        let before = self.seen.insert(name.to_owned(), active).unwrap_or(EMBEDDED_NUMBER);
        if active == before {
            return;
        }
        let serving = self.known.lock().instead.get(name).copied().unwrap_or(before);
        // No stage here uses the plug-in: the first one will start with the active version.
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
                tracing::error!(
                    plugin = name, version = active, serving, %error,
                    "cannot activate the cluster's version in this process; keeping the previous one"
                );
                self.known.lock().instead.insert(name.to_owned(), serving);
            }
        }
    }

    /// Rolls back a version that fails too often, in this process only.
    async fn on_spike(&mut self, spike: &Spike) {
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
                    tracing::error!(
                        plugin = name,
                        version = number,
                        back,
                        "{}: rolled back in this process",
                        spike.reason
                    );
                    self.known.lock().instead.insert(name.to_owned(), back);
                    return;
                }
                Err(error) => {
                    tracing::warn!(plugin = name, version = back, %error, "cannot roll back to this version here")
                }
            }
        }
        tracing::error!(plugin = name, version = number, "{}: no version to roll back to", spike.reason);
    }

    /// Activates a version in every stage of this process that uses the name.
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
            tracing::info!(
                plugin = name,
                number,
                stages = published.swapped.len(),
                "activated a version of the cluster"
            );
            Ok(())
        });
        done.await.map_err(PluginError::Stage)
    }
}
