//! What a person or a program does with the plug-ins of a cluster: push, activate, roll back, delete.
//!
//! Every change is: read the topic to its end, plan ([`millstream_registry::plan`]), write the chunks, write the manifest,
//! read back. If somebody else was faster, all of that is done again on what is there then.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_registry::RegistryError;
use millstream_registry::format::{FormatError, Key, Manifest, StageConfigs, TOPIC, TOPIC_CONFIGS, check_stage_config};
use millstream_registry::image::PluginImage;
use millstream_registry::plan::{self, NewVersion, Plan};
use millstream_stage::{Digest, Plugin};
use millstream_wire::ErrorCode;
use tokio::sync::Mutex;

use super::error::PluginError;
use super::reader::{Read, Reader};
use crate::admin::NewTopic;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::producer::config::ProducerConfig;
use crate::producer::{Producer, ProducerRecord};

/// How often a change is tried that others are in the way of.
const ATTEMPTS: u32 = 10;

/// How long the last records may take to leave when the store is closed.
const CLOSE: Duration = Duration::from_secs(5);

/// A record to write.
type Record = (Key, Option<Vec<u8>>);

/// The plug-ins of a cluster, for whoever manages them.
pub struct PluginStore {
    config: ClientConfig,
    inner: Mutex<Inner>,
}

struct Inner {
    reader: Reader,
    /// None before something is written.
    producer: Option<Producer>,
}

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The name in the cluster.
    pub name: String,
    /// The number of the version.
    pub number: u32,
    /// The SHA-256 of the component.
    pub digest: Digest,
    /// Whether the version serves.
    pub active: bool,
    /// Whether these bytes were no version before.
    pub is_new: bool,
}

impl std::fmt::Debug for PluginStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginStore").field("servers", &self.config.bootstrap_servers).finish_non_exhaustive()
    }
}

impl PluginStore {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// A setting is impossible.
    pub fn new(config: ClientConfig) -> Result<Self, PluginError> {
        let reader = Reader::new(&config)?;
        Ok(Self { config, inner: Mutex::new(Inner { reader, producer: None }) })
    }

    /// All that the cluster knows of plug-ins now.
    ///
    /// # Errors
    /// The cluster cannot be read.
    pub async fn image(&self) -> Result<PluginImage, PluginError> {
        let mut inner = self.inner.lock().await;
        inner.reader.catch_up().await?;
        Ok(inner.reader.image.clone())
    }

    /// Stores a component that was loaded, under its own name or another one, and has it serve unless
    /// it is only to be stored. Bytes that are a version already become no second one.
    ///
    /// # Errors
    /// The name is another kind's, or the cluster refuses: at our broker the new version has to work
    /// for whatever follows the name there, or nothing is changed.
    pub async fn push(
        &self,
        component: &[u8],
        plugin: &Plugin,
        name: Option<&str>,
        activate: bool,
    ) -> Result<Pushed, PluginError> {
        let name = name.unwrap_or(plugin.name());
        let digest = Digest::of(component);
        let new =
            NewVersion { name, kind: plugin.kind(), digest, size: component.len() as u64, version: plugin.version() };
        let mut inner = self.inner.lock().await;
        inner.ensure_topic(&self.config).await?;
        let mut is_new = false;
        let mut plan = |image: &PluginImage| {
            is_new = image.plugin(name).is_none_or(|known| known.with_digest(&digest).is_none());
            image.plan_push(new, activate, "", now_ms())
        };
        let missing = |image: &PluginImage| {
            let chunks = (0..).zip(plan::chunks(component));
            let missing = chunks.filter(|(index, chunk)| {
                image.place(&digest, *index).is_none_or(|place| place.size as usize != chunk.len())
            });
            missing.map(|(index, chunk)| (Key::Chunk { digest, index }, Some(chunk.to_vec()))).collect()
        };
        let changed = inner.change(&self.config, name, &mut plan, missing).await;
        if changed.is_err() {
            // What was refused must not stay for ever; it is in nobody's way, so a failure here is only told.
            inner.remove_chunks(&self.config, |image| image.unclaimed(&digest)).await;
        }
        let number = changed?;
        inner.tidy(&self.config).await;
        let active = inner.reader.image.plugin(name).is_some_and(|known| known.active == number);
        Ok(Pushed { name: name.to_owned(), number, digest, active, is_new })
    }

    /// Has a version serve; 0 is the one in the binary.
    ///
    /// # Errors
    /// There is no such version, or the cluster refuses it: the error names for whom it does not work.
    pub async fn activate(&self, name: &str, number: u32) -> Result<u32, PluginError> {
        let mut plan = |image: &PluginImage| image.plan_activate(name, number, "", now_ms());
        self.change(name, &mut plan).await
    }

