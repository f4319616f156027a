//! The producer.
//!
//! The path of a record: [`Producer::send`] copies it into a chunk of its topic in the [`accumulator`]. The topic's
//! [`worker`] runs the serializer and partitioner stages on a finished chunk and appends its rows to the batches of
//! their partitions. The [`sender`] of each broker takes batches that are full or have lingered, compresses them and
//! keeps several requests in flight. [`completion`] retries a batch or sets the results of its records, which the
//! caller awaits as a [`delivery`]. The [`maintenance`] task gets the producer id, refreshes the metadata and expires
//! batches. [`transactions`] let the sender take the batches of one transaction, and end it.

pub(crate) mod accumulator;
mod completion;
pub(crate) mod config;
pub(crate) mod delivery;
mod inner;
mod maintenance;
mod partitioner;
mod record;
mod sender;
mod sequence;
mod transactions;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use millstream_stage::{Stage, StageStats};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};

use crate::clock::now_ms;
use crate::edge::{self, ProducerStages};
use crate::error::Error;
use crate::net::Cluster;
use crate::plugins::{TopicSource, attach};
use accumulator::{BatchSettings, Chunk, ChunkRow, TopicAccumulator};
use config::ProducerConfig;
use delivery::{Callback, ChunkResults, Delivery, RecordMetadata, Row};
use inner::{Hurry, Inner};
pub use record::ProducerRecord;
use transactions::Transactions;

/// Closes the producer with its last clone. The tasks end once every record has its result.
struct CloseOnDrop(Arc<Inner>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.start_closing();
    }
}

/// Sends records. Cheap to clone; all clones share buffers and connections.
///
/// After the last clone is dropped, sent records are still delivered as long as the runtime lives;
/// [`Producer::close`] waits for them.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
    _close: Arc<CloseOnDrop>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("servers", &self.inner.config.client.bootstrap_servers).finish()
    }
}

/// Configures a [`Producer`] with its stages.
#[derive(Default)]
pub struct ProducerBuilder {
    config: ProducerConfig,
    stages: ProducerStages,
    topic: Option<TopicSource>,
}

impl ProducerBuilder {
    /// Uses a topic's stages for each kind that is not set explicitly.
    #[must_use]
    pub(crate) fn with_topic(mut self, topic: TopicSource) -> Self {
        self.topic = Some(topic);
        self
    }

    /// Sets the stage that serializes keys and values.
    #[must_use]
    pub fn serializer(mut self, stage: Arc<Stage>) -> Self {
        self.stages.serializer = Some(stage);
        self
    }

    /// Sets the stage that chooses partitions. Default: as Java, murmur2 of the key, and sticky without a key.
    #[must_use]
    pub fn partitioner(mut self, stage: Arc<Stage>) -> Self {
        self.stages.partitioner = Some(stage);
        self
    }

    /// Sets the stage that compresses batches. It must write one of Kafka's codecs. Default: the native codec of
    /// `compression.type`.
    #[must_use]
    pub fn compressor(mut self, stage: Arc<Stage>) -> Self {
        self.stages.compressor = Some(stage);
        self
    }

    /// Starts the producer on the current tokio runtime. It connects when the first record is sent.
    ///
    /// # Errors
    /// A config is invalid, or the compressor writes a private format.
    pub fn build(self) -> Result<Producer, Error> {
        let Self { config, stages, topic } = self;
        config.validate()?;
        if let Some(stage) = &stages.compressor {
            edge::standard_codec(&stage.plugin())?;
        }
        let (stages, following) = attach(stages, topic);
        let batch_settings = BatchSettings {
            batch_size: config.batch_size,
            codec: config.compression,
            level: config.compression_level,
            transactional: config.transactional_id.is_some(),
        };
        let inner = Arc::new(Inner {
            cluster: Cluster::new(config.client.clone(), true),
            stages,
            batch_settings,
            topics: RwLock::default(),
            memory: Semaphore::new(config.buffer_memory),
            hurry: AtomicUsize::new(0),
            pending: Mutex::default(),
            completed: Notify::new(),
            identity: Mutex::default(),
            transactions: Transactions::new(&config),
            aborted: Mutex::default(),
            senders: Mutex::default(),
            changes: watch::Sender::new(0),
            attention: Notify::new(),
            refresh_wanted: AtomicBool::new(false),
            last_unreachable: Mutex::default(),
            turn: AtomicUsize::new(0),
            config,
            _following: following,
        });
        tokio::spawn(maintenance::run(inner.clone()));
        if inner.transactions.is_some() {
            tokio::spawn(transactions::run(inner.clone()));
        }
        Ok(Producer { _close: Arc::new(CloseOnDrop(inner.clone())), inner })
    }
}

