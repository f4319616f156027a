//! The consumer.
//!
//! The path of a record: the [`fetcher`] fetches ahead from the leaders of the assigned partitions. [`decode`] checks
//! and decompresses the batches and runs the filter and deserializer stages. [`state`] holds the decoded records and
//! the positions, and [`Consumer::poll`] returns records from it. With a subscription, [`group`] assigns the
//! partitions.

pub(crate) mod config;
pub(crate) mod decode;
mod fetcher;
pub(crate) mod group;
mod inner;
pub(crate) mod offsets;
pub(crate) mod record;
mod state;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use millstream_stage::{Stage, StageStats};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::edge::{self, ConsumerStages};
use crate::error::Error;
use crate::net::Cluster;
use crate::plugins::{TopicSource, attach};
use config::ConsumerConfig;
use decode::Decoder;
use group::{ConsumerGroupMetadata, Group, commit};
use inner::{InPoll, Inner};
use offsets::OffsetAndTimestamp;
use record::{CommittedOffset, ConsumerRecord, TopicPartition};
use state::{Mode, Wanted};

/// The future of a [`RebalanceListener`].
pub type ListenerFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Is called when partitions are revoked or assigned. This happens inside a `poll`: the application has processed the
/// records of earlier polls by then, and no new records are returned before the call ends.
pub trait RebalanceListener: Send + Sync {
    /// Handles partitions that are about to be revoked. Their offsets can still be committed.
    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> ListenerFuture<'a> {
        let _ = partitions;
        Box::pin(std::future::ready(()))
    }

    /// Handles partitions that belong to another member already. Commits for them are rejected.
    fn lost<'a>(&'a self, partitions: &'a [TopicPartition]) -> ListenerFuture<'a> {
        let _ = partitions;
        Box::pin(std::future::ready(()))
    }

    /// Handles newly assigned partitions.
    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> ListenerFuture<'a> {
        let _ = partitions;
        Box::pin(std::future::ready(()))
    }
}

/// Ends the tasks with the last clone.
struct CloseOnDrop(Arc<Inner>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Reads records. Cheap to clone; all clones are the same consumer.
#[derive(Clone)]
pub struct Consumer {
    inner: Arc<Inner>,
    _close: Arc<CloseOnDrop>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("group", &self.inner.config.group_id).finish()
    }
}

/// Configures a [`Consumer`] with its stages.
#[derive(Default)]
pub struct ConsumerBuilder {
    config: ConsumerConfig,
    stages: ConsumerStages,
    listener: Option<Arc<dyn RebalanceListener>>,
    topic: Option<TopicSource>,
}

impl ConsumerBuilder {
    /// Uses a topic's stages for each kind that is not set explicitly.
    #[must_use]
    pub(crate) fn with_topic(mut self, topic: TopicSource) -> Self {
        self.topic = Some(topic);
        self
    }

    /// Sets the compressor stage that decompresses batches of the codec that it writes. Batches of other codecs are
    /// decompressed natively.
    #[must_use]
    pub fn decompressor(mut self, stage: Arc<Stage>) -> Self {
        self.stages.decompressor = Some(stage);
        self
    }

    /// Adds a filter stage, which decides which records `poll` returns. A later filter gets what this one keeps.
    #[must_use]
    pub fn filter(mut self, stage: Arc<Stage>) -> Self {
        self.stages.filters.push(stage);
        self
    }

    /// Sets the serializer stage that deserializes keys and values.
    #[must_use]
    pub fn deserializer(mut self, stage: Arc<Stage>) -> Self {
        self.stages.deserializer = Some(stage);
        self
    }

