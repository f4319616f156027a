//! Dead letters: records that the edge dropped, kept in a separate topic with the reason and their place.
//!
//! # No loss, and the right offset
//!
//! An acknowledged record must always be in one of the two topics. If the source were written first, a stop in between
//! would lose the dead letter for good: the producer's retry is then a known duplicate, and acknowledged. The dead
//! letters are therefore written first. They are as durable as acks=all promises before a byte of the source is
//! written. A stop in between leaves dead letters of a batch that was not acknowledged; the retry writes them once
//! more.
//!
//! A dead letter names the offset that its record would have had, which is known only when the source is appended. An
//! append with this policy therefore holds the partition's `dead_letters` lock, and so does a marker that ends a
//! transaction. With dead letters an append holds the lock from reading the log's end to the append, including the wait
//! for the disk. Only an append with other configs can move the end meanwhile: they were just changed, or the source is
//! itself a dead letter topic. The append then notices that, and the dead letters are written again with their new
//! offsets.
//!
//! Dead letters in a transaction ask its coordinator. They never wait until that transaction has ended: its marker may
//! wait for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_partition::Partition;
use millstream_record::{Codec, Record};
use millstream_wire::{ErrorCode, Str};
use parking_lot::Mutex;

use super::context::{Edge, MetadataChanges};
use super::dead_letter_records::{DeadLetters, is_dead_letter_of_another};
use super::dead_letter_topic::{Origin, Target, failed, target};
use super::leaders;
use super::pending::PendingAppend;
use super::stages::Verdict;
use super::topic_stages::ActiveStages;
use super::view::link::Layer;
use crate::blocking::blocking;
use crate::cluster::BatchTransaction;
use crate::detached::detached;
use crate::error::ApiError;
use crate::produce::append::Stored;
use crate::produce::verifier::{ADDS_SINCE, translated};

/// The attempts to write dead letters while the end of the log keeps moving. After that the producer has to retry.
const TRIES: usize = 16;

/// The most written dead letters that a view remembers.
const WRITTEN_MAX: usize = 100_000;

/// Stores a batch without its bad records, once these are durable in the dead letter topic.
///
/// # Errors
/// The dead letters cannot be written, or other producers write to the partition too fast.
pub(super) async fn store(
    edge: &Edge,
    changes: &dyn MetadataChanges,
    pending: &PendingAppend,
    letters: DeadLetters,
) -> Result<Stored, ApiError> {
    let name = pending.dead_letter_topic.as_ref();
    let source = letters.source();
    let origin = Origin { sender: source, source, partition: letters.partition() };
    let target = target(edge, changes, name, origin).await?;
    let transaction = pending.transaction().filter(|_| letters.is_transactional());
    let (target, letters) = (Arc::new(target), Arc::new(letters));
    let _turn = pending.edge_partition()?.dead_letters.lock().await;
    for _ in 0..TRIES {
        // Another connection may have appended the same batch while this one was in the stages.
        if let Some(stored) = pending.check_producer()? {
            return Ok(stored);
        }
        let base_offset = pending.partition.log_end_offset()?;
        write(edge, &target, &letters, base_offset, transaction.as_ref()).await?;
        if let Some(stored) = pending.store_at(base_offset)? {
            return Ok(stored);
        }
    }
    Err(ApiError::new(
        ErrorCode::REQUEST_TIMED_OUT,
        "other producers write to the partition too fast for its dead letters",
    ))
}

/// Writes dead letters with the durability of acks=all, at the broker that leads their partition.
async fn write(
    edge: &Edge,
    target: &Arc<Target>,
    letters: &Arc<DeadLetters>,
    base_offset: i64,
    transaction: Option<&BatchTransaction>,
) -> Result<(), ApiError> {
    let (place, letters) = (Arc::clone(target), Arc::clone(letters));
    let batches = blocking(move || letters.batches(&place, base_offset)).await??;
    let (topic, partition) = (target.topic.as_str(), target.partition);
    let produce_version = transaction.map_or(ADDS_SINCE, |transaction| transaction.produce_version);
    let written = leaders::append(edge, topic, partition, batches, transaction, true).await;
    written.map_err(|error| match error.code {
        // The producer sends the batch again.
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::LEADER_NOT_AVAILABLE | ErrorCode::NOT_ENOUGH_REPLICAS => {
            let message = format!("a dead letter is not stored: {error}");
            ApiError::new(ErrorCode::REQUEST_TIMED_OUT, message)
        }
        ErrorCode::REQUEST_TIMED_OUT => error,
        // Another broker leads the records' partition by now.
        ErrorCode::FENCED_LEADER_EPOCH => ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, error.message),
        ErrorCode::CONCURRENT_TRANSACTIONS => translated(error, produce_version),
        // The producer or its transaction is no longer the current one.
        ErrorCode::INVALID_PRODUCER_EPOCH
        | ErrorCode::INVALID_PRODUCER_ID_MAPPING
        | ErrorCode::INVALID_TXN_STATE
        | ErrorCode::TRANSACTION_ABORTABLE => error,
        _ if error.is_storage_fault() => error,
        _ => failed(error),
    })
}

