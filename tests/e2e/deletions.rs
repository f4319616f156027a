//! Records, groups and offsets that clients delete stay deleted.

use millstream_tests::Broker;
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;
use rustix::process::Signal;

use crate::support::{Raw, Topic, batch};

/// Deletes the records of partition 0 below an offset, and returns the code and the new start.
fn delete(raw: &mut Raw, topic: &Topic, offset: i64) -> (ErrorCode, i64) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: topic.name.clone(), partitions }];
    let response = raw.call(2, &DeleteRecordsRequest { topics, timeout_ms: 30_000 });
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.low_watermark)
}

fn size(raw: &mut Raw, topic: &Topic) -> i64 {
    let topics = Some(vec![DescribableLogDirTopic { topic: topic.name.clone(), partitions: vec![0] }]);
    let response = raw.call(4, &DescribeLogDirsRequest { topics });
    response.results[0].topics[0].partitions[0].partition_size
}

/// The log start stays after a clean stop and after SIGKILL, within a segment and at its end.
#[test]
fn the_start_of_a_log_is_kept() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[("segment.bytes", "1048576")]);
    let large = "x".repeat(400_000);
    let values: Vec<String> = (0..10).map(|n| format!("{n} {large}")).collect();
    values.iter().for_each(|value| _ = topic.produce(&mut raw, batch(&[value])));
    let before = size(&mut raw, &topic);
    assert!(before > 4_000_000, "{before}");
    for (offset, stop) in [(3, None), (4, Some(Signal::TERM)), (10, None)] {
        assert_eq!(delete(&mut raw, &topic, offset), (ErrorCode::NONE, offset));
        match stop {
            None => broker.kill(),
            Some(signal) => assert_eq!(broker.stop(signal).code(), Some(0)),
        }
        broker.restart();
        raw = Raw::connect(&broker);
        assert_eq!((topic.start(&mut raw), topic.end(&mut raw)), (offset, 10));
        assert_eq!(topic.fetch(&mut raw, offset - 1).error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
        assert_eq!(topic.read(&mut raw, offset).len() as i64, 10 - offset);
    }
    // Whole segments below the start are removed from the disk.
    assert!(size(&mut raw, &topic) < before / 2);
    assert_eq!(topic.produce(&mut raw, batch(&["next"])), 10);
}

/// Records cannot be deleted from internal topics, views, and topics that are only compacted.
#[test]
fn records_that_may_not_be_deleted_stay() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let source = Topic::create(&mut raw, "source", 1, &[]);
    source.produce(&mut raw, batch(&["value"]));
    let view = Topic::create(&mut raw, "view", -1, &[("view.of", "source")]);
    let compacted = Topic::create(&mut raw, "compacted", 1, &[("cleanup.policy", "compact")]);
    raw.call(3, &FindCoordinatorRequest { key: "group".into(), ..Default::default() });
    let offsets = Topic { name: "__consumer_offsets".into(), id: uuid::Uuid::nil() };
    for (topic, code) in [
        (&view, ErrorCode::INVALID_TOPIC_EXCEPTION),
        (&offsets, ErrorCode::INVALID_TOPIC_EXCEPTION),
        (&compacted, ErrorCode::POLICY_VIOLATION),
    ] {
        assert_eq!(delete(&mut raw, topic, -1), (code, -1), "{}", &*topic.name);
    }
    assert_eq!(source.start(&mut raw), 0);
    assert_eq!(view.read(&mut raw, 0), ["value"]);
}

/// After concurrent requests the checkpoint has the start of every partition.
#[test]
fn starts_that_are_moved_at_the_same_time_are_all_kept() {
    const TOPICS: i64 = 8;
    let mut broker = Broker::start();
    let deleting: Vec<_> = (0..TOPICS)
        .map(|n| {
            let mut raw = Raw::connect(&broker);
            std::thread::spawn(move || {
                let topic = Topic::create(&mut raw, &format!("topic-{n}"), 1, &[]);
                for offset in 1..=20 {
                    topic.produce(&mut raw, batch(&["value"]));
                    assert_eq!(delete(&mut raw, &topic, offset), (ErrorCode::NONE, offset));
                }
                topic
            })
        })
        .collect();
    let topics: Vec<Topic> = deleting.into_iter().map(|thread| thread.join().expect("a client")).collect();
    broker.kill();
    broker.restart();
    let mut raw = Raw::connect(&broker);
    for topic in topics {
        assert_eq!(topic.start(&mut raw), 20, "{}", &*topic.name);
    }
}
