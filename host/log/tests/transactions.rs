//! Transactions: the last stable offset, the aborted transactions of a read, markers and their epochs, and what
//! survives restarts, crashes, truncations and a change of the leader.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::*;
use millstream_log::{
    AbortedTransaction, AppendError, AppendOrigin, Appended, Log, LogConfig, OpenOptions, TransactionEnd, Verification,
};
use millstream_record::{BatchBuilder, CheckedBatch, Codec, EndMarker, TimestampType};

/// A coordinator is not asked.
const TRUSTED: AppendOrigin = AppendOrigin::Client(Verification::Disabled);

fn transactional(Producer(id, epoch, sequence): Producer, count: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.producer(id, epoch, sequence).transactional(true);
    for _ in 0..count {
        builder.append(NOW, None, Some(b"value"), []).unwrap();
    }
    builder.build().unwrap()
}

fn send_of(log: &mut Log, producer: Producer, count: usize, origin: AppendOrigin) -> Result<Appended, AppendError> {
    let bytes = transactional(producer, count);
    log.append_of(&CheckedBatch::of_own(&bytes).unwrap(), EPOCH, NOW, origin)
}

fn send(log: &mut Log, producer: Producer, count: usize) -> i64 {
    send_of(log, producer, count, TRUSTED).unwrap().batch().base_offset
}

fn end_of(producer_id: i64, producer_epoch: i16, is_commit: bool) -> TransactionEnd {
    let marker = EndMarker { is_commit, coordinator_epoch: 7 };
    TransactionEnd { producer_id, producer_epoch, marker, transaction_version: 0 }
}

fn end(log: &mut Log, producer_id: i64, producer_epoch: i16, is_commit: bool) -> i64 {
    log.append_marker(&end_of(producer_id, producer_epoch, is_commit), EPOCH, NOW).unwrap().base_offset
}

/// Returns the aborted transactions of a read from `from` up to `to`, as producer and first offset.
fn aborted(log: &Log, from: i64, to: i64) -> Vec<(i64, i64)> {
    aborted_within(log, from, to, usize::MAX)
}

fn aborted_within(log: &Log, from: i64, to: i64, max_bytes: usize) -> Vec<(i64, i64)> {
    let slice = log.read(from, max_bytes, to, true).unwrap().expect("records");
    let found = log.reader().aborted_transactions(&slice).unwrap();
    found.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect()
}

/// Returns the aborted transactions that a reader of the whole log hears of, slice after slice.
fn all_aborted(log: &Log) -> BTreeMap<i64, AbortedTransaction> {
    let (mut offset, mut all) = (log.log_start_offset(), BTreeMap::new());
    while let Some(slice) = log.read(offset, 1, i64::MAX, true).unwrap() {
        for found in log.reader().aborted_transactions(&slice).unwrap() {
            all.insert(found.last_offset, found);
        }
        let bytes = slice.read_to_bytes().unwrap();
        offset = millstream_record::batches(&bytes).last().unwrap().unwrap().next_offset();
    }
    all
}

#[test]
fn readers_of_committed_records_stop_at_the_first_open_transaction() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    append(&mut log, &batch(5, b"v"));
    assert_eq!(log.last_stable_offset(5), 5);
    assert_eq!(send(&mut log, Producer(1, 0, 0), 2), 5);
    assert_eq!(send(&mut log, Producer(2, 0, 0), 1), 7);
    assert_eq!((log.last_stable_offset(8), log.last_stable_offset(3)), (5, 3));
    assert_eq!(log.first_open_transaction(), Some(5));
    // A decision that other replicas lack may be lost.
    assert_eq!(end(&mut log, 1, 0, true), 8);
    log.note_high_watermark(8);
    assert_eq!(log.last_stable_offset(8), 5);
    log.note_high_watermark(9);
    assert_eq!(log.last_stable_offset(9), 7);
    assert_eq!(end(&mut log, 2, 0, false), 9);
    log.note_high_watermark(10);
    assert_eq!(log.last_stable_offset(10), 10);
    // An empty transaction changes nothing.
    assert_eq!(end(&mut log, 3, 0, false), 10);
    log.note_high_watermark(11);
    assert_eq!((log.last_stable_offset(11), all_aborted(&log).len()), (11, 1));
}