/// The records on which the filters of a view failed, to be written to the dead letter topic.
#[derive(Debug)]
pub(crate) struct ViewDeadLetters {
    view: Str,
    dead_letter_topic: Option<Str>,
    letters: DeadLetters,
    written: Arc<Written>,
}

impl ViewDeadLetters {
    /// Copies the records on which the filters of a view failed, except those that were written before; `None` if none
    /// are left. The records stay in the source, and the view does not show them.
    ///
    /// A dead letter of another topic does not become a dead letter again. Without this rule, configs that an older
    /// version accepted could make endless dead letters.
    pub(super) fn of(
        layer: &Layer,
        stages: &ActiveStages,
        source: &Partition,
        (rows, verdict): (&[Record<'_>], &Verdict),
        codec: Codec,
    ) -> Option<Self> {
        let mut letters = DeadLetters::new(Str::from(source.topic()), source.index(), codec);
        let known = layer.dead_letters.known.lock();
        for row in verdict.failed().iter().map(|failed| failed.row) {
            let record = &rows[row];
            let is_new = !known.contains(&(source.index(), record.offset));
            if is_new && !is_dead_letter_of_another(record, source.topic()) {
                letters.push(record, record.offset, verdict, row);
            }
        }
        drop(known);
        (!letters.is_empty()).then(|| Self {
            view: layer.topic.clone(),
            dead_letter_topic: stages.dead_letter_topic.clone(),
            letters,
            written: Arc::clone(&layer.dead_letters),
        })
    }

    async fn write(mut self, edge: &Edge, changes: &dyn MetadataChanges) -> Result<(), ApiError> {
        let written = Arc::clone(&self.written);
        // Held during the wait for the disk: another reader of the same records then finds them written.
        let _turn = written.writing.lock().await;
        let partition = self.letters.partition();
        {
            let known = written.known.lock();
            self.letters.retain(|offset| !known.contains(&(partition, offset)));
        }
        if self.letters.is_empty() {
            return Ok(());
        }
        let name = self.dead_letter_topic.as_ref();
        let origin = Origin { sender: &self.view, source: self.letters.source(), partition };
        let target = target(edge, changes, name, origin).await?;
        let letters = Arc::new(self.letters);
        write(edge, &Arc::new(target), &letters, 0, None).await?;
        written.add(letters.offsets().map(|offset| (partition, offset)));
        Ok(())
    }
}

/// Writes the dead letters of views with the durability of acks=all. A view is read often, but each of its dead letters
/// is written once. Continues if the returned future is dropped.
///
/// # Errors
/// The dead letters cannot be written.
pub(crate) async fn write_of_views(
    edge: &Arc<Edge>,
    changes: &Arc<dyn MetadataChanges>,
    all: Vec<ViewDeadLetters>,
) -> Result<(), ApiError> {
    let (edge, changes) = (Arc::clone(edge), Arc::clone(changes));
    let work = async move {
        for letters in all {
            let (view, written) = (letters.view.clone(), Arc::clone(&letters.written));
            let result = letters.write(&edge, &*changes).await;
            let problem = result.err().map(|error| error.message);
            let is_new = written.is_new_problem(problem.as_deref());
            let Some(problem) = problem else { continue };
            if is_new {
                tracing::warn!("view {}: {problem}", view.as_str());
            }
            return Err(ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, problem));
        }
        Ok(())
    };
    detached(work).await
}

/// The dead letters that a view has written since the start, by partition and offset. Above a limit the lowest are
/// forgotten. They are written once more if they are read again.
#[derive(Debug, Default)]
pub(crate) struct Written {
    known: Mutex<BTreeSet<(i32, i64)>>,
    /// Held while dead letters are being written.
    writing: tokio::sync::Mutex<()>,
    /// Why the last dead letters could not be written. Clients retry their fetches, so each reason is logged once.
    problem: Mutex<Option<String>>,
}

impl Written {
    fn add(&self, places: impl Iterator<Item = (i32, i64)>) {
        let mut known = self.known.lock();
        known.extend(places);
        while known.len() > WRITTEN_MAX {
            known.pop_first();
        }
    }

    /// Records the outcome of an attempt to write. Returns whether it differs from the one before.
    fn is_new_problem(&self, problem: Option<&str>) -> bool {
        let mut last = self.problem.lock();
        let is_new = last.as_deref() != problem;
        if is_new {
            *last = problem.map(str::to_owned);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_new_once_until_it_is_solved() {
        let written = Written::default();
        let is_new = [Some("a"), Some("a"), Some("b"), None, None, Some("b")].map(|now| written.is_new_problem(now));
        assert_eq!(is_new, [true, false, true, true, false, true]);
    }

    #[test]
    fn a_view_remembers_a_limited_number_of_dead_letters() {
        let written = Written::default();
        written.add((0..WRITTEN_MAX as i64 + 5).map(|offset| (0, offset)));
        let known = written.known.lock();
        assert_eq!((known.len(), known.first()), (WRITTEN_MAX, Some(&(0, 5))));
    }
}
