//! The state of idempotent producers after stops, kills and lost files.

use std::fs;

use millstream_tests::{Broker, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{InitProducerIdRequest, PartitionProduceResponse};
use rustix::process::Signal;

use crate::support::{Raw, Topic, producer_batch};

fn producer_id(raw: &mut Raw) -> i64 {
    let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
    // Kafka's coordinator may still be loading after the start.
    let answer = wait_until("a producer id", std::time::Duration::from_secs(20), || {
        let answer = raw.call(4, &request);
        (!answer.error_code.retriable()).then_some(answer)
    });
    assert_eq!(answer.error_code, ErrorCode::NONE);
    answer.producer_id
}

fn send(raw: &mut Raw, topic: &Topic, id: i64, epoch: i16, sequence: i32) -> PartitionProduceResponse {
    topic.produce_by(raw, 9, producer_batch(id, epoch, sequence, &["a", "b"]))
}

/// Ends the broker, and may change its folder before the next start.
type End = fn(&mut Broker);

fn remove_caches(broker: &Broker) {
    let folder = broker.folder().join("topic-0");
    for entry in fs::read_dir(folder).expect("the partition's folder") {
        let path = entry.expect("an entry").path();
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if ["index", "timeindex", "snapshot"].contains(&ending.as_str()) {
            fs::remove_file(path).expect("removed");
        }
    }
}

const ENDS: [(&str, End); 4] = [
    ("SIGKILL", |broker| broker.kill()),
    ("SIGTERM", |broker| {
        broker.stop(Signal::TERM);
    }),
    ("SIGKILL and the loss of indexes and snapshots", |broker| {
        broker.kill();
        remove_caches(broker);
    }),
    ("SIGTERM and the loss of indexes and snapshots", |broker| {
        broker.stop(Signal::TERM);
        remove_caches(broker);
    }),
];

#[test]
fn the_window_of_five_batches_survives_whatever_happens() {
    for (what, end) in ENDS {
        let mut broker = Broker::start();
        let mut raw = Raw::connect(&broker);
        let topic = Topic::create(&mut raw, "topic", 1, &[]);
        let (first, second) = (producer_id(&mut raw), producer_id(&mut raw));
        assert_ne!(first, second);
        for batch in 0..7 {
            assert_eq!(send(&mut raw, &topic, first, 0, batch * 2).base_offset, i64::from(batch) * 4, "{what}");
            assert_eq!(send(&mut raw, &topic, second, 3, batch * 2).base_offset, i64::from(batch) * 4 + 2, "{what}");
        }
        let before = topic.end(&mut raw);
        end(&mut broker);
        broker.restart();
        let mut raw = Raw::connect(&broker);
        assert_eq!(topic.end(&mut raw), before, "{what}");
        for batch in 2..7 {
            let again = send(&mut raw, &topic, first, 0, batch * 2);
            let expected = (ErrorCode::NONE, i64::from(batch) * 4);
            assert_eq!((again.error_code, again.base_offset), expected, "{what}: batch {batch} again");
        }
        assert_eq!(topic.end(&mut raw), before, "{what}: a duplicate was stored");
        let gap = send(&mut raw, &topic, first, 0, 16).error_code;
        assert_eq!(gap, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, "{what}: a gap");
        let zombie = send(&mut raw, &topic, second, 2, 14).error_code;
        assert_eq!(zombie, ErrorCode::INVALID_PRODUCER_EPOCH, "{what}: an old epoch");
        let next = send(&mut raw, &topic, first, 0, 14);
        assert_eq!((next.error_code, next.base_offset), (ErrorCode::NONE, before), "{what}: the next batch");
        let fresh = producer_id(&mut raw);
        assert!(fresh > first && fresh > second, "{what}: producer id {fresh} was given before");
    }
}

#[test]
fn producer_ids_are_never_reused() {
    let mut broker = Broker::start();
    let mut given = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connect(&broker);
        given.extend((0..50).map(|_| producer_id(&mut raw)));
        broker.kill();
        broker.restart();
    }
    let count = given.len();
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), count);
}

/// Each partition has its own sequence.
#[test]
fn partitions_do_not_share_a_sequence() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 2, &[]);
    let id = producer_id(&mut raw);
    for partition in [0, 1] {
        for sequence in [0, 1] {
            let batch = producer_batch(id, 0, sequence, &["value"]);
            let answer = raw.call(9, &topic.produce_request(9, -1, partition, batch));
            let answer = &answer.responses[0].partition_responses[0];
            assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, i64::from(sequence)));
        }
    }
}
