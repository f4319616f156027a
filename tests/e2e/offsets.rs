//! ListOffsets and OffsetForLeaderEpoch.

use millstream_record::Codec;
use millstream_tests::Broker;
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;
use rustix::process::Signal;

use crate::support::{Raw, Topic, batch, batch_at};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;

/// Returns the (offset, timestamp) that a lookup finds.
fn look(raw: &mut Raw, topic: &Topic, timestamp: i64) -> (i64, i64) {
    let found = topic.offset_for(raw, 0, timestamp);
    assert_eq!(found.error_code, ErrorCode::NONE, "timestamp {timestamp}");
    (found.offset, found.timestamp)
}

#[test]
fn the_ends_of_an_empty_log_and_of_one_with_records() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    for (asked, found) in
        [(LATEST, (0, -1)), (EARLIEST, (0, -1)), (MAX_TIMESTAMP, (-1, -1)), (EARLIEST_LOCAL, (0, -1)), (5, (-1, -1))]
    {
        assert_eq!(look(&mut raw, &topic, asked), found, "{asked} of nothing");
    }
    topic.produce(&mut raw, batch_at(Codec::None, &[100, 300, 200]));
    topic.produce(&mut raw, batch_at(Codec::None, &[250]));
    for (asked, found) in [(LATEST, (4, -1)), (EARLIEST, (0, -1)), (MAX_TIMESTAMP, (1, 300)), (EARLIEST_LOCAL, (0, -1))]
    {
        assert_eq!(look(&mut raw, &topic, asked), found, "{asked}");
    }
}

#[test]
fn every_version_finds_the_same() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    topic.produce(&mut raw, batch_at(Codec::None, &[100, 200]));
    for version in 1..=11 {
        for (timestamp, offset) in [(LATEST, 2), (EARLIEST, 0), (150, 1), (201, -1)] {
            let asked = ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp };
            let topics = vec![ListOffsetsTopic { name: topic.name.clone(), partitions: vec![asked] }];
            let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
            let answer = raw.call(version, &request);
            let found = &answer.topics[0].partitions[0];
            assert_eq!((found.error_code, found.offset), (ErrorCode::NONE, offset), "{timestamp} by v{version}");
        }
    }
}

/// As in Kafka, a special value is known from one version on, and an error in the partition before. There is no tiered
/// storage, so that its bounds are not found.
#[test]
fn special_values_need_their_versions() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    topic.produce(&mut raw, batch_at(Codec::None, &[100, 300, 200]));
    for (timestamp, since, expected) in [
        (LATEST, 1, (3, -1)),
        (EARLIEST, 1, (0, -1)),
        (MAX_TIMESTAMP, 7, (1, 300)),
        (EARLIEST_LOCAL, 8, (0, -1)),
        (-5, 9, (-1, -1)),
        (-6, 11, (-1, -1)),
        (-7, 12, (-1, -1)),
    ] {
        for version in 1..=11 {
            let asked = ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp };
            let topics = vec![ListOffsetsTopic { name: topic.name.clone(), partitions: vec![asked] }];
            let answer = raw.call(version, &ListOffsetsRequest { replica_id: -1, topics, ..Default::default() });
            let found = &answer.topics[0].partitions[0];
            let (error, expected) = match version < since {
                true => (ErrorCode::UNSUPPORTED_VERSION, (-1, -1)),
                false => (ErrorCode::NONE, expected),
            };
            assert_eq!(found.error_code, error, "{timestamp} by v{version}");
            assert_eq!((found.offset, found.timestamp), expected, "{timestamp} by v{version}");
            if timestamp < EARLIEST_LOCAL {
                assert_eq!(found.leader_epoch, -1, "{timestamp} by v{version}");
            }
        }
    }
}

/// A lookup finds the first record whose timestamp is not below the requested one, also inside of a batch.
#[test]
fn a_time_is_found_inside_of_batches() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let topic = Topic::create(&mut raw, &format!("topic-{codec:?}"), 1, &[]);
        let mut times = Vec::new();
        // A hundred batches of ten records, with timestamps out of order within each batch and repeated over them.
        for number in 0..100 {
            let batch: Vec<i64> = (0..10).map(|record| 1000 + number * 50 + (record * 7) % 10 * 9).collect();
            topic.produce(&mut raw, batch_at(codec, &batch));
            times.extend(batch);
        }
        for asked in (900..6200).step_by(37) {
            let expected = times.iter().position(|time| *time >= asked);
            let expected = expected.map_or((-1, -1), |at| (at as i64, times[at]));
            assert_eq!(look(&mut raw, &topic, asked), expected, "{codec:?}: {asked}");
        }
        let max = times.iter().max().expect("a record");
        let first = times.iter().position(|time| time == max).expect("it is there") as i64;
        assert_eq!(look(&mut raw, &topic, MAX_TIMESTAMP), (first, *max), "{codec:?}");
    }
}

