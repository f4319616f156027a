//! Completes an attempt to send a batch: it was stored, is retried, or failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_wire::ErrorCode;

use super::Inner;
use super::accumulator::{Batch, PartitionQueue, TopicAccumulator};
use super::delivery::Stored;
use super::sender::Taken;
use super::transactions::MARKERS_WAIT;
use crate::error::Error;

/// The outcome of one attempt.
pub(crate) enum Outcome {
    /// The broker stored it.
    Stored {
        base_offset: i64,
        /// -1 if the records keep the producer's timestamps.
        log_append_time: i64,
    },
    /// It was written to the socket; with `acks=0` there is no response.
    Unacknowledged,
    /// The broker rejected it.
    Rejected {
        code: ErrorCode,
        message: Option<Arc<str>>,
        /// Whether the broker has named another leader, so that a retry does not have to wait.
        knows_leader: bool,
        /// The invalid records: index in the batch and message.
        rows: Vec<(i32, Arc<str>)>,
    },
    /// It was sent, and its response is lost.
    Lost(Error),
    /// It was sent to a broker that no longer leads the partition and has not responded.
    LeaderMoved,
    /// It was not sent.
    NotSent(Error),
}

/// What to do with the batch.
enum Decision {
    Stored,
    Retry(Error),
    Fail(Error),
}

/// Completes one attempt of a batch.
pub(crate) fn complete(inner: &Arc<Inner>, taken: Taken, outcome: Outcome) {
    let Taken { topic, partition, mut batch } = taken;
    let mut partitions = topic.partitions.lock();
    let queue = &mut partitions[partition];
    queue.in_flight -= 1;
    let decision = decide(inner, queue, &topic, partition, &mut batch, &outcome);
    match &decision {
        Decision::Stored => queue.sequences.stored(batch.number),
        Decision::Retry(_) => {}
        Decision::Fail(_) if batch.maybe_stored => queue.sequences.unknown(batch.number),
        Decision::Fail(_) => queue.sequences.rejected(batch.number),
    }
    match decision {
        Decision::Retry(error) => {
            tracing::debug!(topic = %topic.name, partition, attempts = batch.attempts, %error, "retrying the batch");
            let wait = match outcome {
                Outcome::Rejected { knows_leader: true, .. } | Outcome::LeaderMoved => Duration::ZERO,
                Outcome::Rejected { code: ErrorCode::CONCURRENT_TRANSACTIONS, .. } => MARKERS_WAIT,
                _ => inner.cluster.config().backoff(batch.attempts.saturating_sub(1)),
            };
            batch.not_before = Instant::now() + wait;
            batch.failed_at = inner.cluster.metadata().leader(&topic.name, partition as i32);
            batch.last_error = Some(error);
            queue.put_back(batch);
            drop(partitions);
        }
        Decision::Stored => {
            drop(partitions);
            finish_stored(inner, &batch, partition as i32, &outcome);
        }
        Decision::Fail(error) => {
            drop(partitions);
            finish_failed(inner, &batch, &error, &outcome);
        }
    }
    inner.changed();
}

