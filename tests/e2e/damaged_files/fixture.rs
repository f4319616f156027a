//! Data folders of a real broker: after a kill, after a clean stop, and before the last writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_tests::{Broker, BrokerBuilder, copy_folder, wait_until};
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Str};
use rustix::process::Signal;
use tempfile::TempDir;

use super::PATIENCE;
use super::seen::{GROUP, Known, Seen};
use crate::support::{Protocol, Raw, Topic, TransactionalProducer, now_ms};

/// The segments that [`write`] fills before the folder is copied as the stale one.
const EARLY: i64 = 2;
/// All segments that it fills.
const ALL: i64 = 3;

/// The milliseconds between two segments. Each topic rolls after a second.
const APART_MS: i64 = 10_000;

/// An idempotent producer with its next sequence.
pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) epoch: i16,
    pub(super) next: i32,
    /// The first sequence and the offset of each batch.
    pub(super) sent: Vec<(i32, i64)>,
}

impl Producer {
    fn init(raw: &mut Raw) -> Self {
        let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
        let made = wait_until("a producer id", PATIENCE, || {
            let made = raw.call(4, &request);
            (!made.error_code.retriable()).then_some(made)
        });
        assert_eq!(made.error_code, ErrorCode::NONE);
        Self { id: made.producer_id, epoch: made.producer_epoch, next: 0, sent: Vec::new() }
    }
}

/// What a broker has left, how it ended, and what was seen before.
pub(super) struct Ended {
    pub(super) folder: PathBuf,
    pub(super) is_clean: bool,
    /// What a start on a sound copy shows.
    pub(super) seen: Seen,
}

/// A broker with all kinds of files, and copies of its data folder.
pub(super) struct Fixture {
    root: TempDir,
    pub(super) known: Known,
    /// The producer of the first topic.
    pub(super) producer: Producer,
    pub(super) killed: Ended,
    pub(super) stopped: Ended,
}

/// The folders, made once for all tests.
pub(super) static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::make);

/// Returns a broker with few internal partitions and a small reserve, so that its folder is copied quickly.
pub(super) fn builder(folder: &Path) -> BrokerBuilder {
    let few = ["offsets.topic.num.partitions", "transaction.state.log.num.partitions"];
    let broker = Broker::builder().folder(folder).set("disk.reserve.bytes", "65536");
    few.iter().fold(broker, |broker, key| broker.set(key, "1"))
}

/// Returns a folder in memory where possible: each start waits for the disk.
pub(super) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// Returns records with a time each.
fn records(values: &[(i64, String)]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for (time, value) in values {
        builder.append(*time, None, Some(value.as_bytes()), []).expect("room");
    }
    builder
}

/// Fills one segment: plain batches, those of an idempotent producer, an aborted and a committed transaction.
fn write(raw: &mut Raw, topic: &Topic, from_ms: i64, producer: &mut Producer, other: &mut TransactionalProducer) {
    let name = topic.name.to_string();
    let values =
        |what: &str, at: i64| [0, 1].map(|record| (from_ms + at * 10 + record, format!("{name} {what} {at} {record}")));
    for at in 0..6 {
        topic.produce(raw, records(&values("plain", at)).build().expect("a batch"));
    }
    for at in 6..9 {
        let mut batch = records(&values("idempotent", at));
        batch.producer(producer.id, producer.epoch, producer.next);
        let offset = topic.produce(raw, batch.build().expect("a batch"));
        producer.sent.push((producer.next, offset));
        producer.next += 2;
    }
    // The outcomes differ between the topics, and between the segments.
    let first = (from_ms / APART_MS + i64::try_from(name.len()).expect("short")) % 2 == 0;
    for (at, committed) in [(9, first), (10, !first)] {
        let what = if committed { "committed" } else { "aborted" };
        other.produce(raw, topic, records(&values(what, at)));
        other.end(committed);
    }
}

/// Writes values of five keys to a segment of the compacted topic.
fn write_keys(raw: &mut Raw, topic: &Topic, from_ms: i64) {
    for at in 0..20 {
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        let (key, value) = (format!("key {}", at % 5), format!("value {from_ms} {at}"));
        batch.append(from_ms + at, Some(key.as_bytes()), Some(value.as_bytes()), []).expect("room");
        topic.produce(raw, batch.build().expect("a batch"));
    }
}

