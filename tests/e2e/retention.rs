//! Retention by size and by time.

use std::fs;
use std::time::Duration;

use millstream_record::Codec;
use millstream_tests::{Broker, wait_until};
use millstream_wire::ErrorCode;

use crate::support::{Raw, Topic, alter, builder, now_ms};

const PATIENCE: Duration = Duration::from_secs(30);

fn start() -> Broker {
    Broker::builder().set("log.retention.check.interval.ms", "50").set("log.segment.delete.delay.ms", "0").start()
}

/// Produces a batch of 300 kB with this timestamp. Segments of 1 MiB hold three of them.
fn produce(raw: &mut Raw, topic: &Topic, time: i64) -> i64 {
    let mut batch = builder(Codec::None, &[]);
    batch.append(time, None, Some(&[b'x'; 300_000]), []).expect("room");
    topic.produce(raw, batch.build().expect("a batch"))
}

fn segments(broker: &Broker) -> usize {
    let files = fs::read_dir(broker.folder().join("topic-0")).expect("the partition's folder").flatten();
    files.filter(|file| file.file_name().to_string_lossy().contains(".log")).count()
}

#[test]
fn by_size_the_oldest_segments_go_and_the_newest_stay() {
    let broker = start();
    let mut raw = Raw::connect(&broker);
    let configs = [("segment.bytes", "1048576"), ("retention.bytes", "2097152")];
    let topic = Topic::create(&mut raw, "topic", 1, &configs);
    for _ in 0..30 {
        produce(&mut raw, &topic, now_ms());
    }
    let start = wait_until("the log start to move", PATIENCE, || {
        let start = topic.start(&mut raw);
        (start >= 18).then_some(start)
    });
    // At least the records within the limit stay, and segments are deleted as a whole.
    assert!(start <= 24 && start % 3 == 0, "the log starts at {start} of 30");
    assert_eq!(topic.end(&mut raw), 30);
    assert_eq!(topic.fetch(&mut raw, start).error_code, ErrorCode::NONE);
    assert_eq!(topic.fetch(&mut raw, start - 1).error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
    wait_until("the files to go", PATIENCE, || (segments(&broker) <= 4).then_some(()));
    // A produce response has the log start offset.
    assert!(topic.produce_by(&mut raw, 9, crate::support::batch(&["next"])).log_start_offset >= 18);
}

#[test]
fn by_time_what_is_too_old_goes_to_the_last_segment() {
    let broker = start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[("segment.bytes", "1048576"), ("retention.ms", "3600000")]);
    let old = now_ms() - 7_200_000;
    for number in 0..6 {
        // The seventh record is the first that is recent enough to stay.
        produce(&mut raw, &topic, old + number);
    }
    wait_until("all of it to go", PATIENCE, || (topic.start(&mut raw) == 6).then_some(()));
    assert_eq!(topic.end(&mut raw), 6);
    assert_eq!(produce(&mut raw, &topic, now_ms()), 6);
    produce(&mut raw, &topic, old);
    assert_eq!(
        topic.fetch(&mut raw, 6).error_code,
        ErrorCode::NONE,
        "what is young stays, and what shares its segment"
    );
    assert_eq!(topic.start(&mut raw), 6);
}

#[test]
fn an_altered_bound_takes_effect() {
    let broker = start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[("segment.bytes", "1048576")]);
    for _ in 0..12 {
        produce(&mut raw, &topic, now_ms());
    }
    assert_eq!(topic.start(&mut raw), 0);
    alter(&mut raw, "topic", &[("retention.bytes", Some("1048576"))]);
    wait_until("the log start to move", PATIENCE, || (topic.start(&mut raw) >= 6).then_some(()));
    assert_eq!(topic.end(&mut raw), 12);
}

#[test]
fn the_log_start_survives_a_kill() {
    let mut broker = start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[("segment.bytes", "1048576"), ("retention.bytes", "1048576")]);
    for _ in 0..12 {
        produce(&mut raw, &topic, now_ms());
    }
    let start = wait_until("the log start to move", PATIENCE, || {
        let start = topic.start(&mut raw);
        (start >= 6).then_some(start)
    });
    broker.kill();
    broker.restart();
    let mut raw = Raw::connect(&broker);
    assert!(topic.start(&mut raw) >= start, "records that were deleted may not come back");
    assert_eq!(topic.end(&mut raw), 12);
}

