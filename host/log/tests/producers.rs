//! Idempotent producers: the window of five batches, fencing, wrap, and what survives a restart.

mod common;

use common::*;
use millstream_log::{AppendError, AppendOrigin, Appended, Log, LogConfig, ProducerState, Verification};
use millstream_record::{BatchBuilder, CheckedBatch, Codec, TimestampType};

fn send(log: &mut Log, producer: Producer, count: usize) -> Result<Appended, AppendError> {
    let bytes = batch_with(Codec::None, Some(producer), &vec![NOW; count], b"v");
    append_with(log, &bytes, EPOCH, NOW)
}

fn duplicate_of(result: Result<Appended, AppendError>) -> i64 {
    match result {
        Ok(Appended::Duplicate(stored)) => stored.base_offset,
        other => panic!("{other:?} is not a duplicate"),
    }
}

#[test]
fn the_last_five_batches_are_duplicates() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    for at in 0..7 {
        assert_eq!(send(&mut log, Producer(5, 0, at * 2), 2).unwrap().batch().base_offset, i64::from(at) * 2);
    }
    for at in 2..7 {
        assert_eq!(duplicate_of(send(&mut log, Producer(5, 0, at * 2), 2)), i64::from(at) * 2);
    }
    for (sequence, count) in [(0, 2), (2, 2), (12, 1), (13, 1), (15, 1), (16, 2), (1000, 1)] {
        let error = send(&mut log, Producer(5, 0, sequence), count).unwrap_err();
        assert!(matches!(error, AppendError::OutOfOrderSequence { last: 13, .. }), "{sequence}: {error}");
    }
    assert_eq!(log.log_end_offset(), 14);
    assert_eq!(send(&mut log, Producer(5, 0, 14), 1).unwrap().batch().base_offset, 14);
    assert_eq!(
        send(&mut log, Producer(6, 0, 0), 1).unwrap().batch().base_offset,
        15,
        "each producer has its own sequence"
    );
}

#[test]
fn a_new_epoch_starts_at_0_and_fences_the_old_one() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    send(&mut log, Producer(5, 3, 0), 4).unwrap();
    let error = send(&mut log, Producer(5, 4, 4), 1).unwrap_err();
    assert!(matches!(error, AppendError::OutOfOrderSequence { found: 4, last: -1, .. }), "{error}");
    send(&mut log, Producer(5, 4, 0), 1).unwrap();
    let error = send(&mut log, Producer(5, 3, 4), 1).unwrap_err();
    assert!(matches!(error, AppendError::InvalidProducerEpoch { found: 3, current: 4, .. }), "{error}");
    send(&mut log, Producer(5, 4, 1), 1).unwrap();
}

#[test]
fn sequences_wrap_from_the_largest_to_0() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    send(&mut log, Producer(5, 0, i32::MAX - 3), 2).unwrap();
    assert_eq!(send(&mut log, Producer(5, 0, i32::MAX - 1), 4).unwrap().batch().base_offset, 2);
    assert_eq!(duplicate_of(send(&mut log, Producer(5, 0, i32::MAX - 1), 4)), 2);
    assert_eq!(send(&mut log, Producer(5, 0, 2), 1).unwrap().batch().base_offset, 6);
    // The sequence may also wrap between two batches.
    send(&mut log, Producer(6, 0, i32::MAX), 1).unwrap();
    send(&mut log, Producer(6, 0, 0), 1).unwrap();
}

#[test]
fn an_evicted_producer_may_continue_with_any_sequence() {
    let dir = tempdir();
    let config = LogConfig { producer_id_expiration_ms: 1000, ..LogConfig::default() };
    let mut log = open(dir.path(), &config, unclean(0));
    send(&mut log, Producer(5, 2, 0), 1).unwrap();
    assert_eq!(log.expire_producers(NOW + 999), 0);
    assert_eq!(log.expire_producers(NOW + 1000), 1);
    assert_eq!(log.producer_count(), 0);
    send(&mut log, Producer(5, 2, 700), 1).unwrap();
    send(&mut log, Producer(5, 2, 701), 1).unwrap();
}