    /// Sets the listener for revoked and assigned partitions.
    #[must_use]
    pub fn rebalance_listener(mut self, listener: Arc<dyn RebalanceListener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Starts the consumer on the current tokio runtime. It connects once it has partitions to read.
    ///
    /// # Errors
    /// A config is invalid, or the decompressor reads a private format.
    pub fn build(self) -> Result<Consumer, Error> {
        let Self { config, stages, listener, topic } = self;
        config.validate()?;
        if let Some(stage) = &stages.decompressor {
            edge::standard_codec(&stage.plugin())?;
        }
        let (stages, following) = attach(stages, topic);
        let decoder = Decoder { check_crcs: config.check_crcs, batch_max_bytes: config.decompressed_batch_max_bytes };
        let group = config.group_id.as_deref().map(|id| Group::of_member(id, &config));
        let inner = Arc::new(Inner {
            cluster: Cluster::new(config.client.clone(), config.allow_auto_create_topics),
            decoder,
            stages,
            state: Mutex::default(),
            group: group.map(Arc::new),
            listener: Mutex::new(listener),
            assigned_counts: Mutex::default(),
            changes: watch::Sender::new(0),
            polls: AtomicUsize::new(0),
            refresh_wanted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            next_auto_commit: Mutex::new(Instant::now() + config.auto_commit_interval),
            config,
            _following: following,
        });
        tokio::spawn(fetcher::run(inner.clone()));
        if let Some(group) = &inner.group {
            tokio::spawn(group::run(inner.clone(), group.clone()));
        }
        Ok(Consumer { _close: Arc::new(CloseOnDrop(inner.clone())), inner })
    }
}

impl Consumer {
    /// Creates a builder with these configs.
    pub fn builder(config: ConsumerConfig) -> ConsumerBuilder {
        ConsumerBuilder { config, ..ConsumerBuilder::default() }
    }

    /// Returns the statistics of every stage; those of stages that were replaced come first.
    pub fn stage_stats(&self) -> Vec<StageStats> {
        self.inner.stages.stats()
    }

    /// Subscribes to topics. The group assigns their partitions to its members.
    ///
    /// # Errors
    /// There is no `group.id`, or partitions were assigned with [`Consumer::assign`].
    pub fn subscribe<T: AsRef<str>>(&self, topics: impl IntoIterator<Item = T>) -> Result<(), Error> {
        let Some(group) = &self.inner.group else { return Err(Error::State("a subscription needs a group.id")) };
        let mut topics: Vec<Arc<str>> = topics.into_iter().map(|topic| topic.as_ref().into()).collect();
        topics.sort();
        topics.dedup();
        let mut state = self.inner.state.lock();
        if state.mode == Mode::Assigned {
            return Err(Error::State("partitions were assigned; unsubscribe first"));
        }
        self.inner.cluster.follow(topics.iter().cloned());
        state.mode = Mode::Subscribed(topics);
        group.set_rebalancing(true);
        drop(state);
        self.inner.changed();
        Ok(())
    }

    /// Assigns partitions without a group. Partitions that are already assigned keep their positions.
    ///
    /// # Errors
    /// There is a subscription.
    pub fn assign(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<(), Error> {
        let mut state = self.inner.state.lock();
        if matches!(state.mode, Mode::Subscribed(_)) {
            return Err(Error::State("there is a subscription; unsubscribe first"));
        }
        let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
        self.inner.cluster.follow(partitions.iter().map(|partition| partition.topic.clone()));
        state.mode = Mode::Assigned;
        state.assign(partitions, Wanted::Committed, true);
        drop(state);
        self.inner.changed();
        Ok(())
    }

    /// Drops all partitions and leaves the group.
    pub async fn unsubscribe(&self) {
        let subscribed = {
            let mut state = self.inner.state.lock();
            state.assign([], Wanted::Nothing, false);
            matches!(std::mem::take(&mut state.mode), Mode::Subscribed(_))
        };
        if let Some(group) = self.inner.group.as_ref().filter(|_| subscribed) {
            group.set_rebalancing(false);
            group::leave(&self.inner, group).await;
        }
        self.inner.changed();
    }

    /// Returns the assigned partitions.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.inner.state.lock().partitions.keys().cloned().collect()
    }

    /// Returns whether the assignment is known. It is unknown only for a subscription during a rebalance.
    pub fn joined(&self) -> bool {
        !self.inner.group.as_ref().is_some_and(|group| group.rebalancing())
    }

