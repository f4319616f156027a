//! The fetches from one leader, for all partitions that follow it.
//!
//! One request is under way at a time. A follower appends and syncs what a response brings before it fetches again. So
//! the offset of its next fetch is what it has on stable storage, and the leader counts that for acks=all.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use millstream_partition::replica::{NextStep, ReplicaResponse, ResponseError};
use millstream_partition::{Committed, NextFetch, PartitionError};
use millstream_wire::messages::{FetchPartition, FetchRequest, FetchResponse, PartitionData};
use millstream_wire::{ErrorCode, Records};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::connection::{Connection, ConnectionError};
use super::session::FetchSession;
use super::{Replica, ReplicaHost, throttle};
use crate::blocking::blocking;
use crate::config::{BrokerConfig, ReplicaFetchConfig};
use crate::error::ApiError;

/// The version of Fetch. Both sides run this program.
const VERSION: i16 = 18;

/// The pause before a leader is asked again that knows other metadata than its follower.
const METADATA_WAIT: Duration = Duration::from_millis(20);

/// The most bytes of a response's frame, unless a batch may be larger.
const FRAME_BYTES_MAX: usize = 100 << 20;

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

/// The fetches from one leader.
pub(super) struct Fetcher {
    host: Arc<dyn ReplicaHost>,
    leader: i32,
    address: (String, u16),
    config: FetcherConfig,
    followed: Vec<Replica>,
    session: FetchSession,
    /// Partitions that failed, and when they are fetched again.
    delayed: HashMap<(Uuid, i32), Instant>,
}

/// Why the partition of a response could not be followed.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("{0}")]
    Partition(#[from] PartitionError),
    #[error("cannot write the recovery points: {0}")]
    Checkpoint(#[from] io::Error),
    #[error("the leader responds with {0}")]
    Leader(ErrorCode),
    /// The metadata will say who leads.
    #[error("the leader has another epoch")]
    Wait,
}

/// Why the fetches have to begin again with a new connection.
#[derive(Debug, thiserror::Error)]
enum FetcherError {
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("the leader responds with {0}")]
    Leader(ErrorCode),
    #[error("{}", .0.message)]
    Blocking(ApiError),
}

type Outcome = Result<(), FollowError>;

impl Fetcher {
    pub(super) fn new(host: Arc<dyn ReplicaHost>, leader: i32, address: (String, u16), config: FetcherConfig) -> Self {
        Self {
            host,
            leader,
            address,
            config,
            followed: Vec::new(),
            session: FetchSession::default(),
            delayed: HashMap::new(),
        }
    }