/// A deleted segment stays on the disk for a while under another name, and does not count any more.
#[test]
fn the_files_of_deleted_segments_stay_for_a_while() {
    let mut broker = Broker::builder().set("log.retention.check.interval.ms", "50").start();
    let mut raw = Raw::connect(&broker);
    let configs = [("segment.bytes", "1048576"), ("retention.bytes", "1048576"), ("file.delete.delay.ms", "600000")];
    let topic = Topic::create(&mut raw, "topic", 1, &configs);
    for _ in 0..12 {
        produce(&mut raw, &topic, now_ms());
    }
    let named = |broker: &Broker, suffix: &str| {
        let files = fs::read_dir(broker.folder().join("topic-0")).expect("the partition's folder").flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(suffix)).count()
    };
    wait_until("the log start to move", PATIENCE, || (topic.start(&mut raw) >= 6).then_some(()));
    assert!(named(&broker, ".log.deleted") >= 2 && named(&broker, ".index.deleted") >= 2);
    assert!(named(&broker, ".log") <= 2);
    // A later deletion has another delay, and a start removes what is left.
    alter(&mut raw, "topic", &[("file.delete.delay.ms", Some("0"))]);
    let kept = named(&broker, ".log.deleted");
    for _ in 0..6 {
        produce(&mut raw, &topic, now_ms());
    }
    wait_until("the log start to move", PATIENCE, || (topic.start(&mut raw) >= 12).then_some(()));
    wait_until("the files to go", PATIENCE, || (named(&broker, ".log.deleted") <= kept).then_some(()));
    assert_eq!(broker.stop(rustix::process::Signal::TERM).code(), Some(0));
    broker.restart();
    assert_eq!(named(&broker, ".deleted"), 0);
    assert!(topic.start(&mut Raw::connect(&broker)) >= 12);
}

/// A pass needs room for its copies beside the reserve. It waits for space, and says so once.
#[test]
fn compaction_leaves_the_disk_its_reserve() {
    const KEYED: usize = 40;
    let mut broker = Broker::builder().set("log.cleaner.backoff.ms", "20").set("log.cleaner.enable", "false").start();
    broker.allow("log.cleaner.enable is false");
    let mut raw = Raw::connect(&broker);
    let configs =
        [("cleanup.policy", "compact"), ("internal.segment.bytes", "1000"), ("min.cleanable.dirty.ratio", "0.01")];
    let topic = Topic::create(&mut raw, "topic", 1, &configs);
    for number in 0..KEYED {
        let mut batch = builder(Codec::None, &[]);
        batch
            .append(now_ms(), Some(b"key"), Some(format!("{number} {}", "x".repeat(100)).as_bytes()), [])
            .expect("room");
        topic.produce(&mut raw, batch.build().expect("a batch"));
    }
    assert_eq!(broker.stop(rustix::process::Signal::TERM).code(), Some(0));
    broker.set("log.cleaner.enable", "true");
    // No disk has this space.
    broker.set("disk.reserve.bytes", "1000000000000000000");
    ["is full", "compaction waits for disk space"].iter().for_each(|part| broker.allow(part));
    broker.restart();
    let waits = "compaction waits for disk space";
    wait_until("a log line", PATIENCE, || broker.log().contains(waits).then_some(()));
    let mut raw = Raw::connect(&broker);
    assert_eq!(topic.read(&mut raw, 0).len(), KEYED);
    assert_eq!(broker.log().matches(waits).count(), 1);
    assert_eq!(broker.stop(rustix::process::Signal::TERM).code(), Some(0));
    broker.set("disk.reserve.bytes", "0");
    broker.restart();
    let mut raw = Raw::connect(&broker);
    wait_until("compaction", PATIENCE, || (topic.read(&mut raw, 0).len() < KEYED / 2).then_some(()));
}
