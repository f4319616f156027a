//! The producer.
//!
//! A record's way: [`Producer::send`] copies it into the [`intake`] of its topic; the topic's
//! [`worker`] has the stages serialise and partition a chunk of rows and appends them to the batches
//! of their partitions ([`queue`]); the sender to the partition's leader ([`node`]) takes batches that
//! are full or have lingered, compresses them and keeps several requests in flight; [`settle`] gives
//! the verdict to the [`receipt`]. The [`supervisor`] looks after the producer id, the metadata and
//! what has expired.

pub(crate) mod config;
pub(crate) mod intake;
mod node;
mod partitioner;
mod queue;
pub(crate) mod receipt;
mod record;
mod sequence;
mod settle;
mod supervisor;
mod worker;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream_stage::{Stage, StageStats};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};

use crate::edge::{self, ProducerStages};
use crate::error::Error;
use crate::net::Cluster;
use crate::plugins::{Attached, Following, TopicSource, attach};
use config::ProducerConfig;
use intake::{Chunk, ChunkRow};
use queue::{BatchSettings, PartitionQueue, Rules, TopicQueue};
use receipt::{Callback, Delivery, Receipt, RecordMetadata, Row};
pub use record::ProducerRecord;
use sequence::Identity;

/// What all tasks of one producer share.
pub(crate) struct Inner {
    config: ProducerConfig,
    cluster: Cluster,
    stages: Arc<Attached<ProducerStages>>,
    batch_settings: BatchSettings,
    topics: RwLock<HashMap<Arc<str>, Arc<TopicQueue>>>,
    /// `buffer.memory`: a permit a byte.
    memory: Semaphore,
    /// Flushes under way, and senders that wait for memory: nothing lingers meanwhile.
    hurry: AtomicUsize,
    receipts: Mutex<Receipts>,
    /// Some receipts were completed.
    completed: Notify,
    identity: Mutex<Option<Identity>>,
    /// Set once the producer cannot go on, or was closed by force.
    aborted: Mutex<Option<Error>>,
    /// Brokers that have a sender.
    nodes: Mutex<HashSet<i32>>,
    /// Wakes all senders.
    changes: watch::Sender<u64>,
    /// Wakes the supervisor.
    attention: Notify,
    refresh_wanted: AtomicBool,
    last_unreachable: Mutex<Option<Error>>,
    turn: AtomicUsize,
    /// Keeps the stages up to date.
    _following: Option<Following>,
}

/// The receipts that have open rows.
#[derive(Default)]
struct Receipts {
    next: u64,
    open: BTreeSet<u64>,
    /// No new ones: the producer is being closed.
    closed: bool,
}

/// Counts as a hurry while it lives.
struct Hurry<'a>(&'a Inner);

