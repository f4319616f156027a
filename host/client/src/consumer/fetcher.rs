//! Fetches ahead of `poll`: one task hands out the work, one fetch at a time is under way to each
//! broker, and positions that are not known are looked up beside that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_wire::messages::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use millstream_wire::{ErrorCode, Records, Str};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::config::{IsolationLevel, OffsetReset};
use super::decode::{self, Fetched};
use super::record::TopicPartition;
use super::state::Wanted;
use super::{Inner, offsets};
use crate::edge;
use crate::error::Error;
use crate::net::Lane;

/// The last version of Fetch that names topics; later ones have ids.
const LAST_WITH_NAMES: i16 = 12;

/// Below this, unpacking takes less than handing it to another thread.
const DECODE_INLINE_BYTES: usize = 16 * 1024;

/// How often leaders are looked for that nobody knows yet.
const LEADER_CHECK: Duration = Duration::from_millis(100);

/// What one question of a fetch is about.
#[derive(Debug, Clone)]
struct Question {
    partition: TopicPartition,
    version: u64,
    offset: i64,
    leader_epoch: i32,
}

/// A part of the work that has ended.
enum Done {
    Fetch(i32),
    LookUp,
    Refresh,
}

/// Runs until the consumer is closed.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut changes = inner.changes.subscribe();
    let mut work: JoinSet<Done> = JoinSet::new();
    let mut busy = HashSet::new();
    let (mut looking_up, mut refreshing) = (false, false);
    loop {
        changes.borrow_and_update();
        if inner.is_closed() {
            return;
        }
        if !looking_up && inner.state.lock().partitions.values().any(|state| state.wanted != Wanted::Nothing) {
            looking_up = true;
            let inner = inner.clone();
            work.spawn(async move {
                offsets::look_up(&inner).await;
                Done::LookUp
            });
        }
        let (questions, mut wake, leaderless) = questions(&inner, &busy);
        for (node, questions) in questions {
            busy.insert(node);
            let inner = inner.clone();
            work.spawn(async move {
                fetch(&inner, node, questions).await;
                Done::Fetch(node)
            });
        }
        if leaderless {
            wake = wake.into_iter().chain([Instant::now() + LEADER_CHECK]).min();
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
                Ok(Done::LookUp) => looking_up = false,
                Ok(Done::Refresh) => refreshing = false,
                // A bug in this crate: nothing of the state can be relied on.
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
    let before = inner.cluster.metadata();
    match inner.cluster.refresh(before.generation).await {
        Ok(after) => inner.metadata_changed(&before, &after),
        Err(error) => {
            tracing::debug!(%error, "the cluster cannot be asked");
            inner.fail_if_final(&error);
        }
    }
    tokio::time::sleep(inner.config.client.backoff(0)).await;
}

/// What to ask which broker; when to look again; whether somebody's leader is not known.
fn questions(inner: &Inner, busy: &HashSet<i32>) -> (HashMap<i32, Vec<Question>>, Option<Instant>, bool) {
    let (metadata, now) = (inner.cluster.metadata(), Instant::now());
    let mut by_node: HashMap<i32, Vec<Question>> = HashMap::new();
    let (mut wake, mut leaderless) = (None, false);
    let mut state = inner.state.lock();
    for (partition, state) in &mut state.partitions {
        if let Err(at) = state.fetchable(now) {
            wake = wake.into_iter().chain(at).min();
            continue;
        }
        let Some((node, leader_epoch)) = metadata.leader(&partition.topic, partition.partition) else {
            leaderless = true;
            continue;
        };
        if busy.contains(&node) {
            continue;
        }
        state.fetching = true;
        let (version, offset) = (state.version, state.fetch_position);
        let question = Question { partition: partition.clone(), version, offset, leader_epoch };
        by_node.entry(node).or_default().push(question);
    }
    // Another one first every time: an answer that is full leaves out the last ones.
    let turn = inner.next_turn();
    for questions in by_node.values_mut() {
        let length = questions.len();
        questions.rotate_left(turn % length);
    }
    (by_node, wake, leaderless)
}

async fn fetch(inner: &Arc<Inner>, node: i32, questions: Vec<Question>) {
    match ask(inner, node, &questions).await {
        Ok(answer) => take_answer(inner, questions, answer).await,
        Err(error) => {
            tracing::debug!(node, %error, "a fetch failed");
            if !error.retriable() && error.code() != Some(ErrorCode::BROKER_NOT_AVAILABLE) {
                inner.fail(error);
            }
            inner.want_refresh();
            let again = Instant::now() + inner.config.client.backoff(0);
            let mut state = inner.state.lock();
            for question in &questions {
                if let Some(state) = state.current(&question.partition, question.version) {
                    state.fetching = false;
                    state.not_before = Some(again);
                }
            }
        }
    }
}

async fn ask(inner: &Inner, node: i32, questions: &[Question]) -> Result<FetchResponse, Error> {
    let config = &inner.config;
    let metadata = inner.cluster.metadata();
    let mut last_version = i16::MAX;
    let mut topics: BTreeMap<Arc<str>, FetchTopic> = BTreeMap::new();
    for question in questions {
        let name = &question.partition.topic;
        let topic = topics.entry(name.clone()).or_insert_with(|| {
            let topic_id = metadata.topic(name).map_or(Uuid::nil(), |topic| topic.id);
            FetchTopic { topic: Str::from(&**name), topic_id, ..FetchTopic::default() }
        });
        if topic.topic_id.is_nil() {
            last_version = LAST_WITH_NAMES;
        }
        topic.partitions.push(FetchPartition {
            partition: question.partition.partition,
            current_leader_epoch: question.leader_epoch,
            fetch_offset: question.offset,
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
        ..FetchRequest::default()
    };
    let connection = inner.cluster.broker(node, Lane::Fetch).await?;
    let answer = connection.send_up_to(&request, last_version)?.wait(config.client.request_timeout).await?;
    Error::check(|| format!("fetch from broker {node}"), answer.error_code, None)?;
    Ok(answer)
}

pub(crate) fn isolation_level(level: IsolationLevel) -> i8 {
    match level {
        IsolationLevel::ReadUncommitted => 0,
        IsolationLevel::ReadCommitted => 1,
    }
}

async fn take_answer(inner: &Arc<Inner>, questions: Vec<Question>, answer: FetchResponse) {
    let metadata = inner.cluster.metadata();
    let mut parts: HashMap<(Arc<str>, i32), PartitionData> = HashMap::new();
    for topic in answer.responses {
        let name = match topic.topic_id.is_nil() {
            true => Some(Arc::from(&*topic.topic)),
            false => metadata.name_of(topic.topic_id).cloned(),
        };
        let Some(name) = name else { continue };
        for part in topic.partitions {
            parts.insert((name.clone(), part.partition_index), part);
        }
    }
    for question in questions {
        let TopicPartition { topic, partition } = &question.partition;
        match parts.remove(&(topic.clone(), *partition)) {
            Some(part) if part.error_code == ErrorCode::NONE => decode(inner, &question, part).await,
            Some(part) => refused(inner, &question, part.error_code),
            // A broker may leave out partitions that have nothing; it may also have lost the topic.
            None => {
                let again = Instant::now() + inner.config.client.backoff(0);
                if let Some(state) = inner.state.lock().current(&question.partition, question.version) {
                    state.fetching = false;
                    state.not_before = Some(again);
                }
                inner.want_refresh();
            }
        }
    }
    inner.changed();
}

async fn decode(inner: &Arc<Inner>, question: &Question, part: PartitionData) {
    let Records::Bytes(bytes) = part.records else {
        if let Some(state) = inner.state.lock().current(&question.partition, question.version) {
            state.fetching = false;
        }
        return;
    };
    let aborted = part.aborted_transactions.unwrap_or_default();
    let fetched = Fetched {
        topic: question.partition.topic.clone(),
        partition: question.partition.partition,
        from: question.offset,
        bytes,
        aborted: inner
            .read_committed()
            .then(|| aborted.iter().map(|one| (one.producer_id, one.first_offset)).collect()),
    };
    let empty = fetched.bytes.is_empty();
    let stages = inner.stages.now();
    let decoded = if fetched.bytes.len() < DECODE_INLINE_BYTES && !stages.any() {
        decode::decode(&inner.decoder, &stages, &fetched)
    } else {
        let inner = inner.clone();
        edge::run(move || decode::decode(&inner.decoder, &stages, &fetched)).await
    };
    let mut state = inner.state.lock();
    if let Some(state) = state.current(&question.partition, question.version) {
        state.fetching = false;
        if !empty && decoded.next_offset == question.offset && decoded.failure.is_none() {
            // One batch was cut although it was the first: no progress can be made by asking again.
            tracing::warn!(partition = %question.partition, "the broker sent part of a batch only");
            state.not_before = Some(Instant::now() + inner.config.client.backoff(0));
        }
        state.buffer(decoded);
    }
    drop(state);
    inner.changed();
}

fn refused(inner: &Inner, question: &Question, code: ErrorCode) {
    let partition = &question.partition;
    tracing::debug!(%partition, %code, offset = question.offset, "a fetch was refused");
    let mut state = inner.state.lock();
    let Some(entry) = state.current(partition, question.version) else { return };
    entry.fetching = false;
    entry.not_before = Some(Instant::now() + inner.config.client.backoff(0));
    match code {
        ErrorCode::OFFSET_OUT_OF_RANGE => match inner.config.auto_offset_reset {
            // What was fetched before is handed out first.
            _ if !entry.buffered.is_empty() => {}
            OffsetReset::Earliest => entry.look_up(Wanted::Timestamp(offsets::EARLIEST)),
            OffsetReset::Latest => entry.look_up(Wanted::Timestamp(offsets::LATEST)),
            OffsetReset::None => {
                let what = format!("no record at offset {}", question.offset).into();
                let (topic, partition) = (partition.topic.clone(), partition.partition);
                state.errors.push_back(Error::NoOffset { topic, partition, what });
            }
        },
        code if code.retriable() || code == ErrorCode::UNKNOWN_TOPIC_ID => inner.want_refresh(),
        code => state.errors.push_back(Error::broker(format!("fetch {partition}"), code, None)),
    }
}