impl Producer {
    /// Creates a builder with these configs.
    pub fn builder(config: ProducerConfig) -> ProducerBuilder {
        ProducerBuilder { config, ..ProducerBuilder::default() }
    }

    /// Returns the statistics of every stage; those of stages that were replaced come first.
    pub fn stage_stats(&self) -> Vec<StageStats> {
        self.inner.stages.stats()
    }

    /// Queues the record. The [`Delivery`] resolves to its result. Waits up to `max.block.ms` while `buffer.memory` is
    /// used up, or for the metadata of a new topic.
    ///
    /// # Errors
    /// The record was not queued: it is too large, its topic or partition does not exist, or the producer is closed.
    pub async fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery, Error> {
        let (results, row) = self.enqueue(record, Row::Pending).await?;
        Ok(Delivery::new(results, row))
    }

    /// Queues the record as [`Producer::send`] does. `callback` is called once with the result. It runs on a thread of
    /// the runtime and should be short.
    ///
    /// # Errors
    /// As [`Producer::send`]; `callback` is not called then.
    pub async fn send_with_callback(
        &self,
        record: ProducerRecord<'_>,
        callback: impl FnOnce(Result<RecordMetadata, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let callback: Callback = Box::new(callback);
        self.enqueue(record, Row::Callback(callback)).await.map(drop)
    }

    /// Queues the record as [`Producer::send`] does, without a way to get its result.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_and_forget(&self, record: ProducerRecord<'_>) -> Result<(), Error> {
        self.enqueue(record, Row::Ignored).await.map(drop)
    }

    /// Sends all queued records without lingering, and returns once each of them has its result.
    pub async fn flush(&self) {
        let _hurry = Hurry::new(&self.inner);
        self.inner.completed().await;
    }

    /// Returns the number of partitions of the topic.
    ///
    /// # Errors
    /// The topic's metadata did not arrive within `max.block.ms`.
    pub async fn partitions(&self, topic: &str) -> Result<usize, Error> {
        let topic = self.inner.cluster.topic(&topic.into(), self.inner.config.max_block).await?;
        Ok(topic.partitions.len())
    }

    /// Rejects new records, delivers the queued ones for at most `timeout`, and closes the connections. Records that
    /// are still queued then fail. A transaction that is open is aborted.
    ///
    /// # Errors
    /// The timeout was reached.
    pub async fn close(self, timeout: Duration) -> Result<(), Error> {
        self.inner.start_closing();
        let completed = async {
            self.abort_open().await;
            self.inner.completed().await;
        };
        let completed = tokio::time::timeout(timeout, completed).await;
        if completed.is_err() {
            self.inner.abort(&Error::Closed);
        }
        self.inner.cluster.close();
        completed.map_err(|_| Error::timeout("the delivery of the queued records", timeout))
    }

    async fn enqueue(&self, record: ProducerRecord<'_>, row: Row) -> Result<(Arc<ChunkResults>, u32), Error> {
        let Some(transactions) = &self.inner.transactions else { return self.enqueue_plain(record, row).await };
        let _sending = transactions.join().await?;
        // A record that is missing must keep the others from being committed.
        self.enqueue_plain(record, row).await.map_err(|error| self.inner.fail(error))
    }