impl<'a> Hurry<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.hurry.fetch_add(1, Ordering::SeqCst);
        inner.wake_all();
        Self(inner)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurry.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inner {
    fn topics(&self) -> Vec<Arc<TopicQueue>> {
        self.topics.read().values().cloned().collect()
    }

    fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn in_hurry(&self) -> bool {
        self.hurry.load(Ordering::SeqCst) > 0
    }

    fn rules(&self) -> Rules {
        Rules {
            batch_size: self.config.batch_size,
            linger: self.config.linger,
            hurry: self.in_hurry(),
            idempotent: self.config.idempotent(),
            in_flight_max: if self.config.max_in_flight_requests == 1 { 1 } else { usize::MAX },
        }
    }

    /// Whether there is nothing left and nothing will come.
    fn finished(&self) -> bool {
        let receipts = self.receipts.lock();
        receipts.closed && receipts.open.is_empty()
    }

    /// Whether there is nothing to do at the moment.
    fn idle(&self) -> bool {
        self.receipts.lock().open.is_empty()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn wake_all(&self) {
        self.topics().iter().for_each(|topic| topic.arrived.notify_one());
        self.attention.notify_one();
        self.changed();
    }

    fn want_refresh(&self) {
        self.refresh_wanted.store(true, Ordering::SeqCst);
        self.attention.notify_one();
    }

    fn take_refresh(&self) -> bool {
        self.refresh_wanted.swap(false, Ordering::SeqCst)
    }

    fn unreachable(&self, error: Error) {
        *self.last_unreachable.lock() = Some(error);
        self.want_refresh();
    }

    fn last_unreachable(&self) -> Option<Error> {
        self.last_unreachable.lock().clone()
    }

    fn needs_identity(&self) -> bool {
        self.identity.lock().is_none()
    }

    fn set_identity(&self, identity: Identity) {
        tracing::debug!(identity.producer_id, identity.epoch, "the producer has an id");
        *self.identity.lock() = Some(identity);
        self.changed();
    }

    /// Brings a partition under the producer's identity; false while there is none.
    fn identify(&self, queue: &mut PartitionQueue) -> bool {
        if !self.config.idempotent() {
            return true;
        }
        let mut current = self.identity.lock();
        let Some(identity) = *current else { return false };
        let raised = queue.identify(identity, |identity| {
            // As KIP-360 allows a producer without transactions: it raises its epoch by itself. When
            // the epochs are used up it needs a new id.
            *current = identity.epoch.checked_add(1).map(|epoch| Identity { epoch, ..identity });
            *current
        });
        if !raised {
            self.attention.notify_one();
        }
        raised
    }

    fn aborted(&self) -> bool {
        self.aborted.lock().is_some()
    }

    /// Fails whatever waits, and every send from now on.
    fn abort(&self, error: &Error) {
        self.aborted.lock().get_or_insert_with(|| error.clone());
        for topic in self.topics() {
            let chunks = std::mem::take(&mut topic.intake.lock().chunks);
            for chunk in chunks {
                self.fail_rows(&chunk.receipt, chunk.rows.into_iter().map(|row| (row, error.clone())));
            }
        }
        self.wake_all();
    }

    /// Makes sure that each leader of the topic has a sender, and wakes them.
    fn dispatch(self: &Arc<Self>, topic: &TopicQueue) {
        let metadata = self.cluster.metadata();
        let leaders = metadata.topic(&topic.name).map_or(&[][..], |topic| &topic.partitions);
        if leaders.is_empty() || leaders.iter().any(|partition| partition.leader.is_none()) {
            self.attention.notify_one();
        }
        let mut nodes = self.nodes.lock();
        for leader in leaders.iter().filter_map(|partition| partition.leader) {
            if nodes.insert(leader) {
                tokio::spawn(node::run(self.clone(), leader));
            }
        }
        drop(nodes);
        self.changed();
    }

    /// Fails rows that came into no batch.
    fn fail_rows(&self, receipt: &Receipt, rows: impl IntoIterator<Item = (ChunkRow, Error)>) {
        let (mut memory, mut complete) = (0, Vec::new());
        for (row, error) in rows {
            memory += row.memory as usize;
            if receipt.finish(row.receipt_row, Err(error)) {
                complete.push(receipt.number);
            }
        }
        self.release(memory, complete);
    }

    /// Gives back memory, and strikes receipts that are complete.
    fn release(&self, memory: usize, complete: Vec<u64>) {
        self.memory.add_permits(memory);
        if complete.is_empty() {
            return;
        }
        let mut receipts = self.receipts.lock();
        for number in &complete {
            receipts.open.remove(number);
        }
        let finished = receipts.closed && receipts.open.is_empty();
        drop(receipts);
        self.completed.notify_waiters();
        if finished {
            self.wake_all();
        }
    }

    fn open_receipt(&self, topic: &Arc<str>) -> Result<Arc<Receipt>, Error> {
        let mut receipts = self.receipts.lock();
        if receipts.closed {
            return Err(Error::Closed);
        }
        let number = receipts.next;
        receipts.next += 1;
        receipts.open.insert(number);
        drop(receipts);
        self.attention.notify_one();
        Ok(Arc::new(Receipt::new(number, topic.clone())))
    }

    /// Waits until everything that was sent before has its verdict.
    async fn settled(&self) {
        let last = self.receipts.lock().next;
        loop {
            let completed = self.completed.notified();
            tokio::pin!(completed);
            completed.as_mut().enable();
            if self.receipts.lock().open.first().is_none_or(|first| *first >= last) {
                return;
            }
            completed.await;
        }
    }

    fn start_closing(&self) {
        self.receipts.lock().closed = true;
        // For good: nothing lingers any more.
        self.hurry.fetch_add(1, Ordering::SeqCst);
        self.wake_all();
    }
}

/// The tasks go on until everything has its verdict, and end.
struct CloseOnDrop(Arc<Inner>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.start_closing();
    }
}

