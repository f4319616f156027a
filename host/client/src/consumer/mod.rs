//! The consumer.
//!
//! A record's way: the [`fetcher`] asks the leaders of the partitions that are read, ahead of what was
//! handed out; [`decode`] checks and unpacks the batches and has the stages filter and deserialise
//! their rows; [`state`] keeps what is ready and how far each partition is; [`Consumer::poll`] takes
//! from it. With a subscription, [`group`] says which partitions are read.

pub(crate) mod config;
pub(crate) mod decode;
mod fetcher;
pub(crate) mod group;
pub(crate) mod offsets;
pub(crate) mod record;
mod state;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use millstream_stage::{Stage, StageStats};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::edge::{self, ConsumerStages};
use crate::error::Error;
use crate::net::{Cluster, Metadata};
use crate::plugins::{Attached, Following, TopicSource, attach};
use config::{ConsumerConfig, IsolationLevel};
use decode::Decoder;
use group::{Group, commit};
use offsets::OffsetAndTimestamp;
use record::{CommittedOffset, ConsumerRecord, TopicPartition};
use state::{Mode, State, Wanted};

/// What a [`RebalanceListener`] answers with.
pub type ListenerFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Hears of partitions that come and go. Called while a `poll` is under way; records that earlier
/// polls returned have been worked on by then, and no others are returned before the call ends.
pub trait RebalanceListener: Send + Sync {
    /// These are about to be given up. The offsets may still be committed.
    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> ListenerFuture<'a> {
        let _ = partitions;
        Box::pin(std::future::ready(()))
    }

    /// These belong to somebody else already: what is committed for them now is refused.
    fn lost<'a>(&'a self, partitions: &'a [TopicPartition]) -> ListenerFuture<'a> {
        let _ = partitions;
        Box::pin(std::future::ready(()))
    }

    /// These are read from now on.
    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> ListenerFuture<'a> {
        let _ = partitions;
        Box::pin(std::future::ready(()))
    }
}

/// What all tasks of one consumer share.
pub(crate) struct Inner {
    config: ConsumerConfig,
    cluster: Cluster,
    decoder: Decoder,
    stages: Arc<Attached<ConsumerStages>>,
    state: Mutex<State>,
    group: Option<Arc<Group>>,
    listener: Mutex<Option<Arc<dyn RebalanceListener>>>,
    /// The partition counts that this member divided, if it leads its group.
    divided: Mutex<Option<BTreeMap<String, i32>>>,
    /// Wakes whoever waits for anything.
    changes: watch::Sender<u64>,
    polls: AtomicUsize,
    refresh_wanted: AtomicBool,
    closed: AtomicBool,
    turn: AtomicUsize,
    next_auto_commit: Mutex<Instant>,
    /// Keeps the stages up to date.
    _following: Option<Following>,
}

impl Inner {
    fn read_committed(&self) -> bool {
        self.config.isolation_level == IsolationLevel::ReadCommitted
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn in_poll(&self) -> bool {
        self.polls.load(Ordering::SeqCst) > 0
    }

    fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn want_refresh(&self) {
        self.refresh_wanted.store(true, Ordering::SeqCst);
        self.changed();
    }

    fn take_refresh(&self) -> bool {
        self.refresh_wanted.swap(false, Ordering::SeqCst)
    }

    /// For the next poll.
    fn fail(&self, error: Error) {
        self.state.lock().errors.push_back(error);
        self.changed();
    }

    fn fail_if_final(&self, error: &Error) {
        if !error.retriable() {
            self.fail(error.clone());
        }
    }

    fn listener(&self) -> Option<Arc<dyn RebalanceListener>> {
        self.listener.lock().clone()
    }

    /// A topic that has other partitions than were divided is divided anew.
    fn metadata_changed(&self, _before: &Metadata, after: &Metadata) {
        let (Some(group), Some(divided)) = (&self.group, &*self.divided.lock()) else { return };
        let differs = |(topic, count): (&String, &i32)| {
            after.topic(topic).is_some_and(|topic| topic.partitions.len() != *count as usize)
        };
        if divided.iter().any(differs) {
            group.set_rebalancing(true);
            self.changed();
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.changed();
    }
}

/// Ends the tasks when the last handle is gone.
struct CloseOnDrop(Arc<Inner>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Counts as a poll while it lives.
struct InPoll<'a>(&'a Inner);

impl<'a> InPoll<'a> {
    fn new(inner: &'a Inner) -> Self {
        if let Some(group) = &inner.group {
            *group.last_poll.lock() = Instant::now();
        }
        inner.polls.fetch_add(1, Ordering::SeqCst);
        inner.changed();
        Self(inner)
    }
}

impl Drop for InPoll<'_> {
    fn drop(&mut self) {
        self.0.polls.fetch_sub(1, Ordering::SeqCst);
        if let Some(group) = &self.0.group {
            *group.last_poll.lock() = Instant::now();
        }
    }
}

/// Reads records. Cheap to clone: all clones are the same consumer.
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
    /// Has a topic's stages fill the places of those that are not given.
    #[must_use]
    pub(crate) fn with_topic(mut self, topic: TopicSource) -> Self {
        self.topic = Some(topic);
        self
    }

