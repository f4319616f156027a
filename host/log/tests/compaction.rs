//! Compaction of a log, from outside: what a reader finds before and after.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::*;
use millstream_log::{
    AppendOrigin, CleanError, Cleaned, Cleaner, CleanupPolicy, Log, LogConfig, OpenOptions, TransactionEnd,
    Verification,
};
use millstream_record::{BatchBuilder, BatchView, CheckedBatch, Codec, EndMarker, TimestampType, batches};
use parking_lot::Mutex;

const RETENTION: i64 = 10_000;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2000,
        index_interval_bytes: 200,
        cleanup_policy: CleanupPolicy::COMPACT,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: RETENTION,
        ..LogConfig::default()
    }
}

fn cleaner<'a>() -> Cleaner<'a> {
    Cleaner {
        map_bytes: 1 << 20,
        load_factor: 0.9,
        piece_bytes: 4096,
        batch_bytes_max: 1 << 20,
        decode: &|_, _| Err("there is no decoder".to_owned()),
        pace: &|_| true,
    }
}

/// Runs a pass if one is due.
fn compact_with(log: &Mutex<Log>, now_ms: i64, cleaner: &Cleaner<'_>) -> Option<Result<Cleaned, CleanError>> {
    let plan = {
        let mut log = log.lock();
        log.flush().unwrap();
        let end = log.log_end_offset();
        log.note_high_watermark(end);
        let stable = log.last_stable_offset(end);
        log.cleaning_plan(now_ms, stable).unwrap()
    };
    plan.filter(|plan| plan.is_due()).map(|plan| plan.run(cleaner, log))
}

fn compact(log: &Mutex<Log>, now_ms: i64) -> Cleaned {
    compact_with(log, now_ms, &cleaner()).expect("a pass is due").unwrap()
}

fn opened(dir: &Path, config: &LogConfig) -> Mutex<Log> {
    Mutex::new(open(dir, config, unclean(0)))
}

/// Appends a batch with a row for each key.
fn put(log: &Mutex<Log>, codec: Codec, producer: Option<Producer>, rows: &[(&str, Option<&str>)]) -> i64 {
    let mut batch = BatchBuilder::new(codec, TimestampType::CreateTime);
    if let Some(Producer(id, epoch, sequence)) = producer {
        batch.producer(id, epoch, sequence);
    }
    for (key, value) in rows {
        batch.append(NOW, Some(key.as_bytes()), value.map(str::as_bytes), []).unwrap();
    }
    append(&mut log.lock(), &batch.build().unwrap())
}

/// Fills the active segment and starts the next one, so that what came before can be compacted.
fn roll(log: &Mutex<Log>) {
    let segments = log.lock().segment_count();
    let mut number = 0;
    while log.lock().segment_count() == segments {
        put(log, Codec::None, None, &[(&format!("filler {number}"), Some(&"x".repeat(100)))]);
        number += 1;
    }
}

/// A record of the log, without the fillers: its offset, key and value.
type Row = (i64, String, Option<String>);

/// Returns the rows of a log. Checks that batches follow one another.
fn rows(log: &Mutex<Log>) -> Vec<Row> {
    let log = log.lock();
    let (mut rows, mut from) = (Vec::new(), log.log_start_offset());
    while let Some(slice) = log.read(from, 700, i64::MAX, true).unwrap() {
        slice.verify().unwrap();
        let bytes = slice.read_to_bytes().unwrap();
        for batch in batches(&bytes).map(Result::unwrap) {
            assert!(batch.base_offset() >= from || from < batch.next_offset());
            from = batch.next_offset();
            if batch.is_control() {
                continue;
            }
            let records = batch.records(1 << 20).unwrap();
            for record in records.iter().map(Result::unwrap) {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let key = text(record.key.unwrap());
                if !key.starts_with("filler") {
                    rows.push((record.offset, key, record.value.map(text)));
                }
            }
        }
    }
    rows
}