/// Sends records. Cheap to clone; all clones share buffers and connections.
///
/// When the last clone is dropped, what was sent is still delivered as long as the runtime lives;
/// [`Producer::close`] waits for it.
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
    /// Has a topic's stages fill the places of those that are not given.
    #[must_use]
    pub(crate) fn with_topic(mut self, topic: TopicSource) -> Self {
        self.topic = Some(topic);
        self
    }

    /// A stage that makes keys and values out of those that are sent.
    #[must_use]
    pub fn serializer(mut self, stage: Arc<Stage>) -> Self {
        self.stages.serializer = Some(stage);
        self
    }

    /// A stage that chooses partitions. Without one: murmur2 of the key as Java's default, sticky without a key.
    #[must_use]
    pub fn partitioner(mut self, stage: Arc<Stage>) -> Self {
        self.stages.partitioner = Some(stage);
        self
    }

    /// A stage that compresses batches; it must write one of Kafka's codecs. Without one:
    /// `compression.type`, by the native codecs.
    #[must_use]
    pub fn compressor(mut self, stage: Arc<Stage>) -> Self {
        self.stages.compressor = Some(stage);
        self
    }

    /// Starts the producer on the current tokio runtime. Connects when the first record is sent.
    ///
    /// # Errors
    /// A setting is impossible; the compressor writes a format of its own.
    pub fn build(self) -> Result<Producer, Error> {
        let Self { config, stages, topic } = self;
        config.validate()?;
        if let Some(stage) = &stages.compressor {
            edge::standard_codec(&stage.plugin())?;
        }
        let (stages, following) = attach(stages, topic);
        let (batch_size, codec, level) = (config.batch_size, config.compression, config.compression_level);
        let batch_settings = BatchSettings { batch_size, codec, level };
        let inner = Arc::new(Inner {
            cluster: Cluster::new(config.client.clone(), true),
            stages,
            batch_settings,
            topics: RwLock::default(),
            memory: Semaphore::new(config.buffer_memory),
            hurry: AtomicUsize::new(0),
            receipts: Mutex::default(),
            completed: Notify::new(),
            identity: Mutex::default(),
            aborted: Mutex::default(),
            nodes: Mutex::default(),
            changes: watch::Sender::new(0),
            attention: Notify::new(),
            refresh_wanted: AtomicBool::new(false),
            last_unreachable: Mutex::default(),
            turn: AtomicUsize::new(0),
            config,
            _following: following,
        });
        tokio::spawn(supervisor::run(inner.clone()));
        Ok(Producer { _close: Arc::new(CloseOnDrop(inner.clone())), inner })
    }
}

impl Producer {
    /// A producer with these settings, to be given its stages.
    pub fn builder(config: ProducerConfig) -> ProducerBuilder {
        ProducerBuilder { config, ..ProducerBuilder::default() }
    }

    /// What every stage did, those that were replaced since the topic wanted others first.
    pub fn stage_stats(&self) -> Vec<StageStats> {
        self.inner.stages.stats()
    }

    /// Hands the record over; the [`Delivery`] resolves once there is a verdict. Waits while
    /// `buffer.memory` is used up, and for the metadata of a topic that is new, up to `max.block.ms`.
    ///
    /// # Errors
    /// The record was not taken: it is too large, the topic or the partition does not exist, or the
    /// producer is closed.
    pub async fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery, Error> {
        let (receipt, row) = self.hand_over(record, Row::Pending).await?;
        Ok(Delivery::new(receipt, row))
    }

