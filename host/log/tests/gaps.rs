//! Batches from which the leader has dropped records: their offsets and sequences stay, as after compaction.

mod common;

use std::fs;

use common::*;
use millstream_log::{AppendError, AppendedBatch, Log, LogConfig};
use millstream_record::{BatchBuilder, BatchView, CheckedBatch, Codec, TimestampType, patch};

/// Returns a batch of `count` offsets with records only at the positions in `kept`.
fn thinned(producer: Option<Producer>, count: i32, kept: &[i32]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    if let Some(Producer(id, epoch, sequence)) = producer {
        builder.producer(id, epoch, sequence);
    }
    for &place in kept {
        builder.append_at(place, NOW + i64::from(place), Some(b"k"), Some(b"v"), []).unwrap();
    }
    builder.last_offset_delta(count - 1);
    let mut bytes = builder.build().unwrap();
    if kept.is_empty() {
        patch::set_max_timestamp(&mut bytes, NOW + i64::from(count));
    }
    bytes
}

fn filled(dir: &std::path::Path, config: &LogConfig) -> Log {
    let mut log = open(dir, config, unclean(0));
    assert_eq!(append(&mut log, &thinned(None, 5, &[1, 3])), 0);
    assert_eq!(append(&mut log, &thinned(None, 1_000_000, &[])), 5);
    assert_eq!(append(&mut log, &thinned(None, 3, &[0, 2])), 1_000_005);
    assert_eq!(append(&mut log, &thinned(None, 2, &[])), 1_000_008);
    log
}

#[test]
fn readers_find_the_remaining_records() {
    let dir = tempdir();
    let log = filled(dir.path(), &small_segments());
    let left = [1, 3, 1_000_005, 1_000_007];
    assert_eq!(offsets(&log, 0), left);
    for (from, count) in [(2, 3), (4, 2), (77_777, 2), (1_000_007, 1), (1_000_008, 0), (1_000_009, 0)] {
        let found = offsets(&log, from).into_iter().filter(|offset| *offset >= from).count();
        assert_eq!(found, count, "{from}");
    }
    assert_eq!(log.log_end_offset(), 1_000_010);
    // A batch without records has no time, whatever its header keeps for its producer.
    assert_eq!(log.offset_for_timestamp(NOW + 2).unwrap().unwrap().offset, 3);
    assert_eq!(log.offset_for_timestamp(NOW + 4).unwrap(), None);
    assert_eq!(log.offset_for_max_timestamp().unwrap().unwrap().offset, 3);
}

#[test]
fn a_log_with_gaps_comes_back_from_a_crash() {
    let dir = tempdir();
    drop(filled(dir.path(), &LogConfig::default()));
    let log = open(dir.path(), &LogConfig::default(), unclean(0));
    assert_eq!((log.log_end_offset(), offsets(&log, 0).len()), (1_000_010, 4));
}

/// The offsets after an empty batch may be far more than there are bytes, and are still valid.
#[test]
fn damage_before_a_wide_gap_is_not_taken_for_a_torn_end() {
    let dir = tempdir();
    drop(filled(dir.path(), &LogConfig::default()));
    let path = files(dir.path(), "log").remove(0);
    let mut bytes = fs::read(&path).unwrap();
    // Damages the second batch's base offset, so that its header is unusable.
    let second = BatchView::parse(&bytes).unwrap().size();
    bytes[second] = 0xff;
    fs::write(&path, &bytes).unwrap();
    let error = Log::open(dir.path(), LogConfig::default(), unclean(0)).unwrap_err().to_string();
    assert!(error.contains("a good batch follows"), "{error}");
}

#[test]
fn a_repeat_of_a_thinned_batch_is_a_duplicate() {
    let dir = tempdir();
    let mut log = open(dir.path(), &LogConfig::default(), unclean(0));
    let check = |log: &mut Log, sequence, count| -> Result<Option<AppendedBatch>, AppendError> {
        let sent = thinned(Some(Producer(9, 0, sequence)), count, &(0..count).collect::<Vec<_>>());
        log.check_producer(&CheckedBatch::of_own(&sent).unwrap(), EPOCH, CLIENT)
    };
    for (sequence, count, kept) in [(0, 3, &[1][..]), (3, 2, &[]), (5, 4, &[0, 3])] {
        assert!(check(&mut log, sequence, count).unwrap().is_none());
        let stored = thinned(Some(Producer(9, 0, sequence)), count, kept);
        append(&mut log, &stored);
    }
    let is_repeat = |log: &mut Log, sequence, count, base| {
        let stored = check(log, sequence, count).unwrap().map(|stored| stored.base_offset);
        assert_eq!(stored, Some(base));
    };
    for (sequence, count, base) in [(0, 3, 0), (3, 2, 3), (5, 4, 5)] {
        is_repeat(&mut log, sequence, count, base);
    }
    let said = check(&mut log, 7, 1);
    assert!(matches!(said, Err(AppendError::OutOfOrderSequence { last: 8, .. })), "{said:?}");
    assert_eq!(log.log_end_offset(), 9, "looking changes nothing");
    log.close_clean().unwrap();
    // After a restart the snapshot has only the last batch; the others are found in the log.
    let mut log = open(dir.path(), &LogConfig::default(), clean(9));
    is_repeat(&mut log, 3, 2, 3);
}