    async fn enqueue_plain(&self, record: ProducerRecord<'_>, row: Row) -> Result<(Arc<ChunkResults>, u32), Error> {
        let inner = &*self.inner;
        if let Some(error) = inner.aborted.lock().clone() {
            return Err(error);
        }
        if inner.pending.lock().closed {
            return Err(Error::Closed);
        }
        let deadline = Instant::now() + inner.config.max_block;
        // On a line of its own: inside the `match` the lock would be held during the wait.
        let known = inner.topics.read().get(record.topic).cloned();
        let topic = match known {
            Some(topic) => topic,
            None => self.new_topic(record.topic).await?,
        };
        if let Some(partition) = record.partition {
            self.check_partition(&topic.name, partition).await?;
        }
        let size = record.size();
        for (key, max) in
            [("max.request.size", inner.config.max_request_size), ("buffer.memory", inner.config.buffer_memory)]
        {
            if accumulator::batch_size_of(size) > max {
                return Err(Error::RecordTooLarge { size, key, max });
            }
        }
        self.take_memory(size as u32, deadline).await?;
        let pushed = self.push(&topic, &record, row, size as u32);
        if pushed.is_err() {
            inner.memory.add_permits(size);
        }
        pushed
    }

    async fn new_topic(&self, name: &str) -> Result<Arc<TopicAccumulator>, Error> {
        let name: Arc<str> = name.into();
        self.inner.cluster.topic(&name, self.inner.config.max_block).await?;
        let mut topics = self.inner.topics.write();
        let topic = topics.entry(name.clone()).or_insert_with(|| {
            let topic = Arc::new(TopicAccumulator::new(name));
            tokio::spawn(worker::run(self.inner.clone(), topic.clone()));
            topic
        });
        Ok(topic.clone())
    }

    async fn check_partition(&self, topic: &Arc<str>, partition: i32) -> Result<(), Error> {
        let partitions = self.inner.cluster.topic(topic, self.inner.config.max_block).await?.partitions.len();
        match usize::try_from(partition) {
            Ok(index) if index < partitions => Ok(()),
            _ => Err(Error::UnknownPartition { topic: topic.clone(), partition, partitions }),
        }
    }

    async fn take_memory(&self, size: u32, deadline: Instant) -> Result<(), Error> {
        if let Ok(permits) = self.inner.memory.try_acquire_many(size) {
            permits.forget();
            return Ok(());
        }
        // Sends lingering batches, to free memory.
        let _hurry = Hurry::new(&self.inner);
        let acquired = tokio::time::timeout_at(deadline.into(), self.inner.memory.acquire_many(size)).await;
        match acquired {
            Ok(Ok(permits)) => {
                permits.forget();
                Ok(())
            }
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => {
                let what = format!("the wait for {size} bytes of buffer.memory (max.block.ms)");
                Err(Error::timeout(what, self.inner.config.max_block))
            }
        }
    }

    fn push(
        &self,
        topic: &TopicAccumulator,
        record: &ProducerRecord<'_>,
        row: Row,
        memory: u32,
    ) -> Result<(Arc<ChunkResults>, u32), Error> {
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        let mut chunks = topic.chunks.lock();
        if chunks.queue.back().is_none_or(|chunk| chunk.full_for(memory as usize)) {
            let results = self.inner.open_chunk(&topic.name)?;
            chunks.queue.push_back(Chunk::new(results, Instant::now()));
        }
        let chunk = chunks.queue.back_mut().expect("one was pushed if there was none");
        // Stays below 4 GiB: `max.request.size` bounds the record, and the chunk has its own bound.
        chunk
            .records
            .push(timestamp, record.key, record.value, record.headers.iter().copied())
            .map_err(|_| Error::State("a chunk is larger than 4 GiB"))?;
        let index = chunk.results.push(row);
        chunk.pushed(ChunkRow { index, partition: record.partition.unwrap_or(-1), memory });
        let results = chunk.results.clone();
        let wake = chunks.wants_worker();
        drop(chunks);
        if wake {
            topic.arrived.notify_one();
        }
        Ok((results, index))
    }
}
