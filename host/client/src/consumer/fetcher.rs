//! Fetches ahead of `poll`. One task schedules the work: at most one fetch per broker, lookups of unknown positions,
//! and refreshes of the metadata.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_wire::messages::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use millstream_wire::{ErrorCode, Records, Str};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::config::{IsolationLevel, OffsetReset};
use super::decode::{self, Decoded, Fetched};
use super::record::TopicPartition;
use super::state::Wanted;
use super::{Inner, offsets};
use crate::edge;
use crate::error::Error;
use crate::net::{Lane, NewLeader};

/// The last version of Fetch with topic names; later ones have topic ids.
const LAST_WITH_NAMES: i16 = 12;

/// The size below which decoding is cheaper than a switch to another thread, in bytes.
const DECODE_INLINE_BYTES: usize = 16 * 1024;

/// The interval of metadata refreshes while the leader of a partition is unknown.
const LEADER_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// One partition of a fetch.
#[derive(Debug, Clone)]
struct PartitionFetch {
    partition: TopicPartition,
    version: u64,
    offset: i64,
    leader_epoch: i32,
    /// Whether the fetch goes to the leader, or to the replica that it prefers.
    from_leader: bool,
}

/// A finished piece of work.
enum Done {
    Fetch(i32),
    Lookup,
    Refresh,
}

