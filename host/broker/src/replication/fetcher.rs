//! The fetches from one leader, for the partitions that follow it, or a share of them (`num.replica.fetchers`).
//!
//! One request is under way at a time. While the leader has more than fits a response, the next request leaves as soon
//! as a response has come, before its records are appended and synced. Such a request says what is synced, which is all
//! that the leader counts, and does not wait at the leader. Any other request leaves when everything is synced. So the
//! leader learns at once of what it counts for acks=all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_partition::replica::FetchPosition;
use millstream_partition::{NextFetch, PartitionError};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{FetchPartition, FetchRequest, FetchResponse};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};

use super::appends::{self, Appends, Failure, FollowError};
use super::connection::{Connection, ConnectionError};
use super::session::FetchSession;
use super::{PartitionKey, Replica, ReplicaHost, throttle};
use crate::config::{BrokerConfig, ReplicaFetchConfig};

/// The version of Fetch. Both sides run this program.
const VERSION: i16 = 18;

/// The pause before a leader is asked again that knows other metadata than its follower.
const METADATA_WAIT: Duration = Duration::from_millis(20);

/// The most bytes of a response's frame, unless a batch may be larger.
const FRAME_BYTES_MAX: usize = 100 << 20;

/// The most bytes of a fetcher that are appended and not synced while it fetches more.
const UNSYNCED_BYTES_MAX: usize = 32 << 20;

/// The limits of a fetcher.
#[derive(Debug, Clone)]
pub(crate) struct FetcherConfig {
    /// `replica.fetch.*` and `replica.socket.timeout.ms`
    pub(crate) fetch: ReplicaFetchConfig,
    /// The most bytes of a response's frame. One batch may be larger than the limits above.
    frame_bytes_max: usize,
}

impl FetcherConfig {
    /// Returns the limits of a broker's configuration.
    pub(crate) fn of(config: &BrokerConfig) -> Self {
        let fetch = config.replica_fetch.clone();
        let largest = config.request_max_bytes.max(usize::try_from(fetch.response_max_bytes).unwrap_or(0));
        // A response is a few headers larger than the largest batch that a producer may send.
        Self { fetch, frame_bytes_max: FRAME_BYTES_MAX.max(largest.saturating_add(1 << 20)) }
    }
}

/// A fetcher of one leader.
pub(super) struct Fetcher {
    host: Arc<dyn ReplicaHost>,
    leader: i32,
    /// Its number among the fetchers of the leader.
    index: usize,
    address: (String, u16),
    config: FetcherConfig,
    followed: Vec<Replica>,
    session: FetchSession,
    /// Partitions that failed, and when they are fetched again.
    delayed: HashMap<PartitionKey, Instant>,
    appends: Appends,
    /// Where the next request fetches while the last response is appended; empty if it waits until all is synced.
    ahead: HashMap<PartitionKey, FetchPosition>,
}

/// Why the fetches have to begin again with a new connection.
#[derive(Debug, thiserror::Error)]
enum FetcherError {
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("the leader responds with {0}")]
    Leader(ErrorCode),
    #[error("the records cannot be appended: {0}")]
    Append(#[from] JoinError),
}

impl Fetcher {
    /// Makes the fetcher of a leader with this number among those of the leader.
    pub(super) fn new(
        host: Arc<dyn ReplicaHost>,
        (leader, index): (i32, usize),
        address: (String, u16),
        config: FetcherConfig,
    ) -> Self {
        Self {
            host,
            leader,
            index,
            address,
            config,
            followed: Vec::new(),
            session: FetchSession::default(),
            delayed: HashMap::new(),
            appends: Appends::default(),
            ahead: HashMap::new(),
        }
    }

