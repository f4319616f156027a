//! Retention, DeleteRecords, and lookups by time.

mod common;

use std::fs::{File, FileTimes};
use std::time::{Duration, UNIX_EPOCH};

use common::*;
use millstream_log::{CleanupPolicy, Log, LogConfig, ReadError};
use millstream_record::Codec;

/// Appends batches of one record each, one a second, about twenty to a segment.
fn a_record_a_second(log: &mut Log, count: i64) {
    for at in 0..count {
        append(log, &batch_with(Codec::None, None, &[NOW + at * 1000], b"0123456789"));
    }
}

#[test]
fn old_segments_are_deleted_and_readers_get_an_error() {
    let dir = tempdir();
    let config = LogConfig { retention_ms: Some(30_000), ..small_segments() };
    let mut log = open(dir.path(), &config, unclean(0));
    a_record_a_second(&mut log, 100);
    let kept = log.read(0, 1000, i64::MAX, true).unwrap().unwrap();
    let before = log.segment_count();
    assert_eq!(log.apply_retention(NOW, 100).unwrap(), 0);
    assert_eq!(log.apply_retention(NOW + 99_000, 0).unwrap(), 0, "nothing at or above the high watermark");
    let deleted = log.apply_retention(NOW + 99_000, 100).unwrap();
    assert!(deleted > 0 && log.segment_count() == before - deleted);
    let start = log.log_start_offset();
    assert!(start > 20 && start <= 69, "only whole segments, all of whose records are too old: {start}");
    assert_eq!(files(dir.path(), "log").len(), log.segment_count());
    assert!(matches!(log.read(start - 1, 1, i64::MAX, true), Err(ReadError::OffsetOutOfRange { .. })));
    assert_eq!(offsets(&log, start), (start..100).collect::<Vec<_>>());
    assert_eq!(kept.read_to_bytes().unwrap().len(), kept.len, "a slice taken before stays readable");
    drop(log);
    assert_eq!(open(dir.path(), &config, unclean(100)).log_start_offset(), start);
}

#[test]
fn everything_may_expire_with_the_active_segment_rolled() {
    let dir = tempdir();
    let config = LogConfig { retention_ms: Some(1000), ..small_segments() };
    let mut log = open(dir.path(), &config, unclean(0));
    a_record_a_second(&mut log, 50);
    assert_eq!(log.apply_retention(NOW + 1_000_000, 50).unwrap(), 3);
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.size()), (50, 50, 0));
    assert_eq!(log.apply_retention(NOW + 2_000_000, 50).unwrap(), 0, "an empty segment stays");
    assert_eq!(append(&mut log, &batch(1, b"v")), 50);
    drop(log);
    assert_eq!(offsets(&open(dir.path(), &config, unclean(0)), 50), [50]);
}

#[test]
fn retention_by_size_keeps_at_least_what_it_says() {
    let dir = tempdir();
    let config = LogConfig { retention_ms: None, retention_bytes: Some(5000), ..small_segments() };
    let mut log = open(dir.path(), &config, unclean(0));
    a_record_a_second(&mut log, 200);
    assert!(log.apply_retention(NOW, 200).unwrap() > 0);
    assert!(log.size() >= 5000 && log.size() < 7000, "{}", log.size());
    log.set_config(LogConfig { cleanup_policy: CleanupPolicy::COMPACT, retention_bytes: Some(0), ..config });
    assert_eq!(log.apply_retention(NOW, 200).unwrap(), 0);
}

#[test]
fn a_timestamp_of_the_far_future_keeps_no_segment_for_ever() {
    let dir = tempdir();
    let config = LogConfig { retention_ms: Some(60_000), segment_ms: i64::MAX, ..LogConfig::default() };
    let mut log = open(dir.path(), &config, unclean(0));
    append(&mut log, &batch_with(Codec::None, None, &[i64::MAX - 5], b"v"));
    let file = File::options().write(true).open(files(dir.path(), "log").remove(0)).unwrap();
    file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_millis(NOW as u64))).unwrap();
    assert_eq!(log.apply_retention(NOW + 60_000, 1).unwrap(), 0, "counted from the last write");
    assert_eq!(log.apply_retention(NOW + 60_001, 1).unwrap(), 1);
}