#[test]
fn deleted_records_of_an_open_transaction_hold_nobody_back() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    send(&mut log, Producer(1, 0, 0), 4);
    append(&mut log, &batch(4, b"v"));
    log.delete_records(6).unwrap();
    assert_eq!(log.last_stable_offset(8), 6);
    end(&mut log, 1, 0, false);
    log.note_high_watermark(9);
    assert_eq!(log.last_stable_offset(9), 9);
    assert_eq!(aborted(&log, 6, 9), [(1, 0)]);
}

#[test]
fn a_read_names_the_aborted_transactions_of_its_bytes_by_first_offset() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    // A begins before B and is aborted after it.
    assert_eq!(send(&mut log, Producer(10, 0, 0), 1), 0);
    assert_eq!(send(&mut log, Producer(11, 0, 0), 1), 1);
    assert_eq!(send(&mut log, Producer(12, 0, 0), 1), 2);
    assert_eq!(send(&mut log, Producer(10, 0, 1), 1), 3);
    assert_eq!(end(&mut log, 11, 0, false), 4);
    assert_eq!(end(&mut log, 10, 0, false), 5);
    assert_eq!(end(&mut log, 12, 0, true), 6);
    assert_eq!(aborted(&log, 0, 7), [(10, 0), (11, 1)]);
    assert_eq!(aborted(&log, 5, 7), [(10, 0)]);
    assert_eq!(aborted(&log, 6, 7), []);
    // Small fetches name only what they return.
    assert_eq!(aborted_within(&log, 0, 7, 1), [(10, 0)]);
    assert_eq!(aborted_within(&log, 1, 7, 1), [(10, 0), (11, 1)]);
    let entry = |producer_id, first_offset, last_offset, last_stable_offset| AbortedTransaction {
        producer_id,
        first_offset,
        last_offset,
        last_stable_offset,
    };
    let expected = [entry(11, 1, 4, 0), entry(10, 0, 5, 2)];
    assert_eq!(all_aborted(&log).into_values().collect::<Vec<_>>(), expected);
}

#[test]
fn aborted_transactions_are_found_over_segments() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    let mut expected = Vec::new();
    for number in 0..60 {
        let first = send(&mut log, Producer(number, 0, 0), 3);
        append(&mut log, &batch(2, b"some value"));
        end(&mut log, number, 0, number % 3 == 0);
        if number % 3 != 0 {
            expected.push((number, first));
        }
    }
    assert!(log.segment_count() > 5 && files(dir.path(), "txnindex").len() > 4);
    let found: Vec<_> = all_aborted(&log).values().map(|found| (found.producer_id, found.first_offset)).collect();
    assert_eq!(found, expected);
    // Deleted segments take their indexes with them.
    let indexes = files(dir.path(), "txnindex").len();
    log.delete_records(200).unwrap();
    assert!(files(dir.path(), "txnindex").len() < indexes);
    let deleted = all_aborted(&log);
    assert!(deleted.values().all(|found| found.last_offset >= 200) && !deleted.is_empty());
}

