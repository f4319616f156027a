//! Fetch by a follower: it reads up to the log's end, and its offset tells the leader what it has (KIP-74, KIP-595).
//!
//! Only the listener of `inter.broker.listener.name` takes such fetches. A position counts for the commit of records,
//! so a client must not be able to make one up.

use std::sync::Arc;
use std::time::Duration;

use millstream_log::LogSlice;
use millstream_partition::replica::{FetchPosition, LogEnds, ResponseError};
use millstream_partition::{Arrival, FetchWaiters, FollowerFetch, FollowerRead, Partition};
use millstream_wire::messages::{
    DivergingEpoch, FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch,
    PartitionData, ReplicaState,
};
use millstream_wire::{ErrorCode, Records, Str};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::long_poll::{LongPoll, poll_until};
use crate::api::handler::{RequestContext, Started};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::fetch_sessions::SessionUse;
use crate::net::send_queue::Outgoing;
use crate::net::types::Close;
use crate::replication::{Throttle, WantedChange};

/// The first version in which a follower names the epoch of its last record.
const LAST_EPOCH_SINCE: i16 = 12;

struct Target {
    partition: Result<Arc<Partition>, ApiError>,
    index: i32,
    fetch: FollowerFetch,
    max_bytes: usize,
    /// Whether `leader.replication.throttled.replicas` names the partition.
    is_throttled: bool,
}

struct TargetTopic {
    name: Str,
    id: Uuid,
    targets: Vec<Target>,
    /// The id in the table: older versions of the request name topics by name.
    topic_id: Uuid,
}

/// A follower's fetch, which can be served as often as needed.
struct ReplicaFetch {
    context: RequestContext,
    wanted_changes: mpsc::UnboundedSender<WantedChange>,
    topics: Vec<TargetTopic>,
    session: Option<SessionUse>,
    min_bytes: usize,
    max_bytes: usize,
    /// `None` without a rate.
    throttle: Option<Throttle>,
}

/// The result of one pass over the partitions.
struct Pass {
    results: Vec<Result<FollowerRead, ApiError>>,
    bytes: usize,
    /// An error, a divergence, a newer high watermark or deleted records, which the follower has to learn at once.
    is_news: bool,
}