    /// Puts the last good version in the active one's place and marks that as bad; the number of the
    /// one that serves now is the answer. `embedded`: whether the binary has a plug-in of this name.
    ///
    /// # Errors
    /// There is nothing to go back to, or the cluster refuses.
    pub async fn rollback(&self, name: &str, why: &str, embedded: bool) -> Result<u32, PluginError> {
        let mut from = None;
        let mut plan = |image: &PluginImage| {
            let active = image.known(name)?.active;
            // Somebody else has changed what serves: to go back further is not what was asked for.
            if *from.get_or_insert(active) != active {
                return Ok(Plan { number: active, manifest: None });
            }
            image.plan_rollback(name, why, embedded, now_ms())
        };
        self.change(name, &mut plan).await
    }

    /// Removes a version that does not serve, with its bytes; without a number the whole plug-in.
    ///
    /// # Errors
    /// There is no such version, it serves, or something in the cluster still needs it.
    pub async fn delete(&self, name: &str, number: Option<u32>) -> Result<(), PluginError> {
        let mut inner = self.inner.lock().await;
        inner.reader.catch_up().await?;
        inner.reader.image.known(name)?;
        let going = inner.reader.image.orphans(name, number);
        match number {
            Some(number) => {
                let mut plan = |image: &PluginImage| image.plan_delete(name, number, now_ms());
                inner.change(&self.config, name, &mut plan, |_| Vec::new()).await?;
            }
            None => {
                let outcome = inner.write(&self.config, vec![(Key::Plugin(name.to_owned()), None)]).await;
                outcome.map_err(|error| refusal(name, error))?;
                inner.reader.catch_up().await?;
            }
        }
        // Others may have come to need some of them since.
        inner
            .remove_chunks(&self.config, |image| {
                let is_free = |key: &&Key| matches!(key, Key::Chunk { digest, .. } if image.user_of(digest).is_none());
                going.iter().filter(is_free).cloned().collect()
            })
            .await;
        inner.tidy(&self.config).await;
        Ok(())
    }

    /// The bytes of a version, with their digest checked; of the active one without a number.
    ///
    /// # Errors
    /// There is no such version, or what is stored is not what it should be.
    pub async fn load(&self, name: &str, number: Option<u32>) -> Result<Vec<u8>, PluginError> {
        let mut inner = self.inner.lock().await;
        inner.reader.catch_up().await?;
        let version = inner.reader.image.version(name, number)?;
        inner.reader.load(name, version).await
    }

    /// Sets the stages of a topic in the store, for a cluster that takes no such options; `None` removes
    /// one, and others stay as they are.
    ///
    /// # Errors
    /// A value is not written as a stage is, or the cluster refuses.
    pub async fn set_topic_stages(&self, topic: &str, changes: &[(String, Option<String>)]) -> Result<(), PluginError> {
        for (name, value) in changes {
            check_stage_config(name, value.as_deref().unwrap_or("any"))?;
        }
        let mut inner = self.inner.lock().await;
        inner.ensure_topic(&self.config).await?;
        inner.reader.catch_up().await?;
        let mut configs: StageConfigs = inner.reader.image.topic(topic).cloned().unwrap_or_default();
        for (name, value) in changes {
            match value {
                Some(value) => drop(configs.insert(name.clone(), value.clone())),
                None => drop(configs.remove(name)),
            }
        }
        let value = (!configs.is_empty()).then(|| serde_json::to_vec(&configs).expect("texts are plain data"));
        inner.write(&self.config, vec![(Key::Topic(topic.to_owned()), value)]).await?;
        Ok(())
    }

    /// Writes out what waits and closes the connections.
    pub async fn close(self) {
        let inner = self.inner.into_inner();
        if let Some(producer) = inner.producer
            && let Err(error) = producer.close(CLOSE).await
        {
            tracing::warn!(%error, "closing the store of plug-ins");
        }
    }

    async fn change(
        &self,
        name: &str,
        plan: &mut (dyn FnMut(&PluginImage) -> Result<Plan, RegistryError> + Send),
    ) -> Result<u32, PluginError> {
        self.inner.lock().await.change(&self.config, name, plan, |_| Vec::new()).await
    }
}

impl Inner {
    /// Writes what `plan` makes of the state, after the chunks that it needs.
    async fn change(
        &mut self,
        config: &ClientConfig,
        name: &str,
        plan: &mut (dyn FnMut(&PluginImage) -> Result<Plan, RegistryError> + Send),
        missing: impl Fn(&PluginImage) -> Vec<Record>,
    ) -> Result<u32, PluginError> {
        self.reader.catch_up().await?;
        for attempt in 0..ATTEMPTS {
            let Plan { number, manifest } = plan(&self.reader.image)?;
            let mut records = missing(&self.reader.image);
            let Some(manifest) = manifest else { return Ok(number) };
            records.push((Key::Plugin(name.to_owned()), Some(manifest.to_bytes())));
            let written = self.write(config, records).await;
            let read = self.reader.catch_up().await?;
            match written {
                Ok(offset) => {
                    let is_ours = |read: &Read| read.offset == offset && read.outcome.is_ok();
                    let is_known = self.reader.image.plugin(name).is_some_and(|known| **known == manifest);
                    if is_known || read.iter().any(is_ours) {
                        return Ok(number);
                    }
                }
                Err(error) if !self.was_overtaken(name, &manifest) => return Err(refusal(name, error)),
                Err(_) => {}
            }
            tracing::debug!(name, attempt, "somebody else changed the plug-in first");
            tokio::time::sleep(config.backoff(attempt)).await;
            self.reader.catch_up().await?;
        }
        Err(PluginError::Contended(name.to_owned()))
    }

