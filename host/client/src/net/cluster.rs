//! The cluster as seen by one client: a connection per broker and lane, the metadata, retries.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_wire::messages::{MetadataRequest, MetadataRequestTopic, MetadataResponse, NodeEndpoint};
use millstream_wire::{ErrorCode, Request, Str};
use parking_lot::{Mutex, RwLock};

use super::connection::{Connection, LATE_AFTER};
use super::metadata::{Metadata, NewLeader, Topic};
use crate::config::ClientConfig;
use crate::error::Error;

/// The purpose of a connection. A broker handles the requests of a connection one by one. Requests that may wait long
/// (a fetch, a rebalance) therefore have separate connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Main,
    Fetch,
    Group,
}

/// The target of a connection: a broker by its id, or a bootstrap server by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Broker(i32),
    Bootstrap(usize),
}

/// A connection, or the state of the reconnection.
#[derive(Default)]
struct Slot {
    connection: Option<Arc<Connection>>,
    /// The number of failed connection attempts in a row.
    failures: u32,
    next_attempt: Option<Instant>,
}

type Slots = HashMap<(Target, Lane), Arc<tokio::sync::Mutex<Slot>>>;

/// The connections and metadata of one client.
pub(crate) struct Cluster {
    config: ClientConfig,
    slots: Mutex<Slots>,
    /// The brokers that could not be reached at the last attempt, or whose connection has broken since.
    down: Mutex<HashSet<i32>>,
    metadata: RwLock<Arc<Metadata>>,
    /// The topics that a refresh requests.
    topics: Mutex<BTreeSet<Arc<str>>>,
    auto_create: bool,
    /// Allows one refresh at a time. Callers that waited for it share its result.
    refreshing: tokio::sync::Mutex<()>,
}

impl Cluster {
    /// Creates a cluster without connections. `auto_create`: whether a metadata request may create a topic.
    pub(crate) fn new(config: ClientConfig, auto_create: bool) -> Self {
        Self {
            config,
            slots: Mutex::default(),
            down: Mutex::default(),
            metadata: RwLock::new(Arc::new(Metadata::empty())),
            topics: Mutex::default(),
            auto_create,
            refreshing: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Returns the current metadata.
    pub(crate) fn metadata(&self) -> Arc<Metadata> {
        self.metadata.read().clone()
    }

    /// Replaces metadata that is not the current one. Returns whether it was replaced.
    pub(crate) fn renew(&self, known: &mut Arc<Metadata>) -> bool {
        let current = self.metadata.read();
        let is_new = !Arc::ptr_eq(known, &current);
        if is_new {
            known.clone_from(&current);
        }
        is_new
    }

    /// Returns whether the metadata is older than `metadata.max.age.ms`.
    pub(crate) fn stale(&self) -> bool {
        self.metadata.read().fetched.elapsed() > self.config.metadata_max_age
    }

    /// Returns a connection to the broker. Opens one if needed, after the backoff of earlier failures.
    pub(crate) async fn broker(&self, node: i32, lane: Lane) -> Result<Arc<Connection>, Error> {
        self.connect(Target::Broker(node), lane).await
    }

    async fn connect(&self, target: Target, lane: Lane) -> Result<Arc<Connection>, Error> {
        let slot = self.slots.lock().entry((target, lane)).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.connection.as_ref().filter(|connection| connection.alive()) {
            return Ok(connection.clone());
        }
        if slot.connection.take().is_some() {
            self.set_down(target, true);
        }
        if let Some(next_attempt) = slot.next_attempt {
            tokio::time::sleep_until(next_attempt.into()).await;
        }
        let address: Arc<str> =
            match target {
                Target::Bootstrap(index) => self.config.bootstrap_servers[index].as_str().into(),
                Target::Broker(node) => self.metadata().brokers.get(&node).cloned().ok_or_else(|| {
                    Error::broker(format!("find broker {node}"), ErrorCode::BROKER_NOT_AVAILABLE, None)
                })?,
            };
        match Connection::open(&address, &self.config).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                self.set_down(target, false);
                slot.failures = 0;
                // Prevents a tight loop with a broker that accepts connections and closes them at once.
                slot.next_attempt = Some(Instant::now() + self.config.connect_backoff(0));
                slot.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                self.set_down(target, true);
                slot.next_attempt = Some(Instant::now() + self.config.connect_backoff(slot.failures));
                slot.failures = slot.failures.saturating_add(1);
                Err(error)
            }
        }
    }

    fn set_down(&self, target: Target, is_down: bool) {
        let Target::Broker(node) = target else { return };
        let mut down = self.down.lock();
        if is_down {
            down.insert(node);
        } else {
            down.remove(&node);
        }
    }

    /// Notes that the connection to a broker has broken.
    pub(crate) fn has_broken(&self, node: i32) {
        self.set_down(Target::Broker(node), true);
    }

