//! Manages the plug-ins of a cluster: push, activate, roll back, delete.
//!
//! A change reads the topic to its end, plans the change ([`millstream_registry::plan`]), writes the chunks and then
//! the manifest, and reads back. If another client was faster, all of that is repeated on the new state.

use std::time::Duration;

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
use crate::clock::now_ms;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::producer::config::ProducerConfig;
use crate::producer::{Producer, ProducerRecord};

/// The maximum attempts of a change while other clients change the same plug-in.
const CHANGE_ATTEMPTS_MAX: u32 = 10;

/// The timeout for delivering the last records on close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A record to write.
type Record = (Key, Option<Vec<u8>>);

/// Manages the plug-ins of a cluster.
pub struct PluginStore {
    config: ClientConfig,
    inner: Mutex<Inner>,
}

struct Inner {
    reader: Reader,
    /// None before the first write.
    producer: Option<Producer>,
}

/// The result of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The name in the cluster.
    pub name: String,
    /// The number of the version.
    pub number: u32,
    /// The SHA-256 of the component.
    pub digest: Digest,
    /// Whether the version is active.
    pub active: bool,
    /// Whether these bytes are a new version.
    pub is_new: bool,
}

impl std::fmt::Debug for PluginStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginStore").field("servers", &self.config.bootstrap_servers).finish_non_exhaustive()
    }
}

impl PluginStore {
    /// Creates a store. It connects when it is first used.
    ///
    /// # Errors
    /// A config is invalid.
    pub fn new(config: ClientConfig) -> Result<Self, PluginError> {
        let reader = Reader::new(&config)?;
        Ok(Self { config, inner: Mutex::new(Inner { reader, producer: None }) })
    }

    /// Returns the current state of the registry.
    ///
    /// # Errors
    /// The cluster cannot be read.
    pub async fn image(&self) -> Result<PluginImage, PluginError> {
        let mut inner = self.inner.lock().await;
        inner.reader.catch_up().await?;
        Ok(inner.reader.image.clone())
    }