fn headers(log: &Mutex<Log>, to: i64) -> Vec<(i64, i64, i32, usize, i16)> {
    let log = log.lock();
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(slice) = log.read(from, 1 << 20, to, true).unwrap() {
        let bytes = slice.read_to_bytes().unwrap();
        for batch in batches(&bytes).map(Result::unwrap) {
            from = batch.next_offset();
            found.push((batch.base_offset(), batch.last_offset(), batch.count(), batch.size(), batch.attributes()));
        }
    }
    found
}

fn row(offset: i64, key: &str, value: &str) -> Row {
    (offset, key.to_owned(), Some(value.to_owned()))
}

#[test]
fn only_the_last_record_of_each_key_is_left() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    assert!(compact_with(&log, NOW, &cleaner()).is_none(), "an empty log has nothing to do");
    put(&log, Codec::Zstd, None, &[("a", Some("1")), ("b", Some("2")), ("a", Some("3"))]);
    put(&log, Codec::None, None, &[("b", Some("4")), ("c", Some("5"))]);
    roll(&log);
    // What is in the active segment replaces nothing.
    let last = put(&log, Codec::None, None, &[("c", Some("6"))]);
    let cleaned = compact(&log, NOW);
    let left = [row(2, "a", "3"), row(3, "b", "4"), row(4, "c", "5"), row(last, "c", "6")];
    assert_eq!(rows(&log), left);
    assert!(cleaned.bytes_after < cleaned.bytes_before);
    assert!(compact_with(&log, NOW, &cleaner()).is_none(), "nothing new");
    roll(&log);
    compact(&log, NOW);
    assert_eq!(rows(&log), [row(2, "a", "3"), row(3, "b", "4"), row(last, "c", "6")]);
    let end = log.lock().log_end_offset();
    assert_eq!(log.lock().log_start_offset(), 0);
    // Each offset leads to the next record that is left, and so does each time.
    for offset in 0..end {
        let found = log.lock().read(offset, 1, i64::MAX, true).unwrap().unwrap().read_to_bytes().unwrap();
        assert!(BatchView::parse(&found).unwrap().last_offset() >= offset);
    }
    let found = log.lock().offset_for_timestamp(NOW).unwrap().unwrap();
    assert_eq!((found.offset, found.timestamp), (2, NOW));
    // All of it is there after a restart, and what was compacted stays so.
    let dirty = log.lock().first_dirty_offset();
    drop(log);
    for options in [unclean(end), clean_options(end, dirty.unwrap()), unclean(0)] {
        let log = Mutex::new(open(dir.path(), &config(), options));
        assert_eq!(rows(&log).len(), 3);
        assert_eq!(log.lock().log_end_offset(), end);
    }
    let log = Mutex::new(open(dir.path(), &config(), clean_options(end, dirty.unwrap())));
    assert!(compact_with(&log, NOW, &cleaner()).is_none());
}

fn clean_options(end: i64, first_dirty_offset: i64) -> OpenOptions {
    OpenOptions { first_dirty_offset, ..clean(end) }
}

#[test]
fn tombstones_go_in_the_first_pass_after_their_horizon() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    put(&log, Codec::None, None, &[("a", Some("1"))]);
    put(&log, Codec::Lz4, None, &[("a", None), ("b", Some("2"))]);
    roll(&log);
    compact(&log, NOW);
    let tombstone = (1, "a".to_owned(), None);
    assert_eq!(rows(&log), [tombstone.clone(), row(2, "b", "2")]);
    roll(&log);
    compact(&log, NOW + RETENTION - 1);
    assert_eq!(rows(&log), [tombstone, row(2, "b", "2")]);
    assert!(compact_with(&log, NOW + 10 * RETENTION, &cleaner()).is_none(), "the horizon alone wakes nothing");
    roll(&log);
    compact(&log, NOW + RETENTION);
    assert_eq!(rows(&log), [row(2, "b", "2")]);
}