#[test]
fn markers_are_fenced_by_the_epochs_of_producer_and_coordinator() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    send(&mut log, Producer(1, 5, 0), 1);
    let mut append = |end: TransactionEnd| log.append_marker(&end, EPOCH, NOW).map(|marker| marker.base_offset);
    let marker = |epoch, version| TransactionEnd { transaction_version: version, ..end_of(1, epoch, true) };
    for (epoch, version) in [(4, 0), (4, 2), (5, 2)] {
        let error = append(marker(epoch, version)).unwrap_err();
        assert!(matches!(error, AppendError::InvalidProducerEpoch { current: 5, .. }), "{epoch} {version}: {error}");
    }
    assert_eq!(append(marker(6, 2)).unwrap(), 1);
    // The coordinator repeats a marker whose response was lost.
    assert_eq!(append(marker(6, 2)).unwrap(), 2);
    let zombie = TransactionEnd { marker: EndMarker { is_commit: true, coordinator_epoch: 6 }, ..marker(7, 2) };
    let error = append(zombie).unwrap_err();
    assert!(matches!(error, AppendError::CoordinatorFenced { found: 6, current: 7, .. }), "{error}");
    // The marker has fenced the epoch of the records, and the next transaction begins with sequence 0.
    let state = log.producers()[0];
    assert_eq!((state.epoch, state.last_sequence, state.coordinator_epoch, state.transaction_start), (6, -1, 7, None));
    let error = send_of(&mut log, Producer(1, 5, 1), 1, TRUSTED).unwrap_err();
    assert!(matches!(error, AppendError::InvalidProducerEpoch { found: 5, current: 6, .. }), "{error}");
    let error = send_of(&mut log, Producer(1, 6, 1), 1, TRUSTED).unwrap_err();
    assert!(matches!(error, AppendError::OutOfOrderSequence { found: 1, .. }), "{error}");
    send(&mut log, Producer(1, 6, 0), 1);
    // A marker of the older protocol leaves epoch and sequence.
    end(&mut log, 1, 6, true);
    send(&mut log, Producer(1, 6, 1), 1);
}

#[test]
fn a_transaction_begins_only_with_a_verification_that_no_marker_has_ended() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    let begin = |log: &mut Log, producer, is_new_epoch| {
        let bytes = transactional(producer, 1);
        log.begin_verification(&CheckedBatch::of_own(&bytes).unwrap().header(), is_new_epoch, NOW).unwrap()
    };
    let first = Producer(1, 0, 0);
    let unknown = AppendOrigin::Client(Verification::Unknown);
    let no_transaction = |result: Result<Appended, AppendError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, AppendError::NoTransaction { producer_id: 1, .. }), "{error}");
    };
    no_transaction(send_of(&mut log, first, 1, unknown));
    let stale = begin(&mut log, first, false).expect("a guard");
    end(&mut log, 1, 0, false);
    no_transaction(send_of(&mut log, first, 1, AppendOrigin::Client(Verification::Confirmed(stale))));
    let guard = begin(&mut log, first, false).expect("a guard");
    assert_ne!(guard, stale);
    no_transaction(send_of(&mut log, first, 1, AppendOrigin::Client(Verification::Confirmed(stale))));
    // Later batches wait for the same verification, and the lowest sequence comes first.
    assert_eq!(begin(&mut log, Producer(1, 0, 1), false), Some(guard));
    let confirmed = AppendOrigin::Client(Verification::Confirmed(guard));
    let error = send_of(&mut log, Producer(1, 0, 1), 1, confirmed).unwrap_err();
    assert!(matches!(error, AppendError::OutOfOrderSequence { found: 1, .. }), "{error}");
    send_of(&mut log, first, 1, confirmed).unwrap();
    // From then on the log knows that the transaction is open.
    assert_eq!(begin(&mut log, Producer(1, 0, 1), false), None);
    send_of(&mut log, Producer(1, 0, 1), 1, unknown).unwrap();
    // A repeated batch needs nothing, even after the end.
    end(&mut log, 1, 0, true);
    assert!(matches!(send_of(&mut log, Producer(1, 0, 1), 1, unknown), Ok(Appended::Duplicate(_))));
    no_transaction(send_of(&mut log, Producer(1, 0, 2), 1, unknown));
    // A producer whose epoch changes with each transaction begins with 0.
    let guard = begin(&mut log, Producer(2, 3, 4), true).expect("a guard");
    let error = send_of(&mut log, Producer(2, 3, 4), 1, AppendOrigin::Client(Verification::Confirmed(guard)));
    assert!(matches!(error, Err(AppendError::OutOfOrderSequence { found: 4, .. })));
}