#[test]
fn a_time_is_found_over_segments_and_after_a_restart() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[("segment.bytes", "1048576")]);
    let filler = "x".repeat(300_000);
    for number in 0..20 {
        let mut builder = crate::support::builder(Codec::None, &[]);
        for part in 0..2 {
            builder.append(1000 * number + 500 * part, None, Some(filler.as_bytes()), []).expect("room");
        }
        topic.produce(&mut raw, builder.build().expect("a batch"));
    }
    let check = |raw: &mut Raw| {
        for offset in 1..40 {
            assert_eq!(look(raw, &topic, 500 * offset - 1), (offset, 500 * offset));
            assert_eq!(look(raw, &topic, 500 * offset), (offset, 500 * offset));
        }
        assert_eq!(look(raw, &topic, 19_501), (-1, -1));
    };
    check(&mut raw);
    broker.stop(Signal::TERM);
    broker.restart();
    check(&mut Raw::connect(&broker));
    broker.kill();
    broker.restart();
    check(&mut Raw::connect(&broker));
}

#[test]
fn unknown_partitions_are_errors_of_their_own() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    for partition in [1, -1, i32::MAX] {
        let found = topic.offset_for(&mut raw, partition, LATEST);
        assert_eq!(found.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "partition {partition}");
    }
}

/// Returns where an epoch ended, as (error, epoch, end).
fn epoch_end(raw: &mut Raw, topic: &Topic, version: i16, epoch: i32) -> (ErrorCode, i32, i64) {
    let asked = OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch: epoch };
    let topics = vec![OffsetForLeaderTopic { topic: topic.name.clone(), partitions: vec![asked] }];
    let answer = raw.call(version, &OffsetForLeaderEpochRequest { replica_id: -1, topics });
    let found = &answer.topics[0].partitions[0];
    (found.error_code, found.leader_epoch, found.end_offset)
}

/// Returns the leader epoch in the Metadata response.
fn current_epoch(raw: &mut Raw, topic: &Topic) -> i32 {
    let asked = MetadataRequestTopic { name: Some(topic.name.clone()), ..Default::default() };
    let metadata = raw.call(12, &MetadataRequest { topics: Some(vec![asked]), ..Default::default() });
    metadata.topics[0].partitions[0].leader_epoch
}

#[test]
fn the_end_of_a_leader_epoch() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    let first = current_epoch(&mut raw, &topic);
    for version in 2..=4 {
        assert_eq!(epoch_end(&mut raw, &topic, version, first), (ErrorCode::NONE, first, 0), "v{version}");
    }
    topic.produce(&mut raw, batch(&["0", "1", "2"]));
    for version in 2..=4 {
        assert_eq!(epoch_end(&mut raw, &topic, version, first), (ErrorCode::NONE, first, 3), "v{version}");
        let future = epoch_end(&mut raw, &topic, version, first + 7);
        assert_eq!(future, (ErrorCode::NONE, -1, -1), "v{version}: an epoch that has not come");
    }
    // The broker's epochs stay correct after a kill, whether or not the restart begins a new one.
    broker.kill();
    broker.restart();
    let mut raw = Raw::connect(&broker);
    let second = current_epoch(&mut raw, &topic);
    assert!(second >= first);
    topic.produce(&mut raw, batch(&["3", "4"]));
    let end = if second == first { 5 } else { 3 };
    assert_eq!(epoch_end(&mut raw, &topic, 4, first), (ErrorCode::NONE, first, end));
    assert_eq!(epoch_end(&mut raw, &topic, 4, second), (ErrorCode::NONE, second, 5));
    let stored = topic.fetch(&mut raw, 0).records.as_bytes().expect("records").clone();
    let epochs: Vec<_> =
        millstream_record::batches(&stored).map(|batch| batch.expect("a batch").leader_epoch()).collect();
    assert_eq!(epochs, [first, second], "batches have the epoch of their append");
}