#[test]
fn a_producer_goes_on_after_its_records_are_gone() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    put(&log, Codec::None, Some(Producer(5, 1, 0)), &[("a", Some("1")), ("b", Some("2"))]);
    put(&log, Codec::Gzip, Some(Producer(5, 1, 2)), &[("a", Some("3")), ("b", Some("4"))]);
    put(&log, Codec::None, None, &[("a", Some("5")), ("b", Some("6"))]);
    roll(&log);
    compact(&log, NOW);
    assert_eq!(headers(&log, 4), [(2, 3, 0, 61, 0)]);
    let end = log.lock().log_end_offset();
    drop(log);
    // The state comes back from the log alone.
    for snapshot in files(dir.path(), "snapshot") {
        std::fs::remove_file(snapshot).unwrap();
    }
    let log = Mutex::new(open(dir.path(), &config(), unclean(end)));
    let again = batch_with(Codec::None, Some(Producer(5, 1, 2)), &[NOW, NOW], b"v");
    let stored = append_with(&mut log.lock(), &again, EPOCH, NOW).unwrap();
    assert!(matches!(stored, millstream_log::Appended::Duplicate(at) if at.base_offset == 2), "{stored:?}");
    let gap = batch_with(Codec::None, Some(Producer(5, 1, 5)), &[NOW], b"v");
    assert!(append_with(&mut log.lock(), &gap, EPOCH, NOW).is_err());
    // Once the producer is forgotten, the header goes as well.
    roll(&log);
    let expires = config().producer_id_expiration_ms + 1;
    assert_eq!(log.lock().expire_producers(NOW + expires), 1);
    compact(&log, NOW);
    assert!(headers(&log, 4).is_empty());
}

fn transact(log: &Mutex<Log>, producer: i64, sequence: i32, key: &str) -> i64 {
    let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    batch.producer(producer, 0, sequence).transactional(true);
    batch.append(NOW, Some(key.as_bytes()), Some(b"transacted"), []).unwrap();
    let batch = batch.build().unwrap();
    let origin = AppendOrigin::Client(Verification::Disabled);
    let appended = log.lock().append_of(&CheckedBatch::of_own(&batch).unwrap(), EPOCH, NOW, origin).unwrap();
    appended.batch().base_offset
}

fn end_transaction(log: &Mutex<Log>, producer_id: i64, is_commit: bool) -> i64 {
    let marker = EndMarker { is_commit, coordinator_epoch: 0 };
    let end = TransactionEnd { producer_id, producer_epoch: 0, marker, transaction_version: 1 };
    log.lock().append_marker(&end, EPOCH, NOW).unwrap().base_offset
}

#[test]
fn records_of_aborted_transactions_go_and_their_markers_later() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    put(&log, Codec::None, None, &[("a", Some("1"))]);
    let aborted = transact(&log, 7, 0, "a");
    let marker = end_transaction(&log, 7, false);
    let committed = transact(&log, 8, 0, "b");
    end_transaction(&log, 8, true);
    // Neither has a last batch that has to stay.
    transact(&log, 7, 1, "c");
    end_transaction(&log, 7, true);
    roll(&log);
    compact(&log, NOW);
    let left = |log: &Mutex<Log>| rows(log).into_iter().map(|row| row.0).collect::<Vec<_>>();
    assert_eq!(left(&log), [0, committed, 5], "the aborted record replaces nothing, and is gone");
    let at = |log: &Mutex<Log>, offset| headers(log, 100).into_iter().find(|header| header.0 == offset);
    assert_eq!((at(&log, aborted), at(&log, marker).unwrap().4), (None, 48));
    roll(&log);
    compact(&log, NOW);
    assert_eq!(at(&log, marker).unwrap().4, 112, "it has a horizon");
    assert_eq!(at(&log, 4).unwrap().4, 48, "its transaction has a record");
    roll(&log);
    compact(&log, NOW + RETENTION);
    assert_eq!(at(&log, marker), None);
    // A reader of committed records finds no transaction.
    let reader = log.lock().reader();
    let slice = reader.read(0, 1 << 20, i64::MAX, true).unwrap().unwrap();
    assert!(reader.aborted_transactions(&slice).unwrap().is_empty());
}