/// Checks that a fetch of a follower comes over the listener for brokers, in a version with its last epoch.
pub(super) fn check(broker: &Broker, context: &RequestContext, replica: &ReplicaState) -> Result<(), ErrorCode> {
    if broker.config.inter_broker_listener != Some(context.connection.listener) {
        // Any client can send it, so the log must not grow by it.
        tracing::debug!(
            replica = replica.replica_id,
            "a fetch of a replica is rejected: this is not the listener of inter.broker.listener.name"
        );
        return Err(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    }
    if context.version < LAST_EPOCH_SINCE { Err(ErrorCode::UNSUPPORTED_VERSION) } else { Ok(()) }
}

/// Starts a fetch of a follower.
pub(super) fn start(
    broker: &Arc<Broker>,
    context: RequestContext,
    request: FetchRequest,
    replica: &ReplicaState,
    session: Option<SessionUse>,
) -> Result<Started, Close> {
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let mut fetch = ReplicaFetch { session, ..ReplicaFetch::new(broker, context, request, replica) };
    let pass = fetch.pass();
    if fetch.is_enough(&pass) {
        return fetch.respond(pass).map(Started::Ready);
    }
    Ok(Started::Later(Box::pin(async move { poll_until(fetch, deadline).await.map(Some) })))
}

impl ReplicaFetch {
    fn new(broker: &Broker, context: RequestContext, request: FetchRequest, replica: &ReplicaState) -> Self {
        let table = broker.topics.load();
        let image = broker.metadata.image();
        let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
        let eligible = image.is_active(replica.replica_id);
        let topics = request.topics.into_iter().map(|asked| {
            let found = table.resolve(context.version >= super::TOPIC_IDS_SINCE, &asked.topic, asked.topic_id);
            let targets = asked.partitions.iter().map(|asked| Target {
                partition: match &found {
                    Ok(topic) => topic.partition(asked.partition).cloned().ok_or_else(ApiError::unknown_topic),
                    Err(error) => Err(error.clone()),
                },
                index: asked.partition,
                fetch: follower_fetch(asked, replica, eligible),
                max_bytes: size(asked.partition_max_bytes),
                is_throttled: found
                    .as_ref()
                    .is_ok_and(|topic| topic.config.throttled_leaders.contains(asked.partition, broker.config.node_id)),
            });
            let topic_id = found.as_ref().map_or(Uuid::nil(), |topic| topic.id);
            TargetTopic { targets: targets.collect(), topic_id, name: asked.topic.clone(), id: asked.topic_id }
        });
        Self {
            topics: topics.collect(),
            session: None,
            min_bytes: size(request.min_bytes),
            max_bytes: size(request.max_bytes),
            throttle: broker.leader_throttle(),
            wanted_changes: broker.wanted_changes.clone(),
            context,
        }
    }

    /// Counts the bytes that a throttled partition sends.
    fn count(&self, target: &Target, read: &FollowerRead) {
        if let (true, Some(throttle), Some(slice)) = (target.is_throttled, &self.throttle, &read.slice) {
            throttle.record(slice.len);
        }
    }

    /// Passes on the in-sync set that a position makes possible.
    fn want(&self, topic: &TargetTopic, target: &Target, read: &FollowerRead) {
        let (Some(proposal), Ok(partition)) = (&read.proposal, &target.partition) else { return };
        let (topic_id, partition, proposal) = (topic.topic_id, Arc::clone(partition), proposal.clone());
        // Without a receiver the broker stops.
        let _ = self.wanted_changes.send(WantedChange { topic_id, partition, proposal });
    }
}

impl LongPoll for ReplicaFetch {
    type Pass = Pass;

    fn pass(&self) -> Pass {
        let mut left = self.max_bytes;
        let mut pass = Pass { results: Vec::new(), bytes: 0, is_news: false };
        let is_exceeded = self.throttle.as_ref().is_some_and(Throttle::is_exceeded);
        for (topic, target) in self.topics.iter().flat_map(|topic| topic.targets.iter().map(move |one| (topic, one))) {
            let is_held_back = is_exceeded && target.is_held_back();
            let read = match is_held_back {
                true => target.read(0, false),
                false => target.read(left.min(target.max_bytes), pass.bytes == 0),
            };
            let read = read.inspect(|read| self.want(topic, target, read));
            let bytes = read.as_ref().map_or(0, |read| read.slice.as_ref().map_or(0, |slice| slice.len));
            pass.is_news |= read.as_ref().map_or(true, |read| is_news(target, read, is_held_back));
            pass.bytes += bytes;
            left = left.saturating_sub(bytes);
            pass.results.push(read);
        }
        pass
    }

    fn bytes(pass: &Pass) -> usize {
        pass.bytes
    }

    fn is_enough(&self, pass: &Pass) -> bool {
        pass.is_news || pass.bytes >= self.min_bytes || pass.results.is_empty()
    }

    fn arrival(&self) -> Arc<Arrival> {
        Arrival::new(self.min_bytes)
    }

    /// Returns those for new records, and those for a newer high watermark.
    fn waiters(&self) -> impl Iterator<Item = &FetchWaiters> {
        let partitions =
            self.topics.iter().flat_map(|topic| &topic.targets).filter_map(|it| it.partition.as_ref().ok());
        partitions.flat_map(|partition| [partition.follower_waiters(), partition.waiters()])
    }

    fn respond(&mut self, pass: Pass) -> Result<Outgoing, Close> {
        let mut results = pass.results.into_iter();
        let mut files = Vec::new();
        let responses = self.topics.iter().map(|topic| {
            let partitions = topic.targets.iter().zip(results.by_ref());
            let partitions = partitions.map(|(target, result)| match result {
                Ok(read) => {
                    self.count(target, &read);
                    partition_data(target, read, &mut files)
                }
                Err(error) => failed(target, &error),
            });
            FetchableTopicResponse { partitions: partitions.collect(), topic: topic.name.clone(), topic_id: topic.id }
        });
        let mut response = FetchResponse { responses: responses.collect(), ..Default::default() };
        if let Some(session) = &self.session {
            session.finish(&mut response);
        }
        self.context.respond_with_files(&response, files)
    }
}

impl Target {
    /// Returns whether the follower waits while the rate is exceeded. One in sync does not.
    fn is_held_back(&self) -> bool {
        let in_sync = |partition: &Arc<Partition>| partition.isr().contains(&self.fetch.id);
        self.is_throttled && self.partition.as_ref().is_ok_and(|partition| !in_sync(partition))
    }

    fn read(&self, max_bytes: usize, at_least_one: bool) -> Result<FollowerRead, ApiError> {
        let partition = self.partition.as_ref().map_err(Clone::clone)?;
        Ok(partition.read_for_follower(&self.fetch, max_bytes, at_least_one)?)
    }
}

fn follower_fetch(asked: &FetchPartition, replica: &ReplicaState, eligible: bool) -> FollowerFetch {
    let position = FetchPosition {
        leader_epoch: asked.current_leader_epoch,
        offset: asked.fetch_offset,
        last_fetched_epoch: asked.last_fetched_epoch,
        high_watermark: asked.high_watermark,
    };
    // Without its own field, a follower has synced all before the offset. Nothing else counts.
    let stored = if asked.synced_offset < 0 { asked.fetch_offset } else { asked.synced_offset };
    let ends = LogEnds { end: stored, synced: stored };
    let log_start = asked.log_start_offset;
    FollowerFetch { id: replica.replica_id, broker_epoch: replica.replica_epoch, position, ends, log_start, eligible }
}

/// Returns whether the follower has to learn of a response at once. One that is held back lags behind the high
/// watermark, and a higher one is no use to it.
fn is_news(target: &Target, read: &FollowerRead, is_held_back: bool) -> bool {
    let response = &read.response;
    let deletes = target.fetch.log_start >= 0 && response.log_start > target.fetch.log_start;
    deletes
        || response.error.is_some()
        || response.diverging.is_some()
        || (response.high_watermark > target.fetch.position.high_watermark && !is_held_back)
}

fn partition_data(target: &Target, read: FollowerRead, files: &mut Vec<LogSlice>) -> PartitionData {
    let response = read.response;
    let len = read.slice.as_ref().map_or(0, |slice| slice.len);
    files.extend(read.slice);
    let diverging = response.diverging.map(|(epoch, end_offset)| DivergingEpoch { epoch, end_offset });
    PartitionData {
        partition_index: target.index,
        error_code: match response.error {
            Some(ResponseError::OffsetOutOfRange) => ErrorCode::OFFSET_OUT_OF_RANGE,
            Some(ResponseError::WrongEpoch) => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            None => ErrorCode::NONE,
        },
        high_watermark: response.high_watermark,
        log_start_offset: response.log_start,
        // Only what comes with records makes the follower fetch ahead.
        log_end_offset: response.log_end.filter(|_| len > 0).unwrap_or(-1),
        diverging_epoch: diverging.unwrap_or_default(),
        records: if len == 0 { Records::EMPTY } else { Records::External { len } },
        ..Default::default()
    }
}

fn failed(target: &Target, error: &ApiError) -> PartitionData {
    let mut current_leader = LeaderIdAndEpoch::default();
    if let Ok(partition) = &target.partition {
        if error.is_storage_fault() {
            partition.report("a fetch of a replica failed", error);
        }
        current_leader = LeaderIdAndEpoch { leader_id: partition.leader(), leader_epoch: partition.leader_epoch() };
    }
    PartitionData {
        partition_index: target.index,
        error_code: error.code,
        current_leader,
        high_watermark: -1,
        records: Records::EMPTY,
        ..Default::default()
    }
}