    /// Fetches until `stop` says so, or is gone. A response that has come is appended first.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut reported = String::new();
        while let Err(error) = self.fetch_until_failure(&mut stop).await {
            let error = error.to_string();
            // A broker that is down fails every time: one line is enough.
            if error != reported {
                tracing::warn!(leader = self.leader, "cannot fetch from the leader: {error}");
                reported = error;
            }
            if timeout(self.config.fetch.backoff, stopped(&mut stop)).await.is_ok() {
                break;
            }
        }
        if let Err(error) = self.appends.appended().await {
            tracing::warn!(leader = self.leader, "the last records are not appended: {error}");
        }
    }

    async fn fetch_until_failure(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), FetcherError> {
        let (host, port) = &self.address;
        let FetcherConfig { fetch: ReplicaFetchConfig { socket_timeout, .. }, frame_bytes_max } = &self.config;
        let mut connection = tokio::select! {
            connection = Connection::open(host, *port, *frame_bytes_max, *socket_timeout) => connection?,
            () = stopped(stop) => return Ok(()),
        };
        self.session.reset();
        self.ahead.clear();
        let mut roles = self.host.roles();
        roles.mark_changed();
        loop {
            if self.ahead.is_empty() {
                let failures = self.appends.appended().await?;
                self.failed(failures);
                let failures = self.appends.synced_to(0).await;
                self.failed(failures);
            }
            if roles.has_changed().unwrap_or(false) {
                roles.mark_unchanged();
                let (index, fetchers) = (self.index, self.config.fetch.fetchers);
                self.followed = self.host.followed(self.leader);
                self.followed.retain(|replica| replica.fetcher(fetchers) == index);
            }
            let wanted = self.wanted();
            if self.ahead.is_empty() && self.sync(&wanted).await {
                continue;
            }
            if wanted.is_empty() {
                if !self.ahead.is_empty() {
                    self.ahead.clear();
                    continue;
                }
                // Without a delayed partition only a change of roles brings one.
                let next = self.delayed.values().min().copied();
                let delay = next.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
                tokio::select! {
                    _ = timeout(delay, roles.changed()) => roles.mark_changed(),
                    () = stopped(stop) => return Ok(()),
                }
                continue;
            }
            let request = self.request(&wanted);
            let response = tokio::select! {
                response = connection.call(&request, VERSION) => response?,
                () = stopped(stop) => return Ok(()),
            };
            let failures = self.appends.appended().await?;
            self.failed(failures);
            self.ahead.clear();
            match response.error_code {
                ErrorCode::NONE => self.session.responded(response.session_id),
                ErrorCode::FETCH_SESSION_ID_NOT_FOUND | ErrorCode::INVALID_FETCH_SESSION_EPOCH => {
                    self.session.reset();
                    continue;
                }
                other => return Err(FetcherError::Leader(other)),
            }
            self.take(wanted, response).await;
        }
    }

    /// Returns the partitions to fetch now, each with its position.
    fn wanted(&mut self) -> Vec<(Replica, NextFetch)> {
        let now = Instant::now();
        self.delayed.retain(|_, until| *until > now);
        for replica in throttle::held_back(&*self.host, &self.followed) {
            self.delayed.entry(replica.key()).or_insert(now + throttle::PAUSE);
        }
        let ready = self.followed.iter().filter(|followed| !self.delayed.contains_key(&followed.key()));
        // A partition that is offline or deleted is not fetched.
        let next = |followed: &Replica| {
            let next = followed.partition.next_fetch().ok()??;
            let ahead = self.ahead.get(&followed.key());
            Some((followed.clone(), ahead.map_or(next, |position| next.ahead(*position))))
        };
        ready.filter_map(next).filter(|(_, next)| next.leader == self.leader).collect()
    }

    /// Returns the next request of the session.
    fn request(&mut self, wanted: &[(Replica, NextFetch)]) -> FetchRequest {
        // The request after this one reports what is synced meanwhile, and must not be late.
        let wait_max = if self.ahead.is_empty() { self.config.fetch.wait_max } else { Duration::ZERO };
        let mut request = FetchRequest {
            replica_state: self.host.registration(),
            max_wait_ms: i32::try_from(wait_max.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.config.fetch.min_bytes,
            max_bytes: self.config.fetch.response_max_bytes,
            ..Default::default()
        };
        let partition_max_bytes = self.config.fetch.partition_max_bytes;
        let wanted = wanted.iter().map(|(followed, next)| {
            let NextFetch { position, ends, log_start, .. } = next;
            let partition = FetchPartition {
                partition: followed.partition.index(),
                current_leader_epoch: position.leader_epoch,
                fetch_offset: position.offset,
                last_fetched_epoch: position.last_fetched_epoch,
                high_watermark: position.high_watermark,
                log_start_offset: *log_start,
                partition_max_bytes,
                synced_offset: if next.is_synced() { -1 } else { ends.synced },
                ..Default::default()
            };
            (followed.topic_id, partition)
        });
        self.session.fill(&mut request, wanted);
        request
    }

    /// Begins to append a response, and decides whether the next request waits for that.
    async fn take(&mut self, wanted: Vec<(Replica, NextFetch)>, response: FetchResponse) {
        let ranges = appends::ranges(wanted, response);
        for range in &ranges {
            throttle::fetched(&*self.host, &range.replica, range.records.len());
        }
        self.ahead = appends::ahead(&ranges);
        if !self.ahead.is_empty() {
            let failures = self.appends.synced_to(UNSYNCED_BYTES_MAX).await;
            self.failed(failures);
        }
        self.appends.begin(&self.host, ranges);
    }

    /// Syncs what this broker has appended in another role, or before it started: a leader counts all before the
    /// offset of a fetch. Returns whether there was something.
    async fn sync(&mut self, wanted: &[(Replica, NextFetch)]) -> bool {
        let unsynced = wanted.iter().filter(|(_, next)| !next.is_synced());
        // All syncs start before the first one is awaited.
        let syncs = unsynced.map(|(replica, next)| (replica, replica.partition.synced(next.position.offset)));
        let syncs: Vec<_> = syncs.collect();
        let has_some = !syncs.is_empty();
        for (replica, synced) in syncs {
            if let Err(error) = synced.await {
                self.failed(vec![(replica.clone(), error.into())]);
            }
        }
        has_some
    }

    /// Notes when partitions that failed are fetched again, and reports why.
    fn failed(&mut self, failures: Vec<Failure>) {
        for (replica, error) in failures {
            let is_of_metadata = match &error {
                FollowError::Wait => true,
                // Another broker leads since the records came.
                FollowError::Partition(PartitionError::NotLeader { .. }) => true,
                _ => false,
            };
            let pause = if is_of_metadata { METADATA_WAIT } else { self.config.fetch.backoff };
            self.delayed.insert(replica.key(), Instant::now() + pause);
            match error {
                _ if is_of_metadata => {}
                FollowError::Partition(PartitionError::NotHosted | PartitionError::Elsewhere) => {}
                error => replica.partition.report("the partition cannot follow its leader", &error),
            }
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender there is nothing to fetch for.
    let _ = stop.wait_for(|stop| *stop).await;
}
