//! The recovery of a log: any appends, then any damage to its files, then an open.
//!
//! | Damage | What is checked |
//! |---|---|
//! | to caches | the log is what it was: batches, producers, transactions, epochs, times |
//! | to the end, beyond what was synced | the log is the whole batches before it, and what follows from them |
//! | anywhere | a rejected log names its file and keeps it; else no read returns other bytes than were written |

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use bolero::{TypeGenerator, produce};
use millstream_log::{
    AbortedTransaction, AppendError, AppendOrigin, EpochEntry, Log, LogConfig, LogError, OpenOptions, ProducerState,
    ReadError, TransactionEnd, Verification,
};
use millstream_record::{BatchBuilder, CheckedBatch, Codec, EndMarker, TimestampType, batches};
use tempfile::TempDir;

use crate::TEST_TIME;
use crate::damage::{Damage, damaged};
use crate::folder::{Files, Stored, files, read_all, tempdir, with_suffix};
use crate::records::NOW;

/// A log that is written to, and then stopped.
#[derive(Clone, Debug, TypeGenerator)]
struct Story {
    #[generator(200..4000u32)]
    segment_bytes: u32,
    #[generator(1..600u32)]
    index_interval_bytes: u32,
    preallocate: bool,
    #[generator(produce::<Vec<Step>>().with().len(1..60usize))]
    steps: Vec<Step>,
}

#[derive(Clone, Debug, TypeGenerator)]
enum Step {
    Append(Append),
    /// As often as the others together, so that logs get long.
    AppendToo(Append),
    AppendAgain(Append),
    /// Ends the transaction of a producer, if one is open.
    End {
        #[generator(0..3u8)]
        producer: u8,
        is_commit: bool,
    },
    /// Waits for the disk.
    Sync,
    /// Another leader is elected.
    Elect,
    /// Deletes records up to a part of the log.
    Delete {
        #[generator(0..100u8)]
        percent: u8,
    },
    /// Removes a part of the end, as a follower does.
    Truncate {
        #[generator(80..100u8)]
        percent: u8,
    },
}

#[derive(Clone, Debug, TypeGenerator)]
struct Append {
    #[generator(1..5usize)]
    records: usize,
    #[generator(0..5usize)]
    codec: usize,
    #[generator(0..200usize)]
    value_len: usize,
    #[generator(-30..30i64)]
    time: i64,
    /// Producers 0 to 2 write transactions, 3 and 4 are idempotent, and others are neither.
    #[generator(0..8u8)]
    producer: u8,
}

/// A log after its story.
struct World {
    config: LogConfig,
    log: Log,
    /// The next sequence of each producer.
    sequences: [i32; 5],
    open: [bool; 3],
    epoch: i32,
    clock: i64,
}