fn delete_records(raw: &mut Raw, topic: &Topic, offset: i64) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: topic.name.clone(), partitions }];
    let response = raw.call(2, &DeleteRecordsRequest { topics, timeout_ms: 30_000 });
    assert_eq!(response.topics[0].partitions[0].low_watermark, offset);
}

fn commit(raw: &mut Raw, topic: &Topic, offset: i64) {
    let partition = OffsetCommitRequestPartition {
        committed_offset: offset,
        committed_metadata: Some(Str::EMPTY),
        ..Default::default()
    };
    let topics =
        vec![OffsetCommitRequestTopic { name: topic.name.clone(), partitions: vec![partition], ..Default::default() }];
    let request =
        OffsetCommitRequest { group_id: GROUP.into(), generation_id_or_member_epoch: -1, topics, ..Default::default() };
    wait_until("the coordinator", PATIENCE, || {
        raw.call(3, &FindCoordinatorRequest { key: GROUP.into(), ..Default::default() });
        let code = raw.call(8, &request).topics[0].partitions[0].error_code;
        assert!(code.is_ok() || code.retriable(), "{code}");
        code.is_ok().then_some(())
    });
}

impl Fixture {
    fn make() -> Self {
        let root = folder();
        let place = |name: &str| root.path().join(name);
        let mut broker = builder(&place("data")).set("log.cleaner.backoff.ms", "20").start();
        let mut raw = Raw::connect(&broker);
        let rolling = [("segment.ms", "1000"), ("index.interval.bytes", "200")];
        let topics = ["topic", "others"].map(|name| Topic::create(&mut raw, name, 1, &rolling));
        let configs = [rolling[0], rolling[1], ("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01")];
        let compacted = Topic::create(&mut raw, "compacted", 1, &configs);
        let mut producers = topics.each_ref().map(|_| Producer::init(&mut raw));
        // Markers have the current time, and must not roll a segment.
        let begin = (now_ms() / APART_MS + 2) * APART_MS;
        for segment in 0..ALL {
            let from_ms = begin + segment * APART_MS;
            let mut raw = Raw::connect(&broker);
            let coordinator = Raw::connect(&broker);
            let mut other = TransactionalProducer::init(coordinator, "transactional", Protocol::Newer);
            for (topic, producer) in topics.iter().zip(&mut producers) {
                write(&mut raw, topic, from_ms, producer, &mut other);
                delete_records(&mut raw, topic, 3 + segment);
                commit(&mut raw, topic, 7 + segment);
            }
            write_keys(&mut raw, &compacted, from_ms);
            if segment == 0 {
                // The next epoch.
                broker.kill();
                broker.restart();
            } else if segment + 1 == EARLY {
                let size = |broker: &Broker| {
                    fs::metadata(broker.folder().join("compacted-0/00000000000000000000.log")).map(|file| file.len())
                };
                wait_until("a compaction", PATIENCE, || size(&broker).is_ok_and(|size| size < 700).then_some(()));
                broker.stop(Signal::TERM);
                copy_folder(broker.folder(), &place("stale"));
                broker.restart();
            }
        }
        broker.kill();
        copy_folder(broker.folder(), &place("killed"));
        broker.restart();
        broker.stop(Signal::TERM);
        copy_folder(broker.folder(), &place("stopped"));
        drop(builder(&place("foreign")).start());
        let known = Known { topics, compacted };
        let ended = |name: &str, is_clean| {
            let sound = folder();
            copy_folder(&place(name), sound.path());
            let broker = builder(sound.path()).start();
            let seen = Seen::of(&mut Raw::connect(&broker), &known);
            Ended { folder: place(name), is_clean, seen }
        };
        let (killed, stopped) = (ended("killed", false), ended("stopped", true));
        let [producer, _] = producers;
        Self { root, known, producer, killed, stopped }
    }

    /// Returns the folder before the last writes.
    pub(super) fn stale(&self) -> PathBuf {
        self.root.path().join("stale")
    }

    /// Returns the path of the same file of another topic, or of another broker.
    pub(super) fn foreign(&self, data: &Path, file: &Path) -> PathBuf {
        let name = file.file_name().expect("a name");
        match file.parent().and_then(Path::to_str).unwrap_or_default() {
            "" => self.root.path().join("foreign").join(name),
            "topic-0" => data.join("others-0").join(name),
            _ => data.join("topic-0").join(name),
        }
    }
}