#[test]
fn a_producer_writes_nothing_else_during_its_transaction() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    send(&mut log, Producer(1, 0, 0), 1);
    let plain = batch_with(Codec::None, Some(Producer(1, 0, 1)), &[NOW], b"v");
    let error = append_with(&mut log, &plain, EPOCH, NOW).unwrap_err();
    assert!(matches!(error, AppendError::OutsideTransaction { producer_id: 1 }), "{error}");
    end(&mut log, 1, 0, true);
    append(&mut log, &plain);
}

#[test]
fn a_coordinator_appends_without_sequences() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    let coordinator = AppendOrigin::Broker(Verification::Disabled);
    for _ in 0..3 {
        assert!(matches!(send_of(&mut log, Producer(1, 2, -1), 1, coordinator), Ok(Appended::New(_))));
    }
    let error = send_of(&mut log, Producer(1, 1, -1), 1, coordinator).unwrap_err();
    assert!(matches!(error, AppendError::InvalidProducerEpoch { .. }), "{error}");
    assert_eq!((log.first_open_transaction(), log.producers()[0].last_sequence), (Some(0), -1));
    log.close_clean().unwrap();
    drop(log);
    let log = open(dir.path(), &LogConfig::default(), clean(3));
    assert_eq!(log.first_open_transaction(), Some(0));
}

#[test]
fn an_open_transaction_keeps_its_producer() {
    let dir = tempdir();
    let config = LogConfig { producer_id_expiration_ms: 1000, ..LogConfig::default() };
    let mut log = open(dir.path(), &config, unclean(0));
    send(&mut log, Producer(1, 0, 0), 1);
    assert_eq!(log.expire_producers(NOW + 1_000_000), 0);
    end(&mut log, 1, 0, true);
    assert_eq!(log.expire_producers(NOW + 1_000_000), 1);
}

/// Fills a log of several segments with transactions of many producers, of which some stay open.
fn fill(log: &mut Log, rounds: i64) {
    let mut epochs = BTreeMap::new();
    for round in 0..rounds {
        let producer = round % 7;
        let (epoch, sequence) = *epochs.get(&producer).unwrap_or(&(0, 0));
        send(log, Producer(producer, epoch, sequence), 2);
        append(log, &batch(1, b"plain"));
        let next = match round % 5 {
            0 => {
                let raised = TransactionEnd { transaction_version: 2, ..end_of(producer, epoch + 1, round % 2 == 0) };
                log.append_marker(&raised, EPOCH, NOW).unwrap();
                (epoch + 1, 0)
            }
            1 => {
                end(log, producer, epoch, round % 2 == 0);
                (epoch, sequence + 2)
            }
            _ => (epoch, sequence + 2),
        };
        epochs.insert(producer, next);
    }
}

type State = (BTreeMap<i64, AbortedTransaction>, Option<i64>, Vec<millstream_log::ProducerState>);

fn state(log: &Log) -> State {
    (all_aborted(log), log.first_open_transaction(), log.producers())
}

#[test]
fn a_restart_of_any_kind_knows_the_same_transactions() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    fill(&mut log, 90);
    log.flush().unwrap();
    let (end, expected) = (log.log_end_offset(), state(&log));
    assert!(log.segment_count() > 3 && expected.0.len() > 5 && expected.1.is_some());
    drop(log);
    let reopen = |what: &str, damage: &dyn Fn(&Path), options: OpenOptions| {
        let copy = tempdir();
        copy_dir(dir.path(), copy.path());
        damage(copy.path());
        let mut log = open(copy.path(), &small_segments(), options);
        assert_eq!(state(&log), expected, "{what}");
        // Nothing is lost by the next stop either.
        let end = log.close_clean().unwrap();
        drop(log);
        assert_eq!(state(&open(copy.path(), &small_segments(), clean(end))), expected, "{what}, closed");
    };
    let remove = |suffix: &'static str| {
        move |dir: &Path| files(dir, suffix).iter().for_each(|file| std::fs::remove_file(file).unwrap())
    };
    for point in [0, 1, end / 3, end / 2, end - 3, end] {
        reopen(&format!("from {point}"), &|_| (), unclean(point));
        // A crash loses what was not synced of the indexes.
        let torn = |dir: &Path| {
            for index in files(dir, "txnindex") {
                let mut bytes = std::fs::read(&index).unwrap();
                let marker = |entry: &[u8]| i64::from_be_bytes(entry[18..26].try_into().unwrap());
                let synced = bytes.chunks_exact(34).filter(|entry| marker(entry) < point).count();
                bytes.truncate(synced * 34);
                bytes.extend([0; 5]);
                std::fs::write(index, bytes).unwrap();
            }
        };
        reopen(&format!("torn at {point}"), &torn, unclean(point));
    }
    reopen("all indexes gone", &remove("txnindex"), unclean(0));
    reopen("all snapshots gone", &remove("snapshot"), unclean(end / 2));
    reopen("damaged", &|dir| std::fs::write(&files(dir, "txnindex")[1], [9; 34]).unwrap(), clean(end));
}

