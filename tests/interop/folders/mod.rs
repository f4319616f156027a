//! Partition folders that move between Apache Kafka 4.2 and our broker, both ways: the records, the isolation levels,
//! the leader epochs and the compaction go on where the other broker left them.

mod bytes;
mod load;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_tests::{Broker, KafkaNode, files, move_partitions, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use rustix::process::Signal;

use self::load::{Load, Row, Seen, see};
use crate::java::{DUMP_LOG_SEGMENTS, KAFKA_42_CLASSPATH, Tools};
use crate::support::{Raw, Topic, alter};

const PATIENCE: Duration = Duration::from_secs(120);

/// A lag that no record reaches: nothing is compacted.
const NEVER: &str = "9000000000000000000";

/// The topics of the tests, each with one partition.
const TOPICS: [&str; 5] = ["plain", "compacted", "both", "transactions", "table"];

/// Those that are compacted.
const COMPACTED: [&str; 3] = ["compacted", "both", "table"];

/// The offset below which the records of `plain` are deleted: it lies within a segment.
const DELETED_BELOW: i64 = 33;

/// Configs of a broker of either kind, so that it compacts at once.
const QUICK: [(&str, &str); 3] = [
    ("log.cleaner.backoff.ms", "100"),
    ("log.cleaner.min.cleanable.ratio", "0.01"),
    ("log.cleaner.dedupe.buffer.size", "4194304"),
];

/// A test by its name.
type Test = (&'static str, fn(&Tools));

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [Test; 3] = [
        ("folders::of_kafka_go_on_here", of_kafka_go_on_here),
        ("folders::of_ours_go_on_in_kafka", of_ours_go_on_in_kafka),
        ("folders::both_compact_to_the_same_records", bytes::both_compact_to_the_same_records),
    ];
    let trial =
        |(name, test): Test| crate::trial(name, KAFKA_42_CLASSPATH, move |classpath| test(&Tools::v4_2(classpath)));
    tests.into_iter().map(trial).collect()
}

/// Runs clients to their end.
fn run<T>(clients: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(clients)
}

fn kafka(tools: &Tools) -> KafkaNode {
    KafkaNode::start_release(tools.classpath(), &[], &QUICK)
}

fn ours() -> Broker {
    QUICK.iter().fold(Broker::builder(), |builder, (key, value)| builder.set(key, value)).start()
}

/// Creates the topics with small segments. `lag` is how long nothing is compacted.
fn create(address: SocketAddr, lag: &str) {
    let mut raw = Raw::to(address);
    for name in TOPICS {
        let mut configs = vec![("internal.segment.bytes", "6000"), ("index.interval.bytes", "500")];
        match name {
            "both" => configs.extend([("cleanup.policy", "compact,delete"), ("delete.retention.ms", "100")]),
            name if COMPACTED.contains(&name) => configs.push(("cleanup.policy", "compact")),
            _ => {}
        }
        if COMPACTED.contains(&name) {
            configs.push(("min.compaction.lag.ms", lag));
        }
        let topic = Topic::create(&mut raw, name, 1, &configs);
        served(&mut raw, &topic);
    }
}

fn served(raw: &mut Raw, topic: &Topic) {
    wait_until("the partition", PATIENCE, || topic.offset_for(raw, 0, -1).error_code.is_ok().then_some(()));
}

/// Waits until a broker that has started again serves all topics.
fn all_served(address: SocketAddr) {
    let mut raw = Raw::to(address);
    for name in TOPICS {
        served(&mut raw, &Topic { name: name.into(), id: uuid::Uuid::nil() });
    }
}

/// Lets compaction begin, or keeps it from beginning.
fn set_lag(address: SocketAddr, lag: &str) {
    let mut raw = Raw::to(address);
    for name in COMPACTED {
        let changed = alter(&mut raw, name, &[("min.compaction.lag.ms", Some(lag))]);
        assert_eq!(changed.0, ErrorCode::NONE, "{}", changed.1);
    }
}

fn delete_records(address: SocketAddr) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: DELETED_BELOW }];
    let topics = vec![DeleteRecordsTopic { name: "plain".into(), partitions }];
    let response = Raw::to(address).call(2, &DeleteRecordsRequest { topics, timeout_ms: 30_000 });
    let found = &response.topics[0].partitions[0];
    assert_eq!((found.error_code, found.low_watermark), (ErrorCode::NONE, DELETED_BELOW));
}