#[test]
fn an_open_transaction_stops_compaction_at_its_segment() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    put(&log, Codec::None, None, &[("a", Some("1"))]);
    roll(&log);
    put(&log, Codec::None, None, &[("a", Some("2"))]);
    let open = transact(&log, 7, 0, "b");
    put(&log, Codec::None, None, &[("a", Some("3"))]);
    roll(&log);
    let cleaned = compact_with(&log, NOW, &cleaner());
    assert!(cleaned.is_none_or(|cleaned| cleaned.unwrap().end < open));
    assert_eq!(rows(&log).len(), 4);
    end_transaction(&log, 7, true);
    compact(&log, NOW);
    assert_eq!(rows(&log).into_iter().map(|row| row.1).collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn a_full_map_leaves_the_rest_to_the_next_pass() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    for round in 0..3 {
        for key in 0..40 {
            put(&log, Codec::None, None, &[(&format!("key {key}"), Some(&format!("{round}")))]);
        }
    }
    roll(&log);
    let small = Cleaner { map_bytes: 16 * 20, ..cleaner() };
    let (mut passes, mut end) = (0, 0);
    while let Some(cleaned) = compact_with(&log, NOW, &small) {
        let cleaned = cleaned.unwrap();
        assert!(cleaned.end > end && cleaned.keys <= 20 && cleaned.map_bytes <= 16 * 20);
        (passes, end) = (passes + 1, cleaned.end);
        // The last value of each key is there at any time.
        let last: BTreeMap<_, _> = rows(&log).into_iter().map(|row| (row.1, row.2.unwrap())).collect();
        assert!(last.len() == 40 && last.values().all(|value| value == "2"));
    }
    assert!(passes > 3, "{passes}");
    assert_eq!(rows(&log).len(), 40);
}

#[test]
fn a_pass_waits_for_its_ratio_and_its_lags() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    let due = |log: &Mutex<Log>, config: LogConfig, now_ms| {
        let mut log = log.lock();
        log.flush().unwrap();
        log.set_config(config);
        let plan = log.cleaning_plan(now_ms, log.log_end_offset()).unwrap();
        plan.is_some_and(|plan| plan.is_due())
    };
    for _ in 0..4 {
        put(&log, Codec::None, None, &[("a", Some(&"v".repeat(900)))]);
    }
    roll(&log);
    let half = || LogConfig { min_cleanable_dirty_ratio: 0.5, ..config() };
    assert!(due(&log, half(), NOW));
    assert!(!due(&log, LogConfig { cleanup_policy: CleanupPolicy::DELETE, ..half() }, NOW));
    let lag = |ms| LogConfig { min_compaction_lag_ms: ms, ..half() };
    assert!(!due(&log, lag(1000), NOW + 999));
    assert!(due(&log, lag(1000), NOW + 1000));
    log.lock().set_config(config());
    compact(&log, NOW);
    // The fillers are as many bytes before and after, so that the ratio decides.
    for _ in 0..3 {
        roll(&log);
        log.lock().set_config(config());
        compact(&log, NOW);
    }
    put(&log, Codec::None, None, &[("a", Some("2"))]);
    roll(&log);
    assert!(due(&log, LogConfig { min_cleanable_dirty_ratio: 0.1, ..config() }, NOW));
    assert!(!due(&log, LogConfig { min_cleanable_dirty_ratio: 0.9, ..config() }, NOW));
    let late = LogConfig { min_cleanable_dirty_ratio: 0.9, max_compaction_lag_ms: 5000, ..config() };
    assert!(!due(&log, late.clone(), NOW + 5000));
    assert!(due(&log, late, NOW + 5001));
    // Nothing above the last stable offset counts.
    let log = log.lock();
    assert!(log.cleaning_plan(NOW, 0).unwrap().is_none_or(|plan| !plan.is_due()));
}

