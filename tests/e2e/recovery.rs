//! Recovery after a kill, a torn write and a damaged file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use millstream_record::patch;
use millstream_tests::{Broker, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{MetadataRequest, ProduceRequest};
use rustix::process::Signal;

use crate::support::{Raw, Topic, batch};

const PATIENCE: Duration = Duration::from_secs(30);

fn segment(broker: &Broker, topic: &str) -> PathBuf {
    broker.folder().join(format!("{topic}-0")).join("00000000000000000000.log")
}

/// Produces unique records until the broker ends, with five requests in flight on one connection.
fn produce_until_the_end(mut raw: Raw, topic: &Topic, name: &str) -> BTreeMap<i64, String> {
    let mut acknowledged = BTreeMap::new();
    let mut number = 0;
    loop {
        let mut sent = Vec::new();
        for _ in 0..5 {
            let value = format!("{name}-{number}");
            number += 1;
            let request = topic.produce_request(9, -1, 0, batch(&[&value]));
            let Ok(correlation) = raw.try_send(9, &request).map(|()| raw.correlation()) else {
                return acknowledged;
            };
            sent.push((correlation, value));
        }
        for (correlation, value) in sent {
            let Some(answer) = raw.try_receive::<ProduceRequest>(9, correlation) else {
                return acknowledged;
            };
            let answer = &answer.responses[0].partition_responses[0];
            if answer.error_code == ErrorCode::NONE {
                acknowledged.insert(answer.base_offset, value);
            }
        }
    }
}

#[test]
fn acknowledged_records_survive_kills_once_and_in_place() {
    let mut broker = Broker::start();
    let topic = Topic::create(&mut Raw::connect(&broker), "topic", 1, &[("segment.bytes", "1048576")]);
    let mut acknowledged = BTreeMap::new();
    for round in 0..5 {
        let producers: Vec<_> = (0..3)
            .map(|producer| {
                let raw = Raw::connect(&broker);
                let topic = topic.clone();
                std::thread::spawn(move || produce_until_the_end(raw, &topic, &format!("{round}-{producer}")))
            })
            .collect();
        let mut raw = Raw::connect(&broker);
        let before = topic.end(&mut raw);
        wait_until("some records", PATIENCE, || (topic.end(&mut raw) > before + 300).then_some(()));
        broker.kill();
        let found: Vec<_> = producers.into_iter().map(|producer| producer.join().expect("a producer")).collect();
        acknowledged.extend(found.into_iter().flatten());
        broker.restart();
    }
    let mut raw = Raw::connect(&broker);
    let read = topic.read(&mut raw, 0);
    assert!(acknowledged.len() > 1000, "{}", acknowledged.len());
    for (offset, value) in &acknowledged {
        assert_eq!(read.get(*offset as usize), Some(value), "offset {offset} of {}", read.len());
    }
    let mut values = read.clone();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), read.len(), "a record is there twice");
}