/// Returns the first offset of each log that is not compacted, by the checkpoint of a data folder.
fn checkpoint(data: &Path) -> BTreeMap<String, i64> {
    let text = fs::read_to_string(data.join("cleaner-offset-checkpoint")).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (topic, _, offset) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        Some((topic.to_owned(), offset))
    };
    text.lines().filter_map(line).collect()
}

/// Waits until the compacted topics are compacted up to these offsets, or further.
fn compacted_to(data: &Path, offsets: &BTreeMap<String, i64>) {
    let is_there = |found: &BTreeMap<String, i64>| {
        COMPACTED.iter().all(|name| found.get(*name).copied().unwrap_or(0) >= offsets[*name])
    };
    wait_until("compaction", PATIENCE, || is_there(&checkpoint(data)).then_some(()));
}

/// Returns the start of the last segment of each compacted topic.
fn active_segments(data: &Path) -> BTreeMap<String, i64> {
    let start = |name: &&str| {
        let last = logs(&data.join(format!("{name}-0"))).pop().expect("a segment");
        (name.to_string(), last.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).expect("an offset"))
    };
    COMPACTED.iter().map(start).collect()
}

/// Returns the topics in which Kafka may miss records by time. It takes the time of a file for that of the newest
/// record where a time index is empty, as in a compacted segment without records, and searches no later segment.
fn blind_to_times(data: &Path) -> Vec<String> {
    let has_times = |log: &PathBuf| fs::metadata(log.with_extension("timeindex")).is_ok_and(|index| index.len() > 0);
    let is_blind = |topic: &&&str| {
        let segments = logs(&data.join(format!("{topic}-0")));
        !segments[..segments.len() - 1].iter().all(has_times)
    };
    COMPACTED.iter().filter(is_blind).map(|topic| (*topic).to_owned()).collect()
}

/// Returns the log files of a partition's folder.
fn logs(folder: &Path) -> Vec<PathBuf> {
    files(folder).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect()
}

/// Returns the folders of all partitions of the test.
fn folders() -> Vec<String> {
    TOPICS.iter().map(|name| format!("{name}-0")).collect()
}

/// Returns what readers see of a broker that compacts nothing any more.
fn see_all(bootstrap: &str) -> BTreeMap<&'static str, Seen> {
    let see_once = || TOPICS.map(|name| (name, run(see(bootstrap, name)))).into_iter().collect();
    let mut before: BTreeMap<_, _> = see_once();
    // A pass may have been under way.
    wait_until("the end of the last pass", PATIENCE, || {
        let now = see_once();
        let is_same = now == before;
        before = now;
        is_same.then_some(())
    });
    before
}

/// Checks that each key has its last value, and that a compacted topic has fewer records than were written.
fn check_values(load: &Load, seen: &BTreeMap<&'static str, Seen>) {
    for (name, wanted) in load.last_values() {
        let found: BTreeMap<String, Row> =
            seen[name].committed.iter().map(|row| (row.key.clone().expect("a key"), row.clone())).collect();
        let found: BTreeMap<&str, &str> =
            found.values().filter_map(|row| Some((row.key.as_deref()?, row.value.as_deref()?))).collect();
        let wanted = wanted.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, wanted, "{name}");
        let rows = seen[name].all.len();
        assert!(rows < load.written(name) * 3 / 4, "{name}: {rows} of {}", load.written(name));
    }
}

/// Lets Kafka check every file of the moved partitions.
fn dump(tools: &Tools, data: &Path) {
    let all: Vec<PathBuf> = folders().iter().flat_map(|folder| files(&data.join(folder))).collect();
    let kinds = [
        ("log", "--deep-iteration"),
        ("index", "--index-sanity-check"),
        ("timeindex", "--index-sanity-check"),
        ("txnindex", "--print-data-log"),
        ("snapshot", "--print-data-log"),
    ];
    for (kind, how) in kinds {
        let of_kind = all.iter().filter(|path| path.extension().is_some_and(|extension| extension == kind));
        let names: Vec<String> = of_kind.map(|path| path.display().to_string()).collect();
        assert!(!names.is_empty(), "there are files of every kind, such as .{kind}");
        let dumped = tools.tool(DUMP_LOG_SEGMENTS).arg(how).arg("--files").arg(names.join(",")).succeed();
        for word in ["isvalid: false", "Mismatches", "corrupt", "Exception"] {
            assert!(!dumped.contains(word), "{word} in: {dumped}");
        }
    }
}