impl World {
    fn of(story: &Story, dir: &Path) -> Self {
        let config = LogConfig {
            segment_bytes: story.segment_bytes,
            index_interval_bytes: story.index_interval_bytes,
            preallocate: story.preallocate,
            ..LogConfig::default()
        };
        let log = Log::open(dir, config.clone(), OpenOptions::default()).expect("a new folder");
        let mut world = Self { config, log, sequences: [0; 5], open: [false; 3], epoch: 0, clock: NOW };
        story.steps.iter().for_each(|step| world.step(step));
        world
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append(append) | Step::AppendToo(append) | Step::AppendAgain(append) => self.append(append),
            Step::End { producer, is_commit } => self.end(usize::from(*producer), *is_commit),
            Step::Sync => {
                self.log.flush().expect("a working disk");
            }
            Step::Elect => self.epoch += 1,
            Step::Delete { percent } => {
                let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
                self.log.delete_records(start + (end - start) * i64::from(*percent) / 100).expect("a working disk");
            }
            Step::Truncate { percent } => {
                let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
                self.log.truncate_to(start + (end - start) * i64::from(*percent) / 100).expect("a working disk");
                // The sequences and transactions of the batches that are gone.
                self.sequences = [0; 5];
                self.open = [false; 3];
                for state in self.log.producers() {
                    let producer = state.producer_id as usize;
                    self.sequences[producer] = state.last_sequence + 1;
                    if let Some(open) = self.open.get_mut(producer) {
                        *open = state.transaction_start.is_some();
                    }
                }
            }
        }
    }

    fn append(&mut self, append: &Append) {
        let mut batch = BatchBuilder::new(Codec::ALL[append.codec], TimestampType::CreateTime);
        let producer = usize::from(append.producer);
        if let Some(sequence) = self.sequences.get_mut(producer) {
            batch.producer(producer as i64, 0, *sequence).transactional(producer < self.open.len());
            *sequence += append.records as i32;
        }
        self.clock += append.time.max(0);
        for record in 0..append.records {
            let value = vec![record as u8; append.value_len];
            batch.append(self.clock + append.time.min(0), Some(b"key"), Some(&value), []).expect("it fits");
        }
        let bytes = batch.build().expect("it fits");
        let origin = AppendOrigin::Client(Verification::Disabled);
        let checked = CheckedBatch::of_own(&bytes).expect("one batch");
        match self.log.append_of(&checked, self.epoch, self.clock, origin) {
            Ok(_) => {
                if let Some(open) = self.open.get_mut(producer) {
                    *open = true;
                }
            }
            Err(AppendError::LargerThanSegment { .. }) => {
                if let Some(sequence) = self.sequences.get_mut(producer) {
                    *sequence -= append.records as i32;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn end(&mut self, producer: usize, is_commit: bool) {
        if std::mem::take(&mut self.open[producer]) {
            let marker = EndMarker { is_commit, coordinator_epoch: 3 };
            let end =
                TransactionEnd { producer_id: producer as i64, producer_epoch: 0, marker, transaction_version: 0 };
            self.log.append_marker(&end, self.epoch, self.clock).expect("a working disk");
        }
    }
}

/// All that a client can learn of a log.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    end: i64,
    batches: Vec<Stored>,
    by_time: Vec<Option<(i64, i64)>>,
    epochs: Vec<EpochEntry>,
    producers: Vec<ProducerState>,
    first_open_transaction: Option<i64>,
    aborted: BTreeMap<i64, AbortedTransaction>,
}

impl Seen {
    fn of(log: &Log, clock: i64) -> Result<Self, ReadError> {
        let batches = read_all(log, 900)?;
        let mut aborted = BTreeMap::new();
        for batch in &batches {
            let slice = log.read(batch.base_offset.max(log.log_start_offset()), 1, i64::MAX, true)?;
            let found = log.reader().aborted_transactions(&slice.expect("a batch is there"))?;
            aborted.extend(found.into_iter().map(|found| (found.last_offset, found)));
        }
        let by_time = |part| {
            let found = log.offset_for_timestamp(NOW - 40 + (clock - NOW + 80) * part / 11)?;
            Ok(found.map(|found| (found.offset, found.timestamp)))
        };
        Ok(Self {
            end: log.log_end_offset(),
            batches,
            by_time: (0..12).map(by_time).collect::<Result<_, ReadError>>()?,
            epochs: log.epochs().to_vec(),
            producers: log.producers(),
            first_open_transaction: log.first_open_transaction(),
            aborted,
        })
    }

    /// Returns what follows from batches alone.
    fn from_batches(batches: &[Stored], start: i64, clock: i64) -> Self {
        let dir = tempdir();
        let mut log = Log::open(dir.path(), LogConfig::default(), OpenOptions::default()).expect("a new folder");
        if let Some(first) = batches.first() {
            log.restart_at(first.base_offset).expect("a working disk");
            let bytes: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes.clone()).collect();
            log.append_as_follower(&bytes, i32::MAX).expect("they were in a log");
            log.delete_records(start).expect("a working disk");
        }
        Self::of(&log, clock).expect("a sound log")
    }

    /// Leaves out what deleted batches have left.
    fn without_deleted(mut self) -> Self {
        (self.epochs, self.producers, self.first_open_transaction) = (Vec::new(), Vec::new(), None);
        self.aborted.clear();
        self
    }
}

/// A log that was stopped, with what it was.
struct Stopped {
    dir: TempDir,
    config: LogConfig,
    options: OpenOptions,
    clock: i64,
    seen: Seen,
}

impl Stopped {
    /// Plays a story and stops the log: in order, or by a kill.
    fn after(story: &Story, is_clean: bool) -> Self {
        let dir = tempdir();
        let mut world = World::of(story, dir.path());
        if is_clean {
            world.log.close_clean().expect("a working disk");
        }
        let World { log, config, clock, .. } = world;
        let options = OpenOptions {
            recovery_point: log.recovery_point(),
            log_start_offset: log.log_start_offset(),
            clean_shutdown: is_clean,
            ..OpenOptions::default()
        };
        let seen = Seen::of(&log, clock).expect("a sound log");
        drop(log);
        Self { dir, config, options, clock, seen }
    }

    fn open(&self) -> Result<Log, LogError> {
        Log::open(self.dir.path(), self.config.clone(), self.options)
    }

    fn has_deleted(&self) -> bool {
        self.options.log_start_offset > 0
    }

    /// Opens the log, checks that it is as expected, and goes on with it.
    fn check(&self, expected: Seen) {
        let left_out = |seen: Seen| if self.has_deleted() { seen.without_deleted() } else { seen };
        let mut log = self.open().unwrap_or_else(|error| panic!("{error}"));
        let expected = left_out(expected);
        assert_eq!(left_out(Seen::of(&log, self.clock).expect("a sound log")), expected);
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.append(self.clock, Some(b"key"), Some(b"goes on"), []).expect("it fits");
        let bytes = batch.build().expect("it fits");
        let checked = CheckedBatch::of_own(&bytes).expect("one batch");
        log.append(&checked, i32::MAX, self.clock).expect("a working disk");
        let end = log.close_clean().expect("a working disk");
        let seen = left_out(Seen::of(&log, self.clock).expect("a sound log"));
        assert_eq!((seen.end, &seen.batches[..seen.batches.len() - 1]), (expected.end + 1, &expected.batches[..]));
        drop(log);
        let options = OpenOptions { recovery_point: end, clean_shutdown: true, ..self.options };
        let log = Log::open(self.dir.path(), self.config.clone(), options).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(left_out(Seen::of(&log, self.clock).expect("a sound log")), seen);
    }
}

/// Damage to a file, or its loss.
#[derive(Clone, Debug, TypeGenerator)]
struct FileDamage {
    file: u8,
    is_lost: bool,
    #[generator(produce::<Vec<Damage>>().with().len(1..4usize))]
    damages: Vec<Damage>,
}

impl FileDamage {
    /// Damages one of some files.
    fn apply(&self, dir: &Path, files: &Files) {
        let Some((name, content)) = files.iter().nth(usize::from(self.file) % files.len().max(1)) else { return };
        let path = dir.join(name);
        match self.is_lost {
            true => fs::remove_file(path).unwrap_or_default(),
            false => fs::write(path, damaged(content, &self.damages)).expect("a writable folder"),
        }
    }
}

#[derive(Clone, Debug, TypeGenerator)]
struct DamagedCaches {
    story: Story,
    is_clean: bool,
    has_no_checkpoint: bool,
    #[generator(produce::<Vec<FileDamage>>().with().len(0..4usize))]
    damages: Vec<FileDamage>,
}

#[test]
fn a_log_with_damaged_caches_comes_back_whole() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(1 << 14).with_type().for_each(|input: &DamagedCaches| {
        let mut stopped = Stopped::after(&input.story, input.is_clean);
        if input.has_no_checkpoint && !input.is_clean {
            stopped.options.recovery_point = 0;
        }
        let mut caches = files(stopped.dir.path());
        caches.retain(|name, _| match name.rsplit_once('.').map(|(_, suffix)| suffix) {
            Some("index" | "timeindex" | "snapshot") => true,
            // Made again by a scan.
            Some("txnindex") => stopped.options.recovery_point == 0 && !input.is_clean,
            _ => name == "leader-epoch-checkpoint" && !input.is_clean,
        });
        input.damages.iter().for_each(|damage| damage.apply(stopped.dir.path(), &caches));
        stopped.check(stopped.seen.clone());
    });
}