    /// Returns whether the last attempt to reach a broker failed. Its partitions may have other leaders soon.
    pub(crate) fn is_down(&self, node: i32) -> bool {
        self.down.lock().contains(&node)
    }

    /// Takes over leaders that a response names, without a request for metadata (KIP-951). Returns whether one of them
    /// is newer than what was known.
    pub(crate) fn learn_leaders(&self, leaders: &[NewLeader<'_>], endpoints: &[NodeEndpoint]) -> bool {
        if leaders.iter().all(|leader| leader.id < 0) {
            return false;
        }
        let mut metadata = self.metadata.write();
        match metadata.with_leaders(leaders, endpoints) {
            Some(newer) => {
                *metadata = Arc::new(newer);
                true
            }
            None => false,
        }
    }

    /// Returns a connection to any broker: an open one, then one of the known brokers, then of the bootstrap servers.
    /// Brokers that hang or could not be reached come last.
    pub(crate) async fn any(&self) -> Result<Arc<Connection>, Error> {
        if let Some(connection) = self.open_connection() {
            return Ok(connection);
        }
        let mut brokers: Vec<i32> = self.metadata().brokers.keys().copied().collect();
        brokers.sort_unstable();
        let bootstrap = (0..self.config.bootstrap_servers.len()).map(Target::Bootstrap);
        let mut targets: Vec<Target> = brokers.into_iter().map(Target::Broker).chain(bootstrap).collect();
        targets.sort_by_key(|target| self.is_unlikely(*target));
        let mut last = None;
        for target in targets {
            match self.connect(target, Lane::Main).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        let last = last.unwrap_or(Error::State("no bootstrap server is configured"));
        // A retry does not change the versions of a broker.
        match last {
            Error::UnsupportedVersion { .. } => Err(last),
            last => Err(Error::NoBroker { last: Box::new(last) }),
        }
    }

    /// Returns whether a broker hangs, or its connection has failed and the next attempt has to wait.
    fn is_unlikely(&self, target: Target) -> bool {
        let Some(slot) = self.slots.lock().get(&(target, Lane::Main)).cloned() else { return false };
        // A locked slot is being connected.
        let Ok(slot) = slot.try_lock() else { return true };
        let hangs = slot.connection.as_ref().is_some_and(|connection| connection.alive() && connection.hangs());
        hangs || slot.failures > 0 && slot.next_attempt.is_some_and(|at| at > Instant::now())
    }

    fn open_connection(&self) -> Option<Arc<Connection>> {
        let slots = self.slots.lock();
        let mut main = slots.iter().filter(|((_, lane), _)| *lane == Lane::Main);
        main.find_map(|(_, slot)| {
            // A locked slot is being connected.
            let slot = slot.try_lock().ok()?;
            slot.connection.as_ref().filter(|connection| connection.alive() && !connection.hangs()).cloned()
        })
    }

    /// Closes every connection. Requests without a response fail.
    pub(crate) fn close(&self) {
        for (_, slot) in self.slots.lock().drain() {
            if let Ok(mut slot) = slot.try_lock()
                && let Some(connection) = slot.connection.take()
            {
                connection.close("the client was closed");
            }
        }
    }

    /// Sends a request to any broker, without retries.
    pub(crate) async fn ask_any<R: Request>(&self, request: &R) -> Result<R::Response, Error> {
        self.any().await?.send(request)?.wait(self.config.request_timeout).await
    }

    /// Sends a request to one broker, without retries.
    pub(crate) async fn ask<R: Request>(&self, node: i32, lane: Lane, request: &R) -> Result<R::Response, Error> {
        self.broker(node, lane).await?.send(request)?.wait(self.config.request_timeout).await
    }

    /// Sends a request to the leader of a partition, or to the controller, without retries. If the metadata no longer
    /// has that broker, the error is retriable: another one is elected.
    pub(crate) async fn ask_leader<R: Request>(&self, node: i32, request: &R) -> Result<R::Response, Error> {
        self.ask(node, Lane::Main, request).await.map_err(|error| match error {
            Error::Broker { what, code: ErrorCode::BROKER_NOT_AVAILABLE, message } => {
                Error::Broker { what, code: ErrorCode::LEADER_NOT_AVAILABLE, message }
            }
            error => error,
        })
    }

    /// Starts a series of attempts. It ends with the first success, with an error that is not retriable, or after
    /// `limit`.
    pub(crate) fn retry<'a>(&'a self, limit: Duration, what: &'a str) -> Retry<'a> {
        Retry { cluster: self, what, limit, deadline: Instant::now() + limit, failures: 0, last: None }
    }

    /// Refreshes the metadata, unless it is newer than generation `seen`. Waits for a refresh that is running.
    pub(crate) async fn refresh(&self, seen: u64) -> Result<Arc<Metadata>, Error> {
        let _one = self.refreshing.lock().await;
        let current = self.metadata();
        if current.generation > seen {
            return Ok(current);
        }
        let names: Vec<Arc<str>> = self.topics.lock().iter().cloned().collect();
        let response = self.fetch_metadata(Some(&names), self.auto_create).await?;
        let updated = Arc::new(current.updated(response));
        *self.metadata.write() = updated.clone();
        Ok(updated)
    }

    /// Requests the metadata of these topics, or of all with `None`, without storing it. If a broker hangs, another one
    /// is asked.
    pub(crate) async fn fetch_metadata(
        &self,
        names: Option<&[Arc<str>]>,
        auto_create: bool,
    ) -> Result<MetadataResponse, Error> {
        let topic = |name: &Arc<str>| MetadataRequestTopic { name: Some(Str::from(&**name)), ..Default::default() };
        let request = MetadataRequest {
            topics: names.map(|names| names.iter().map(topic).collect()),
            allow_auto_topic_creation: auto_create,
            ..Default::default()
        };
        match tokio::time::timeout(LATE_AFTER, self.ask_any(&request)).await {
            Ok(response) => response,
            Err(_) => self.ask_any(&request).await,
        }
    }

    /// Adds topics to those that a refresh requests.
    pub(crate) fn follow(&self, topics: impl IntoIterator<Item = Arc<str>>) {
        self.topics.lock().extend(topics);
    }

    /// Returns the topic's metadata, requested until it arrives or `limit` has passed.
    pub(crate) async fn topic(&self, name: &Arc<str>, limit: Duration) -> Result<Arc<Topic>, Error> {
        if let Some(topic) = self.metadata().topic(name) {
            return Ok(topic.clone());
        }
        self.follow([name.clone()]);
        let what = format!("the metadata of topic {name}");
        let mut retry = self.retry(limit, &what);
        loop {
            if let Some(topic) = retry.attempt(self.topic_once(name)).await? {
                return Ok(topic);
            }
        }
    }

    async fn topic_once(&self, name: &Arc<str>) -> Result<Arc<Topic>, Error> {
        let mut metadata = self.metadata();
        if !metadata.topics.contains_key(name) {
            metadata = self.refresh(metadata.generation).await?;
        }
        match metadata.topics.get(name) {
            Some(Ok(topic)) if !topic.partitions.is_empty() => Ok(topic.clone()),
            Some(Err(code)) => Err(Error::broker(format!("topic {name}"), *code, None)),
            _ => Err(Error::broker(format!("topic {name}"), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None)),
        }
    }

    /// Returns the broker that leads the partition, and the leader epoch.
    pub(crate) async fn leader(&self, topic: &Arc<str>, partition: i32) -> Result<(i32, i32), Error> {
        let known = self.topic(topic, self.config.default_api_timeout).await?;
        if partition < 0 || partition as usize >= known.partitions.len() {
            let partitions = known.partitions.len();
            return Err(Error::UnknownPartition { topic: topic.clone(), partition, partitions });
        }
        self.metadata().leader(topic, partition).ok_or_else(|| {
            Error::broker(format!("partition {topic}-{partition}"), ErrorCode::LEADER_NOT_AVAILABLE, None)
        })
    }
}

/// A series of attempts, with a backoff and a refresh of the metadata between them, because outdated metadata may be
/// why an attempt failed.
pub(crate) struct Retry<'a> {
    cluster: &'a Cluster,
    what: &'a str,
    limit: Duration,
    deadline: Instant,
    failures: u32,
    /// Why the last attempt failed.
    last: Option<Error>,
}

impl Retry<'_> {
    /// Runs one attempt. Returns `None` if it failed and the next one may succeed.
    pub(crate) async fn attempt<T>(
        &mut self,
        attempt: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Error> {
        let error = match tokio::time::timeout_at(self.deadline.into(), attempt).await {
            Ok(Ok(value)) => return Ok(Some(value)),
            Ok(Err(error)) => error,
            Err(_) => {
                let reason = self.last.as_ref().map_or_else(String::new, |error| format!(" (last error: {error})"));
                return Err(Error::timeout(format!("{}{reason}", self.what), self.limit));
            }
        };
        let wait = self.cluster.config.backoff(self.failures);
        if !error.retriable() || Instant::now() + wait >= self.deadline {
            return Err(error);
        }
        tracing::debug!(%error, what = self.what, "retrying");
        self.failures += 1;
        self.last = Some(error);
        tokio::time::sleep(wait).await;
        let refresh = self.cluster.refresh(self.cluster.metadata().generation);
        // The next attempt reports its failure.
        let _ = tokio::time::timeout_at(self.deadline.into(), refresh).await;
        Ok(None)
    }
}