    /// Returns up to `max.poll.records` records as soon as there are any, or none after `timeout`. Call it in a loop,
    /// because rebalances run inside it. It is cancel-safe: no record is lost.
    ///
    /// # Errors
    /// Any error that a retry does not fix: a batch or record that cannot be decoded (once all records before it were
    /// returned; [`Error::skip_to`] says where to continue), an offset that no longer exists with
    /// `auto.offset.reset=none`, a request that the cluster rejects.
    pub async fn poll(&self, timeout: Duration) -> Result<Vec<ConsumerRecord>, Error> {
        let inner = &*self.inner;
        let deadline = Instant::now() + timeout;
        let mut changes = inner.changes.subscribe();
        let _in_poll = InPoll::new(inner);
        self.auto_commit();
        loop {
            changes.borrow_and_update();
            if inner.is_closed() {
                return Err(Error::Closed);
            }
            {
                let mut state = inner.state.lock();
                if let Some(error) = state.errors.pop_front() {
                    return Err(error);
                }
                if self.joined() {
                    let records = state.take(inner.config.max_poll_records)?;
                    if !records.is_empty() {
                        drop(state);
                        // Wakes the fetcher, which has room for more now.
                        inner.changed();
                        return Ok(records);
                    }
                }
            }
            match tokio::time::timeout_at(deadline.into(), changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::Closed),
                Err(_) => return Ok(Vec::new()),
            }
        }
    }

    /// Commits the records of earlier polls, if the interval has passed.
    fn auto_commit(&self) {
        let Some(group) = &self.inner.group else { return };
        if !self.inner.config.enable_auto_commit || group.rebalancing() {
            return;
        }
        let mut next = self.inner.next_auto_commit.lock();
        if *next > Instant::now() {
            return;
        }
        *next = Instant::now() + self.inner.config.auto_commit_interval;
        drop(next);
        self.commit_async(|outcome| {
            if let Err(error) = outcome {
                tracing::warn!(%error, "offsets were not committed");
            }
        });
    }

    /// Commits the positions of all partitions, so everything that `poll` returned.
    ///
    /// # Errors
    /// There is no `group.id`, the member is no longer in the group, or the coordinator cannot be reached.
    pub async fn commit(&self) -> Result<(), Error> {
        let positions = self.inner.state.lock().positions();
        self.commit_offsets(&positions).await
    }

    /// Commits these offsets. Each one is the offset of the next record to read.
    ///
    /// # Errors
    /// Those of [`Consumer::commit`].
    pub async fn commit_offsets(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> Result<(), Error> {
        let outcome = commit::commit(&self.inner, self.group()?, offsets).await;
        self.check_membership(&outcome);
        outcome
    }

    /// Commits the positions of all partitions in the background; `callback` gets the result.
    pub fn commit_async(&self, callback: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let consumer = self.clone();
        let positions = self.inner.state.lock().positions();
        tokio::spawn(async move { callback(consumer.commit_offsets(&positions).await) });
    }

    /// Starts a rebalance if a failed commit shows that one is needed.
    fn check_membership(&self, outcome: &Result<(), Error>) {
        let subscribed = matches!(self.inner.state.lock().mode, Mode::Subscribed(_));
        if let (Err(error), Some(group), true) = (outcome, &self.inner.group, subscribed)
            && error.code().is_some_and(commit::lost_membership)
        {
            group.set_rebalancing(true);
            self.inner.changed();
        }
    }

    fn group(&self) -> Result<&Group, Error> {
        self.inner.group.as_deref().ok_or(Error::State("committed offsets need a group.id"))
    }

    /// Returns the committed offsets of those partitions that have one.
    ///
    /// # Errors
    /// There is no `group.id`, or the coordinator cannot be reached.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
        commit::committed(&self.inner.cluster, self.group()?, partitions, self.inner.read_committed()).await
    }

    /// Returns the positions of all partitions: the offsets to commit for the records that `poll` has returned.
    pub fn positions(&self) -> BTreeMap<TopicPartition, CommittedOffset> {
        self.inner.state.lock().positions()
    }

    /// Returns the group and this member of it, for a transaction that commits offsets.
    ///
    /// # Errors
    /// There is no `group.id`.
    pub fn group_metadata(&self) -> Result<ConsumerGroupMetadata, Error> {
        Ok(self.group()?.metadata())
    }

