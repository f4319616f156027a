//! Fetch: a long poll over partitions. The response names file ranges. Records are never read into memory here, except
//! for those of views ([`views`]).
//!
//! A client with a session names only the partitions that change ([`crate::fetch_sessions`]).

mod long_poll;
mod preferred;
mod replica;
mod views;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_log::LogSlice;
use millstream_partition::{Arrival, FetchWaiters, Partition, PartitionError, PartitionRead};
use millstream_record::Codec;
use millstream_wire::messages::{
    AbortedTransaction, FetchRequest, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use millstream_wire::{ErrorCode, Records, Str, WireError};
use tokio::time::Instant;
use uuid::Uuid;

use self::long_poll::{LongPoll, poll_until};
use super::current_leader::{current_leader, endpoints};
use super::handler::{ENTRY_BYTES, RequestContext, Started, TwoStageHandler};
use crate::broker::Broker;
use crate::config::CompressionType;
use crate::edge::ServedTopic;
use crate::error::ApiError;
use crate::fetch_sessions::SessionUse;
use crate::net::send_queue::Outgoing;
use crate::net::types::Close;
use crate::security::{AclOperation, Permission, ResourceType};

/// The first version that names topics by id.
const TOPIC_IDS_SINCE: i16 = 13;

/// The first version that may carry zstd.
const ZSTD_SINCE: i16 = 10;

/// The first version that names the leaders of partitions that this broker does not lead.
const LEADERS_SINCE: i16 = 16;

/// The value of the isolation level that reads only committed records.
pub(super) const READ_COMMITTED: i8 = 1;

/// The replica id of a tool that reads what each replica holds, to compare them.
const ANY_REPLICA: i32 = -2;

/// One partition of the request.
struct Target {
    index: i32,
    partition: Result<Arc<Partition>, ApiError>,
    leader_epoch: i32,
    offset: i64,
    max_bytes: usize,
    /// The replica that the client should read from instead.
    preferred: Option<i32>,
}

/// One topic of the request, with its name as in the request.
struct TargetTopic {
    name: Str,
    id: Uuid,
    /// `None` if it cannot be read, which is then the error of each of its targets.
    served: Option<Arc<ServedTopic>>,
    /// Whether a replica that does not lead may respond too.
    from_any_replica: bool,
    /// Whether its records are scanned instead of sent as they are stored. Those of a view pass its filters, and
    /// batches in a private format are decoded. Batches that lost all of their records at admission become a gap.
    is_scanned: bool,
    targets: Vec<Target>,
}

/// A fetch with resolved topics, which can be read as often as needed.
struct Plan {
    broker: Arc<Broker>,
    context: RequestContext,
    topics: Vec<TargetTopic>,
    min_bytes: usize,
    max_bytes: usize,
    read_committed: bool,
    session: Option<SessionUse>,
}

/// The result of one pass over the partitions.
struct Pass {
    results: Vec<Result<PartitionRead, ApiError>>,
    bytes: usize,
    failed: bool,
    /// Whether the client should read from another replica.
    redirects: bool,
    /// What views show, by the index of the target; empty if no view was requested.
    shown: Vec<Option<Bytes>>,
}

pub(super) struct Fetch;

impl TwoStageHandler for Fetch {
    type Request = FetchRequest;
    const VERSIONS: RangeInclusive<i16> = 4..=18;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Read, ResourceType::Topic));

    fn start(
        broker: &Arc<Broker>,
        mut context: RequestContext,
        body: Result<FetchRequest, WireError>,
    ) -> Result<Started, Close> {
        let mut request = body.map_err(|error| context.undecodable(error))?;
        let replica = request.replica();
        let is_replica = replica.replica_id >= 0;
        let checked = if is_replica { replica::check(broker, &context, &replica) } else { Ok(()) };
        let session = match checked.and_then(|()| broker.fetch_sessions.open(&mut request)) {
            Ok(session) => session,
            Err(error_code) => {
                return context.respond(&FetchResponse { error_code, ..Default::default() }).map(Started::Ready);
            }
        };
        if is_replica {
            return replica::start(broker, context, request, &replica, session);
        }
        let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let mut fetch = Plan { session, ..Plan::new(broker, context, request) };
        if fetch.topics.iter().any(|topic| topic.is_scanned) {
            return Ok(Started::Later(Box::pin(views::poll(Arc::clone(broker), fetch, max_wait))));
        }
        let heads = ENTRY_BYTES * fetch.targets().count();
        let deadline = Instant::now() + max_wait;
        if !fetch.context.try_expect(&broker.message_memory, heads) {
            return Ok(Started::Later(Box::pin(async move {
                let broker = Arc::clone(&fetch.broker);
                fetch.context.expect(&broker.message_memory, heads).await;
                poll_until(fetch, deadline).await.map(Some)
            })));
        }
        let pass = fetch.pass();
        if max_wait.is_zero() || fetch.is_enough(&pass) {
            return fetch.respond(pass).map(Started::Ready);
        }
        Ok(Started::Later(Box::pin(async move { poll_until(fetch, deadline).await.map(Some) })))
    }
}

