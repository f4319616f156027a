//! The verdict on a batch: stored, to be sent again, or failed.

use std::sync::Arc;
use std::time::Instant;

use millstream_wire::ErrorCode;

use super::Inner;
use super::node::Taken;
use super::queue::{Batch, PartitionQueue, TopicQueue};
use super::receipt::Stored;
use crate::error::Error;

/// What came of one try.
pub(crate) enum Outcome {
    /// The broker has it.
    Stored {
        base_offset: i64,
        /// -1 where the producer's timestamps hold.
        log_append_time: i64,
    },
    /// It was written to the socket, and with `acks=0` that is all that will be known.
    Unacknowledged,
    /// The broker says no.
    Refused {
        code: ErrorCode,
        message: Option<Arc<str>>,
        /// Index in the batch and message of the records that are to blame.
        rows: Vec<(i32, Arc<str>)>,
    },
    /// It left, and there will be no answer.
    Lost(Error),
    /// It did not leave.
    NotSent(Error),
}

/// What is to be done about it.
enum Verdict {
    Stored,
    /// With the time of the next try.
    Again(Error),
    Failed(Error),
}

/// Ends one try of a batch.
pub(crate) fn settle(inner: &Arc<Inner>, taken: Taken, outcome: Outcome) {
    let Taken { topic, partition, mut batch } = taken;
    let mut partitions = topic.partitions.lock();
    let queue = &mut partitions[partition];
    queue.in_flight -= 1;
    let verdict = judge(inner, queue, &topic, partition, &mut batch, &outcome);
    match &verdict {
        Verdict::Stored => queue.sequences.stored(batch.number),
        Verdict::Again(_) => {}
        Verdict::Failed(_) if batch.maybe_stored => queue.sequences.unknown(batch.number),
        Verdict::Failed(_) => queue.sequences.refused(batch.number),
    }
    match verdict {
        Verdict::Again(error) => {
            tracing::debug!(topic = %topic.name, partition, attempts = batch.attempts, %error, "will send again");
            batch.not_before = Instant::now() + inner.cluster.config().backoff(batch.attempts.saturating_sub(1));
            batch.last_error = Some(error);
            queue.put_back(batch);
            drop(partitions);
        }
        Verdict::Stored => {
            drop(partitions);
            finish_stored(inner, &batch, partition as i32, &outcome);
        }
        Verdict::Failed(error) => {
            drop(partitions);
            finish_failed(inner, &batch, &error, &outcome);
        }
    }
    inner.changed();
}

fn judge(
    inner: &Inner,
    queue: &mut PartitionQueue,
    topic: &TopicQueue,
    partition: usize,
    batch: &mut Batch,
    outcome: &Outcome,
) -> Verdict {
    let what = || format!("produce to {}-{partition}", topic.name);
    let (error, retriable) = match outcome {
        // The broker stored it on an earlier try whose answer was lost, too long ago to say where.
        Outcome::Refused { code: ErrorCode::DUPLICATE_SEQUENCE_NUMBER, .. } => return Verdict::Stored,
        Outcome::Stored { .. } | Outcome::Unacknowledged => return Verdict::Stored,
        Outcome::NotSent(error) => (error.clone(), error.retriable()),
        Outcome::Lost(error) => {
            batch.maybe_stored |= error.fate_unknown();
            (error.clone(), error.retriable())
        }
        Outcome::Refused { code, message, .. } => {
            // These two say that the leader has it and its followers may not.
            batch.maybe_stored |=
                matches!(*code, ErrorCode::REQUEST_TIMED_OUT | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND);
            if wants_metadata(*code) {
                inner.want_refresh();
            }
            let error = Error::broker(what(), *code, message.as_deref());
            let out_of_order = inner.config.idempotent() && judge_sequence(queue, batch, *code);
            (error, out_of_order || code.retriable())
        }
    };
    let in_time = batch.created + inner.config.delivery_timeout > Instant::now();
    match retriable && in_time && batch.attempts <= inner.config.retries && !inner.aborted() {
        true => Verdict::Again(error),
        false => Verdict::Failed(error),
    }
}

/// What an error about sequences asks for; true when the batch should be sent again.
fn judge_sequence(queue: &mut PartitionQueue, batch: &Batch, code: ErrorCode) -> bool {
    match code {
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID
            if !queue.sequences.is_lowest(batch.number) =>
        {
            // One before it failed and will be sent again, and then this one fits.
            true
        }
        // The broker has neither this batch nor the one before, whose fate nobody knew until now; or
        // it has forgotten the producer. Either way nothing is stored twice by beginning anew.
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER if queue.sequences.unresolved() => {
            queue.sequences.want_reset();
            true
        }
        ErrorCode::UNKNOWN_PRODUCER_ID => {
            queue.sequences.want_reset();
            true
        }
        // Something that was acknowledged is gone, or somebody else uses this producer's id.
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::INVALID_PRODUCER_EPOCH => {
            queue.sequences.want_reset();
            false
        }
        _ => false,
    }
}

/// Whether another picture of the cluster may help.
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

/// Fails every record of a batch. Where the broker named the bad ones, the others learn that.
pub(crate) fn finish_failed(inner: &Inner, batch: &Batch, error: &Error, outcome: &Outcome) {
    let blamed: &[(i32, Arc<str>)] = match outcome {
        Outcome::Refused { rows, .. } => rows,
        _ => &[],
    };
    let others = Error::Invalid("another record of the same batch is invalid; send this one again".into());
    let complete = batch.finish(|index, _| match blamed.iter().find(|(row, _)| *row == index as i32) {
        Some((_, message)) if !message.is_empty() => Err(Error::Invalid(message.clone())),
        None if !blamed.is_empty() => Err(others.clone()),
        _ => Err(error.clone()),
    });
    inner.release(batch.memory, complete);
}