    /// Returns the offset of the next record for `poll`; `None` before it is known.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.state.lock().partitions.get(partition)?.position
    }

    /// Continues at `offset`.
    ///
    /// # Errors
    /// The partition is not assigned, or the offset is negative.
    pub fn seek(&self, partition: &TopicPartition, offset: i64) -> Result<(), Error> {
        if offset < 0 {
            return Err(Error::State("the offset of a seek must not be negative"));
        }
        self.move_to(partition, |state| state.place(offset))
    }

    /// Continues at the oldest record.
    ///
    /// # Errors
    /// The partition is not assigned.
    pub fn seek_to_beginning(&self, partition: &TopicPartition) -> Result<(), Error> {
        self.move_to(partition, |state| state.look_up(Wanted::Timestamp(offsets::EARLIEST)))
    }

    /// Continues at the next record to be stored.
    ///
    /// # Errors
    /// The partition is not assigned.
    pub fn seek_to_end(&self, partition: &TopicPartition) -> Result<(), Error> {
        self.move_to(partition, |state| state.look_up(Wanted::Timestamp(offsets::LATEST)))
    }

    fn move_to(&self, partition: &TopicPartition, change: impl FnOnce(&mut state::Partition)) -> Result<(), Error> {
        let mut state = self.inner.state.lock();
        let version = state.new_version();
        let entry = state.partitions.get_mut(partition);
        let entry = entry.ok_or(Error::State("the partition is not assigned to this consumer"))?;
        entry.version = version;
        change(entry);
        drop(state);
        self.inner.changed();
        Ok(())
    }

    /// Stops `poll` from returning records of these partitions until they are resumed. The assignment stays.
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        self.set_paused(partitions, true);
    }

    /// Resumes paused partitions.
    pub fn resume<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        self.set_paused(partitions, false);
    }

    fn set_paused<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>, paused: bool) {
        let mut state = self.inner.state.lock();
        for partition in partitions {
            if let Some(entry) = state.partitions.get_mut(partition) {
                entry.paused = paused;
            }
        }
        drop(state);
        self.inner.changed();
    }

    /// Returns the offset of the oldest record of each partition.
    ///
    /// # Errors
    /// A leader cannot be reached within `default.api.timeout.ms`.
    pub async fn beginning_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        self.offsets_at(partitions, offsets::EARLIEST).await
    }

    /// Returns the offset of the next record to be stored in each partition; with `read_committed`, the last stable
    /// offset.
    ///
    /// # Errors
    /// A leader cannot be reached within `default.api.timeout.ms`.
    pub async fn end_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        self.offsets_at(partitions, offsets::LATEST).await
    }

    async fn offsets_at(
        &self,
        partitions: &[TopicPartition],
        timestamp: i64,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let times = partitions.iter().map(|partition| (partition.clone(), timestamp)).collect();
        let found = self.offsets_for_times(&times).await?;
        Ok(found.into_iter().map(|(partition, found)| (partition, found.offset)).collect())
    }

    /// Returns for each partition the first record at or after a time in milliseconds since the epoch; -1 if there is
    /// none.
    ///
    /// # Errors
    /// A leader cannot be reached within `default.api.timeout.ms`.
    pub async fn offsets_for_times(
        &self,
        times: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndTimestamp>, Error> {
        let (config, cluster) = (&self.inner.config, &self.inner.cluster);
        offsets::list(cluster, times, config.isolation_level, config.client.default_api_timeout).await
    }

    /// Returns the partitions of the topic.
    ///
    /// # Errors
    /// The topic's metadata did not arrive within `default.api.timeout.ms`.
    pub async fn partitions(&self, topic: &str) -> Result<Vec<TopicPartition>, Error> {
        let name: Arc<str> = topic.into();
        let topic = self.inner.cluster.topic(&name, self.inner.config.client.default_api_timeout).await?;
        Ok((0..topic.partitions.len() as i32).map(|number| TopicPartition::new(name.clone(), number)).collect())
    }

    /// Commits (with `enable.auto.commit`), leaves the group and closes the connections.
    ///
    /// # Errors
    /// The commit failed; the consumer is closed anyway.
    pub async fn close(self) -> Result<(), Error> {
        let mut outcome = Ok(());
        if let Some(group) = &self.inner.group {
            let subscribed = matches!(self.inner.state.lock().mode, Mode::Subscribed(_));
            let member = !subscribed || group.membership().generation >= 0;
            if self.inner.config.enable_auto_commit && member {
                outcome = self.commit().await;
            }
            self.inner.close();
            if subscribed {
                group::leave(&self.inner, group).await;
            }
        }
        self.inner.close();
        self.inner.cluster.close();
        outcome
    }
}