#[test]
fn an_index_or_a_snapshot_that_is_not_that_of_the_last_stop_is_made_again() {
    let (made, copy) = (tempdir(), tempdir());
    let mut log = open(made.path(), &small_segments(), unclean(0));
    fill(&mut log, 90);
    let (end, expected) = (log.close_clean().unwrap(), state(&log));
    drop(log);
    for suffix in ["txnindex", "snapshot"] {
        let all: Vec<Vec<u8>> = files(made.path(), suffix).iter().map(|file| std::fs::read(file).unwrap()).collect();
        for (file, sound) in files(made.path(), suffix).iter().zip(&all) {
            let shorter = &sound[..sound.len().saturating_sub(34)];
            let mut versions = vec![None, Some(Vec::new()), Some(shorter.to_vec())];
            versions.extend(all.iter().filter(|other| *other != sound).cloned().map(Some));
            versions.extend((0..sound.len()).step_by(9).map(|at| {
                let mut flipped = sound.clone();
                flipped[at] ^= 1 << (at % 8);
                Some(flipped)
            }));
            for (version, options) in versions.iter().flat_map(|one| [clean(end), unclean(end)].map(|how| (one, how))) {
                copy_dir(made.path(), copy.path());
                let path = copy.path().join(file.file_name().unwrap());
                match version {
                    Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                    None => std::fs::remove_file(&path).unwrap(),
                }
                let log = open(copy.path(), &small_segments(), options);
                assert_eq!(state(&log), expected, "{}: {version:?} {options:?}", path.display());
            }
        }
    }
}

#[test]
fn a_truncation_forgets_the_markers_beyond_it() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    fill(&mut log, 60);
    let ends: Vec<i64> = (0..log.log_end_offset()).rev().step_by(5).collect();
    for at in ends {
        log.truncate_to(at).unwrap();
        let expected = tempdir();
        let mut followed = open(expected.path(), &LogConfig::default(), unclean(0));
        follow(&log, &mut followed, usize::MAX);
        assert_eq!(state(&log), state(&followed), "truncated to {at}");
    }
}

/// Copies what a follower lacks.
fn follow(leader: &Log, follower: &mut Log, max_bytes: usize) {
    while let Some(slice) = leader.read(follower.log_end_offset(), max_bytes, i64::MAX, true).unwrap() {
        follower.append_as_follower(&slice.read_to_bytes().unwrap(), EPOCH).unwrap();
    }
}

#[test]
fn a_follower_knows_the_transactions_of_its_leader() {
    for max_bytes in [1, 700, usize::MAX] {
        let (dir, other) = (tempdir(), tempdir());
        let mut leader = open(dir.path(), &small_segments(), unclean(0));
        let config = LogConfig { segment_bytes: 1500, ..small_segments() };
        let mut follower = open(other.path(), &config, unclean(0));
        fill(&mut leader, 60);
        follow(&leader, &mut follower, max_bytes);
        assert_eq!(state(&follower), state(&leader), "{max_bytes}");
        // It leads now, and ends what was open.
        let open = leader.producers().into_iter().find(|state| state.transaction_start.is_some()).expect("one is open");
        end(&mut follower, open.producer_id, open.epoch, true);
    }
}