    /// Whether the state that a manifest was made of is not the state any more.
    fn was_overtaken(&self, name: &str, manifest: &Manifest) -> bool {
        let known = self.reader.image.plugin(name).map_or(0, |known| known.revision);
        known + 1 != manifest.revision
    }

    /// Writes records in this order; the offset of the last one is the answer.
    async fn write(&mut self, config: &ClientConfig, records: Vec<Record>) -> Result<i64, Error> {
        let producer = self.producer(config)?;
        let mut deliveries = Vec::with_capacity(records.len());
        for (key, value) in &records {
            let key = key.to_string();
            let record = ProducerRecord { value: value.as_deref(), ..ProducerRecord::new(TOPIC) };
            deliveries.push(producer.send(record.partition(0).key(key.as_bytes())).await?);
        }
        // The last one first: if it is refused, it knows why, and those of its batch only that it was.
        let mut outcomes = Vec::with_capacity(deliveries.len());
        for delivery in deliveries.into_iter().rev() {
            outcomes.push(delivery.await);
        }
        let mut offset = -1;
        for (place, outcome) in outcomes.into_iter().enumerate() {
            let stored = outcome?;
            if place == 0 {
                offset = stored.offset;
            }
        }
        Ok(offset)
    }

    fn producer(&mut self, config: &ClientConfig) -> Result<Producer, Error> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let config = ProducerConfig {
            client: config.clone(),
            linger: Duration::ZERO,
            // A person waits for it.
            delivery_timeout: config.default_api_timeout.max(config.request_timeout),
            ..ProducerConfig::default()
        };
        let producer = Producer::builder(config).build()?;
        self.producer = Some(producer.clone());
        Ok(producer)
    }

    /// Removes chunks that nobody needs any more; that they stay is no harm but to the disk.
    async fn remove_chunks(&mut self, config: &ClientConfig, which: impl Fn(&PluginImage) -> Vec<Key>) {
        let outcome = async {
            self.reader.catch_up().await?;
            let keys = which(&self.reader.image);
            if !keys.is_empty() {
                self.write(config, keys.into_iter().map(|key| (key, None)).collect()).await?;
            }
            Ok::<(), PluginError>(())
        };
        if let Err(error) = outcome.await {
            tracing::warn!(%error, "chunks that nobody needs are still in {TOPIC}");
        }
    }

    /// Removes what is left of operations that came to no end: of a client that was killed, say.
    async fn tidy(&mut self, config: &ClientConfig) {
        self.remove_chunks(config, |image| image.stale_chunks(now_ms())).await;
    }

    /// Creates the topic if it is not there, and makes sure that it keeps what is written to it.
    async fn ensure_topic(&mut self, config: &ClientConfig) -> Result<(), PluginError> {
        let admin = self.reader.admin().clone();
        match admin.describe_topics(&[TOPIC.to_owned()]).await {
            Ok(_) => {}
            Err(error) if error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => {
                let configs = TOPIC_CONFIGS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
                let topic = NewTopic { name: TOPIC.to_owned(), partitions: Some(1), replication_factor: None, configs };
                match admin.create_topics(&[topic]).await {
                    Err(error) if error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS) => {}
                    outcome => drop(outcome?),
                }
                let mut retry = 0;
                // The broker that is asked may hear of the topic a moment later.
                while admin.describe_topics(&[TOPIC.to_owned()]).await.is_err() && retry < ATTEMPTS {
                    tokio::time::sleep(config.backoff(retry)).await;
                    retry += 1;
                }
            }
            Err(error) => return Err(error.into()),
        }
        let configs = admin.describe_configs(TOPIC).await?;
        let policy =
            configs.iter().find(|config| config.name == "cleanup.policy").and_then(|config| config.value.as_deref());
        if policy.is_some_and(|policy| policy != "compact") {
            let problem = format!(
                "topic {TOPIC} has cleanup.policy={}, which deletes plug-ins: set it to compact",
                policy.unwrap_or_default()
            );
            return Err(FormatError(problem).into());
        }
        Ok(())
    }
}

/// What a broker says about a plug-in, without the protocol's words around it.
fn refusal(name: &str, error: Error) -> PluginError {
    match error {
        Error::Invalid(message) => PluginError::Rejected { name: name.to_owned(), message: message.to_string() },
        Error::Broker { code: ErrorCode::INVALID_RECORD, message: Some(message), .. } => {
            PluginError::Rejected { name: name.to_owned(), message: message.to_string() }
        }
        error => error.into(),
    }
}

/// Now, in milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
