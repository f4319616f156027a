//! Reads the registry's topic: in order, to keep an image up to date, and by offset, to load the bytes of a version.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_registry::format::{FormatError, TOPIC, Version};
use millstream_registry::image::{Change, Place, PluginImage};
use millstream_stage::Digest;
use millstream_wire::ErrorCode;

use super::error::PluginError;
use crate::admin::Admin;
use crate::config::ClientConfig;
use crate::consumer::Consumer;
use crate::consumer::config::{ConsumerConfig, OffsetReset};
use crate::consumer::record::{ConsumerRecord, TopicPartition};
use crate::error::Error;

/// The timeout of one poll while reading to the end of the topic.
const CATCH_UP_POLL: Duration = Duration::from_millis(500);

/// A record that was read, and its effect on the image.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) offset: i64,
    pub(super) outcome: Result<Change, FormatError>,
}

/// A reader of the registry, with its image.
pub(super) struct Reader {
    config: ClientConfig,
    admin: Admin,
    /// Reads in order; none before the topic exists.
    consumer: Option<Consumer>,
    pub(super) image: PluginImage,
    /// The offset after the last record in the image.
    next: i64,
}

impl Reader {
    /// Creates a reader. It connects when it is first used.
    pub(super) fn new(config: &ClientConfig) -> Result<Self, Error> {
        let admin = Admin::new(config.clone())?;
        Ok(Self { config: config.clone(), admin, consumer: None, image: PluginImage::default(), next: 0 })
    }

    pub(super) fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Reads to the current end of the topic. A cluster without the topic has no plug-ins.
    pub(super) async fn catch_up(&mut self) -> Result<Vec<Read>, PluginError> {
        let Some(consumer) = self.consumer().await? else { return Ok(Vec::new()) };
        let partition = partition();
        let ends = consumer.end_offsets(std::slice::from_ref(&partition)).await?;
        let end = ends.get(&partition).copied().unwrap_or(0);
        let deadline = Instant::now() + self.config.default_api_timeout;
        let mut read = Vec::new();
        // Uses the position instead of records: compaction may have removed the last one.
        while consumer.position(&partition).is_none_or(|position| position < end) {
            if Instant::now() >= deadline {
                return Err(Error::timeout(format!("reading {TOPIC}"), self.config.default_api_timeout).into());
            }
            let records = consumer.poll(CATCH_UP_POLL).await?;
            read.extend(self.apply(&records));
        }
        Ok(read)
    }

    /// Returns the next records, or none after `timeout`.
    pub(super) async fn next(&mut self, timeout: Duration) -> Result<Vec<Read>, PluginError> {
        let Some(consumer) = self.consumer().await? else {
            tokio::time::sleep(timeout).await;
            return Ok(Vec::new());
        };
        let records = consumer.poll(timeout).await?;
        Ok(self.apply(&records))
    }

    /// Returns the consumer that reads in order; none while the topic does not exist.
    async fn consumer(&mut self) -> Result<Option<Consumer>, PluginError> {
        if self.consumer.is_none() && self.exists().await? {
            let consumer = new_consumer(&self.config)?;
            consumer.assign([partition()])?;
            self.consumer = Some(consumer);
        }
        Ok(self.consumer.clone())
    }

    async fn exists(&self) -> Result<bool, PluginError> {
        match self.admin.describe_topics(&[TOPIC.to_owned()]).await {
            Ok(topics) if topics.iter().all(|topic| topic.partitions.len() == 1) => Ok(true),
            Ok(_) => Err(FormatError(format!(
                "topic {TOPIC} has several partitions, but the registry needs exactly one: create it with one"
            ))
            .into()),
            Err(error) if error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn apply(&mut self, records: &[ConsumerRecord]) -> Vec<Read> {
        let mut read = Vec::with_capacity(records.len());
        for record in records {
            if record.offset < self.next {
                // The topic was deleted and created again, so the old image is outdated.
                tracing::warn!("{TOPIC} was created again: dropping all known plug-ins");
                self.image = PluginImage::default();
            }
            let outcome =
                self.image.apply(record.offset, record.timestamp, record.key.as_deref(), record.value.as_deref());
            if let Err(error) = &outcome {
                tracing::warn!(offset = record.offset, "a record of {TOPIC} is ignored: {error}");
            }
            self.next = record.offset + 1;
            read.push(Read { offset: record.offset, outcome });
        }
        read
    }

    /// Returns the bytes of a version. Their digest is checked.
    pub(super) async fn load(&self, name: &str, version: &Version) -> Result<Vec<u8>, PluginError> {
        let damaged = |problem: String| PluginError::Damaged {
            name: name.to_owned(),
            problem: format!("version {}: {problem}", version.number),
        };
        let places = self.image.places(version).map_err(|error| damaged(error.0))?;
        let consumer = new_consumer(&self.config)?;
        let component = self.read_chunks(&consumer, &places).await;
        let closed = consumer.close().await;
        let component = component?.ok_or_else(|| damaged("a chunk was rewritten meanwhile; retry".to_owned()))?;
        closed?;
        check(&component, version).map_err(damaged)?;
        Ok(component)
    }

    /// Reads the chunks at these offsets. Returns `None` if one is no longer there.
    async fn read_chunks(&self, consumer: &Consumer, places: &[Place]) -> Result<Option<Vec<u8>>, PluginError> {
        // The check of the manifest bounds the size.
        let mut component = Vec::with_capacity(places.iter().map(|place| place.size as usize).sum());
        consumer.assign([partition()])?;
        let mut at = None;
        for place in places {
            if at != Some(place.offset) {
                consumer.seek(&partition(), place.offset)?;
            }
            let Some(record) = self.read_at(consumer, place.offset).await? else { return Ok(None) };
            at = Some(place.offset + 1);
            match record.value {
                Some(value) if value.len() == place.size as usize => component.extend_from_slice(&value),
                _ => return Ok(None),
            }
        }
        Ok(Some(component))
    }

    async fn read_at(&self, consumer: &Consumer, offset: i64) -> Result<Option<ConsumerRecord>, PluginError> {
        let deadline = Instant::now() + self.config.default_api_timeout;
        while Instant::now() < deadline {
            if let Some(record) = consumer.poll(CATCH_UP_POLL).await?.into_iter().next() {
                return Ok(Some(record).filter(|record| record.offset == offset));
            }
        }
        Err(Error::timeout(format!("reading {TOPIC}"), self.config.default_api_timeout).into())
    }
}

/// Checks the bytes of a version against its manifest.
///
/// # Errors
/// The size or the digest differs.
pub(super) fn check(component: &[u8], version: &Version) -> Result<(), String> {
    if component.len() as u64 != version.size {
        return Err(format!("it has {} bytes instead of the {} in the manifest", component.len(), version.size));
    }
    let have = Digest::of(component);
    if have != version.digest {
        return Err(format!("its digest is {have} instead of {} in the manifest", version.digest));
    }
    Ok(())
}

pub(super) fn partition() -> TopicPartition {
    let topic: Arc<str> = TOPIC.into();
    TopicPartition::new(topic, 0)
}

fn new_consumer(client: &ClientConfig) -> Result<Consumer, Error> {
    let config = ConsumerConfig {
        client: client.clone(),
        auto_offset_reset: OffsetReset::Earliest,
        allow_auto_create_topics: false,
        enable_auto_commit: false,
        // Chunks are read by offset, one record at a time; for reading in order it makes no difference.
        max_poll_records: 1,
        ..ConsumerConfig::default()
    };
    Consumer::builder(config).build()
}