/// The end of a log after a crash.
#[derive(Clone, Debug, TypeGenerator)]
struct TornEnd {
    story: Story,
    /// Where the damage begins, between what was synced and the end.
    at: u16,
    tail: Tail,
    has_no_checkpoint: bool,
    /// Whether the log was rolled, and the new segment has nothing yet. A segment that was synced has no torn end.
    is_rolled: bool,
}

#[derive(Clone, Debug, TypeGenerator)]
enum Tail {
    /// The file ends there.
    Cut,
    /// The file was extended, and its bytes did not reach the disk.
    Zeros {
        #[generator(0..6000usize)]
        more: usize,
    },
    /// Other bytes are there.
    Garbage {
        #[generator(produce::<Vec<u8>>().with().len(0..300usize))]
        bytes: Vec<u8>,
    },
}

#[test]
fn a_torn_end_is_cut_off_and_nothing_else() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(1 << 14).with_type().for_each(|input: &TornEnd| {
        let mut stopped = Stopped::after(&input.story, false);
        let synced = stopped.options.recovery_point;
        if input.has_no_checkpoint {
            stopped.options.recovery_point = 0;
        }
        let logs = with_suffix(&files(stopped.dir.path()), "log");
        let (name, content) = logs.last_key_value().expect("a log has a segment");
        let (base, batches) = (base_of(name), stored(content));
        let size: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
        let kept: usize =
            batches.iter().take_while(|batch| batch.base_offset < synced).map(|batch| batch.bytes.len()).sum();
        let at = kept + usize::from(input.at) % (size - kept + 1);
        let mut torn = content[..at].to_vec();
        match &input.tail {
            Tail::Cut => {}
            Tail::Zeros { more } => torn.resize(content.len() + more, 0),
            Tail::Garbage { bytes } => torn.extend(bytes),
        }
        fs::write(stopped.dir.path().join(name), &torn).expect("a writable folder");
        // Bytes that were zeros before are still whole.
        let whole = batches.iter().scan(0, |end, batch| {
            let start = *end;
            *end += batch.bytes.len();
            (torn.get(start..*end) == Some(&batch.bytes[..])).then_some(batch)
        });
        let end = whole.last().map_or(base, |last| last.next_offset);
        if input.is_rolled && end > base && stopped.options.recovery_point < end {
            fs::write(stopped.dir.path().join(format!("{end:020}.log")), []).expect("a writable folder");
        }
        let start = stopped.options.log_start_offset;
        let left: Vec<Stored> = stopped.seen.batches.iter().filter(|it| it.next_offset <= end).cloned().collect();
        let mut expected = Seen::from_batches(&left, start, stopped.clock);
        expected.end = end.max(start);
        stopped.check(expected);
    });
}

