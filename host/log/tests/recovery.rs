//! Recovery after a kill, a power failure or a bad disk. A "killed" log is dropped without being closed.

mod common;

use std::fs::{self, OpenOptions as FileOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::*;
use millstream_log::{Appended, EpochEntry, Log, LogConfig, LogError, OpenOptions};

fn log_file(dir: &Path) -> std::path::PathBuf {
    files(dir, "log").pop().unwrap()
}

fn truncate(path: &Path, len: u64) {
    FileOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    FileOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn refused(dir: &Path, config: &LogConfig, options: OpenOptions) -> LogError {
    Log::open(dir, config.clone(), options).expect_err("the damage is noticed")
}

/// Appends six batches of two records. Returns where each starts.
fn six_batches(dir: &Path) -> Vec<u64> {
    let mut log = open(dir, &LogConfig::default(), unclean(0));
    let mut starts = Vec::new();
    for at in 0..6 {
        starts.push(log.size());
        append(&mut log, &batch(2, format!("the value of batch {at}").as_bytes()));
    }
    starts.push(log.size());
    starts
}

#[test]
fn the_last_three_batches_cut_at_every_byte() {
    let dir = tempdir();
    let (made, cut) = (dir.path().join("made"), dir.path().join("cut"));
    let starts = six_batches(&made);
    for len in starts[3]..=starts[6] {
        copy_dir(&made, &cut);
        truncate(&log_file(&cut), len);
        let whole = starts.iter().filter(|start| **start <= len).count() as i64 - 1;
        for recovery_point in [0, 6] {
            let mut log = open(&cut, &LogConfig::default(), unclean(recovery_point));
            assert_eq!(log.log_end_offset(), whole * 2, "cut to {len} bytes");
            assert_eq!(log.recovery_point(), whole * 2, "what was recovered is durable");
            assert_eq!(offsets(&log, 0), (0..whole * 2).collect::<Vec<_>>());
            assert_eq!(append(&mut log, &batch(1, b"more")), whole * 2);
            assert_eq!(offsets(&log, 0), (0..=whole * 2).collect::<Vec<_>>());
            drop(log);
            copy_dir(&made, &cut);
            truncate(&log_file(&cut), len);
        }
        if whole < 6 {
            let error = refused(&cut, &LogConfig::default(), unclean(12)).to_string();
            assert!(error.contains("durable"), "{error}");
            assert_eq!(log_file(&cut).metadata().unwrap().len(), len, "a rejected log is unchanged");
        }
    }
}

#[test]
fn a_zeroed_or_garbage_tail_is_cut_off() {
    let dir = tempdir();
    let (made, cut) = (dir.path().join("made"), dir.path().join("cut"));
    let starts = six_batches(&made);
    let garbage: Vec<u8> = (0..5000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let tails: [&[u8]; 5] = [&[0; 1], &[0; 5000], &[2; 4000], &garbage, &garbage[..17]];
    for tail in tails {
        // After the last batch, and in place of its end.
        for at in [starts[6], starts[6] - 2, starts[5] + 70, starts[5] + 30, starts[5]] {
            copy_dir(&made, &cut);
            truncate(&log_file(&cut), at);
            overwrite(&log_file(&cut), at, tail);
            let log = open(&cut, &LogConfig::default(), unclean(4));
            let whole = if at == starts[6] { 12 } else { 10 };
            assert_eq!(offsets(&log, 0), (0..whole).collect::<Vec<_>>());
            assert_eq!(log_file(&cut).metadata().unwrap().len(), log.size());
        }
    }
}

#[test]
fn a_bad_batch_that_good_ones_follow_is_damage() {
    let dir = tempdir();
    let (made, cut) = (dir.path().join("made"), dir.path().join("cut"));
    let starts = six_batches(&made);
    let image = fs::read(log_file(&made)).unwrap();
    for bad in 0..5usize {
        for at in starts[bad]..starts[bad + 1] {
            // The leader epoch is not covered by the CRC: a flipped bit there looks like a valid write.
            if (12..16).contains(&(at - starts[bad])) {
                continue;
            }
            copy_dir(&made, &cut);
            let mask = if at % 2 == 0 { 0x40 } else { 0x01 };
            overwrite(&log_file(&cut), at, &[image[at as usize] ^ mask]);
            let error = refused(&cut, &LogConfig::default(), unclean(0));
            let LogError::Corrupt { path, position, .. } = &error else { panic!("{error}") };
            assert_eq!(path, &log_file(&cut));
            // The base offset is not covered by the CRC either; a wrong one may show only at the next batch.
            let at_next = at - starts[bad] < 8 && *position == starts[bad + 1];
            assert!(*position == starts[bad] || at_next, "flip at {at}: {error}");
            let changed = fs::read(log_file(&cut)).unwrap();
            assert_eq!(changed.len(), image.len(), "nothing is cut off");
        }
    }
}

#[test]
fn damage_below_the_recovery_point_is_rejected_whatever_follows() {
    let dir = tempdir();
    let starts = six_batches(dir.path());
    let path = log_file(dir.path());
    overwrite(&path, starts[5] + 70, b"X");
    let error = refused(dir.path(), &LogConfig::default(), unclean(11)).to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains(&format!("byte {}", starts[5])), "{error}");
    assert_eq!(open(dir.path(), &LogConfig::default(), unclean(10)).log_end_offset(), 10);
}

#[test]
fn a_record_that_holds_a_batch_does_not_pass_for_the_next_one() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    append(&mut log, &batch(1, b"first"));
    let inner = log.read(0, 1000, i64::MAX, true).unwrap().unwrap().read_to_bytes().unwrap();
    let mut later = inner.to_vec();
    later[7] = 2;
    let start = log.size();
    append(&mut log, &batch(1, &[&later[..], &[0; 500]].concat()));
    let end = log.size();
    drop(log);
    for len in start + 200..end {
        truncate(&log_file(dir.path()), end);
        let image = tempdir();
        let torn = image.path().join("torn");
        copy_dir(dir.path(), &torn);
        if len % 50 == 0 {
            truncate(&log_file(&torn), len);
            // The next offset is 2, which is also the inner batch's: only then does it count as damage.
            let error = refused(&torn, &LogConfig::default(), unclean(1)).to_string();
            assert!(error.contains("a good batch follows"), "{error}");
        }
    }
    later[7] = 3;
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    log.truncate_to(1).unwrap();
    append(&mut log, &batch(1, &[&later[..], &[0; 500]].concat()));
    drop(log);
    truncate(&log_file(dir.path()), end - 100);
    assert_eq!(open(dir.path(), &LogConfig::default(), unclean(1)).log_end_offset(), 1);
}

/// Builds a log of several segments, with indexes, snapshots and leader epochs. It is killed, not closed.
fn many_segments(dir: &Path) -> (i64, Vec<EpochEntry>) {
    let mut log = open(dir, &small_segments(), unclean(0));
    for at in 0..60 {
        let bytes = batch_with(
            millstream_record::Codec::Lz4,
            Some(Producer(1 + i64::from(at) % 2, 0, at / 2 * 2)),
            &[NOW + i64::from(at), NOW + i64::from(at) - 5],
            format!("value {at} {}", "x".repeat(at as usize)).as_bytes(),
        );
        append_with(&mut log, &bytes, at / 20, NOW).unwrap();
    }
    assert!(log.segment_count() > 2);
    (log.log_end_offset(), log.epochs().to_vec())
}

fn check_many(log: &mut Log, end: i64, epochs: &[EpochEntry]) {
    assert_eq!(log.log_end_offset(), end);
    assert_eq!(log.epochs(), epochs);
    assert_eq!(offsets(log, 0), (0..end).collect::<Vec<_>>());
    for at in 0..60 {
        let found = log.offset_for_timestamp(NOW + at).unwrap().unwrap();
        assert_eq!((found.offset, found.timestamp), (2 * at, NOW + at));
        assert_eq!(log.read(2 * at + 1, 1, i64::MAX, true).unwrap().unwrap().first_offset, 2 * at);
    }
    assert_eq!(log.producer_count(), 2);
    let newest = batch_with(millstream_record::Codec::None, Some(Producer(1, 0, 60)), &[NOW + 60], b"next");
    append_with(log, &newest, 2, NOW).unwrap();
    let again = append_with(log, &newest, 2, NOW).unwrap();
    assert!(matches!(again, Appended::Duplicate(stored) if stored.base_offset == end), "{again:?}");
}

#[test]
fn a_killed_log_comes_back_whole_from_any_recovery_point() {
    let dir = tempdir();
    let (made, copy) = (dir.path().join("made"), dir.path().join("copy"));
    let (end, epochs) = many_segments(&made);
    for recovery_point in 0..=end {
        copy_dir(&made, &copy);
        check_many(&mut open(&copy, &small_segments(), unclean(recovery_point)), end, &epochs);
    }
}

#[test]
fn batches_below_the_recovery_point_are_not_read_again() {
    let dir = tempdir();
    let (made, copy) = (dir.path().join("made"), dir.path().join("copy"));
    let config = LogConfig { index_interval_bytes: 200, ..LogConfig::default() };
    let mut log = open(&made, &config, unclean(0));
    let mut starts = Vec::new();
    for at in 0..60 {
        starts.push(log.size());
        // Timestamps that go back now and then.
        let timestamps = [NOW + at * 3 % 40, NOW + at * 3 % 40 + 1];
        append(&mut log, &batch_with(millstream_record::Codec::None, None, &timestamps, b"some value"));
    }
    drop(log);
    let indexes =
        |dir: &Path| ["index", "timeindex"].map(|suffix| fs::read(files(dir, suffix).pop().unwrap()).unwrap());
    copy_dir(&made, &copy);
    drop(open(&copy, &config, unclean(0)));
    let expected = indexes(&copy);
    for recovery_point in 0..=120 {
        copy_dir(&made, &copy);
        let log = open(&copy, &config, unclean(recovery_point));
        assert_eq!((log.log_end_offset(), log.recovery_point()), (120, 120));
        for at in 0..45 {
            let found = log.offset_for_timestamp(NOW + at).unwrap().map(|found| found.timestamp);
            assert!(found.is_some_and(|found| found >= NOW + at) || at > 40, "{at}: {found:?}");
        }
        drop(log);
        assert_eq!(indexes(&copy), expected, "from {recovery_point}");
    }
    // A flipped record below is not looked at, which proves it; one beyond is found.
    copy_dir(&made, &copy);
    overwrite(&log_file(&copy), starts[5] + 70, b"X");
    let mut log = open(&copy, &config, unclean(80));
    assert_eq!((log.log_end_offset(), append(&mut log, &batch(1, b"next"))), (120, 120));
    drop(log);
    copy_dir(&made, &copy);
    overwrite(&log_file(&copy), starts[59] + 70, b"X");
    let log = open(&copy, &config, unclean(80));
    assert_eq!((log.log_end_offset(), offsets(&log, 0)), (118, (0..118).collect()));
    drop(log);
    // A header below the recovery point that is not one is damage.
    for at in [starts[39], starts[40] - 1] {
        copy_dir(&made, &copy);
        truncate(&log_file(&copy), at);
        let error = refused(&copy, &config, unclean(80));
        assert!(matches!(error, LogError::Corrupt { .. } | LogError::Shorter { .. }), "{error}");
    }
}

#[test]
fn every_index_snapshot_and_epoch_file_may_be_lost_or_damaged() {
    let dir = tempdir();
    let (made, copy) = (dir.path().join("made"), dir.path().join("copy"));
    let (end, epochs) = many_segments(&made);
    let mut log = open(&made, &small_segments(), unclean(0));
    assert_eq!(log.close_clean().unwrap(), end);
    drop(log);
    let mut caches: Vec<_> = ["index", "timeindex", "snapshot"].iter().flat_map(|s| files(&made, s)).collect();
    caches.push(made.join("leader-epoch-checkpoint"));
    assert!(caches.len() >= 10);
    for cache in &caches {
        let image = fs::read(cache).unwrap();
        let mut versions: Vec<Option<Vec<u8>>> =
            vec![None, Some(Vec::new()), Some(b"rubbish".to_vec()), Some(vec![0xff; 240])];
        for at in (0..image.len()).step_by(if image.len() > 100 { 5 } else { 1 }) {
            let mut flipped = image.clone();
            flipped[at] ^= 0x11;
            versions.push(Some(flipped));
        }
        for len in (1..image.len()).step_by(4) {
            versions.push(Some(image[..len].to_vec()));
        }
        for (at, version) in versions.iter().enumerate() {
            let options = [clean(end), unclean(end), unclean(0)][at % 3];
            copy_dir(&made, &copy);
            let path = copy.join(cache.file_name().unwrap());
            match version {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            check_many(&mut open(&copy, &small_segments(), options), end, &epochs);
        }
    }
}

#[test]
fn a_clean_close_needs_no_scan_and_leaves_trimmed_files() {
    let dir = tempdir();
    let (end, epochs) = many_segments(dir.path());
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    assert_eq!(log.close_clean().unwrap(), end);
    assert_eq!(log.close_clean().unwrap(), end, "closing twice changes nothing");
    drop(log);
    for (suffix, entry) in [("index", 8), ("timeindex", 12)] {
        assert_eq!(files(dir.path(), suffix).len(), files(dir.path(), "log").len());
        for path in files(dir.path(), suffix) {
            let bytes = fs::read(&path).unwrap();
            assert_eq!(bytes.len() % entry, 0);
            assert!(!bytes.ends_with(&[0; 8]), "{} has a zero tail", path.display());
        }
    }
    // After a clean shutdown a flipped record is not read, which shows that nothing was scanned.
    let first = files(dir.path(), "log").remove(0);
    let image = fs::read(&first).unwrap();
    overwrite(&first, 100, &[image[100] ^ 1]);
    let log = open(dir.path(), &small_segments(), clean(end));
    assert_eq!((log.log_end_offset(), log.recovery_point(), log.epochs()), (end, end, &epochs[..]));
    drop(log);
    refused(dir.path(), &small_segments(), unclean(0));
    overwrite(&first, 100, &image[100..101]);
    check_many(&mut open(dir.path(), &small_segments(), clean(end)), end, &epochs);
}

#[test]
fn a_clean_marker_does_not_hide_a_cut_file() {
    let dir = tempdir();
    let starts = six_batches(dir.path());
    open(dir.path(), &LogConfig::default(), unclean(0)).close_clean().unwrap();
    truncate(&log_file(dir.path()), starts[5] + 3);
    let error = refused(dir.path(), &LogConfig::default(), clean(12));
    assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
    truncate(&log_file(dir.path()), starts[5]);
    let error = refused(dir.path(), &LogConfig::default(), clean(12));
    assert!(matches!(error, LogError::Shorter { log_end_offset: 10, recovery_point: 12, .. }), "{error}");
    fs::remove_file(log_file(dir.path())).unwrap();
    refused(dir.path(), &LogConfig::default(), clean(12));
}

#[test]
fn damage_in_an_older_segment_is_not_cut_with_all_that_follows() {
    let dir = tempdir();
    let (made, copy) = (dir.path().join("made"), dir.path().join("copy"));
    let (end, epochs) = many_segments(&made);
    let logs = files(&made, "log");
    for older in &logs[..logs.len() - 1] {
        copy_dir(&made, &copy);
        let path = copy.join(older.file_name().unwrap());
        truncate(&path, path.metadata().unwrap().len() - 1);
        let error = refused(&copy, &small_segments(), unclean(0));
        assert!(matches!(&error, LogError::Corrupt { path: named, .. } if *named == path), "{error}");
    }
    // Segments without batches after a torn one do not count.
    copy_dir(&made, &copy);
    let last = copy.join(logs[logs.len() - 1].file_name().unwrap());
    let torn = last.metadata().unwrap().len();
    overwrite(&last, torn, &[0; 100]);
    fs::write(copy.join(format!("{end:020}.log")), []).unwrap();
    check_many(&mut open(&copy, &small_segments(), unclean(0)), end, &epochs);
}

/// Returns the content of all files of a folder that are no caches of the log.
fn kept_files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let kept = ["log", "snapshot", "txnindex"].into_iter().flat_map(|suffix| files(dir, suffix));
    kept.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_log_with_damage_that_is_found_late_keeps_its_torn_tail() {
    let dir = tempdir();
    let (made, copy) = (dir.path().join("made"), dir.path().join("copy"));
    let (end, _) = many_segments(&made);
    let bases = files(&made, "log");
    let base = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<i64>().unwrap();
    let last = base(&bases[bases.len() - 1]);
    for keeps_snapshots in [true, false] {
        copy_dir(&made, &copy);
        if !keeps_snapshots {
            files(&copy, "snapshot").iter().for_each(|path| fs::remove_file(path).unwrap());
        }
        // The recovery scans from the last segment on. The state of the producers comes from all batches.
        overwrite(&copy.join(bases[0].file_name().unwrap()), 16, &[9]);
        let size = log_file(&copy).metadata().unwrap().len();
        truncate(&log_file(&copy), size - 5);
        fs::write(copy.join("00000000000000000000.txnindex"), [9; 34]).unwrap();
        let before = kept_files(&copy);
        let error = refused(&copy, &small_segments(), unclean(last));
        assert!(matches!(&error, LogError::Corrupt { path, position: 0, .. } if base(path) == 0), "{error}");
        assert!(kept_files(&copy) == before, "a rejected log is unchanged");
        // With that byte mended the log is whole but for its tail.
        overwrite(&copy.join(bases[0].file_name().unwrap()), 16, &[2]);
        let log = open(&copy, &small_segments(), unclean(last));
        assert_eq!(log.log_end_offset(), end - 2);
    }
}

#[test]
fn a_log_without_its_last_segment_keeps_the_files_beside_it() {
    let dir = tempdir();
    let (end, epochs) = many_segments(dir.path());
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    log.close_clean().unwrap();
    drop(log);
    let (last, backup) = (log_file(dir.path()), dir.path().join("backup"));
    fs::write(last.with_extension("txnindex"), [9; 34]).unwrap();
    fs::rename(&last, &backup).unwrap();
    let before = kept_files(dir.path());
    let error = refused(dir.path(), &small_segments(), unclean(end));
    assert!(matches!(error, LogError::Shorter { .. }), "{error}");
    assert!(kept_files(dir.path()) == before, "a rejected log is unchanged");
    fs::rename(&backup, &last).unwrap();
    check_many(&mut open(dir.path(), &small_segments(), unclean(end)), end, &epochs);
}

#[test]
fn leftovers_are_swept() {
    let dir = tempdir();
    let (end, epochs) = many_segments(dir.path());
    let leftovers = [
        "00000000000000000000.log.deleted",
        "00000000000000000000.index.cleaned",
        "00000000000000000000.log.swap",
        "00000000000000099999.index",
        "00000000000000099999.timeindex",
        "00000000000000099999.snapshot",
        "leader-epoch-checkpoint.tmp",
    ];
    for name in leftovers {
        fs::write(dir.path().join(name), b"leftover").unwrap();
    }
    fs::write(dir.path().join("notes of the operator.txt"), b"kept").unwrap();
    check_many(&mut open(dir.path(), &small_segments(), unclean(0)), end, &epochs);
    assert!(leftovers.iter().all(|name| !dir.path().join(name).exists()));
    assert!(dir.path().join("notes of the operator.txt").exists());
}

#[test]
fn the_folder_of_an_older_topic_of_that_name_is_rejected() {
    let dir = tempdir();
    let with = |id| OpenOptions { topic_id: Some(uuid::Uuid::from_u128(id)), ..OpenOptions::default() };
    drop(open(dir.path(), &LogConfig::default(), with(7)));
    let text = fs::read_to_string(dir.path().join("partition.metadata")).unwrap();
    assert_eq!(text, "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw");
    let error = refused(dir.path(), &LogConfig::default(), with(8));
    assert!(matches!(error, LogError::TopicId { .. }), "{error}");
    fs::write(dir.path().join("partition.metadata"), "").unwrap();
    drop(open(dir.path(), &LogConfig::default(), with(7)));
    assert_eq!(fs::read_to_string(dir.path().join("partition.metadata")).unwrap(), text);
}

#[test]
fn offsets_below_the_log_start_are_not_reused() {
    let dir = tempdir();
    six_batches(dir.path());
    truncate(&log_file(dir.path()), 0);
    let options = OpenOptions { log_start_offset: 8, ..unclean(5) };
    let error = refused(dir.path(), &LogConfig::default(), OpenOptions { clean_shutdown: true, ..options });
    assert!(matches!(error, LogError::Shorter { log_end_offset: 0, recovery_point: 8, .. }), "{error}");
    let mut log = open(dir.path(), &LogConfig::default(), options);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (8, 8));
    assert_eq!(append(&mut log, &batch(1, b"v")), 8);
    drop(log);
    assert_eq!(offsets(&open(dir.path(), &LogConfig::default(), options), 8), [8]);
}