#[test]
fn a_crash_at_any_byte_leaves_the_transactions_of_what_is_left() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    fill(&mut log, 12);
    log.flush().unwrap();
    drop(log);
    let segment = files(dir.path(), "log").remove(0);
    let bytes = std::fs::read(&segment).unwrap();
    for len in 0..bytes.len() {
        let copy = tempdir();
        std::fs::write(copy.path().join(segment.file_name().unwrap()), &bytes[..len]).unwrap();
        // The index reached the disk before the log did.
        let index = files(dir.path(), "txnindex").remove(0);
        std::fs::copy(&index, copy.path().join(index.file_name().unwrap())).unwrap();
        let log = open(copy.path(), &LogConfig::default(), unclean(0));
        let expected = tempdir();
        let mut followed = open(expected.path(), &LogConfig::default(), unclean(0));
        follow(&log, &mut followed, usize::MAX);
        assert_eq!(state(&log), state(&followed), "{len} bytes");
    }
}

#[test]
fn a_marker_that_was_torn_off_leaves_no_aborted_transaction() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    send(&mut log, Producer(7, 0, 0), 2);
    log.flush().unwrap();
    let size = log.size();
    end(&mut log, 7, 0, false);
    drop(log);
    // The index reached the disk before the log did.
    let segment = files(dir.path(), "log").remove(0);
    std::fs::File::options().write(true).open(segment).unwrap().set_len(size + 10).unwrap();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(2));
    assert_eq!((log.log_end_offset(), log.first_open_transaction()), (2, Some(0)));
    assert_eq!(aborted(&log, 0, 2), []);
    end(&mut log, 7, 0, true);
    assert_eq!(aborted(&log, 0, 3), [], "it was committed");
}

/// Returns a partition that Apache Kafka 4.2 has written: interleaved transactions of four producers, of which three
/// were aborted and one is open.
fn of_kafka() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka_4_2")
}

#[test]
fn a_folder_of_apache_kafka_has_the_same_transactions() {
    // No segment is small with such an interval, so that a clean stop writes a snapshot.
    let config = LogConfig { index_interval_bytes: 1, ..LogConfig::default() };
    let entry = |producer_id, first_offset, last_offset, last_stable_offset| AbortedTransaction {
        producer_id,
        first_offset,
        last_offset,
        last_stable_offset,
    };
    let expected = [entry(1, 1, 4, 0), entry(0, 0, 5, 2), entry(1, 9, 11, 10)];
    let kafkas = |name: &str| std::fs::read(of_kafka().join(name)).unwrap();
    for (what, options, caches) in
        [("closed", clean(14), true), ("crashed", unclean(0), true), ("log", unclean(0), false)]
    {
        let dir = tempdir();
        copy_dir(&of_kafka(), dir.path());
        if !caches {
            let files = files(dir.path(), "txnindex").into_iter().chain(files(dir.path(), "snapshot"));
            files.for_each(|file| std::fs::remove_file(file).unwrap());
        }
        let mut log = open(dir.path(), &config, options);
        assert_eq!(all_aborted(&log).into_values().collect::<Vec<_>>(), expected, "{what}");
        log.note_high_watermark(14);
        assert_eq!((log.log_end_offset(), log.last_stable_offset(14)), (14, 10), "{what}");
        assert_eq!(aborted(&log, 0, 10), [(0, 0), (1, 1), (1, 9)], "{what}");
        log.close_clean().unwrap();
        drop(log);
        for name in ["00000000000000000000.txnindex", "00000000000000000014.snapshot"] {
            assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), kafkas(name), "{what}: {name}");
        }
    }
    // A follower of this leader writes the same files.
    let dir = tempdir();
    let mut follower = open(dir.path(), &config, unclean(0));
    follower.append_as_follower(&kafkas("00000000000000000000.log"), 0).unwrap();
    follower.close_clean().unwrap();
    for name in ["00000000000000000000.txnindex", "00000000000000000014.snapshot"] {
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), kafkas(name), "followed: {name}");
    }
}
