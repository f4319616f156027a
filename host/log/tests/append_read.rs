//! Append and read: offsets, bytes, rolls and limits.

mod common;

use common::*;
use millstream_log::{AppendError, Appended, LogConfig, LogReader, ReadError, TimestampType};
use millstream_record::{BatchView, batches};

#[test]
fn the_leader_patches_offset_and_epoch_and_nothing_else() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    append(&mut log, &batch(3, b"first"));
    let sent = batch(2, b"second");
    let appended = append_with(&mut log, &sent, 9, NOW).unwrap();
    let Appended::New(appended) = appended else { panic!("{appended:?}") };
    assert_eq!((appended.base_offset, appended.last_offset, appended.log_append_time), (3, 4, -1));
    let slice = log.read(4, 1 << 20, i64::MAX, true).unwrap().unwrap();
    assert_eq!(slice.first_offset, 3, "the batch that holds the offset, from its start");
    let stored = slice.read_to_bytes().unwrap();
    let view = BatchView::parse(&stored).unwrap();
    assert_eq!((view.base_offset(), view.leader_epoch()), (3, 9));
    view.verify_crc().unwrap();
    assert_eq!(stored[8..12], sent[8..12]);
    assert_eq!(stored[16..], sent[16..]);
}

#[test]
fn log_append_time_is_stamped_with_a_new_crc() {
    let dir = tempdir();
    let config = LogConfig { timestamp_type: TimestampType::LogAppendTime, ..LogConfig::default() };
    let mut log = open(dir.path(), &config, unclean(0));
    let appended = append_with(&mut log, &batch(2, b"v"), EPOCH, NOW + 77).unwrap().batch();
    assert_eq!(appended.log_append_time, NOW + 77);
    let times: Vec<i64> = read_all(&log, 0, 1000).into_iter().map(|(_, timestamp, _)| timestamp).collect();
    assert_eq!(times, [NOW + 77, NOW + 77]);
    assert_eq!(log.offset_for_timestamp(NOW + 77).unwrap().unwrap().offset, 0);
}

#[test]
fn reads_go_across_rolled_segments_from_every_offset() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    for at in 0..120 {
        append(&mut log, &batch(1 + at % 3, format!("value {at}").as_bytes()));
    }
    assert!(log.segment_count() > 3);
    let end = log.log_end_offset();
    for from in 0..end {
        for max_bytes in [1, 300, 100_000] {
            let seen: Vec<i64> = read_all(&log, from, max_bytes).into_iter().map(|(offset, _, _)| offset).collect();
            let first = seen[0];
            assert!(first <= from && from - first < 3);
            assert_eq!(seen, (first..end).collect::<Vec<_>>());
        }
    }
    assert!(log.read(end, 1000, i64::MAX, true).unwrap().is_none());
    for offset in [-1, end + 1] {
        assert!(matches!(log.read(offset, 1000, i64::MAX, true), Err(ReadError::OffsetOutOfRange { .. })));
    }
}

#[test]
fn a_slice_stays_within_its_limits() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    for _ in 0..10 {
        append(&mut log, &batch(2, b"0123456789"));
    }
    let size = batch(2, b"0123456789").len();
    for max_bytes in 0..size * 12 {
        for max_offset in 0..21 {
            for min_one in [false, true] {
                let fit = (max_bytes / size).max(usize::from(min_one)).min(max_offset as usize / 2).min(10);
                let len = log.read(0, max_bytes, max_offset, min_one).unwrap().map_or(0, |slice| slice.len);
                assert_eq!(len, fit * size, "{max_bytes} bytes, offsets below {max_offset}, min_one {min_one}");
            }
        }
    }
}

#[test]
fn a_follower_appends_batches_unchanged_and_rejects_others() {
    let dir = tempdir();
    let mut leader = open(&dir.path().join("leader"), &small_segments(), unclean(0));
    for at in 0..40 {
        append_with(&mut leader, &batch(2, b"some value"), at / 10, NOW).unwrap();
    }
    let mut follower = open(&dir.path().join("follower"), &small_segments(), unclean(0));
    let mut first = None;
    while let Some(slice) = leader.read(follower.log_end_offset(), 3000, i64::MAX, true).unwrap() {
        let bytes = slice.read_to_bytes().unwrap();
        follower.append_as_follower(&bytes, EPOCH).unwrap();
        first.get_or_insert(bytes);
    }
    assert_eq!(read_all(&follower, 0, 500), read_all(&leader, 0, 500));
    assert_eq!(follower.epochs(), leader.epochs());
    assert_eq!(follower.epochs().len(), 4);
    assert_eq!(follower.end_offset_for_epoch(1), Some((1, 40)));

    let again = first.unwrap();
    let error = follower.append_as_follower(&again, EPOCH).unwrap_err();
    assert!(matches!(error, AppendError::UnexpectedOffset { found: 0, expected: 80 }), "{error}");
    let mut damaged = again.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut empty = open(&dir.path().join("empty"), &small_segments(), unclean(0));
    for bad in [&damaged[..], &again[..again.len() - 1], &[]] {
        let error = empty.append_as_follower(bad, EPOCH).unwrap_err();
        assert!(matches!(error, AppendError::Corrupt(_)), "{error}");
    }
    assert_eq!(empty.log_end_offset(), 0);
}

