//! Writes the markers that end transactions to partitions that this broker leads.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use millstream_coordinator::group::{CONSUMER_OFFSETS, EndingTransaction, GroupCoordinator, GroupError};
use millstream_log::TransactionEnd;
use millstream_partition::MarkerAppend;
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
    groups: &Arc<GroupCoordinator>,
    end: &TransactionEnd,
    partitions: &[(Str, i32)],
) -> Vec<Result<(), ApiError>> {
    let deadline = Instant::now() + COMMIT_WAIT;
    let appended: Vec<Result<Appended, ApiError>> = {
        let table = topics.load();
        let append = |(topic, index): &(Str, i32)| append(&table, groups, end, topic, *index);
        partitions.iter().map(append).collect()
    };
    let mut results = Vec::with_capacity(appended.len());
    for appended in appended {
        results.push(match appended {
            Ok(appended) => commit(appended, end, deadline).await,
            Err(error) => Err(error),
        });
    }
    results
}

/// A marker that is not committed yet. The group coordinator follows those of its topic.
type Appended = (MarkerAppend, Option<EndingTransaction>);

fn append(
    table: &ServedTopics,
    groups: &Arc<GroupCoordinator>,
    end: &TransactionEnd,
    topic: &str,
    index: i32,
) -> Result<Appended, ApiError> {
    let found = table.by_name(topic).ok_or_else(ApiError::unknown_topic)?;
    // A view has no records of its own.
    let partition = match found.shared_from {
        None => found.partition(index).ok_or_else(ApiError::unknown_topic)?,
        Some(_) => return Err(ApiError::unknown_topic()),
    };
    let ending = match topic {
        CONSUMER_OFFSETS => Some(groups.ending_transaction(index).map_err(|error| not_loaded(&error))?),
        _ => None,
    };
    let appended = partition.append_marker(end, ending.as_ref().map(EndingTransaction::leader_epoch));
    appended.map(|appended| (appended, ending)).map_err(ApiError::from).inspect_err(|error| {
        let (producer_id, producer_epoch) = (end.producer_id, end.producer_epoch);
        tracing::debug!(topic, partition = index, producer_id, producer_epoch, "a marker is rejected: {error}");
        if error.is_storage_fault() {
            partition.report("a marker is not written", error);
        }
    })
}

/// Returns the reason why a partition of groups takes no marker: they would not notice it.
fn not_loaded(error: &GroupError) -> ApiError {
    ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, error.to_string())
}

async fn commit((appended, ending): Appended, end: &TransactionEnd, deadline: Instant) -> Result<(), ApiError> {
    let MarkerAppend { offset, committed } = appended;
    let late = || ApiError::new(ErrorCode::REQUEST_TIMED_OUT, "the marker was not committed in time");
    timeout_at(deadline, committed).await.map_err(|_| late())??;
    if let Some(ending) = ending {
        ending.ended(end.producer_id, end.marker.is_commit, offset);
    }
    Ok(())
}