fn of_kafka_go_on_here(tools: &Tools) {
    let mut theirs = kafka(tools);
    let mut broker = ours();
    create(theirs.address(), "0");
    let mut load = Load::default();
    run(load.write(&theirs.bootstrap(), 300));
    // The leader has a later epoch after each start.
    theirs.stop();
    theirs.restart();
    all_served(theirs.address());
    run(load.write(&theirs.bootstrap(), 300));
    delete_records(theirs.address());
    compacted_to(&theirs.data(), &active_segments(&theirs.data()));
    set_lag(theirs.address(), NEVER);
    let before = see_all(&theirs.bootstrap());
    check_values(&load, &before);
    theirs.stop();

    create(broker.address(), NEVER);
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    move_partitions(&theirs.data(), broker.folder(), &folders());
    let epochs = fs::read_to_string(broker.folder().join("plain-0/leader-epoch-checkpoint")).expect("epochs");
    assert!(epochs.lines().count() > 3, "there are several leader epochs: {epochs}");
    broker.restart();
    assert_eq!(see_all(&broker.bootstrap()), before);

    run(load.write(&broker.bootstrap(), 300));
    set_lag(broker.address(), "0");
    compacted_to(broker.folder(), &active_segments(broker.folder()));
    set_lag(broker.address(), NEVER);
    let after = see_all(&broker.bootstrap());
    check_values(&load, &after);
    broker.kill();
    broker.restart();
    assert_eq!(see_all(&broker.bootstrap()), after, "after a kill");
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    dump(tools, broker.folder());
}

/// Lines of Kafka's log that say nothing about the folders.
const EXPECTED: [&str; 2] = ["Performing controller activation", "0 recovered for __cluster_metadata-0"];

fn of_ours_go_on_in_kafka(tools: &Tools) {
    let mut broker = ours();
    let mut theirs = kafka(tools);
    create(broker.address(), "0");
    let mut load = Load::default();
    run(load.write(&broker.bootstrap(), 300));
    // The leader has a later epoch after a kill.
    broker.kill();
    broker.restart();
    run(load.write(&broker.bootstrap(), 300));
    delete_records(broker.address());
    compacted_to(broker.folder(), &active_segments(broker.folder()));
    set_lag(broker.address(), NEVER);
    let before = see_all(&broker.bootstrap());
    check_values(&load, &before);
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    dump(tools, broker.folder());

    create(theirs.address(), NEVER);
    theirs.stop();
    move_partitions(broker.folder(), &theirs.data(), &folders());
    // Without snapshots Kafka begins without producers: it would give their ids to others.
    for folder in folders() {
        let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "snapshot");
        let snapshots = files(&theirs.data().join(folder)).into_iter().filter(is_snapshot);
        snapshots.for_each(|path| fs::remove_file(path).expect("removable"));
    }
    let blind = blind_to_times(&theirs.data());
    let begun = theirs.log().len();
    theirs.restart();
    all_served(theirs.address());
    let mut served = see_all(&theirs.bootstrap());
    let mut expected = before;
    for topic in &blind {
        for seen in [&mut served, &mut expected] {
            seen.get_mut(topic.as_str()).expect("a topic").middle = None;
        }
    }
    assert_eq!(served, expected);
    let log = theirs.log()[begun..].to_owned();
    let is_bad = |line: &&str| [" WARN ", " ERROR ", "Recovering", "orrupt"].iter().any(|word| line.contains(word));
    let is_expected = |line: &&str| EXPECTED.iter().any(|part| line.contains(part));
    let unexpected: Vec<&str> = log.lines().filter(is_bad).filter(|line| !is_expected(line)).collect();
    assert!(unexpected.is_empty(), "in the log of Apache Kafka:\n{}", unexpected.join("\n"));

    run(load.write(&theirs.bootstrap(), 300));
    set_lag(theirs.address(), "0");
    compacted_to(&theirs.data(), &active_segments(&theirs.data()));
    set_lag(theirs.address(), NEVER);
    let after = see_all(&theirs.bootstrap());
    check_values(&load, &after);
    theirs.stop();
    theirs.restart();
    all_served(theirs.address());
    assert_eq!(see_all(&theirs.bootstrap()), after, "after a restart");
}