#[test]
fn a_leader_rejects_bad_batches() {
    let dir = tempdir();
    let config = LogConfig { max_message_bytes: 500, ..LogConfig::default() };
    let mut log = open(dir.path(), &config, unclean(0));
    let (good, large) = (batch(1, b"v"), batch(1, &[0; 500]));
    let error = append_with(&mut log, &large, EPOCH, NOW).unwrap_err();
    assert!(matches!(error, AppendError::BatchTooLarge { size, max: 500 } if size == large.len()), "{error}");
    log.set_config(LogConfig { segment_bytes: 70, ..LogConfig::default() });
    let error = append_with(&mut log, &good, EPOCH, NOW).unwrap_err();
    assert!(matches!(error, AppendError::LargerThanSegment { size, max: 70 } if size == good.len()), "{error}");
    assert_eq!((log.log_end_offset(), log.size()), (0, 0));
}

#[test]
fn segments_roll_by_time_and_by_a_full_index() {
    let dir = tempdir();
    let config = LogConfig { segment_ms: 1000, ..LogConfig::default() };
    let mut log = open(&dir.path().join("time"), &config, unclean(0));
    for timestamp in [NOW, NOW + 1000, NOW + 1001, NOW + 1500] {
        append(&mut log, &batch_with(millstream_record::Codec::None, None, &[timestamp], b"v"));
    }
    let names: Vec<_> = files(log.dir(), "log").iter().map(|path| path.file_stem().unwrap().to_owned()).collect();
    assert_eq!(names, ["00000000000000000000", "00000000000000000002"]);

    let config = LogConfig { index_interval_bytes: 1, segment_index_bytes: 80, ..LogConfig::default() };
    let mut log = open(&dir.path().join("index"), &config, unclean(0));
    for at in 0..50 {
        append(&mut log, &batch_with(millstream_record::Codec::None, None, &[NOW + at], b"v"));
    }
    assert!(log.segment_count() > 5);
    assert_eq!(offsets(&log, 0), (0..50).collect::<Vec<_>>());
    assert!(files(log.dir(), "index").iter().all(|path| path.metadata().unwrap().len() <= 80));
}

#[test]
fn readers_need_no_lock_while_a_writer_appends() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    const BATCHES: i64 = 2000;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let reader: LogReader = log.reader();
            scope.spawn(move || {
                let mut offset = 0;
                while offset < BATCHES {
                    let end = reader.log_end_offset();
                    let Some(slice) = reader.read(offset, 900, end, true).unwrap() else {
                        assert_eq!(offset, end);
                        std::thread::yield_now();
                        continue;
                    };
                    for batch in batches(&slice.read_to_bytes().unwrap()) {
                        let batch = batch.unwrap();
                        batch.verify_crc().unwrap();
                        assert_eq!(batch.base_offset(), offset);
                        offset += 1;
                    }
                }
            });
        }
        for at in 0..BATCHES {
            append(&mut log, &batch(1, at.to_string().as_bytes()));
        }
    });
    assert_eq!(log.log_end_offset(), BATCHES);
}

#[test]
fn readers_that_retention_overtakes_get_an_error() {
    let dir = tempdir();
    let config = LogConfig { retention_bytes: Some(2500), retention_ms: None, ..small_segments() };
    let mut log = open(dir.path(), &config, unclean(0));
    const BATCHES: i64 = 3000;
    std::thread::scope(|scope| {
        for lag in [1, 7] {
            let reader = log.reader();
            scope.spawn(move || {
                let mut offset = 0;
                while offset < BATCHES {
                    match reader.read(offset, 200, i64::MAX, true) {
                        Ok(Some(slice)) => {
                            let bytes = slice.read_to_bytes().unwrap();
                            assert_eq!(batches(&bytes).next().unwrap().unwrap().base_offset(), offset);
                            reader.offset_for_timestamp(NOW, &|_, _| None).unwrap();
                            offset += lag;
                        }
                        Ok(None) => std::thread::yield_now(),
                        Err(ReadError::OffsetOutOfRange { log_start_offset, log_end_offset, .. }) => {
                            offset = if offset < log_start_offset { log_start_offset } else { log_end_offset };
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for at in 0..BATCHES {
            append(&mut log, &batch(1, &at.to_be_bytes()));
            if at % 20 == 0 {
                log.apply_retention(NOW, at + 1).unwrap();
            }
        }
    });
}