impl Plan {
    fn new(broker: &Arc<Broker>, context: RequestContext, request: FetchRequest) -> Self {
        let is_tool = request.replica().replica_id == ANY_REPLICA;
        let rack = request.rack_id.clone();
        let reader = preferred::Reader::new(broker, &context, &rack).filter(|_| !is_tool);
        let table = broker.topics.load();
        let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
        let topics = request.topics.into_iter().map(|asked| {
            let found = table.resolve(context.version >= TOPIC_IDS_SINCE, &asked.topic, asked.topic_id);
            let found = found.and_then(|topic| match topic.config.compression {
                CompressionType::Codec(Codec::Zstd) if context.version < ZSTD_SINCE => {
                    let message = format!("the topic is stored in zstd, which needs Fetch v{ZSTD_SINCE}");
                    Err(ApiError::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message))
                }
                _ => Ok(topic),
            });
            let targets = asked.partitions.iter().map(|target| Target {
                index: target.partition,
                partition: match &found {
                    Ok(topic) => topic.partition(target.partition).cloned().ok_or_else(ApiError::unknown_topic),
                    Err(error) => Err(error.clone()),
                },
                leader_epoch: target.current_leader_epoch,
                offset: target.fetch_offset,
                max_bytes: size(target.partition_max_bytes),
                preferred: None,
            });
            let mut targets: Vec<Target> = targets.collect();
            // Uses the table's own name, so that a fetch that waits does not keep the request's bytes.
            let name = found.as_ref().map_or_else(|_| asked.topic.copied(), |topic| topic.name.clone());
            let served = found.ok().cloned();
            let is_scanned = served.as_ref().is_some_and(|topic| is_scanned(topic, &targets));
            let by_followers = served.as_ref().is_some_and(|topic| topic.edge.is_served_by_followers());
            if let (true, Some(reader)) = (by_followers, &reader) {
                targets.iter_mut().for_each(|target| target.preferred = target.preferred(reader));
            }
            let from_any_replica = is_tool || (by_followers && context.version >= preferred::SINCE);
            TargetTopic { name, id: asked.topic_id, served, from_any_replica, is_scanned, targets }
        });
        let topics = topics.collect();
        Self {
            broker: Arc::clone(broker),
            topics,
            min_bytes: size(request.min_bytes),
            max_bytes: size(request.max_bytes).min(broker.config.fetch_max_bytes),
            read_committed: request.isolation_level == READ_COMMITTED,
            session: None,
            context,
        }
    }

    fn targets(&self) -> impl Iterator<Item = (&TargetTopic, &Target)> {
        self.topics.iter().flat_map(|topic| topic.targets.iter().map(move |target| (topic, target)))
    }

    fn partition_data(&self, target: &Target, read: PartitionRead, files: &mut Vec<LogSlice>) -> PartitionData {
        let len = read.slice.as_ref().map_or(0, |slice| slice.len);
        files.extend(read.slice);
        PartitionData {
            partition_index: target.index,
            preferred_read_replica: target.preferred.unwrap_or(-1),
            high_watermark: read.high_watermark,
            last_stable_offset: read.last_stable_offset,
            log_start_offset: read.log_start_offset,
            aborted_transactions: read.aborted.map(|aborted| aborted.into_iter().map(wire_aborted).collect()),
            records: if len == 0 { Records::EMPTY } else { Records::External { len } },
            ..Default::default()
        }
    }
}

impl LongPoll for Plan {
    type Pass = Pass;

    /// Reads within the limits of the request. The first batch is always returned whole.
    fn pass(&self) -> Pass {
        let mut left = self.max_bytes;
        let mut pass = Pass { results: Vec::new(), bytes: 0, failed: false, redirects: false, shown: Vec::new() };
        for (topic, target) in self.targets() {
            let result = topic.read(target, left.min(target.max_bytes), pass.bytes == 0, self.read_committed);
            left = left.saturating_sub(pass.add(result));
            pass.redirects |= target.preferred.is_some();
        }
        pass
    }

    fn bytes(pass: &Pass) -> usize {
        pass.bytes
    }

    fn is_enough(&self, pass: &Pass) -> bool {
        pass.failed || pass.redirects || pass.bytes >= self.min_bytes || pass.results.is_empty()
    }

    fn arrival(&self) -> Arc<Arrival> {
        Arrival::of(self.min_bytes, self.read_committed)
    }

    fn waiters(&self) -> impl Iterator<Item = &FetchWaiters> {
        self.targets().filter_map(|(_, target)| Some(target.partition.as_ref().ok()?.waiters()))
    }

