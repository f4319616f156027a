//! Writes the markers that end transactions to partitions that this broker leads.

use std::time::Duration;

use arc_swap::ArcSwap;
use millstream_log::TransactionEnd;
use millstream_partition::Committed;
use millstream_wire::{ErrorCode, Str};
use tokio::time::{Instant, timeout_at};

use crate::edge::ServedTopics;
use crate::error::ApiError;

/// The longest wait for the commit of a marker. The coordinator then sends it again.
const COMMIT_WAIT: Duration = Duration::from_secs(30);

/// Ends a transaction in partitions, each a topic and an index. Returns the results in the same order, once the markers
/// are committed. A partition that is not here is UNKNOWN_TOPIC_OR_PARTITION, and one that another broker leads is
/// NOT_LEADER_OR_FOLLOWER. A marker that is sent again is written again, which changes nothing.
pub(crate) async fn write_markers(
    topics: &ArcSwap<ServedTopics>,
    end: &TransactionEnd,
    partitions: &[(Str, i32)],
) -> Vec<Result<(), ApiError>> {
    let deadline = Instant::now() + COMMIT_WAIT;
    let appended: Vec<Result<Committed, ApiError>> = {
        let table = topics.load();
        let append = |(topic, index): &(Str, i32)| append(&table, end, topic, *index);
        partitions.iter().map(append).collect()
    };
    let mut results = Vec::with_capacity(appended.len());
    for appended in appended {
        results.push(match appended {
            Ok(committed) => commit(committed, deadline).await,
            Err(error) => Err(error),
        });
    }
    results
}

fn append(table: &ServedTopics, end: &TransactionEnd, topic: &str, index: i32) -> Result<Committed, ApiError> {
    let found = table.by_name(topic).ok_or_else(ApiError::unknown_topic)?;
    // A view has no records of its own.
    let partition = match found.shared_from {
        None => found.partition(index).ok_or_else(ApiError::unknown_topic)?,
        Some(_) => return Err(ApiError::unknown_topic()),
    };
    let committed = partition.append_marker(end).map_err(ApiError::from);
    committed.inspect_err(|error| {
        let (producer_id, producer_epoch) = (end.producer_id, end.producer_epoch);
        tracing::debug!(topic, partition = index, producer_id, producer_epoch, "a marker is rejected: {error}");
        if error.is_storage_fault() {
            partition.report("a marker is not written", error);
        }
    })
}

async fn commit(committed: Committed, deadline: Instant) -> Result<(), ApiError> {
    let late = || ApiError::new(ErrorCode::REQUEST_TIMED_OUT, "the marker was not committed in time");
    Ok(timeout_at(deadline, committed).await.map_err(|_| late())??)
}