    /// Fetches until `stop` says so, or is gone. A response that has come is applied first.
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
                return;
            }
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
        let mut roles = self.host.roles();
        roles.mark_changed();
        loop {
            if roles.has_changed().unwrap_or(false) {
                roles.mark_unchanged();
                self.followed = self.host.followed(self.leader);
            }
            let wanted = self.wanted();
            if wanted.is_empty() {
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
            match response.error_code {
                ErrorCode::NONE => self.session.responded(response.session_id),
                ErrorCode::FETCH_SESSION_ID_NOT_FOUND | ErrorCode::INVALID_FETCH_SESSION_EPOCH => {
                    self.session.reset();
                    continue;
                }
                other => return Err(FetcherError::Leader(other)),
            }
            self.follow(wanted, response).await?;
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
        let next = |followed: &Replica| Some((followed.clone(), followed.partition.next_fetch().ok()??));
        ready.filter_map(next).filter(|(_, next)| next.leader == self.leader).collect()
    }

    /// Returns the next request of the session.
    fn request(&mut self, wanted: &[(Replica, NextFetch)]) -> FetchRequest {
        let mut request = FetchRequest {
            replica_state: self.host.registration(),
            max_wait_ms: i32::try_from(self.config.fetch.wait_max.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.config.fetch.min_bytes,
            max_bytes: self.config.fetch.response_max_bytes,
            ..Default::default()
        };
        let partition_max_bytes = self.config.fetch.partition_max_bytes;
        let wanted = wanted.iter().map(|(followed, NextFetch { position, log_start, .. })| {
            let partition = FetchPartition {
                partition: followed.partition.index(),
                current_leader_epoch: position.leader_epoch,
                fetch_offset: position.offset,
                last_fetched_epoch: position.last_fetched_epoch,
                high_watermark: position.high_watermark,
                log_start_offset: *log_start,
                partition_max_bytes,
                ..Default::default()
            };
            (followed.topic_id, partition)
        });
        self.session.fill(&mut request, wanted);
        request
    }

    /// Applies a response, and waits until what it brought is synced.
    async fn follow(&mut self, wanted: Vec<(Replica, NextFetch)>, response: FetchResponse) -> Result<(), FetcherError> {
        let host = Arc::clone(&self.host);
        let followed = blocking(move || follow_all(&*host, wanted, response)).await.map_err(FetcherError::Blocking)?;
        // All syncs start before the first one is awaited.
        let syncs = followed.into_iter().map(|(followed, outcome)| {
            let synced = outcome.and_then(|()| followed.sync());
            (followed, synced)
        });
        for (followed, synced) in syncs.collect::<Vec<_>>() {
            let outcome = match synced {
                Ok(synced) => synced.await.map_err(FollowError::from),
                Err(error) => Err(error),
            };
            let Err(error) = outcome else { continue };
            let pause = if matches!(error, FollowError::Wait) { METADATA_WAIT } else { self.config.fetch.backoff };
            self.delayed.insert(followed.key(), Instant::now() + pause);
            match error {
                FollowError::Wait | FollowError::Partition(PartitionError::NotHosted | PartitionError::Elsewhere) => {}
                error => followed.partition.report("the partition cannot follow its leader", &error),
            }
        }
        Ok(())
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender there is nothing to fetch for.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Replica {
    fn key(&self) -> (Uuid, i32) {
        (self.topic_id, self.partition.index())
    }

    /// Starts to sync the log, and returns the wait for it.
    fn sync(&self) -> Result<Committed, FollowError> {
        Ok(self.partition.synced(self.partition.log_end_offset()?))
    }

    /// Applies the response for this partition. Blocks for the disk.
    fn follow(&self, host: &dyn ReplicaHost, next: &NextFetch, data: &PartitionData) -> Outcome {
        let diverging = &data.diverging_epoch;
        let response = ReplicaResponse {
            position: next.position,
            high_watermark: data.high_watermark,
            log_start: data.log_start_offset,
            diverging: (diverging.end_offset >= 0).then_some((diverging.epoch, diverging.end_offset)),
            error: match data.error_code {
                ErrorCode::NONE => None,
                ErrorCode::OFFSET_OUT_OF_RANGE => Some(ResponseError::OffsetOutOfRange),
                ErrorCode::FENCED_LEADER_EPOCH
                | ErrorCode::UNKNOWN_LEADER_EPOCH
                | ErrorCode::NOT_LEADER_OR_FOLLOWER
                // The leader is behind with the metadata.
                | ErrorCode::UNKNOWN_TOPIC_ID
                | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Some(ResponseError::WrongEpoch),
                other => return Err(FollowError::Leader(other)),
            },
        };
        let records: &[u8] = match &data.records {
            Records::Bytes(bytes) => bytes,
            _ => &[],
        };
        let (partition, epoch) = (&self.partition, next.position.leader_epoch);
        match partition.follow(&response, records)? {
            NextStep::Append => throttle::fetched(host, self, records.len()),
            NextStep::Ignore => {}
            NextStep::Truncate { end } => {
                host.write_recovery_points()?;
                partition.truncate(epoch, end)?;
            }
            NextStep::Restart { start } => {
                host.write_recovery_points()?;
                partition.restart(epoch, start)?;
            }
            NextStep::Wait => return Err(FollowError::Wait),
        }
        Ok(())
    }
}

/// Applies a response to the partitions that were asked for. Others in the response are ignored.
fn follow_all(
    host: &dyn ReplicaHost,
    wanted: Vec<(Replica, NextFetch)>,
    response: FetchResponse,
) -> Vec<(Replica, Outcome)> {
    let mut found: HashMap<(Uuid, i32), PartitionData> = HashMap::new();
    for topic in response.responses {
        found.extend(topic.partitions.into_iter().map(|data| ((topic.topic_id, data.partition_index), data)));
    }
    let follow = |(followed, next): (Replica, NextFetch)| {
        let data = found.remove(&followed.key())?;
        let outcome = followed.follow(host, &next, &data);
        Some((followed, outcome))
    };
    wanted.into_iter().filter_map(follow).collect()
}