    fn respond(&mut self, pass: Pass) -> Result<Outgoing, Close> {
        let mut results = pass.results.into_iter();
        let mut shown = pass.shown.into_iter();
        let mut files: Vec<LogSlice> = Vec::new();
        let responses = self.topics.iter().map(|topic| {
            let partitions = topic.targets.iter().zip(results.by_ref());
            let partitions = partitions.map(|(target, result)| match (result, shown.next().flatten()) {
                (Err(error), _) => failed(target, &error, self.context.version),
                (Ok(read), Some(shown)) => {
                    PartitionData { records: Records::Bytes(shown), ..self.partition_data(target, read, &mut files) }
                }
                (Ok(read), None) => self.partition_data(target, read, &mut files),
            });
            let partitions = partitions.collect();
            FetchableTopicResponse { topic: topic.name.clone(), topic_id: topic.id, partitions }
        });
        let mut response = FetchResponse { responses: responses.collect(), ..Default::default() };
        if let Some(session) = &self.session {
            session.finish(&mut response);
        }
        if pass.failed && self.context.version >= LEADERS_SINCE {
            let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
            let leaders = partitions.map(|partition| &partition.current_leader);
            response.node_endpoints = endpoints(&self.broker, &self.context.connection, leaders);
        }
        self.context.respond_with_files(&response, files)
    }
}

impl Pass {
    /// Adds what was read of the next partition. Returns its bytes.
    fn add(&mut self, result: Result<PartitionRead, ApiError>) -> usize {
        let bytes = result.as_ref().map_or(0, |read| read.slice.as_ref().map_or(0, |slice| slice.len));
        self.bytes += bytes;
        self.failed |= result.is_err();
        self.results.push(result);
        bytes
    }
}

impl Target {
    /// Returns the replica that the client should read from instead of this leader.
    fn preferred(&self, reader: &preferred::Reader<'_>) -> Option<i32> {
        let partition =
            self.partition.as_ref().ok().filter(|partition| partition.check_leader(self.leader_epoch).is_ok())?;
        reader.preferred(partition, self.offset)
    }
}

impl TargetTopic {
    /// Checks that this broker may serve a partition in the epoch that the client knows.
    fn check(&self, target: &Target, partition: &Partition) -> Result<(), ApiError> {
        match self.from_any_replica {
            true => partition.check_epoch(target.leader_epoch)?,
            false => partition.check_leader(target.leader_epoch)?,
        }
        Ok(())
    }

    fn read(
        &self,
        target: &Target,
        max_bytes: usize,
        at_least_one: bool,
        is_committed: bool,
    ) -> Result<PartitionRead, ApiError> {
        let partition = target.partition.as_ref().map_err(Clone::clone)?;
        self.check(target, partition)?;
        let (max_bytes, at_least_one) = match target.preferred {
            Some(_) => (0, false),
            None => (max_bytes, at_least_one),
        };
        let read = match is_committed {
            true => partition.read_committed(target.offset, max_bytes, at_least_one),
            false => partition.read(target.offset, max_bytes, at_least_one),
        };
        let read = read.map_err(|error| read_error(partition, error))?;
        if self.served.as_ref().is_some_and(|topic| topic.edge.has_private_batches(target.index)) {
            // The first such batch arrived while the fetch waited. The client looks up the leader, and fetches again.
            let message = "the topic's batches are read in another way now";
            return Err(ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, message));
        }
        Ok(read)
    }
}

/// Returns the error of a read. A client retries at a damaged batch if there are other replicas: one of them may lead
/// soon. Otherwise it gets the code with which it reports the offset.
fn read_error(partition: &Partition, error: PartitionError) -> ApiError {
    let is_final = error.is_damage() && partition.check_leader(-1).is_ok() && !partition.has_followers();
    let error = ApiError::from(error);
    if is_final { ApiError { code: ErrorCode::CORRUPT_MESSAGE, ..error } } else { error }
}

fn wire_aborted(aborted: millstream_log::AbortedTransaction) -> AbortedTransaction {
    AbortedTransaction { producer_id: aborted.producer_id, first_offset: aborted.first_offset }
}

fn is_scanned(topic: &ServedTopic, targets: &[Target]) -> bool {
    let begins_empty = |target: &Target| {
        target.partition.as_ref().is_ok_and(|partition| topic.edge.begins_empty(partition, target.offset))
    };
    topic.edge.reads_records() || targets.iter().any(begins_empty)
}

fn failed(target: &Target, error: &ApiError, version: i16) -> PartitionData {
    let mut leader = LeaderIdAndEpoch::default();
    if let Ok(partition) = &target.partition {
        if error.is_storage_fault() {
            partition.report("a fetch failed", error);
        }
        let is_elsewhere = [ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::FENCED_LEADER_EPOCH].contains(&error.code);
        if is_elsewhere && version >= LEADERS_SINCE {
            leader = current_leader(partition);
        }
    }
    PartitionData {
        partition_index: target.index,
        error_code: error.code,
        current_leader: leader,
        high_watermark: -1,
        records: Records::EMPTY,
        ..Default::default()
    }
}
