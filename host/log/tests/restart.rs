//! A log that continues at another offset, as that of a follower far behind its leader.

mod common;

use common::*;
use millstream_log::{LogConfig, ReadError};
use millstream_record::Codec;

#[test]
fn a_restarted_log_is_empty_and_continues_at_the_new_offset() {
    let dir = tempdir();
    let mut log = open(dir.path(), &small_segments(), unclean(0));
    for at in 0..60 {
        let bytes = batch_with(Codec::None, Some(Producer(5, 0, at * 2)), &[NOW; 2], &[7; 200]);
        append_with(&mut log, &bytes, EPOCH, NOW).unwrap();
    }
    assert!(log.segment_count() > 2);
    log.flush().unwrap();
    let reader = log.reader();
    log.restart_at(1000).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.recovery_point()), (1000, 1000, 1000));
    assert_eq!((log.segment_count(), log.producer_count(), log.latest_epoch()), (1, 0, None));
    assert!(matches!(reader.read(119, 1 << 20, i64::MAX, true), Err(ReadError::OffsetOutOfRange { .. })));
    assert!(reader.read(1000, 1 << 20, i64::MAX, true).unwrap().is_none());
    assert_eq!(files(dir.path(), "log").len(), 1);
    assert!(files(dir.path(), "snapshot").is_empty());
    // An old producer begins again, as on a leader that has deleted its batches.
    append_with(&mut log, &batch_with(Codec::None, Some(Producer(5, 0, 0)), &[NOW; 3], b"v"), 9, NOW).unwrap();
    assert_eq!(offsets(&log, 1000), [1000, 1001, 1002]);
    drop(log);
    let log = open(dir.path(), &small_segments(), unclean(1000));
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.latest_epoch()), (1000, 1003, Some(9)));
}

#[test]
fn a_log_restarts_at_its_own_end_and_at_a_segment_that_it_has() {
    for restart_at in [0, 3] {
        let dir = tempdir();
        let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
        append(&mut log, &batch(3, b"v"));
        log.restart_at(restart_at).unwrap();
        assert!(offsets(&log, restart_at).is_empty());
        append(&mut log, &batch(2, b"w"));
        assert_eq!(offsets(&log, restart_at), [restart_at, restart_at + 1]);
        drop(log);
        assert_eq!(open(dir.path(), &LogConfig::default(), unclean(restart_at)).log_end_offset(), restart_at + 2);
    }
}