#[test]
fn a_late_record_rolls_the_segment() {
    let dir = tempdir();
    let config = LogConfig { max_compaction_lag_ms: 5000, segment_bytes: 1 << 20, ..config() };
    let mut log = open(dir.path(), &config, unclean(0));
    for (at, segments) in [(0, 1), (5000, 1), (5001, 2)] {
        append(&mut log, &batch_with(Codec::None, None, &[NOW + at], b"v"));
        assert_eq!(log.segment_count(), segments);
    }
}

#[test]
fn unsynced_segments_are_not_compacted() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    put(&log, Codec::None, None, &[("a", Some("1"))]);
    roll(&log);
    let log = log.lock();
    assert!(log.recovery_point() == 0);
    assert!(log.cleaning_plan(NOW, log.log_end_offset()).unwrap().is_none_or(|plan| !plan.is_due()));
}

#[test]
fn readers_keep_what_they_hold_and_go_on_in_the_new_segment() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    for number in 0..60 {
        put(&log, Codec::None, None, &[(&format!("{}", number % 3), Some(&"v".repeat(90)))]);
    }
    roll(&log);
    let held = log.lock().read(0, 300, i64::MAX, true).unwrap().unwrap();
    let before = held.read_to_bytes().unwrap();
    compact(&log, NOW);
    assert_eq!(held.read_to_bytes().unwrap(), before);
    held.verify().unwrap();
    let next = log.lock().read(1, 300, i64::MAX, true).unwrap().unwrap();
    assert!(next.first_offset > 1);
}

#[test]
fn readers_and_writers_go_on_during_many_passes() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    let reader = log.lock().reader();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut from, mut rounds) = (0, 0);
                    while !stop.load(std::sync::atomic::Ordering::Acquire) {
                        match reader.read(from, 400, i64::MAX, true).unwrap() {
                            Some(slice) => {
                                reader.aborted_transactions(&slice).unwrap();
                                let bytes = slice.read_to_bytes().unwrap();
                                for batch in batches(&bytes).map(Result::unwrap) {
                                    batch.verify_crc().unwrap();
                                    assert!(batch.next_offset() > from);
                                    from = batch.next_offset();
                                }
                            }
                            None => (from, rounds) = (0, rounds + 1),
                        }
                    }
                    rounds
                })
            })
            .collect();
        for number in 0..400 {
            put(&log, Codec::None, None, &[(&format!("{}", number % 20), Some(&format!("{number}")))]);
            if number % 7 == 0 {
                transact(&log, 7, number / 7, "t");
                end_transaction(&log, 7, number % 14 == 0);
            }
            if number % 20 == 19 {
                roll(&log);
                compact(&log, NOW + i64::from(number));
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Release);
        assert!(readers.into_iter().map(|reader| reader.join().unwrap()).sum::<i32>() > 0);
    });
    let last: BTreeMap<_, _> = rows(&log).into_iter().map(|row| (row.1, row.2.unwrap())).collect();
    for key in 0..20 {
        assert_eq!(last[&key.to_string()], (380 + key).to_string());
    }
}