#[test]
fn a_restart_of_either_kind_forgets_no_batch_of_the_window() {
    for close in [false, true] {
        let dir = tempdir();
        let mut log = open(dir.path(), &small_segments(), unclean(0));
        // Enough batches of other producers for several rolls, each with a snapshot.
        for at in 0..60 {
            send(&mut log, Producer(9, 0, at * 2), 2).unwrap();
        }
        let mut sent = Vec::new();
        for at in 0..5 {
            sent.push(send(&mut log, Producer(5, 1, at), 1).unwrap().batch().base_offset);
            send(&mut log, Producer(9, 0, 120 + at), 1).unwrap();
        }
        let mut options = unclean(0);
        if close {
            options = clean(log.close_clean().unwrap());
        }
        drop(log);
        let mut log = open(dir.path(), &small_segments(), options);
        for (at, offset) in sent.iter().enumerate() {
            assert_eq!(duplicate_of(send(&mut log, Producer(5, 1, at as i32), 1)), *offset, "closed: {close}");
        }
        assert_eq!(send(&mut log, Producer(5, 1, 5), 1).unwrap().batch().base_offset, 130);
    }
}

#[test]
fn the_state_of_every_producer_is_listed() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    assert_eq!(log.producers(), []);
    for (id, epoch, sequence) in [(9, 0, 0), (5, 2, 0), (5, 2, 3)] {
        send(&mut log, Producer(id, epoch, sequence), 3).unwrap();
    }
    let state = |producer_id, epoch, last_sequence| ProducerState {
        producer_id,
        epoch,
        last_sequence,
        last_timestamp: NOW,
        coordinator_epoch: -1,
        transaction_start: None,
    };
    assert_eq!(log.producers(), [state(5, 2, 5), state(9, 0, 2)]);
}

#[test]
fn a_failed_check_leaves_no_trace() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    send(&mut log, Producer(5, 0, 0), 1).unwrap();
    let before = (log.size(), log.log_end_offset(), log.segment_count());
    send(&mut log, Producer(5, 0, 7), 1).unwrap_err();
    duplicate_of(send(&mut log, Producer(5, 0, 0), 1));
    assert_eq!((log.size(), log.log_end_offset(), log.segment_count()), before);
}

#[test]
fn truncation_at_the_end_removes_an_epoch_without_records() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    send(&mut log, Producer(5, 0, 0), 1).unwrap();
    let epochs = log.epochs().to_vec();
    log.assign_epoch(9, log.log_end_offset());
    assert_ne!(log.epochs(), epochs);
    assert_eq!(log.truncate_to(1).unwrap(), 1);
    assert_eq!(log.epochs(), epochs);
}

#[test]
fn truncation_resets_the_producers_too() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    for at in 0..60 {
        send(&mut log, Producer(5, 0, at), 1).unwrap();
    }
    let segments = log.segment_count();
    assert_eq!(log.truncate_to(20).unwrap(), 20);
    assert!(log.segment_count() < segments);
    assert_eq!(log.log_end_offset(), 20);
    assert_eq!(duplicate_of(send(&mut log, Producer(5, 0, 19), 1)), 19);
    assert_eq!(send(&mut log, Producer(5, 0, 20), 1).unwrap().batch().base_offset, 20);
    assert_eq!(offsets(&log, 0), (0..21).collect::<Vec<_>>());
}

#[test]
fn snapshots_do_not_pile_up() {
    let dir = tempdir();
    // A log of one small segment has no snapshot; with such an interval, none is small.
    let config = LogConfig { index_interval_bytes: 1, ..LogConfig::default() };
    for at in 0..5 {
        let mut log = open(dir.path(), &config, clean(at));
        send(&mut log, Producer(5, 0, at as i32), 1).unwrap();
        log.close_clean().unwrap();
    }
    drop(open(dir.path(), &config, clean(5)));
    let names: Vec<_> = files(dir.path(), "snapshot").iter().map(|path| path.file_stem().unwrap().to_owned()).collect();
    assert_eq!(names, ["00000000000000000005"]);
}