/// Any damage to any file.
#[derive(Clone, Debug, TypeGenerator)]
struct DamagedAnywhere {
    story: Story,
    is_clean: bool,
    has_no_checkpoint: bool,
    #[generator(produce::<Vec<FileDamage>>().with().len(1..4usize))]
    damages: Vec<FileDamage>,
    /// Whether only segments are damaged.
    is_in_segments: bool,
}

#[test]
fn a_damaged_log_is_rejected_unchanged_or_returns_only_what_was_written() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(1 << 14).with_type().for_each(|input: &DamagedAnywhere| {
        let mut stopped = Stopped::after(&input.story, input.is_clean);
        if input.has_no_checkpoint && !input.is_clean {
            stopped.options.recovery_point = 0;
        }
        let dir = stopped.dir.path();
        let mut all = files(dir);
        // The CRC does not cover what stands before it, and the last batch has none after it to compare with.
        let content = |batch: &Stored| batch.bytes[16..].to_vec();
        let written: HashSet<Vec<u8>> = with_suffix(&all, "log")
            .values()
            .flat_map(|segment| stored(segment))
            .map(|batch| content(&batch))
            .collect();
        if input.is_in_segments {
            all = with_suffix(&all, "log");
        }
        input.damages.iter().for_each(|damage| damage.apply(dir, &all));
        let kept = |files: &Files| ["log", "snapshot", "txnindex"].map(|suffix| with_suffix(files, suffix));
        let before = files(dir);
        match stopped.open() {
            Err(error) => {
                assert!(error.to_string().contains(dir.to_str().expect("a plain path")), "{error}");
                assert!(kept(&files(dir)) == kept(&before), "a rejected log was changed: {error}");
            }
            Ok(log) => {
                let mut offset = log.log_start_offset();
                while let Ok(Some(slice)) = log.read(offset, 700, i64::MAX, true) {
                    if slice.verify().is_err() {
                        break;
                    }
                    let bytes = slice.read_to_bytes().expect("the file can be read");
                    for batch in stored(&bytes) {
                        assert!(written.contains(&content(&batch)), "a batch that was not written: {batch:?}");
                        assert!(batch.next_offset > offset, "a read goes on");
                        offset = batch.next_offset;
                    }
                }
                let _ = (log.offset_for_timestamp(stopped.clock), log.offset_for_max_timestamp());
            }
        }
    });
}

/// Returns the first offset that a segment's file may hold.
fn base_of(name: &str) -> i64 {
    name.split_once('.').and_then(|(digits, _)| digits.parse().ok()).expect("the name of a segment")
}

/// Returns the whole batches at the start of some bytes.
fn stored(bytes: &[u8]) -> Vec<Stored> {
    let whole = batches(bytes).map_while(Result::ok);
    whole
        .map(|batch| Stored {
            base_offset: batch.base_offset(),
            next_offset: batch.next_offset(),
            bytes: batch.bytes().to_vec(),
        })
        .collect()
}