    /// As [`Producer::send`]; `callback` is called once with the verdict. It runs on a thread of the
    /// runtime and should be short.
    ///
    /// # Errors
    /// As [`Producer::send`]; `callback` is not called then.
    pub async fn send_with_callback(
        &self,
        record: ProducerRecord<'_>,
        callback: impl FnOnce(Result<RecordMetadata, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let callback: Callback = Box::new(callback);
        self.hand_over(record, Row::Callback(callback)).await.map(drop)
    }

    /// As [`Producer::send`], for when nobody wants to know the verdict.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_and_forget(&self, record: ProducerRecord<'_>) -> Result<(), Error> {
        self.hand_over(record, Row::Ignored).await.map(drop)
    }

    /// Sends what waits without lingering, and returns when everything sent before has its verdict.
    pub async fn flush(&self) {
        let _hurry = Hurry::new(&self.inner);
        self.inner.settled().await;
    }

    /// How many partitions the topic has.
    ///
    /// # Errors
    /// The topic's metadata cannot be had within `max.block.ms`.
    pub async fn partitions(&self, topic: &str) -> Result<usize, Error> {
        let topic = self.inner.cluster.topic(&topic.into(), self.inner.config.max_block).await?;
        Ok(topic.partitions.len())
    }

    /// Takes no more records, delivers those that were sent, for at most `timeout`, and closes the
    /// connections. What is left then fails.
    ///
    /// # Errors
    /// The time was not enough.
    pub async fn close(self, timeout: Duration) -> Result<(), Error> {
        self.inner.start_closing();
        let settled = tokio::time::timeout(timeout, self.inner.settled()).await;
        if settled.is_err() {
            self.inner.abort(&Error::Closed);
        }
        self.inner.cluster.close();
        settled.map_err(|_| Error::timeout("the delivery of what was sent", timeout))
    }

    async fn hand_over(&self, record: ProducerRecord<'_>, row: Row) -> Result<(Arc<Receipt>, u32), Error> {
        let inner = &*self.inner;
        if let Some(error) = inner.aborted.lock().clone() {
            return Err(error);
        }
        if inner.receipts.lock().closed {
            return Err(Error::Closed);
        }
        let deadline = Instant::now() + inner.config.max_block;
        // On a line of its own: in the `match` the lock would be held over the wait.
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
            if queue::batch_size_of(size) > max {
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

    async fn new_topic(&self, name: &str) -> Result<Arc<TopicQueue>, Error> {
        let name: Arc<str> = name.into();
        self.inner.cluster.topic(&name, self.inner.config.max_block).await?;
        let mut topics = self.inner.topics.write();
        let topic = topics.entry(name.clone()).or_insert_with(|| {
            let topic = Arc::new(TopicQueue::new(name));
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
        // Whatever waits for company had better leave.
        let _hurry = Hurry::new(&self.inner);
        let acquired = tokio::time::timeout_at(deadline.into(), self.inner.memory.acquire_many(size)).await;
        match acquired {
            Ok(Ok(permits)) => {
                permits.forget();
                Ok(())
            }
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => {
                let what = format!("a wait for {size} bytes of buffer.memory (max.block.ms)");
                Err(Error::timeout(what, self.inner.config.max_block))
            }
        }
    }

    fn push(
        &self,
        topic: &TopicQueue,
        record: &ProducerRecord<'_>,
        row: Row,
        memory: u32,
    ) -> Result<(Arc<Receipt>, u32), Error> {
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        let mut intake = topic.intake.lock();
        if intake.chunks.back().is_none_or(|chunk| chunk.full_for(memory as usize)) {
            let receipt = self.inner.open_receipt(&topic.name)?;
            intake.chunks.push_back(Chunk::new(receipt, Instant::now()));
        }
        let chunk = intake.chunks.back_mut().expect("one was pushed if there was none");
        // Below 4 GiB: the record fits `max.request.size`, the chunk its own bound.
        chunk
            .records
            .push(timestamp, record.key, record.value, record.headers.iter().copied())
            .map_err(|_| Error::State("a chunk of more than 4 GiB"))?;
        let receipt_row = chunk.receipt.push(row);
        chunk.pushed(ChunkRow { receipt_row, partition: record.partition.unwrap_or(-1), memory });
        let receipt = chunk.receipt.clone();
        let wake = intake.wants_worker();
        drop(intake);
        if wake {
            topic.arrived.notify_one();
        }
        Ok((receipt, receipt_row))
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