    /// A compressor stage that decompresses the batches of the codec that it writes; the native
    /// codecs do the others.
    #[must_use]
    pub fn decompressor(mut self, stage: Arc<Stage>) -> Self {
        self.stages.decompressor = Some(stage);
        self
    }

    /// A stage that decides which records are handed out. The next one sees those that this one keeps.
    #[must_use]
    pub fn filter(mut self, stage: Arc<Stage>) -> Self {
        self.stages.filters.push(stage);
        self
    }

    /// A serializer stage that makes keys and values out of those that were stored.
    #[must_use]
    pub fn deserializer(mut self, stage: Arc<Stage>) -> Self {
        self.stages.deserializer = Some(stage);
        self
    }

    /// Who hears of partitions that come and go.
    #[must_use]
    pub fn rebalance_listener(mut self, listener: Arc<dyn RebalanceListener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Starts the consumer on the current tokio runtime. Connects when there is something to read.
    ///
    /// # Errors
    /// A setting is impossible; the decompressor reads a format of its own.
    pub fn build(self) -> Result<Consumer, Error> {
        let Self { config, stages, listener, topic } = self;
        config.validate()?;
        if let Some(stage) = &stages.decompressor {
            edge::standard_codec(&stage.plugin())?;
        }
        let (stages, following) = attach(stages, topic);
        let decoder = Decoder { check_crcs: config.check_crcs, batch_max_bytes: config.decompressed_batch_max_bytes };
        let group = config.group_id.as_deref().map(|id| Group::new(id, config.group_instance_id.as_deref()));
        let inner = Arc::new(Inner {
            cluster: Cluster::new(config.client.clone(), config.allow_auto_create_topics),
            decoder,
            stages,
            state: Mutex::default(),
            group: group.map(Arc::new),
            listener: Mutex::new(listener),
            divided: Mutex::default(),
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
    /// A consumer with these settings, to be given its stages.
    pub fn builder(config: ConsumerConfig) -> ConsumerBuilder {
        ConsumerBuilder { config, ..ConsumerBuilder::default() }
    }

    /// What every stage did, those that were replaced since the topic wanted others first.
    pub fn stage_stats(&self) -> Vec<StageStats> {
        self.inner.stages.stats()
    }

    /// Reads these topics, sharing their partitions with the other members of the group.
    ///
    /// # Errors
    /// There is no `group.id`, or partitions were assigned.
    pub fn subscribe<T: AsRef<str>>(&self, topics: impl IntoIterator<Item = T>) -> Result<(), Error> {
        let Some(group) = &self.inner.group else { return Err(Error::State("to subscribe needs a group.id")) };
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

    /// Reads these partitions, whatever others do. Those that are read already go on where they are.
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

    /// Reads nothing any more, and leaves the group.
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

    /// The partitions that are read now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.inner.state.lock().partitions.keys().cloned().collect()
    }

    /// Whether this consumer knows what it reads: always, but for a subscription between a change of the
    /// group and the end of its rebalance.
    pub fn joined(&self) -> bool {
        !self.inner.group.as_ref().is_some_and(|group| group.rebalancing())
    }

    /// Up to `max.poll.records` records, as soon as there are any; none when `timeout` is over. To be
    /// called again and again: a rebalance happens in it. Safe to be cancelled: no record is lost by it.
    ///
    /// # Errors
    /// What cannot be mended by waiting: a record that a stage or the decoder refuses (after those
    /// before it were returned), an offset that is gone with `auto.offset.reset=none`, a refusal of
    /// the cluster.
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
                        // There is room to fetch more.
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

    /// Commits what earlier polls returned, if it is time.
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

    /// Commits the positions of all partitions: everything that `poll` returned.
    ///
    /// # Errors
    /// There is no `group.id`; the group has moved on without this member; the coordinator cannot be reached.
    pub async fn commit(&self) -> Result<(), Error> {
        let positions = self.inner.state.lock().positions();
        self.commit_offsets(&positions).await
    }

    /// Commits these offsets: each is that of the next record to read.
    ///
    /// # Errors
    /// As [`Consumer::commit`].
    pub async fn commit_offsets(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> Result<(), Error> {
        let outcome = commit::commit(&self.inner, self.group()?, offsets).await;
        self.heed(&outcome);
        outcome
    }

    /// Commits the positions of all partitions without waiting; `callback` gets the outcome.
    pub fn commit_async(&self, callback: impl FnOnce(Result<(), Error>) + Send + 'static) {
        let consumer = self.clone();
        let positions = self.inner.state.lock().positions();
        tokio::spawn(async move { callback(consumer.commit_offsets(&positions).await) });
    }

    /// A commit may be the first to hear of a rebalance.
    fn heed(&self, outcome: &Result<(), Error>) {
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

    /// The group's offsets of those partitions for which it has one.
    ///
    /// # Errors
    /// There is no `group.id`; the coordinator cannot be reached.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
        commit::committed(&self.inner.cluster, self.group()?, partitions, self.inner.read_committed()).await
    }

    /// The offset of the next record that `poll` will return; `None` before it is known.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.state.lock().partitions.get(partition)?.position
    }

    /// Goes on at `offset`.
    ///
    /// # Errors
    /// The partition is not read by this consumer, or the offset is negative.
    pub fn seek(&self, partition: &TopicPartition, offset: i64) -> Result<(), Error> {
        if offset < 0 {
            return Err(Error::State("an offset to seek must not be negative"));
        }
        self.move_to(partition, |state| state.place(offset))
    }

    /// Goes on at the oldest record.
    ///
    /// # Errors
    /// The partition is not read by this consumer.
    pub fn seek_to_beginning(&self, partition: &TopicPartition) -> Result<(), Error> {
        self.move_to(partition, |state| state.look_up(Wanted::Timestamp(offsets::EARLIEST)))
    }

    /// Goes on with the next record that will be stored.
    ///
    /// # Errors
    /// The partition is not read by this consumer.
    pub fn seek_to_end(&self, partition: &TopicPartition) -> Result<(), Error> {
        self.move_to(partition, |state| state.look_up(Wanted::Timestamp(offsets::LATEST)))
    }

    fn move_to(&self, partition: &TopicPartition, change: impl FnOnce(&mut state::Partition)) -> Result<(), Error> {
        let mut state = self.inner.state.lock();
        let version = state.new_version();
        let entry = state.partitions.get_mut(partition);
        let entry = entry.ok_or(Error::State("the partition is not read by this consumer"))?;
        entry.version = version;
        change(entry);
        drop(state);
        self.inner.changed();
        Ok(())
    }

    /// Hands out nothing of these partitions until they are resumed; membership is not concerned.
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        self.set_paused(partitions, true);
    }

    /// Goes on with these partitions.
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

    /// The offset of the oldest record of each partition.
    ///
    /// # Errors
    /// The leaders cannot be asked within `default.api.timeout.ms`.
    pub async fn beginning_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        self.offsets_at(partitions, offsets::EARLIEST).await
    }

    /// The offset that the next record of each partition will have; under `read_committed`, the last
    /// stable offset.
    ///
    /// # Errors
    /// The leaders cannot be asked within `default.api.timeout.ms`.
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

    /// For each partition the first record at or after that time, in milliseconds since the epoch; -1
    /// where there is none.
    ///
    /// # Errors
    /// The leaders cannot be asked within `default.api.timeout.ms`.
    pub async fn offsets_for_times(
        &self,
        times: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndTimestamp>, Error> {
        let (config, cluster) = (&self.inner.config, &self.inner.cluster);
        offsets::list(cluster, times, config.isolation_level, config.client.default_api_timeout).await
    }

    /// How many partitions the topic has.
    ///
    /// # Errors
    /// The topic's metadata cannot be had within `default.api.timeout.ms`.
    pub async fn partitions(&self, topic: &str) -> Result<Vec<TopicPartition>, Error> {
        let name: Arc<str> = topic.into();
        let topic = self.inner.cluster.topic(&name, self.inner.config.client.default_api_timeout).await?;
        Ok((0..topic.partitions.len() as i32).map(|number| TopicPartition::new(name.clone(), number)).collect())
    }

    /// Commits (with `enable.auto.commit`), leaves the group and closes the connections.
    ///
    /// # Errors
    /// The commit failed; the consumer is closed all the same.
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