/// Runs until the consumer is closed.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut changes = inner.changes.subscribe();
    let mut work: JoinSet<Done> = JoinSet::new();
    let mut busy = HashSet::new();
    let (mut lookup_running, mut refreshing) = (false, false);
    loop {
        changes.borrow_and_update();
        if inner.is_closed() {
            return;
        }
        if !lookup_running && inner.state.lock().partitions.values().any(|state| state.wanted != Wanted::Nothing) {
            lookup_running = true;
            let inner = inner.clone();
            work.spawn(async move {
                offsets::look_up(&inner).await;
                Done::Lookup
            });
        }
        let (fetches, mut wake, leaderless) = fetches(&inner, &busy);
        for (node, fetches) in fetches {
            busy.insert(node);
            let inner = inner.clone();
            work.spawn(async move {
                fetch(&inner, node, fetches).await;
                Done::Fetch(node)
            });
        }
        if leaderless {
            wake = wake.into_iter().chain([Instant::now() + LEADER_CHECK_INTERVAL]).min();
        }
        if !refreshing && (leaderless || inner.take_refresh() || inner.cluster.stale()) {
            refreshing = true;
            let inner = inner.clone();
            work.spawn(async move {
                refresh(&inner).await;
                Done::Refresh
            });
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(done) = work.join_next(), if !work.is_empty() => match done {
                Ok(Done::Fetch(node)) => drop(busy.remove(&node)),
                Ok(Done::Lookup) => lookup_running = false,
                Ok(Done::Refresh) => refreshing = false,
                // A bug in this crate: the state is no longer reliable.
                Err(error) => return inner.fail(Error::Invalid(error.to_string().into())),
            },
            () = sleep_until(wake) => {}
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

async fn refresh(inner: &Inner) {
    match inner.cluster.refresh(inner.cluster.metadata().generation).await {
        Ok(metadata) => inner.metadata_changed(&metadata),
        Err(error) => {
            tracing::debug!(%error, "the cluster cannot be reached");
            inner.fail_if_final(&error);
        }
    }
    tokio::time::sleep(inner.config.client.backoff(0)).await;
}

/// Returns the fetches to send to each broker, the time to check again, and whether a leader is unknown.
fn fetches(inner: &Inner, busy: &HashSet<i32>) -> (HashMap<i32, Vec<PartitionFetch>>, Option<Instant>, bool) {
    let (metadata, now) = (inner.cluster.metadata(), Instant::now());
    let mut by_node: HashMap<i32, Vec<PartitionFetch>> = HashMap::new();
    let (mut wake, mut leaderless) = (None, false);
    let mut state = inner.state.lock();
    for (partition, state) in &mut state.partitions {
        if let Err(at) = state.fetchable(now) {
            wake = wake.into_iter().chain(at).min();
            continue;
        }
        let Some((leader, leader_epoch)) = metadata.leader(&partition.topic, partition.partition) else {
            leaderless = true;
            continue;
        };
        // Its partitions may have another leader soon.
        leaderless |= inner.cluster.is_down(leader);
        state.preferred = state.preferred.filter(|(node, until)| now < *until && metadata.brokers.contains_key(node));
        let node = state.preferred.map_or(leader, |(node, _)| node);
        if busy.contains(&node) {
            continue;
        }
        state.fetching = true;
        let (version, offset) = (state.version, state.fetch_position);
        let (partition, from_leader) = (partition.clone(), node == leader);
        let target = PartitionFetch { partition, version, offset, leader_epoch, from_leader };
        by_node.entry(node).or_default().push(target);
    }
    // Starts with another partition each time, because a full response omits the last ones.
    let turn = inner.next_turn();
    for fetches in by_node.values_mut() {
        let length = fetches.len();
        fetches.rotate_left(turn % length);
    }
    (by_node, wake, leaderless)
}

async fn fetch(inner: &Arc<Inner>, node: i32, fetches: Vec<PartitionFetch>) {
    match send(inner, node, &fetches).await {
        Ok(response) => handle_response(inner, fetches, response).await,
        Err(error) => {
            tracing::debug!(node, %error, "a fetch failed");
            if !error.retriable() && error.code() != Some(ErrorCode::BROKER_NOT_AVAILABLE) {
                inner.fail(error);
            }
            inner.cluster.has_broken(node);
            inner.want_refresh();
            let again = Instant::now() + inner.config.client.backoff(0);
            let mut state = inner.state.lock();
            if fetches.iter().any(|target| !target.from_leader) {
                state.read_from_leaders(Instant::now());
            }
            for target in &fetches {
                if let Some(state) = state.current(&target.partition, target.version) {
                    state.fetching = false;
                    state.preferred = None;
                    state.not_before = Some(again);
                }
            }
        }
    }
}

async fn send(inner: &Inner, node: i32, fetches: &[PartitionFetch]) -> Result<FetchResponse, Error> {
    let config = &inner.config;
    let metadata = inner.cluster.metadata();
    let mut last_version = i16::MAX;
    let mut topics: BTreeMap<Arc<str>, FetchTopic> = BTreeMap::new();
    for target in fetches {
        let name = &target.partition.topic;
        let topic = topics.entry(name.clone()).or_insert_with(|| {
            let topic_id = metadata.topic(name).map_or(Uuid::nil(), |topic| topic.id);
            FetchTopic { topic: Str::from(&**name), topic_id, ..FetchTopic::default() }
        });
        if topic.topic_id.is_nil() {
            last_version = LAST_WITH_NAMES;
        }
        topic.partitions.push(FetchPartition {
            partition: target.partition.partition,
            current_leader_epoch: target.leader_epoch,
            fetch_offset: target.offset,
            partition_max_bytes: config.max_partition_fetch_bytes,
            ..FetchPartition::default()
        });
    }
    let request = FetchRequest {
        max_wait_ms: i32::try_from(config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: config.fetch_min_bytes,
        max_bytes: config.fetch_max_bytes,
        isolation_level: isolation_level(config.isolation_level),
        topics: topics.into_values().collect(),
        rack_id: match inner.state.lock().names_rack(Instant::now()) {
            true => Str::from(config.client_rack.as_str()),
            false => Str::default(),
        },
        ..FetchRequest::default()
    };
    let connection = inner.cluster.broker(node, Lane::Fetch).await?;
    let response = connection.send_up_to(&request, last_version)?.wait(config.client.request_timeout).await?;
    Error::check(|| format!("fetch from broker {node}"), response.error_code, None)?;
    Ok(response)
}

pub(crate) fn isolation_level(level: IsolationLevel) -> i8 {
    match level {
        IsolationLevel::ReadUncommitted => 0,
        IsolationLevel::ReadCommitted => 1,
    }
}

async fn handle_response(inner: &Arc<Inner>, fetches: Vec<PartitionFetch>, response: FetchResponse) {
    let metadata = inner.cluster.metadata();
    let mut parts: HashMap<(Arc<str>, i32), PartitionData> = HashMap::new();
    for topic in response.responses {
        let name = match topic.topic_id.is_nil() {
            true => Some(Arc::from(&*topic.topic)),
            false => metadata.name_of(topic.topic_id).cloned(),
        };
        let Some(name) = name else { continue };
        for part in topic.partitions {
            parts.insert((name.clone(), part.partition_index), part);
        }
    }
    let named = parts.iter().map(|((topic, partition), part)| {
        let leader = &part.current_leader;
        NewLeader { topic, partition: *partition, id: leader.leader_id, epoch: leader.leader_epoch }
    });
    let named: Vec<NewLeader<'_>> = named.filter(|leader| leader.id >= 0).collect();
    let knows_leaders = inner.cluster.learn_leaders(&named, &response.node_endpoints);
    for target in fetches {
        let TopicPartition { topic, partition } = &target.partition;
        match parts.remove(&(topic.clone(), *partition)) {
            Some(part) if part.error_code == ErrorCode::NONE && part.preferred_read_replica >= 0 => {
                prefer(inner, &target, part.preferred_read_replica);
            }
            Some(part) if part.error_code == ErrorCode::NONE => decode(inner, &target, part).await,
            Some(part) => {
                let knows_leader = knows_leaders && part.current_leader.leader_id >= 0;
                rejected(inner, &target, part.error_code, knows_leader);
            }
            // A broker may omit partitions without records; it may also have lost the topic.
            None => {
                let again = Instant::now() + inner.config.client.backoff(0);
                if let Some(state) = inner.state.lock().current(&target.partition, target.version) {
                    state.fetching = false;
                    state.not_before = Some(again);
                }
                inner.want_refresh();
            }
        }
    }
    inner.changed();
}

/// Reads from another replica from now on. The leader is asked again after `metadata.max.age.ms`.
fn prefer(inner: &Inner, target: &PartitionFetch, node: i32) {
    tracing::debug!(partition = %target.partition, node, "the leader names a nearer replica");
    let now = Instant::now();
    let mut state = inner.state.lock();
    if let Some(state) = state.current(&target.partition, target.version) {
        state.fetching = false;
        state.preferred = Some((node, now + inner.config.client.metadata_max_age));
    }
    if !inner.cluster.metadata().brokers.contains_key(&node) {
        state.read_from_leaders(now);
        drop(state);
        inner.want_refresh();
    }
}

async fn decode(inner: &Arc<Inner>, target: &PartitionFetch, part: PartitionData) {
    let Records::Bytes(bytes) = part.records else {
        if let Some(state) = inner.state.lock().current(&target.partition, target.version) {
            state.fetching = false;
        }
        return;
    };
    let aborted = part.aborted_transactions.unwrap_or_default();
    let fetched = Fetched {
        topic: target.partition.topic.clone(),
        partition: target.partition.partition,
        from: target.offset,
        bytes,
        aborted: inner
            .read_committed()
            .then(|| aborted.iter().map(|one| (one.producer_id, one.first_offset)).collect()),
    };
    let empty = fetched.bytes.is_empty();
    let stages = inner.stages.current();
    let decoded = if fetched.bytes.len() < DECODE_INLINE_BYTES && !stages.any() {
        decode::decode(&inner.decoder, &stages, &fetched)
    } else {
        let inner = inner.clone();
        edge::run(move || decode::decode(&inner.decoder, &stages, &fetched)).await
    };
    let mut state = inner.state.lock();
    if let Some(state) = state.current(&target.partition, target.version) {
        state.fetching = false;
        if !empty && decoded.next_offset == target.offset && decoded.failure.is_none() {
            // The first batch is incomplete, so an immediate retry makes no progress.
            tracing::warn!(partition = %target.partition, "the broker sent an incomplete batch");
            state.not_before = Some(Instant::now() + inner.config.client.backoff(0));
        }
        state.buffer(decoded);
    }
    drop(state);
    inner.changed();
}

fn rejected(inner: &Inner, target: &PartitionFetch, code: ErrorCode, knows_leader: bool) {
    let partition = &target.partition;
    tracing::debug!(%partition, %code, offset = target.offset, "a fetch was rejected");
    let mut state = inner.state.lock();
    let Some(entry) = state.current(partition, target.version) else { return };
    entry.fetching = false;
    entry.preferred = None;
    // What a follower lacks, the leader may have.
    let follower_lacks_it = !target.from_leader && code == ErrorCode::OFFSET_OUT_OF_RANGE;
    if knows_leader || follower_lacks_it {
        return;
    }
    entry.not_before = Some(Instant::now() + inner.config.client.backoff(0));
    match code {
        ErrorCode::OFFSET_OUT_OF_RANGE => match inner.config.auto_offset_reset {
            // Records that were fetched before are returned first.
            _ if !entry.buffered.is_empty() => {}
            OffsetReset::Earliest => entry.look_up(Wanted::Timestamp(offsets::EARLIEST)),
            OffsetReset::Latest => entry.look_up(Wanted::Timestamp(offsets::LATEST)),
            OffsetReset::None => {
                let what = format!("no record at offset {}", target.offset).into();
                let (topic, partition) = (partition.topic.clone(), partition.partition);
                state.errors.push_back(Error::NoOffset { topic, partition, what });
            }
        },
        // A retry would fail again, although the code is retriable: the consumer has to skip it.
        ErrorCode::CORRUPT_MESSAGE => {
            let (topic, partition) = (partition.topic.clone(), partition.partition);
            let failure = Error::Unreadable { topic, partition, offset: target.offset };
            // `poll` returns it after the records before it. Until the consumer seeks, no fetch follows.
            entry.buffer(Decoded { next_offset: target.offset, failure: Some(failure), ..Decoded::default() });
        }
        code if code.retriable() || code == ErrorCode::UNKNOWN_TOPIC_ID => inner.want_refresh(),
        code => state.errors.push_back(Error::broker(format!("fetch {partition}"), code, None)),
    }
}