#[test]
fn a_batch_in_another_format_needs_its_decoder() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    let sealed = |value: &str| {
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.append(NOW, Some(b"a"), Some(value.as_bytes()), []).unwrap();
        batch.append(NOW, Some(value.as_bytes()), Some(b"v"), []).unwrap();
        let mut bytes = batch.build().unwrap();
        bytes[22] |= 7;
        bytes[61..].iter_mut().for_each(|byte| *byte ^= 0xff);
        millstream_record::patch::refresh_crc(&mut bytes);
        bytes
    };
    append(&mut log.lock(), &sealed("1"));
    append(&mut log.lock(), &sealed("2"));
    roll(&log);
    let error = compact_with(&log, NOW, &cleaner()).unwrap().unwrap_err();
    assert!(error.to_string().contains("offset 0 cannot be compacted: there is no decoder"), "{error}");
    let decode = |batch: &BatchView<'_>, _: usize| -> Result<(Vec<u8>, Codec), String> {
        Ok((batch.payload().iter().map(|byte| byte ^ 0xff).collect(), Codec::Lz4))
    };
    compact_with(&log, NOW, &Cleaner { decode: &decode, ..cleaner() }).unwrap().unwrap();
    // The part that is left of the first one is in a codec of Kafka, and the second one as it was.
    let left = headers(&log, 4);
    assert_eq!(left.iter().map(|header| (header.0, header.2, header.4)).collect::<Vec<_>>(), [(0, 1, 3), (2, 2, 7)]);
    let first = log.lock().read(0, 1, 2, true).unwrap().unwrap().read_to_bytes().unwrap();
    let first = BatchView::parse(&first).unwrap();
    let record = first.records(100).unwrap().iter().next().unwrap().unwrap().key.map(<[u8]>::to_vec);
    assert_eq!(record.as_deref(), Some(&b"1"[..]));
}

#[test]
fn damage_stops_a_pass_and_is_not_copied() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    put(&log, Codec::None, None, &[("a", Some("1"))]);
    put(&log, Codec::None, None, &[("a", Some("2"))]);
    roll(&log);
    let path = files(dir.path(), "log").remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[65] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = compact_with(&log, NOW, &cleaner()).unwrap().unwrap_err().to_string();
    assert!(error.contains("00000000000000000000.log is damaged at byte 0"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(files(dir.path(), "cleaned").len(), 0);
    assert!(log.lock().has_fault(), "the replica must not count as in sync");
}

#[test]
fn a_pass_that_is_stopped_leaves_no_files() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    for number in 0..200 {
        put(&log, Codec::None, None, &[("a", Some(&format!("{number}")))]);
    }
    roll(&log);
    let before = rows(&log);
    for bytes_max in [0, 3000, 18_000, 19_000] {
        let left = std::cell::Cell::new(bytes_max);
        let pace = |bytes: usize| {
            left.set(left.get() - bytes as i64);
            left.get() > 0
        };
        let piece_bytes = 500;
        let stopped = compact_with(&log, NOW, &Cleaner { pace: &pace, piece_bytes, ..cleaner() });
        assert!(matches!(stopped, Some(Err(CleanError::Stopped))), "{bytes_max}: {stopped:?}");
        assert_eq!(files(dir.path(), "cleaned").len(), 0);
        assert_eq!(log.lock().first_dirty_offset(), None);
    }
    assert_eq!(rows(&log).last(), before.last());
    compact(&log, NOW);
    assert_eq!(rows(&log).len(), 1);
}

#[test]
fn retention_deletes_compacted_segments_too() {
    let dir = tempdir();
    let both = LogConfig {
        cleanup_policy: CleanupPolicy { delete: true, compact: true },
        retention_ms: Some(60_000),
        ..config()
    };
    let log = opened(dir.path(), &both);
    for _ in 0..3 {
        put(&log, Codec::None, None, &[("a", Some("1"))]);
        roll(&log);
    }
    let last = log.lock().log_end_offset();
    compact(&log, NOW);
    assert_eq!(log.lock().apply_retention(NOW + 60_000, last).unwrap(), 0);
    // A segment without records has only the time of its file, which is that of the test.
    log.lock().apply_retention(NOW + 400 * 24 * 3_600_000 * 10, last).unwrap();
    assert_eq!(log.lock().log_start_offset(), last);
    assert!(rows(&log).is_empty());
}