fn decide(
    inner: &Inner,
    queue: &mut PartitionQueue,
    topic: &TopicAccumulator,
    partition: usize,
    batch: &mut Batch,
    outcome: &Outcome,
) -> Decision {
    let what = || format!("produce to {}-{partition}", topic.name);
    let (error, retriable) = match outcome {
        // The broker stored it on an earlier attempt and no longer knows the offset.
        Outcome::Rejected { code: ErrorCode::DUPLICATE_SEQUENCE_NUMBER, .. } => return Decision::Stored,
        Outcome::Stored { .. } | Outcome::Unacknowledged => return Decision::Stored,
        Outcome::NotSent(error) => (error.clone(), error.retriable()),
        Outcome::Lost(error) => {
            batch.maybe_stored |= error.outcome_unknown();
            (error.clone(), error.retriable())
        }
        Outcome::LeaderMoved => {
            batch.maybe_stored = true;
            (Error::broker(what(), ErrorCode::NOT_LEADER_OR_FOLLOWER, None), true)
        }
        Outcome::Rejected { code, message, knows_leader, .. } => {
            // With these two codes the leader has the batch and its followers may not.
            batch.maybe_stored |=
                matches!(*code, ErrorCode::REQUEST_TIMED_OUT | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND);
            if wants_metadata(*code) && !knows_leader {
                inner.want_refresh();
            }
            let error = Error::broker(what(), *code, message.as_deref());
            let out_of_order = match inner.config.idempotent() {
                true if inner.transactions.is_some() => fits_later(queue, batch, *code),
                idempotent => idempotent && decide_sequence(queue, batch, *code),
            };
            (error, out_of_order || code.retriable())
        }
    };
    let in_time = batch.created + inner.config.delivery_timeout > Instant::now();
    match retriable && in_time && batch.attempts <= inner.config.retries && inner.doom().is_none() {
        true => Decision::Retry(error),
        false => Decision::Fail(error),
    }
}

/// Returns whether the batch will have the next sequence after others: one before it was rejected while both were in
/// flight, or failed and is retried first.
fn fits_later(queue: &PartitionQueue, batch: &Batch, code: ErrorCode) -> bool {
    let sequences = &queue.sequences;
    match code {
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER if sequences.is_renumbered(batch.number, batch.sequence) => true,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID => !sequences.is_lowest(batch.number),
        _ => false,
    }
}

/// Handles an error about sequences. Returns true if the batch should be retried.
fn decide_sequence(queue: &mut PartitionQueue, batch: &Batch, code: ErrorCode) -> bool {
    match code {
        _ if fits_later(queue, batch, code) => true,
        // The broker has neither this batch nor the earlier one whose outcome was unknown, or it has forgotten the
        // producer. Either way a restart of the sequence stores nothing twice.
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER if queue.sequences.unresolved() => {
            queue.sequences.want_reset();
            true
        }
        ErrorCode::UNKNOWN_PRODUCER_ID => {
            queue.sequences.want_reset();
            true
        }
        // An acknowledged batch is gone, or another client uses this producer id.
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::INVALID_PRODUCER_EPOCH => {
            queue.sequences.want_reset();
            false
        }
        _ => false,
    }
}

/// Returns whether a refresh of the metadata may help.
fn wants_metadata(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::LEADER_NOT_AVAILABLE
            | ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::REPLICA_NOT_AVAILABLE
    )
}

fn finish_stored(inner: &Inner, batch: &Batch, partition: i32, outcome: &Outcome) {
    let (base, append_time) = match outcome {
        Outcome::Stored { base_offset, log_append_time } => (*base_offset, *log_append_time),
        _ => (-1, -1),
    };
    let complete = batch.finish(|index, timestamp| {
        let offset = if base < 0 { -1 } else { base + index as i64 };
        let timestamp = if append_time < 0 { timestamp } else { append_time };
        Ok(Stored { partition, offset, timestamp })
    });
    inner.release(batch.memory, complete);
}

/// Fails every record of a batch. If the broker named the invalid records, the other ones get an error that says so.
pub(crate) fn finish_failed(inner: &Inner, batch: &Batch, error: &Error, outcome: &Outcome) {
    let invalid: &[(i32, Arc<str>)] = match outcome {
        Outcome::Rejected { rows, .. } => rows,
        _ => &[],
    };
    let error = &inner.fail(error.clone());
    let others = Error::Invalid("another record of the same batch is invalid; retry this one".into());
    let complete = batch.finish(|index, _| match invalid.iter().find(|(row, _)| *row == index as i32) {
        Some((_, message)) if !message.is_empty() => Err(inner.fail(Error::Invalid(message.clone()))),
        None if !invalid.is_empty() => Err(inner.fail(others.clone())),
        _ => Err(error.clone()),
    });
    inner.release(batch.memory, complete);
}