    /// Stores a loaded component as a version, under its own name or under `name`. With `activate` the version becomes
    /// active. Bytes that are a version already are not stored again.
    ///
    /// # Errors
    /// The name belongs to another kind, or the cluster rejects the version. A Millstream broker rejects a version that
    /// does not work for every stage that uses the name; nothing is changed then.
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
            // Rejected chunks must not stay for ever. They do no harm, so a failure here is only logged.
            inner.remove_chunks(&self.config, |image| image.unclaimed(&digest)).await;
        }
        let number = changed?;
        inner.tidy(&self.config).await;
        let active = inner.reader.image.plugin(name).is_some_and(|known| known.active == number);
        Ok(Pushed { name: name.to_owned(), number, digest, active, is_new })
    }

    /// Activates a version; 0 is the one in the binary.
    ///
    /// # Errors
    /// There is no such version, or the cluster rejects it; the error names the topic for which it does not work.
    pub async fn activate(&self, name: &str, number: u32) -> Result<u32, PluginError> {
        let mut plan = |image: &PluginImage| image.plan_activate(name, number, "", now_ms());
        self.change(name, &mut plan).await
    }

    /// Activates the last good version and marks the active one as bad. Returns the number of the version that is
    /// active now. `embedded`: whether the binary has a plug-in of this name.
    ///
    /// # Errors
    /// There is no version to roll back to, or the cluster rejects the change.
    pub async fn rollback(&self, name: &str, why: &str, embedded: bool) -> Result<u32, PluginError> {
        let mut from = None;
        let mut plan = |image: &PluginImage| {
            let active = image.known(name)?.active;
            // Another client has changed the active version: rolling back once more is not intended.
            if *from.get_or_insert(active) != active {
                return Ok(Plan { number: active, manifest: None });
            }
            image.plan_rollback(name, why, embedded, now_ms())
        };
        self.change(name, &mut plan).await
    }

    /// Deletes a version that is not active, with its bytes; without a number the whole plug-in.
    ///
    /// # Errors
    /// There is no such version, it is active, or the cluster still uses it.
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
                outcome.map_err(|error| rejection(name, error))?;
                inner.reader.catch_up().await?;
            }
        }
        // Another version may use some of the chunks by now.
        inner
            .remove_chunks(&self.config, |image| {
                let is_free = |key: &&Key| matches!(key, Key::Chunk { digest, .. } if image.user_of(digest).is_none());
                going.iter().filter(is_free).cloned().collect()
            })
            .await;
        inner.tidy(&self.config).await;
        Ok(())
    }

    /// Returns the bytes of a version, or of the active one without a number. Their digest is checked.
    ///
    /// # Errors
    /// There is no such version, or the stored bytes are damaged.
    pub async fn load(&self, name: &str, number: Option<u32>) -> Result<Vec<u8>, PluginError> {
        let mut inner = self.inner.lock().await;
        inner.reader.catch_up().await?;
        let version = inner.reader.image.version(name, number)?;
        inner.reader.load(name, version).await
    }

    /// Sets the stages of a topic in the registry, for a cluster without such configs. `None` removes one; others stay.
    ///
    /// # Errors
    /// A value is not a valid stage, or the cluster rejects the change.
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

    /// Delivers queued records and closes the connections.
    pub async fn close(self) {
        let inner = self.inner.into_inner();
        if let Some(producer) = inner.producer
            && let Err(error) = producer.close(CLOSE_TIMEOUT).await
        {
            tracing::warn!(%error, "could not close the registry's producer");
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
    /// Plans a change on the current state and writes it: first the missing chunks, then the manifest.
    async fn change(
        &mut self,
        config: &ClientConfig,
        name: &str,
        plan: &mut (dyn FnMut(&PluginImage) -> Result<Plan, RegistryError> + Send),
        missing: impl Fn(&PluginImage) -> Vec<Record>,
    ) -> Result<u32, PluginError> {
        self.reader.catch_up().await?;
        for attempt in 0..CHANGE_ATTEMPTS_MAX {
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
                Err(error) if !self.is_outdated(name, &manifest) => return Err(rejection(name, error)),
                Err(_) => {}
            }
            tracing::debug!(name, attempt, "another client changed the plug-in first");
            tokio::time::sleep(config.backoff(attempt)).await;
            self.reader.catch_up().await?;
        }
        Err(PluginError::Contended(name.to_owned()))
    }

    /// Returns whether the state that a manifest is based on has changed.
    fn is_outdated(&self, name: &str, manifest: &Manifest) -> bool {
        let known = self.reader.image.plugin(name).map_or(0, |known| known.revision);
        known + 1 != manifest.revision
    }

    /// Writes records in this order. Returns the offset of the last one.
    async fn write(&mut self, config: &ClientConfig, records: Vec<Record>) -> Result<i64, Error> {
        let producer = self.producer(config)?;
        let mut deliveries = Vec::with_capacity(records.len());
        for (key, value) in &records {
            let key = key.to_string();
            let record = ProducerRecord { value: value.as_deref(), ..ProducerRecord::new(TOPIC) };
            deliveries.push(producer.send(record.partition(0).key(key.as_bytes())).await?);
        }
        // Starts with the last one: its error has the reason, those of the other records of its batch do not.
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
            // A user waits for the result.
            delivery_timeout: config.default_api_timeout.max(config.request_timeout),
            ..ProducerConfig::default()
        };
        let producer = Producer::builder(config).build()?;
        self.producer = Some(producer.clone());
        Ok(producer)
    }

    /// Deletes unused chunks. If that fails they only take up space.
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
            tracing::warn!(%error, "could not delete unused chunks of {TOPIC}");
        }
    }

    /// Deletes the chunks of unfinished operations, for example of a client that was killed.
    async fn tidy(&mut self, config: &ClientConfig) {
        self.remove_chunks(config, |image| image.stale_chunks(now_ms())).await;
    }

    /// Creates the topic if it does not exist, and checks that its config keeps all records.
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
                // Other brokers may learn of the topic a moment later.
                while admin.describe_topics(&[TOPIC.to_owned()]).await.is_err() && retry < CHANGE_ATTEMPTS_MAX {
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

/// Extracts the broker's message about a plug-in.
fn rejection(name: &str, error: Error) -> PluginError {
    match error {
        Error::Invalid(message) => PluginError::Rejected { name: name.to_owned(), message: message.to_string() },
        Error::Broker { code: ErrorCode::INVALID_RECORD, message: Some(message), .. } => {
            PluginError::Rejected { name: name.to_owned(), message: message.to_string() }
        }
        error => error.into(),
    }
}