#[test]
fn a_truncation_makes_what_it_cut_dirty_again() {
    let dir = tempdir();
    let log = opened(dir.path(), &config());
    put(&log, Codec::None, None, &[("a", Some("1"))]);
    roll(&log);
    put(&log, Codec::None, None, &[("a", Some("2"))]);
    roll(&log);
    let cleaned = compact(&log, NOW);
    assert_eq!(log.lock().first_dirty_offset(), Some(cleaned.end));
    log.lock().truncate_to(cleaned.end - 1).unwrap();
    let end = log.lock().log_end_offset();
    assert_eq!(log.lock().first_dirty_offset(), Some(end));
    log.lock().restart_at(500).unwrap();
    assert_eq!(log.lock().first_dirty_offset(), None);
}

/// A generator of pseudo-random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The compacted log is the last record of each key in the order of the offsets, whatever was appended and however the
/// passes fall: below the first dirty offset no key has two records, and no last record is ever missing.
#[test]
fn any_log_keeps_the_last_record_of_each_key() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let dir = tempdir();
        let config = LogConfig { segment_bytes: 600 + random.below(3000) as u32, ..config() };
        let mut log = opened(dir.path(), &config);
        let mut model: Vec<Row> = Vec::new();
        let mut now = NOW;
        let mut sequence = 0;
        for _ in 0..12 {
            for _ in 0..random.below(30) {
                let count = 1 + random.below(4);
                let keys: Vec<String> = (0..count).map(|_| format!("key {}", random.below(12))).collect();
                let number = random.below(1000).to_string();
                let is_value: Vec<bool> = (0..count).map(|_| random.below(5) > 0).collect();
                let batch: Vec<(&str, Option<&str>)> =
                    keys.iter().zip(&is_value).map(|(key, is)| (key.as_str(), is.then_some(&*number))).collect();
                let codec = [Codec::None, Codec::Zstd, Codec::Snappy][random.below(3) as usize];
                let producer = (random.below(3) == 0).then(|| {
                    sequence += count as i32;
                    Producer(3, 0, sequence - count as i32)
                });
                let base = put(&log, codec, producer, &batch);
                let added = batch.iter().zip(base..);
                model.extend(added.map(|((key, value), at)| (at, (*key).to_owned(), value.map(str::to_owned))));
            }
            roll(&log);
            now += random.below(2 * RETENTION as u64) as i64;
            let map_bytes = [16 * 8, 1 << 20][random.below(2) as usize];
            if let Some(cleaned) = compact_with(&log, now, &Cleaner { map_bytes, ..cleaner() }) {
                cleaned.unwrap();
            }
            if random.below(4) == 0 {
                let end = log.lock().log_end_offset();
                let dirty = log.lock().first_dirty_offset();
                drop(log);
                let options = OpenOptions { first_dirty_offset: dirty.unwrap_or(0), ..clean(end) };
                log = Mutex::new(open(dir.path(), &config, options));
            }
            check(seed, &log, &model);
        }
    }
}

fn check(seed: u64, log: &Mutex<Log>, model: &[Row]) {
    let found = rows(log);
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "seed {seed}: out of order");
    let by_offset: BTreeMap<i64, &Row> = model.iter().map(|row| (row.0, row)).collect();
    for row in &found {
        assert_eq!(by_offset.get(&row.0), Some(&row), "seed {seed}: no such record was appended");
    }
    let last =
        |rows: &[Row]| -> BTreeMap<String, Row> { rows.iter().map(|row| (row.1.clone(), row.clone())).collect() };
    let (found_last, model_last) = (last(&found), last(model));
    for (key, row) in &model_last {
        match found_last.get(key) {
            Some(found) => assert_eq!(found, row, "seed {seed}"),
            None => assert_eq!(row.2, None, "seed {seed}: the last record of {key} is missing"),
        }
    }
    let dirty = log.lock().first_dirty_offset().unwrap_or(0);
    let mut keys = std::collections::HashSet::new();
    for row in found.iter().filter(|row| row.0 < dirty) {
        assert!(keys.insert(&row.1), "seed {seed}: {} is there twice below {dirty}", row.1);
    }
}