#[test]
fn a_damaged_time_index_deletes_nothing() {
    let dir = tempdir();
    let config = LogConfig { retention_ms: Some(1_000_000), ..small_segments() };
    let mut log = open(dir.path(), &config, unclean(0));
    a_record_a_second(&mut log, 60);
    log.close_clean().unwrap();
    drop(log);
    for path in files(dir.path(), "timeindex") {
        let mut bytes = std::fs::read(&path).unwrap();
        let entry = bytes.len() - 12;
        bytes[entry..entry + 8].copy_from_slice(&1i64.to_be_bytes());
        std::fs::write(&path, &bytes[entry..]).unwrap();
    }
    let mut log = open(dir.path(), &config, clean(60));
    assert_eq!(log.apply_retention(NOW + 900_000, 60).unwrap(), 0);
    assert_eq!(log.offset_for_timestamp(NOW + 30_000).unwrap().unwrap().offset, 30);
}

#[test]
fn deleted_records_cannot_be_read_and_their_segments_go() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    a_record_a_second(&mut log, 100);
    let before = log.segment_count();
    assert_eq!(log.delete_records(50).unwrap(), 50);
    assert!(log.segment_count() < before);
    assert_eq!(log.delete_records(10).unwrap(), 50, "the start never goes back");
    assert!(matches!(log.read(49, 1, i64::MAX, true), Err(ReadError::OffsetOutOfRange { .. })));
    assert_eq!(offsets(&log, 50), (50..100).collect::<Vec<_>>());
    assert_eq!(log.offset_for_timestamp(0).unwrap().unwrap().offset, 50);
    drop(log);
    let options = millstream_log::OpenOptions { log_start_offset: 50, ..unclean(0) };
    assert_eq!(open(dir.path(), &small_segments(), options).log_start_offset(), 50);
    let mut log = open(dir.path(), &small_segments(), options);
    assert_eq!(log.delete_records(i64::MAX).unwrap(), 100);
    assert!(log.read(100, 1, i64::MAX, true).unwrap().is_none());
}

#[test]
fn a_log_starts_where_its_leader_epochs_do_if_the_checkpoint_is_lost() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    a_record_a_second(&mut log, 100);
    log.delete_records(55).unwrap();
    let end = log.close_clean().unwrap();
    drop(log);
    for options in [clean(end), unclean(end)] {
        let lost = millstream_log::OpenOptions { log_start_is_lost: true, ..options };
        assert_eq!(open(dir.path(), &small_segments(), lost).log_start_offset(), 55);
    }
}

#[test]
fn lookups_by_time_find_the_record_inside_its_batch() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let dir = tempdir();
        let mut log = open(dir.path(), &small_segments(), unclean(0));
        // The times go back and forth, within batches and between them.
        let mut times = Vec::new();
        for at in 0..60i64 {
            let base = NOW + at * 10 - (at % 7) * 25;
            let batch_times = [base, base + 40, base + 3, base + 40];
            append(&mut log, &batch_with(codec, None, &batch_times, b"some value that compresses, some value"));
            times.extend(batch_times);
        }
        for wanted in NOW - 200..NOW + 700 {
            let expected = times.iter().position(|time| *time >= wanted);
            let found = log.offset_for_timestamp(wanted).unwrap();
            assert_eq!(found.map(|f| f.offset as usize), expected, "{codec:?} {wanted}");
            if let Some(found) = found {
                assert_eq!((found.timestamp, found.leader_epoch), (times[found.offset as usize], EPOCH));
            }
        }
        let newest = times.iter().max().unwrap();
        let found = log.offset_for_max_timestamp().unwrap().unwrap();
        assert_eq!(found.timestamp, *newest);
        assert_eq!(found.offset as usize, times.iter().position(|time| time == newest).unwrap());
        log.delete_records(102).unwrap();
        for wanted in NOW..NOW + 700 {
            let expected = (102..times.len()).find(|at| times[*at] >= wanted);
            assert_eq!(log.offset_for_timestamp(wanted).unwrap().map(|f| f.offset as usize), expected);
        }
    }
}

#[test]
fn an_empty_log_has_no_times() {
    let dir = tempdir();
    let log = open(dir.path(), &LogConfig::default(), unclean(0));
    assert_eq!(log.offset_for_timestamp(0).unwrap(), None);
    assert_eq!(log.offset_for_max_timestamp().unwrap(), None);
}
