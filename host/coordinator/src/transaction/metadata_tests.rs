//! The state machine, request by request. The expectations are those of Apache Kafka 4.2.

use std::sync::Arc;

use super::metadata::{Step, TransactionMetadata};
use super::model::{Outcome, Producer, TopicPartition, TransactionError, TransactionState, TransactionVersion};

use Outcome::{Abort, Commit};
use TransactionError::{Abortable, ConcurrentTransactions, InvalidProducerIdMapping, InvalidState, ProducerFenced};
use TransactionVersion::{V0, V2};

const ID: i64 = 7;
const NEW_ID: i64 = 8;

fn producer(epoch: i16) -> Producer {
    Producer { id: ID, epoch }
}

fn partition(index: i32) -> TopicPartition {
    (Arc::from("t"), index)
}

fn written(step: Result<Step, TransactionError>) -> TransactionMetadata {
    match step {
        Ok(Step::Write(next)) => *next,
        other => panic!("no change: {other:?}"),
    }
}

/// Returns a state with an instance of the producer at `epoch`, and no transaction.
fn idle(epoch: i16) -> TransactionMetadata {
    TransactionMetadata { producer: producer(epoch), ..TransactionMetadata::new(ID, 60_000, 1) }
}

fn open(epoch: i16, version: TransactionVersion) -> TransactionMetadata {
    written(idle(epoch).add_partitions(producer(epoch), &[partition(0)], version, 2))
}

fn init(state: &TransactionMetadata, expected: Option<Producer>) -> Result<Step, TransactionError> {
    state.init(60_000, expected, None, V2, 3)
}

#[test]
fn each_instance_gets_the_next_epoch() {
    let first = written(init(&TransactionMetadata::new(ID, 60_000, 1), None));
    assert_eq!((first.producer, first.state), (producer(0), TransactionState::Empty));
    let second = written(init(&first, None));
    assert_eq!((second.producer, second.last_epoch), (producer(1), -1));
    // The first instance is fenced, whatever it does.
    assert_eq!(init(&second, Some(producer(0))), Err(ProducerFenced));
    assert_eq!(second.add_partitions(producer(0), &[partition(0)], V2, 4), Err(ProducerFenced));
    assert_eq!(second.end(producer(0), Abort, V0, None, 4), Err(ProducerFenced));
    assert_eq!(second.end(producer(0), Abort, V2, None, 4), Err(ProducerFenced));
    let other = Producer { id: 99, epoch: 1 };
    assert_eq!(second.add_partitions(other, &[partition(0)], V2, 4), Err(InvalidProducerIdMapping));
    assert_eq!(second.verify(other, &[partition(0)]), Err(InvalidProducerIdMapping));
    assert_eq!(init(&second, Some(other)), Err(ProducerFenced));
}

#[test]
fn an_instance_that_goes_on_after_an_error_may_repeat_its_request() {
    let bumped = written(init(&idle(4), Some(producer(4))));
    assert_eq!((bumped.producer, bumped.last_epoch), (producer(5), 4));
    // The response was lost: the same request gives the same epoch.
    assert_eq!(written(init(&bumped, Some(producer(4)))).producer, producer(5));
    // Another instance has begun since.
    assert_eq!(init(&written(init(&bumped, None)), Some(producer(5))), Err(ProducerFenced));
}

#[test]
fn an_open_transaction_is_aborted_before_the_next_instance_begins() {
    let fenced = written(init(&open(3, V2), None));
    assert_eq!((fenced.state, fenced.producer, fenced.last_epoch), (TransactionState::PrepareAbort, producer(4), -1));
    assert_eq!(fenced.partitions, [partition(0)].into());
    assert_eq!(init(&fenced, None), Err(ConcurrentTransactions));
    let aborted = fenced.completed(5);
    assert_eq!(written(init(&aborted, None)).producer, producer(5));
    // The instance that was fenced.
    assert_eq!(init(&aborted, Some(producer(3))), Err(ProducerFenced));
}

#[test]
fn a_producer_without_epochs_left_gets_a_new_id() {
    let last = idle(i16::MAX - 1);
    assert_eq!(init(&last, None), Ok(Step::NeedsProducerId));
    let next = written(last.init(60_000, Some(last.producer), Some(NEW_ID), V2, 3));
    assert_eq!((next.producer, next.previous_producer_id), (Producer { id: NEW_ID, epoch: 0 }, ID));
    // A retry with the id of before.
    assert_eq!(written(init(&next, Some(last.producer))).producer, next.producer);
    assert_eq!(init(&next, Some(producer(5))), Err(ProducerFenced));
    // A fence takes the last epoch. It is for markers only.
    let fenced = open(i16::MAX - 1, V2).fenced(V2, 3);
    assert_eq!(fenced.producer, producer(i16::MAX));
    assert_eq!(init(&fenced.completed(4), None), Ok(Step::NeedsProducerId));
}

#[test]
fn partitions_are_added_once_and_verified() {
    let one = open(0, V2);
    assert_eq!((one.state, one.started_ms, one.client_version), (TransactionState::Ongoing, 2, V2));
    assert_eq!(one.add_partitions(producer(0), &[partition(0)], V2, 9), Ok(Step::Done(producer(0))));
    let two = written(one.add_partitions(producer(0), &[partition(0), partition(1)], V2, 9));
    assert_eq!((two.partitions.len(), two.started_ms, two.updated_ms), (2, 2, 9));
    assert_eq!(two.verify(producer(0), &[partition(1), partition(2)]), Ok(vec![Ok(()), Err(Abortable)]));
    assert_eq!(two.verify(producer(1), &[partition(1)]), Err(ProducerFenced));
    let ending = written(two.end(producer(0), Commit, V2, None, 9));
    assert_eq!(ending.verify(producer(1), &[partition(1)]), Err(ConcurrentTransactions));
    assert_eq!(ending.add_partitions(producer(1), &[partition(1)], V2, 9), Err(ConcurrentTransactions));
    let next = written(ending.completed(10).add_partitions(producer(1), &[partition(1)], V2, 11));
    assert_eq!((next.partitions.len(), next.started_ms), (1, 11));
}

