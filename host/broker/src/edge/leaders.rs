//! Work at the broker that leads a partition: this one, or another one of the cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_log::AppendOrigin;
use millstream_metadata::NO_LEADER;
use millstream_partition::{Acks, Partition, WriteEnd, now_ms};
use millstream_record::CheckedBatch;
use millstream_record::validate::validate_built;
use millstream_wire::ErrorCode;
use tokio::time::{Instant, sleep, timeout_at};

use super::calls::process;
use super::context::{Edge, MetadataChanges};
use super::dead_letter_transaction;
use crate::blocking::blocking;
use crate::cluster::{BatchTransaction, Cluster, EdgeCall, EdgeReply};
use crate::error::ApiError;

/// The time for an append and its commit, also while the leader of the partition moves.
const APPEND_WAIT: Duration = Duration::from_secs(20);

/// The pause before an operation is retried.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The leader of a partition.
enum Leader<'a> {
    /// This broker.
    Here,
    /// Another one.
    At(&'a Arc<Cluster>, i32),
}

impl Edge {
    fn leader_of(&self, partition: &Partition) -> Result<Leader<'_>, ApiError> {
        match (&self.cluster, partition.leader()) {
            (None, _) => Ok(Leader::Here),
            (Some(_), leader) if leader == self.config.node_id => Ok(Leader::Here),
            (Some(_), NO_LEADER) => {
                let (topic, index) = (partition.topic(), partition.index());
                let message = format!("partition {topic}-{index} has no leader now");
                Err(ApiError::new(ErrorCode::LEADER_NOT_AVAILABLE, message))
            }
            (Some(cluster), leader) => Ok(Leader::At(cluster, leader)),
        }
    }
}

/// Passes a call to the leader of a topic with one partition, and retries for `limit` while the leader moves.
///
/// # Errors
/// No leader is reached, or the call fails there.
pub(super) async fn ask(
    edge: &Arc<Edge>,
    changes: &Arc<dyn MetadataChanges>,
    topic: &str,
    (call, bytes): (EdgeCall, Bytes),
    limit: Duration,
) -> Result<EdgeReply, ApiError> {
    let deadline = Instant::now() + limit;
    loop {
        let attempt = async {
            let partition = edge.partition(topic, 0)?;
            match edge.leader_of(&partition)? {
                Leader::Here => process(edge, changes, call.clone(), bytes.clone()).await,
                Leader::At(cluster, leader) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    cluster.call_edge(leader, call.clone(), &bytes, left).await
                }
            }
        };
        match attempt.await {
            Err(error) if may_move(edge, &error) && Instant::now() < deadline => sleep(RETRY_AFTER).await,
            outcome => return outcome,
        }
    }
}

/// Appends batches of the broker's own to a partition, at the broker that leads it. With a transaction they are part of
/// it. With `waits` they are committed when this returns.
///
/// # Errors
/// The partition cannot be written, or does not become part of the transaction.
pub(super) async fn append(
    edge: &Edge,
    topic: &str,
    index: i32,
    batches: Vec<Bytes>,
    transaction: Option<&BatchTransaction>,
    waits: bool,
) -> Result<(), ApiError> {
    let deadline = Instant::now() + APPEND_WAIT;
    let mut left = &batches[..];
    while let [batch, others @ ..] = left {
        let attempt = async {
            let partition = edge.partition(topic, index)?;
            match edge.leader_of(&partition)? {
                Leader::Here => {
                    let origin = dead_letter_transaction::origin(edge, &partition, batch, transaction).await?;
                    // The last wait covers the batches before.
                    append_own(&partition, batch.clone(), origin, waits && others.is_empty()).await
                }
                Leader::At(cluster, leader) => {
                    let (topic, limit) = (topic.to_owned(), deadline.saturating_duration_since(Instant::now()));
                    let transaction = transaction.cloned();
                    let call = EdgeCall::Append { topic, partition: index, waits, transaction };
                    cluster.call_edge(leader, call, batch, limit).await.map(drop)
                }
            }
        };
        let attempted = timeout_at(deadline, attempt).await.unwrap_or_else(|_| {
            let message = format!("partition {topic}-{index} has not committed a batch of the broker in time");
            Err(ApiError::new(ErrorCode::REQUEST_TIMED_OUT, message))
        });
        match attempted {
            Ok(()) => left = others,
            Err(error) if may_move(edge, &error) && Instant::now() < deadline => sleep(RETRY_AFTER).await,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns whether an operation may succeed at another leader.
fn may_move(edge: &Edge, error: &ApiError) -> bool {
    let codes = [
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::LEADER_NOT_AVAILABLE,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::REQUEST_TIMED_OUT,
        ErrorCode::NOT_ENOUGH_REPLICAS,
    ];
    edge.cluster.is_some() && codes.contains(&error.code)
}

async fn append_own(
    partition: &Arc<Partition>,
    batch: Bytes,
    origin: AppendOrigin,
    waits: bool,
) -> Result<(), ApiError> {
    let target = Arc::clone(partition);
    let work = move || {
        let batch = CheckedBatch::of_own(&batch)?;
        Ok::<_, ApiError>(WriteEnd::of(&target.append_of(&batch, now_ms(), origin)?.batch()))
    };
    wait(partition, blocking(work).await??, waits).await
}

/// Appends a batch that another broker has built, as the leader of the partition.
///
/// # Errors
/// Another broker leads, or the batch is damaged, or the partition cannot be written, or does not become part of the
/// batch's transaction.
pub(super) async fn append_here(
    edge: &Edge,
    topic: &str,
    index: i32,
    batch: Bytes,
    transaction: Option<&BatchTransaction>,
    waits: bool,
) -> Result<(), ApiError> {
    let partition = edge.partition(topic, index)?;
    partition.check_leader(-1)?;
    let origin = dead_letter_transaction::origin(edge, &partition, &batch, transaction).await?;
    let target = Arc::clone(&partition);
    let work = move || {
        let bytes_max = target.with_log(|log| log.config().max_message_bytes)?;
        let batch = validate_built(&batch, usize::try_from(bytes_max).unwrap_or(usize::MAX))?;
        Ok::<_, ApiError>(WriteEnd::of(&target.append_of(&batch, now_ms(), origin)?.batch()))
    };
    wait(&partition, blocking(work).await??, waits).await
}

async fn wait(partition: &Arc<Partition>, end: WriteEnd, waits: bool) -> Result<(), ApiError> {
    if waits {
        partition.committed(end, Acks::All).await?;
    }
    Ok(())
}