/// Returns what a crash may leave at the end of the active segment of a log that ends at `end`.
fn tails(end: i64) -> Vec<(&'static str, Vec<u8>)> {
    let mut next = batch(&["never acknowledged"]);
    patch::set_base_offset(&mut next, end);
    patch::set_leader_epoch(&mut next, 0);
    let mut corrupt = next.clone();
    let last = corrupt.len() - 1;
    corrupt[last] ^= 1;
    vec![
        ("one byte", vec![7]),
        ("eleven bytes of zeros", vec![0; 11]),
        ("a page of zeros", vec![0; 4096]),
        ("garbage", (0..5000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("a length that reaches beyond the file", [&[0; 8][..], &[0x7f, 0xff, 0xff, 0xff], &[0; 100]].concat()),
        ("half of a batch", next[..next.len() / 2].to_vec()),
        ("a header without its records", next[..61].to_vec()),
        ("a batch but for its last byte", next[..next.len() - 1].to_vec()),
        ("a batch with a bad CRC", corrupt),
    ]
}

#[test]
fn a_torn_tail_is_cut_off_and_nothing_acknowledged_with_it() {
    for clean in [false, true] {
        let mut broker = Broker::start();
        broker.allow("a torn tail is cut off");
        broker.allow("the log is scanned");
        let topic = Topic::create(&mut Raw::connect(&broker), "topic", 1, &[]);
        let mut expected = Vec::new();
        // After a clean stop a whole extra batch looks like one that the broker wrote.
        let rounds = if clean { tails(0).len() - 1 } else { tails(0).len() };
        for round in 0..rounds {
            let (what, tail) = tails(expected.len() as i64 + 3).swap_remove(round);
            let mut raw = Raw::connect(&broker);
            let values = [0, 1, 2].map(|record| format!("{round}-{record}"));
            topic.produce(&mut raw, batch(&values.each_ref().map(String::as_str)));
            expected.extend(values);
            if clean {
                broker.stop(Signal::TERM);
            } else {
                broker.kill();
            }
            let path = segment(&broker, "topic");
            let size = fs::metadata(&path).expect("the segment").len();
            fs::File::options().append(true).open(&path).and_then(|mut file| file.write_all(&tail)).expect("torn");
            broker.restart();
            let what = format!("{what}, clean: {clean}");
            let mut raw = Raw::connect(&broker);
            assert_eq!(topic.end(&mut raw), expected.len() as i64, "{what}");
            assert_eq!(topic.read(&mut raw, 0), expected, "{what}");
            assert_eq!(fs::metadata(&path).expect("the segment").len(), size, "{what}: the tail is cut off");
        }
    }
}

/// Damage below the durable end is not a torn tail: that partition is set aside and logged, and the others are served.
#[test]
fn a_damaged_batch_below_the_end_takes_only_its_partition_out() {
    let mut broker = Broker::start();
    broker.allow("partition is offline");
    let mut raw = Raw::connect(&broker);
    let topics = ["damaged", "sound"].map(|name| Topic::create(&mut raw, name, 1, &[]));
    for _ in 0..10 {
        for topic in &topics {
            topic.produce(&mut raw, batch(&["some value"]));
        }
    }
    broker.kill();
    let path = segment(&broker, "damaged");
    let mut bytes = fs::read(&path).expect("the segment");
    let place = bytes.len() / 2;
    bytes[place] ^= 0x10;
    fs::write(&path, &bytes).expect("damaged");
    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert_eq!(topics[1].read(&mut raw, 0).len(), 10, "the sound topic");
    topics[1].produce(&mut raw, batch(&["more"]));
    let refused = topics[0].produce_by(&mut raw, 9, batch(&["more"])).error_code;
    assert!(refused.is_err(), "the damaged partition took a batch");
    assert!(topics[0].fetch(&mut raw, 0).error_code.is_err(), "the damaged partition was read");
    let metadata = raw.call(12, &MetadataRequest { topics: None, ..Default::default() });
    let damaged = metadata.topics.iter().find(|topic| topic.name.as_deref() == Some("damaged")).expect("listed");
    assert!(damaged.partitions[0].error_code.is_err() || damaged.partitions[0].leader_id == -1, "{damaged:?}");
    let log = broker.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("ERROR") && line.contains("damaged")).collect();
    assert!(!lines.is_empty(), "the log says which partition:\n{log}");
    assert!(lines[0].contains(".log"), "and which file: {lines:?}");
    assert_eq!(fs::read(&path).expect("the segment"), bytes, "the damaged file is left unchanged");
    // A stop and another start change nothing.
    broker.stop(Signal::TERM);
    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert!(topics[0].produce_by(&mut raw, 9, batch(&["more"])).error_code.is_err());
    assert_eq!(topics[1].read(&mut raw, 0).len(), 11);
    // Repaired by hand, the partition is served again.
    bytes[place] ^= 0x10;
    broker.stop(Signal::TERM);
    fs::write(&path, &bytes).expect("mended");
    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert_eq!(topics[0].read(&mut raw, 0).len(), 10);
}

/// If the log ends before its recovery point, acknowledged records are missing. That is damage, not a torn tail.
#[test]
fn a_log_that_lost_durable_records_is_not_served_as_if_it_had_not() {
    let mut broker = Broker::builder().set("log.flush.offset.checkpoint.interval.ms", "20").start();
    broker.allow("partition is offline");
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    for _ in 0..5 {
        topic.produce(&mut raw, batch(&["some value"]));
    }
    let checkpoint = broker.folder().join("recovery-point-offset-checkpoint");
    wait_until("the recovery point", PATIENCE, || {
        fs::read_to_string(&checkpoint).is_ok_and(|text| text.lines().any(|line| line == "topic 0 5")).then_some(())
    });
    broker.kill();
    let path = segment(&broker, "topic");
    let size = fs::metadata(&path).expect("the segment").len();
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(size - 1)).expect("cut");
    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert!(
        topic.fetch(&mut raw, 0).error_code.is_err(),
        "four of five durable batches were served as if they were all"
    );
    assert!(broker.log().lines().any(|line| line.contains("ERROR") && line.contains("topic")), "{}", broker.log());
}

/// Everything but the log is a cache: without it, or with garbage in its place, nothing is lost.
#[test]
fn indexes_snapshots_and_checkpoints_are_caches() {
    let mut broker = Broker::start();
    broker.allow("a checkpoint is ignored");
    broker.allow("the leader epochs are made again");
    broker.allow("a damaged producer snapshot");
    broker.allow("an index entry is wrong");
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[("segment.bytes", "1048576")]);
    let filler = "x".repeat(100_000);
    let values: Vec<String> = (0..30).map(|number| format!("{number}-{filler}")).collect();
    for value in &values {
        topic.produce(&mut raw, batch(&[value]));
    }
    for kill in [true, false] {
        for damage in ["removed", "garbage", "empty", "half"] {
            if kill {
                broker.kill();
            } else {
                broker.stop(Signal::TERM);
            }
            for path in caches(&broker) {
                let bytes = fs::read(&path).expect("a cache");
                match damage {
                    "removed" => fs::remove_file(&path),
                    "garbage" => fs::write(&path, vec![0xa5; bytes.len().max(100)]),
                    "empty" => fs::write(&path, []),
                    _ => fs::write(&path, &bytes[..bytes.len() / 2]),
                }
                .expect("damaged");
            }
            broker.restart();
            let mut raw = Raw::connect(&broker);
            let what = format!("{damage}, kill: {kill}");
            assert_eq!(topic.end(&mut raw), 30, "{what}");
            assert!(topic.read(&mut raw, 0) == values, "{what}: other values");
            for offset in [0, 9, 10, 11, 29] {
                let found = topic.fetch(&mut raw, offset).records.as_bytes().cloned().expect("records");
                let first = millstream_record::BatchView::parse(&found).expect("a batch").base_offset();
                assert_eq!(first, offset, "{what}");
            }
        }
    }
}

fn caches(broker: &Broker) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [broker.folder().to_owned(), broker.folder().join("topic-0")] {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let endings = [".index", ".timeindex", ".snapshot", "-checkpoint"];
            if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 4, "{found:?}");
    found
}
