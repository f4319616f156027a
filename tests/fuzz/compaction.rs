//! Compaction beside a plain model: any appends of keys, tombstones and transactions, any passes and restarts.
//!
//! After each pass a reader of committed records finds the last value of each key, in the order and at the offsets at
//! which they were appended. Nothing from the last stable offset on has changed, and a second pass changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use bolero::{TypeGenerator, produce};
use millstream_log::{
    AppendOrigin, CleanError, Cleaned, Cleaner, CleanupPolicy, Log, LogConfig, OpenOptions, TransactionEnd,
    Verification,
};
use millstream_record::{BatchBuilder, BatchView, CheckedBatch, Codec, EndMarker, TimestampType};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::TEST_TIME;
use crate::folder::{Stored, read_all, tempdir};
use crate::records::{NOW, OwnedRecord, read};

/// How long tombstones stay, in milliseconds.
const RETENTION: i64 = 10_000;
const BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, TypeGenerator)]
struct Story {
    #[generator(300..4000u32)]
    segment_bytes: u32,
    #[generator(1..600u32)]
    index_interval_bytes: u32,
    #[generator(produce::<Vec<Step>>().with().len(1..50usize))]
    steps: Vec<Step>,
}

#[derive(Clone, Debug, TypeGenerator)]
enum Step {
    Put(Put),
    PutToo(Put),
    PutAgain(Put),
    /// Ends the transaction of a producer, if one is open.
    End {
        #[generator(0..3u8)]
        producer: u8,
        is_commit: bool,
    },
    /// Starts a segment, so that what came before can be compacted.
    Roll,
    Pass {
        #[generator(0..RETENTION)]
        later_ms: i64,
        /// A map for this many keys; 0 is one for all.
        #[generator(0..6usize)]
        keys_max: usize,
    },
    Reopen {
        is_clean: bool,
    },
}

#[derive(Clone, Debug, TypeGenerator)]
struct Put {
    #[generator(0..5usize)]
    codec: usize,
    /// Producers 0 to 2 write transactions, 3 is idempotent, and others are neither.
    #[generator(0..7u8)]
    producer: u8,
    #[generator(produce::<Vec<Row>>().with().len(1..5usize))]
    rows: Vec<Row>,
}

#[derive(Clone, Debug, TypeGenerator)]
struct Row {
    #[generator(0..10u8)]
    key: u8,
    is_tombstone: bool,
    #[generator(-50..50i64)]
    time: i64,
    #[generator(0..150usize)]
    len: usize,
}

/// What became of a record's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Open,
    Aborted,
}

/// A record that was appended.
#[derive(Clone, Debug)]
struct Appended {
    record: OwnedRecord,
    fate: Fate,
    producer: usize,
    batch: i64,
    /// When a pass cleaned its batch first.
    cleaned_ms: Option<i64>,
}

struct World {
    dir: TempDir,
    config: LogConfig,
    log: Mutex<Log>,
    model: BTreeMap<i64, Appended>,
    sequences: [i32; 4],
    open: [bool; 3],
    now_ms: i64,
    count: usize,
}

fn cleaner<'a>(keys_max: usize) -> Cleaner<'a> {
    Cleaner {
        map_bytes: if keys_max == 0 { 1 << 20 } else { 16 * (keys_max + 1) },
        load_factor: 1.0,
        piece_bytes: 700,
        batch_bytes_max: BYTES_MAX,
        decode: &|_, _| Err("there is no decoder".to_owned()),
        pace: &|_| true,
    }
}