/// Appends a batch that a broker writes for a producer.
fn send_for(log: &mut Log, Producer(id, epoch, sequence): Producer, verification: Verification) -> i64 {
    assert_eq!(sequence, -1);
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.producer(id, epoch, sequence).transactional(true);
    builder.append(NOW, None, Some(b"v"), []).unwrap();
    let bytes = builder.build().unwrap();
    let batch = CheckedBatch::of_own(&bytes).unwrap();
    log.append_of(&batch, EPOCH, NOW, AppendOrigin::Broker(verification)).unwrap().batch().base_offset
}

fn transactional(Producer(id, epoch, sequence): Producer) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.producer(id, epoch, sequence).transactional(true);
    builder.append(NOW, None, Some(b"v"), []).unwrap();
    builder.build().unwrap()
}

#[test]
fn what_brokers_write_for_a_producer_leaves_its_sequences_as_they_are() {
    let dir = tempdir();
    // Rolled often, so that a restart begins with a snapshot.
    let config = LogConfig { segment_bytes: 300, ..LogConfig::default() };
    let mut log = open(dir.path(), &config, unclean(0));
    let send = |log: &mut Log, sequence| {
        let bytes = transactional(Producer(5, 0, sequence));
        let origin = AppendOrigin::Client(Verification::Disabled);
        log.append_of(&CheckedBatch::of_own(&bytes).unwrap(), EPOCH, NOW, origin)
    };
    let of_broker = |log: &mut Log| send_for(log, Producer(5, 0, -1), Verification::Disabled);
    assert_eq!(of_broker(&mut log), 0);
    for sequence in 0..5 {
        assert_eq!(send(&mut log, sequence).unwrap().batch().base_offset, i64::from(sequence) * 3 + 1);
        assert_eq!(
            (of_broker(&mut log), of_broker(&mut log)),
            (i64::from(sequence) * 3 + 2, i64::from(sequence) * 3 + 3)
        );
    }
    for reopened in [None, Some(unclean(0)), Some(clean(16))] {
        if let Some(options) = reopened {
            log.close_clean().unwrap();
            drop(log);
            log = open(dir.path(), &config, options);
        }
        for sequence in 0..5 {
            assert_eq!(duplicate_of(send(&mut log, sequence)), i64::from(sequence) * 3 + 1);
        }
        let error = send(&mut log, 6).unwrap_err();
        assert!(matches!(error, AppendError::OutOfOrderSequence { last: 4, .. }), "{error}");
        assert_eq!(log.producers()[0].last_sequence, 4);
    }
    assert_eq!(send(&mut log, 5).unwrap().batch().base_offset, 16);
}

#[test]
fn a_verification_for_a_broker_does_not_limit_the_producer() {
    for is_broker_first in [true, false] {
        let dir = tempdir();
        let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
        let begin = |log: &mut Log, sequence| {
            let bytes = transactional(Producer(5, 0, sequence));
            log.begin_verification(&CheckedBatch::of_own(&bytes).unwrap().header(), false, NOW).unwrap()
        };
        let sequences = if is_broker_first { [-1, 7] } else { [7, -1] };
        let guards = sequences.map(|sequence| begin(&mut log, sequence).expect("a guard"));
        assert_eq!(guards[0], guards[1], "the same transaction");
        let confirmed = Verification::Confirmed(guards[0]);
        let send = |log: &mut Log, sequence| {
            let bytes = transactional(Producer(5, 0, sequence));
            log.append_of(&CheckedBatch::of_own(&bytes).unwrap(), EPOCH, NOW, AppendOrigin::Client(confirmed))
        };
        assert!(matches!(send(&mut log, 8), Err(AppendError::OutOfOrderSequence { found: 8, .. })));
        send(&mut log, 7).unwrap();
        send_for(&mut log, Producer(5, 0, -1), confirmed);
    }
}
