//! A power cut right after a clean stop: the records are on disk and the marker of the clean stop is, while the
//! indexes, the producer snapshots and the leader epochs, which are not synced, may be missing, old, empty, cut or
//! zeros.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use millstream_log::{Appended, EpochEntry, Log, LogConfig, ProducerState, TimestampedOffset};
use millstream_record::Codec;

/// Batches of a log, and the timestamps of their records.
const BATCHES: i64 = 90;

/// All that a client can learn of a log.
#[derive(Debug, PartialEq)]
struct Seen {
    end: i64,
    records: Vec<(i64, i64, Vec<u8>)>,
    producers: Vec<ProducerState>,
    epochs: Vec<EpochEntry>,
    by_time: Vec<Option<TimestampedOffset>>,
    from_the_middle: Vec<i64>,
}

fn seen(log: &Log) -> Seen {
    Seen {
        end: log.log_end_offset(),
        records: read_all(log, 0, 900),
        producers: log.producers(),
        epochs: log.epochs().to_vec(),
        by_time: (0..BATCHES + 5).map(|at| log.offset_for_timestamp(NOW + at).unwrap()).collect(),
        from_the_middle: (0..log.log_end_offset()).step_by(7).flat_map(|from| offsets(log, from).pop()).collect(),
    }
}

/// Timestamps that go back now and then, three leader epochs, and two producers.
fn append_all(log: &mut Log, from: i64, to: i64) {
    for at in from..to {
        let back = if at % 11 == 3 { 9 } else { 0 };
        let producer = Producer(1 + at % 2, 0, (at / 2 * 2) as i32);
        let value = format!("value {at} {}", "x".repeat(at as usize % 50));
        let timestamps = [NOW + at - back, NOW + at - 5];
        let bytes = batch_with(Codec::None, Some(producer), &timestamps, value.as_bytes());
        append_with(log, &bytes, (at / 30) as i32, NOW).unwrap();
    }
}

/// Lists the files that a clean stop leaves unsynced, by kind.
fn unsynced(dir: &Path) -> Vec<Vec<PathBuf>> {
    let mut kinds: Vec<_> = ["index", "timeindex", "snapshot"].iter().map(|suffix| files(dir, suffix)).collect();
    kinds.push(vec![dir.join("leader-epoch-checkpoint")]);
    kinds.retain(|kind| !kind.is_empty());
    kinds
}

/// Returns what a power cut may leave of a file: gone, empty, zeros, the first part of it, its end in zeros, or its
/// content of before.
fn torn(now: &[u8], before: Option<&Vec<u8>>) -> Vec<Option<Vec<u8>>> {
    let end_in_zeros = |from: usize| [&now[..from], &vec![0; now.len() - from]].concat();
    let mut versions = vec![None, Some(Vec::new()), Some(vec![0; now.len()]), Some(vec![0; 4096])];
    for part in 1..6 {
        let at = now.len() * part / 6;
        versions.push(Some(now[..at].to_vec()));
        versions.push(Some(end_in_zeros(at)));
    }
    versions.extend(before.map(|before| Some(before.clone())));
    versions
}

fn put(dir: &Path, file: &Path, content: Option<&Vec<u8>>) {
    let path = dir.join(file.file_name().unwrap());
    match content {
        Some(content) => fs::write(path, content).unwrap(),
        None => fs::remove_file(path).unwrap_or_default(),
    }
}

/// Opens the log as after the clean stop, looks at all of it, and goes on with it.
fn check(dir: &Path, config: &LogConfig, expected: &Seen, what: &str) {
    let mut log = open(dir, config, clean(expected.end));
    assert_eq!(seen(&log), *expected, "{what}");
    let last = BATCHES - 1;
    let bytes = batch_with(Codec::None, Some(Producer(1 + last % 2, 0, (last / 2 * 2) as i32)), &[NOW; 2], b"again");
    let again = append_with(&mut log, &bytes, 3, NOW).unwrap();
    assert!(matches!(again, Appended::Duplicate(stored) if stored.base_offset == last * 2), "{what}: {again:?}");
    append_all(&mut log, BATCHES, BATCHES + 3);
    assert_eq!(offsets(&log, 0), (0..(BATCHES + 3) * 2).collect::<Vec<_>>(), "{what}");
}

fn every_unsynced_file_may_be_torn(config: &LogConfig) {
    let dir = tempdir();
    let (made, before, copy) = (dir.path().join("made"), dir.path().join("before"), dir.path().join("copy"));
    let mut log = open(&made, config, unclean(0));
    append_all(&mut log, 0, BATCHES / 2);
    log.close_clean().unwrap();
    copy_dir(&made, &before);
    append_all(&mut log, BATCHES / 2, BATCHES);
    let expected = seen(&log);
    assert_eq!(log.close_clean().unwrap(), expected.end);
    drop(log);
    assert_eq!(expected.epochs.len(), 3);
    check_all(&made, &before, &copy, config, &expected);
}

fn check_all(made: &Path, before: &Path, copy: &Path, config: &LogConfig, expected: &Seen) {
    let old = |file: &PathBuf| fs::read(before.join(file.file_name().unwrap())).ok();
    let kinds = unsynced(made);
    for file in kinds.iter().flatten() {
        let now = fs::read(file).unwrap();
        for version in torn(&now, old(file).as_ref()) {
            copy_dir(made, copy);
            put(copy, file, version.as_ref());
            check(copy, config, expected, &format!("{} as {version:?}", file.display()));
        }
    }
    // All files of a kind, and all files of all kinds.
    let all: Vec<PathBuf> = kinds.iter().flatten().cloned().collect();
    for files in kinds.iter().chain([&all]) {
        for which in 0..torn(&[1; 6], None).len() + 1 {
            copy_dir(made, copy);
            for file in files {
                let now = fs::read(file).unwrap();
                let versions = torn(&now, old(file).as_ref());
                put(copy, file, versions.get(which).unwrap_or(&None).as_ref());
            }
            check(copy, config, expected, &format!("version {which} of {files:?}"));
        }
    }
}

#[test]
fn a_log_of_many_segments() {
    every_unsynced_file_may_be_torn(&small_segments());
}

#[test]
fn a_log_of_one_segment_with_indexes() {
    every_unsynced_file_may_be_torn(&LogConfig { index_interval_bytes: 200, ..LogConfig::default() });
}

#[test]
fn a_log_of_one_small_segment() {
    let config = LogConfig::default();
    every_unsynced_file_may_be_torn(&config);
    // Nothing but the records and the leader epochs is there to be torn.
    let dir = tempdir();
    let mut log = open(&dir.path().join("t"), &config, unclean(0));
    append(&mut log, &batch(1, b"value"));
    log.close_clean().unwrap();
    let names: Vec<_> = fs::read_dir(log.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
