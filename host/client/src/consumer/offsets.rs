//! Lookups of offsets: by time, and the committed offsets of the group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_wire::messages::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use millstream_wire::{ErrorCode, Str};

use super::Inner;
use super::config::{IsolationLevel, OffsetReset};
use super::fetcher::isolation_level;
use super::group::commit;
use super::record::TopicPartition;
use super::state::Wanted;
use crate::error::Error;
use crate::net::Cluster;

/// Requests the offset of the oldest record.
pub(crate) const EARLIEST: i64 = -2;
/// Requests the offset of the next record to be stored.
pub(crate) const LATEST: i64 = -1;

/// An offset and the timestamp of its record; both are -1 if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetAndTimestamp {
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, in milliseconds since the epoch.
    pub timestamp: i64,
}

/// Looks up the requested positions. The next round retries a failed lookup, after a backoff.
pub(crate) async fn look_up(inner: &Inner) {
    if let Err(error) = committed(inner).await {
        retry_later(inner, error).await;
        return;
    }
    if let Err(error) = by_time(inner).await {
        retry_later(inner, error).await;
    }
    inner.changed();
}

async fn retry_later(inner: &Inner, error: Error) {
    tracing::debug!(%error, "the lookup of positions failed");
    if !error.retriable() {
        // The application gets the error from the next poll.
        let mut state = inner.state.lock();
        for entry in state.partitions.values_mut() {
            entry.wanted = Wanted::Nothing;
        }
        state.errors.push_back(error);
        return inner.changed();
    }
    inner.want_refresh();
    tokio::time::sleep(inner.config.client.backoff(1)).await;
}

fn wanted(inner: &Inner, filter: impl Fn(Wanted) -> Option<i64>) -> BTreeMap<TopicPartition, (u64, i64)> {
    let state = inner.state.lock();
    let entries = state.partitions.iter();
    entries.filter_map(|(partition, entry)| Some((partition.clone(), (entry.version, filter(entry.wanted)?)))).collect()
}

/// Looks up the group's committed offsets. Without one, `auto.offset.reset` decides.
async fn committed(inner: &Inner) -> Result<(), Error> {
    let requested = wanted(inner, |wanted| (wanted == Wanted::Committed).then_some(0));
    if requested.is_empty() {
        return Ok(());
    }
    let partitions: Vec<TopicPartition> = requested.keys().cloned().collect();
    let found = match &inner.group {
        Some(group) => commit::committed(&inner.cluster, group, &partitions, inner.read_committed()).await?,
        None => BTreeMap::new(),
    };
    let mut state = inner.state.lock();
    for (partition, (version, _)) in requested {
        let Some(entry) = state.current(&partition, version) else { continue };
        match (found.get(&partition), inner.config.auto_offset_reset) {
            (Some(committed), _) => {
                entry.place(committed.offset);
                entry.leader_epoch = committed.leader_epoch;
            }
            (None, OffsetReset::Earliest) => entry.wanted = Wanted::Timestamp(EARLIEST),
            (None, OffsetReset::Latest) => entry.wanted = Wanted::Timestamp(LATEST),
            (None, OffsetReset::None) => {
                entry.wanted = Wanted::Nothing;
                let TopicPartition { topic, partition } = partition;
                let what = "no committed offset".into();
                state.errors.push_back(Error::NoOffset { topic, partition, what });
            }
        }
    }
    Ok(())
}

async fn by_time(inner: &Inner) -> Result<(), Error> {
    let requested = wanted(inner, |wanted| match wanted {
        Wanted::Timestamp(timestamp) => Some(timestamp),
        _ => None,
    });
    if requested.is_empty() {
        return Ok(());
    }
    let times = requested.iter().map(|(partition, (_, timestamp))| (partition.clone(), *timestamp)).collect();
    let found = list_once(&inner.cluster, &times, inner.config.isolation_level).await?;
    let mut state = inner.state.lock();
    for (partition, (version, _)) in requested {
        if let (Some(entry), Some(found)) = (state.current(&partition, version), found.get(&partition)) {
            tracing::debug!(%partition, offset = found.offset, "the position was reset");
            entry.place(found.offset);
        }
    }
    Ok(())
}

/// Returns the offsets of these partitions at these times, with retries until `limit` has passed.
pub(crate) async fn list(
    cluster: &Cluster,
    times: &BTreeMap<TopicPartition, i64>,
    level: IsolationLevel,
    limit: Duration,
) -> Result<BTreeMap<TopicPartition, OffsetAndTimestamp>, Error> {
    let mut retry = cluster.retry(limit, "the lookup of offsets");
    loop {
        if let Some(found) = retry.attempt(list_once(cluster, times, level)).await? {
            return Ok(found);
        }
    }
}

async fn list_once(
    cluster: &Cluster,
    times: &BTreeMap<TopicPartition, i64>,
    level: IsolationLevel,
) -> Result<BTreeMap<TopicPartition, OffsetAndTimestamp>, Error> {
    let mut by_node: BTreeMap<i32, BTreeMap<Arc<str>, ListOffsetsTopic>> = BTreeMap::new();
    for (TopicPartition { topic, partition }, timestamp) in times {
        let (node, epoch) = cluster.leader(topic, *partition).await?;
        let topics = by_node.entry(node).or_default();
        let topic = topics
            .entry(topic.clone())
            .or_insert_with(|| ListOffsetsTopic { name: Str::from(&**topic), ..ListOffsetsTopic::default() });
        topic.partitions.push(ListOffsetsPartition {
            partition_index: *partition,
            current_leader_epoch: epoch,
            timestamp: *timestamp,
        });
    }
    let mut found = BTreeMap::new();
    for (node, topics) in by_node {
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation_level(level),
            topics: topics.into_values().collect(),
            timeout_ms: i32::try_from(cluster.config().request_timeout.as_millis()).unwrap_or(i32::MAX),
        };
        let response = cluster.ask_leader(node, &request).await?;
        for topic in &response.topics {
            for part in &topic.partitions {
                let partition = TopicPartition::new(&*topic.name, part.partition_index);
                if part.error_code != ErrorCode::NONE {
                    return Err(Error::broker(format!("look up offsets of {partition}"), part.error_code, None));
                }
                found.insert(partition, OffsetAndTimestamp { offset: part.offset, timestamp: part.timestamp });
            }
        }
    }
    Ok(found)
}