impl World {
    fn new(story: &Story) -> Self {
        let dir = tempdir();
        let config = LogConfig {
            segment_bytes: story.segment_bytes,
            index_interval_bytes: story.index_interval_bytes,
            cleanup_policy: CleanupPolicy::COMPACT,
            min_cleanable_dirty_ratio: 0.0,
            delete_retention_ms: RETENTION,
            ..LogConfig::default()
        };
        let log = Log::open(dir.path(), config.clone(), OpenOptions::default()).expect("a new folder");
        let (log, model) = (Mutex::new(log), BTreeMap::new());
        Self { dir, config, log, model, sequences: [0; 4], open: [false; 3], now_ms: NOW, count: 0 }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(put) | Step::PutToo(put) | Step::PutAgain(put) => self.put(put),
            Step::End { producer, is_commit } => self.end(usize::from(*producer), *is_commit),
            Step::Roll => self.roll(),
            Step::Pass { later_ms, keys_max } => {
                self.now_ms += later_ms;
                self.pass(*keys_max);
            }
            Step::Reopen { is_clean } => self.reopen(*is_clean),
        }
    }

    fn put(&mut self, put: &Put) {
        let mut batch = BatchBuilder::new(Codec::ALL[put.codec], TimestampType::CreateTime);
        let producer = usize::from(put.producer);
        let is_transactional = producer < self.open.len();
        if let Some(sequence) = self.sequences.get(producer) {
            batch.producer(producer as i64, 0, *sequence).transactional(is_transactional);
        }
        for row in &put.rows {
            self.count += 1;
            let value = (!row.is_tombstone).then(|| format!("{} {}", self.count, "x".repeat(row.len)));
            let value = value.as_ref().map(String::as_bytes);
            batch.append(NOW + row.time, Some(&[row.key]), value, []).expect("it fits");
        }
        let bytes = batch.build().expect("it fits");
        if bytes.len() > self.config.segment_bytes as usize {
            return;
        }
        let checked = CheckedBatch::of_own(&bytes).expect("one batch");
        let origin = AppendOrigin::Client(Verification::Disabled);
        let base = self.log.get_mut().append_of(&checked, 0, NOW, origin).expect("a working disk").batch().base_offset;
        if let Some(sequence) = self.sequences.get_mut(producer) {
            *sequence += put.rows.len() as i32;
        }
        if is_transactional {
            self.open[producer] = true;
        }
        let fate = if is_transactional { Fate::Open } else { Fate::Committed };
        for mut record in read(&BatchView::parse(&bytes).expect("one batch"), BYTES_MAX).expect("it was just built") {
            record.offset += base;
            self.model.insert(record.offset, Appended { record, fate, producer, batch: base, cleaned_ms: None });
        }
    }

    fn end(&mut self, producer: usize, is_commit: bool) {
        if !std::mem::take(&mut self.open[producer]) {
            return;
        }
        let marker = EndMarker { is_commit, coordinator_epoch: 3 };
        let end = TransactionEnd { producer_id: producer as i64, producer_epoch: 0, marker, transaction_version: 0 };
        self.log.get_mut().append_marker(&end, 0, NOW).expect("a working disk");
        let fate = if is_commit { Fate::Committed } else { Fate::Aborted };
        let ended = self.model.values_mut().filter(|it| it.fate == Fate::Open && it.producer == producer);
        ended.for_each(|it| it.fate = fate);
    }

    /// Fills the active segment with a key of its own.
    fn roll(&mut self) {
        let segments = self.log.get_mut().segment_count();
        let row = Row { key: 99, is_tombstone: false, time: 0, len: 120 };
        let put = Put { codec: 0, producer: 9, rows: vec![row] };
        while self.log.get_mut().segment_count() == segments {
            self.put(&put);
        }
    }

    fn reopen(&mut self, is_clean: bool) {
        let log = self.log.get_mut();
        if is_clean {
            log.close_clean().expect("a working disk");
        }
        let options = OpenOptions {
            recovery_point: log.recovery_point(),
            first_dirty_offset: log.first_dirty_offset().unwrap_or(0),
            clean_shutdown: is_clean,
            ..OpenOptions::default()
        };
        let before = (read_all(log, 700).expect("a sound log"), producers(log), log.first_open_transaction());
        *log = Log::open(self.dir.path(), self.config.clone(), options).unwrap_or_else(|error| panic!("{error}"));
        let after = (read_all(log, 700).expect("a sound log"), producers(log), log.first_open_transaction());
        assert_eq!(after, before);
    }

    /// Runs a pass. Returns what it did; `None` if there is nothing to compact.
    fn run(&mut self, keys_max: usize) -> Option<(i64, Result<Cleaned, CleanError>)> {
        let log = self.log.get_mut();
        log.flush().expect("a working disk");
        let end = log.log_end_offset();
        log.note_high_watermark(end);
        let stable = log.last_stable_offset(end);
        let plan = log.cleaning_plan(self.now_ms, stable).expect("a working disk")?;
        Some((stable, plan.run(&cleaner(keys_max), &self.log)))
    }

    fn pass(&mut self, keys_max: usize) {
        let before = read_all(self.log.get_mut(), 700).expect("a sound log");
        let Some((stable, cleaned)) = self.run(keys_max) else { return };
        let cleaned = cleaned.expect("a sound log");
        assert!(cleaned.end <= stable, "{cleaned:?} and the last stable offset {stable}");
        let after = read_all(self.log.get_mut(), 700).expect("a sound log");
        let from = |batches: &[Stored], offset| -> Vec<Stored> {
            batches.iter().filter(|batch| batch.base_offset >= offset).cloned().collect()
        };
        assert_eq!(from(&after, stable), from(&before, stable), "nothing that is not stable is touched");
        for it in self.model.values_mut().filter(|it| it.batch < cleaned.end) {
            it.cleaned_ms.get_or_insert(self.now_ms);
        }
        self.check(cleaned.end, &after);
        // A second pass at the same time has nothing to do for a reader.
        if keys_max == 0 {
            let found = self.records(&after);
            if let Some((_, again)) = self.run(0) {
                again.expect("a sound log");
                let again = read_all(self.log.get_mut(), 700).expect("a sound log");
                assert_eq!(self.records(&again), found);
            }
        }
    }

    /// Returns the records of batches, without markers.
    fn records(&self, batches: &[Stored]) -> Vec<OwnedRecord> {
        let parsed = batches.iter().map(|batch| BatchView::parse(&batch.bytes).expect("a whole batch"));
        let data = parsed.filter(|batch| !batch.is_control());
        data.flat_map(|batch| read(&batch, BYTES_MAX).expect("good records")).collect()
    }

    /// Compares a log with the model, after a pass up to `end`.
    fn check(&mut self, end: i64, batches: &[Stored]) {
        let found = self.records(batches);
        assert!(found.windows(2).all(|pair| pair[0].offset < pair[1].offset), "out of order");
        for record in &found {
            assert_eq!(
                self.model.get(&record.offset).map(|it| &it.record),
                Some(record),
                "no such record was appended"
            );
        }
        let aborted = self.aborted(batches);
        let is_seen = |record: &&OwnedRecord| !aborted.contains(&record.offset);
        for record in &found {
            let fate = self.model[&record.offset].fate;
            assert_eq!(aborted.contains(&record.offset), fate == Fate::Aborted, "{fate:?}: {record:?}");
        }
        let last = |records: &mut dyn Iterator<Item = &OwnedRecord>| -> HashMap<Vec<u8>, OwnedRecord> {
            records.map(|record| (record.key.clone().expect("a key"), record.clone())).collect()
        };
        let found_last = last(&mut found.iter().filter(is_seen));
        let expected = last(&mut self.model.values().filter(|it| it.fate != Fate::Aborted).map(|it| &it.record));
        for (key, record) in &expected {
            match found_last.get(key) {
                Some(found) => assert_eq!(found, record),
                None => {
                    assert_eq!(record.value, None, "the last value of {key:?} is missing");
                    let cleaned_ms = self.model[&record.offset].cleaned_ms.expect("only a pass removes a tombstone");
                    let left_ms = cleaned_ms + RETENTION - self.now_ms;
                    assert!(left_ms <= 0, "a tombstone went {left_ms} ms too early");
                }
            }
        }
        let mut keys = HashSet::new();
        for record in found.iter().filter(|record| record.offset < end) {
            assert!(keys.insert(&record.key), "a key is there twice below {end}: {record:?}");
        }
    }

    /// Returns the offsets of the records that a reader of committed records leaves out, as a client computes them.
    fn aborted(&mut self, batches: &[Stored]) -> HashSet<i64> {
        let log = self.log.get_mut();
        let (mut aborted, mut offsets) = (HashSet::new(), HashSet::new());
        for batch in batches {
            let slice = log.read(batch.base_offset, 1, i64::MAX, true).expect("a sound log").expect("a batch");
            let listed = log.reader().aborted_transactions(&slice).expect("a sound index");
            let view = BatchView::parse(&batch.bytes).expect("a whole batch");
            if view.is_control() {
                continue;
            }
            aborted.clear();
            aborted.extend(listed.iter().filter(|it| it.first_offset <= view.last_offset()).map(|it| it.producer_id));
            if view.is_transactional() && aborted.contains(&view.producer_id()) {
                offsets.extend(read(&view, BYTES_MAX).expect("good records").iter().map(|record| record.offset));
            }
        }
        offsets
    }
}

/// Returns what a stop must not change of the producers: id, epoch, last sequence, and the start of a transaction.
fn producers(log: &Log) -> Vec<(i64, i16, i32, Option<i64>)> {
    let states = log.producers().into_iter();
    states.map(|it| (it.producer_id, it.epoch, it.last_sequence, it.transaction_start)).collect()
}

#[test]
fn a_reader_finds_the_last_value_of_each_key() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(1 << 14).with_type().for_each(|story: &Story| {
        let mut world = World::new(story);
        story.steps.iter().for_each(|step| world.step(step));
        world.roll();
        world.pass(0);
        world.reopen(false);
    });
}