#[test]
fn the_end_of_a_transaction_raises_the_epoch_and_may_be_repeated() {
    for (outcome, other, state) in
        [(Commit, Abort, TransactionState::CompleteCommit), (Abort, Commit, TransactionState::CompleteAbort)]
    {
        let ending = written(open(3, V2).end(producer(3), outcome, V2, None, 5));
        assert_eq!((ending.producer, ending.outcome()), (producer(4), Some(outcome)));
        assert_eq!(ending.producer_after(), producer(4));
        // While markers are being written.
        assert_eq!(ending.end(producer(3), outcome, V2, None, 6), Err(ConcurrentTransactions));
        assert_eq!(ending.end(producer(3), other, V2, None, 6), Err(InvalidState));
        // The end of the next transaction waits. Kafka fences its producer.
        assert_eq!(ending.end(producer(4), outcome, V2, None, 6), Err(ConcurrentTransactions));
        let ended = ending.completed(7);
        assert_eq!((ended.state, ended.producer), (state, producer(4)));
        assert!(ended.partitions.is_empty());
        assert_eq!(ended.end(producer(3), outcome, V2, None, 8), Ok(Step::Done(producer(4))));
        assert_eq!(ended.end(producer(3), other, V2, None, 8), Err(InvalidState));
        // With the new epoch it is another transaction, in which nothing is open.
        assert_eq!(ended.end(producer(4), Commit, V2, None, 8), Err(InvalidState));
        assert_eq!(written(ended.end(producer(4), Abort, V2, None, 8)).producer, producer(5));
        // What is left of the one before cannot end the next one.
        let next = written(ended.add_partitions(producer(4), &[partition(0)], V2, 9));
        assert_eq!(next.end(producer(3), outcome, V2, None, 9), Err(ProducerFenced));
        assert_eq!(next.end(producer(3), outcome, V0, None, 9), Err(ProducerFenced));
    }
}

#[test]
fn a_producer_of_the_older_protocol_keeps_its_epoch() {
    let ending = written(open(3, V0).end(producer(3), Commit, V0, None, 5));
    assert_eq!((ending.producer, ending.client_version), (producer(3), V0));
    assert_eq!(ending.end(producer(3), Commit, V0, None, 5), Err(ConcurrentTransactions));
    assert_eq!(ending.end(producer(3), Abort, V0, None, 5), Err(InvalidState));
    let ended = ending.completed(6);
    assert_eq!(ended.end(producer(3), Commit, V0, None, 7), Ok(Step::Done(producer(3))));
    assert_eq!(ended.end(producer(3), Abort, V0, None, 7), Err(InvalidState));
    for outcome in [Commit, Abort] {
        assert_eq!(idle(3).end(producer(3), outcome, V0, None, 7), Err(InvalidState));
    }
    assert_eq!(idle(3).end(producer(3), Commit, V2, None, 7), Err(InvalidState));
    assert_eq!(written(idle(3).end(producer(3), Abort, V2, None, 7)).producer, producer(4));
}

#[test]
fn the_last_epoch_ends_a_transaction_with_a_new_id() {
    let open = open(i16::MAX - 1, V2);
    let old = open.producer;
    assert_eq!(open.end(old, Commit, V2, None, 5), Ok(Step::NeedsProducerId));
    let ending = written(open.end(old, Commit, V2, Some(NEW_ID), 5));
    let new = Producer { id: NEW_ID, epoch: 0 };
    // The markers have the old id.
    assert_eq!((ending.producer, ending.producer_after()), (producer(i16::MAX), new));
    assert_eq!(ending.end(old, Commit, V2, None, 6), Err(ConcurrentTransactions));
    let ended = ending.completed(7);
    assert_eq!((ended.producer, ended.previous_producer_id, ended.next_producer_id), (new, ID, -1));
    assert_eq!(ended.end(old, Commit, V2, None, 8), Ok(Step::Done(new)));
    assert_eq!(ended.end(old, Abort, V2, None, 8), Err(InvalidState));
    // A producer of the older protocol has no epoch to lose.
    assert!(matches!(open.end(old, Commit, V0, None, 5), Ok(Step::Write(_))));
}

#[test]
fn the_producer_of_a_transaction_that_timed_out_is_fenced() {
    let open = open(3, V2);
    assert!(!open.has_timed_out(60_002) && open.has_timed_out(60_003));
    let aborted = open.fenced(V2, 60_003).completed(60_004);
    assert!(!aborted.has_timed_out(i64::MAX));
    assert_eq!(aborted.producer, producer(4));
    assert_eq!(aborted.add_partitions(producer(3), &[partition(0)], V0, 8), Err(ProducerFenced));
    assert_eq!(aborted.end(producer(3), Commit, V0, None, 8), Err(ProducerFenced));
    assert_eq!(aborted.end(producer(3), Commit, V2, None, 8), Err(InvalidState));
    assert_eq!(init(&aborted, Some(producer(3))), Err(ProducerFenced));
    // What was to be aborted is aborted.
    assert_eq!(aborted.end(producer(3), Abort, V2, None, 8), Ok(Step::Done(producer(4))));
}

#[test]
fn ids_without_a_transaction_expire() {
    let ended = open(3, V2).fenced(V2, 10).completed(20);
    assert!(!ended.has_expired(100, 119) && ended.has_expired(100, 120));
    assert!(!open(3, V2).has_expired(100, i64::MAX));
}
