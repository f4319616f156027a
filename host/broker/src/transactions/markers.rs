//! Writes the markers that end transactions to partitions that this broker leads.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use millstream_coordinator::group::{CONSUMER_OFFSETS, EndingTransaction, GroupCoordinator, GroupError};
use millstream_log::TransactionEnd;
use millstream_partition::{MarkerAppend, Partition};
use millstream_wire::{ErrorCode, Str};
use tokio::time::{Instant, timeout_at};

use crate::edge::{EdgePartition, ServedTopics};
use crate::error::ApiError;

/// The longest wait for the commit of a marker. The coordinator then sends it again.
const COMMIT_WAIT: Duration = Duration::from_secs(30);

/// The longest wait for dead letters of a partition. A coordinator sends the markers for a broker one request after the
/// other.
const TURN_WAIT: Duration = Duration::from_secs(1);

/// Ends a transaction in partitions, each a topic and an index. Returns the results in the same order, once the markers
/// are committed. A partition that is not here is UNKNOWN_TOPIC_OR_PARTITION, and one that another broker leads is
/// NOT_LEADER_OR_FOLLOWER. A marker that is sent again is written again, which changes nothing.
pub(crate) async fn write_markers(
    topics: &ArcSwap<ServedTopics>,
    groups: &Arc<GroupCoordinator>,
    end: &TransactionEnd,
    partitions: &[(Str, i32)],
) -> Vec<Result<(), ApiError>> {
    let started = Instant::now();
    let begun: Vec<Result<Begun, ApiError>> = {
        let table = topics.load();
        partitions.iter().map(|(topic, index)| begin(&table, groups, end, topic, *index)).collect()
    };
    let mut results = Vec::with_capacity(begun.len());
    for begun in begun {
        results.push(match begun {
            Ok(begun) => begun.finish(groups, end, started).await,
            Err(error) => Err(error),
        });
    }
    results
}

/// A marker that is not committed yet. The group coordinator follows those of its topic.
type Appended = (MarkerAppend, Option<EndingTransaction>);

/// A marker for a partition.
enum Begun {
    Appended(Appended),
    /// Dead letters are being written, and name the offset that comes next. The marker must not take it.
    Waiting(Arc<Partition>, Arc<EdgePartition>),
}

impl Begun {
    async fn finish(
        self,
        groups: &Arc<GroupCoordinator>,
        end: &TransactionEnd,
        started: Instant,
    ) -> Result<(), ApiError> {
        let appended = match self {
            Self::Appended(appended) => appended,
            Self::Waiting(partition, edge) => {
                let _turn = timeout_at(started + TURN_WAIT, edge.dead_letters.lock()).await.map_err(|_| late())?;
                append(groups, end, &partition)?
            }
        };
        commit(appended, end, started + COMMIT_WAIT).await
    }
}

/// Appends a marker, unless it has to wait.
fn begin(
    table: &ServedTopics,
    groups: &Arc<GroupCoordinator>,
    end: &TransactionEnd,
    topic: &str,
    index: i32,
) -> Result<Begun, ApiError> {
    let found = table.by_name(topic).ok_or_else(ApiError::unknown_topic)?;
    // A view has no records of its own.
    let (None, Some(partition), Some(edge)) = (&found.shared_from, found.partition(index), found.edge.partition(index))
    else {
        return Err(ApiError::unknown_topic());
    };
    match edge.dead_letters.try_lock() {
        Ok(_turn) => append(groups, end, partition).map(Begun::Appended),
        Err(_) => Ok(Begun::Waiting(Arc::clone(partition), Arc::clone(edge))),
    }
}

fn append(
    groups: &Arc<GroupCoordinator>,
    end: &TransactionEnd,
    partition: &Arc<Partition>,
) -> Result<Appended, ApiError> {
    let (topic, index) = (partition.topic(), partition.index());
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
    timeout_at(deadline, committed).await.map_err(|_| late())??;
    if let Some(ending) = ending {
        ending.ended(end.producer_id, end.marker.is_commit, offset);
    }
    Ok(())
}

fn late() -> ApiError {
    ApiError::new(ErrorCode::REQUEST_TIMED_OUT, "the marker was not committed in time")
}
