//! Broker configs whose effect no other test shows.

use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use millstream_tests::{Broker, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;

use crate::support::{Raw, Topic, batch, create, producer_batch};

/// The source of a config that the broker's own config sets, in DescribeConfigs.
const STATIC_BROKER_CONFIG: i8 = 4;

/// Returns the value of a topic's config and its source.
fn topic_config(raw: &mut Raw, topic: &str, key: &str) -> (String, i8) {
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: topic.into(),
        configuration_keys: Some(vec![key.into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let config = raw.call(4, &request).results.remove(0).configs.remove(0);
    (config.value.as_deref().unwrap_or_default().to_owned(), config.config_source)
}

#[test]
fn defaults_of_topics_come_from_the_broker() {
    let keys = [
        ("log.flush.interval.messages", "7", "flush.messages", "7"),
        ("log.flush.interval.ms", "8000", "flush.ms", "8000"),
        ("log.index.size.max.bytes", "8192", "segment.index.bytes", "8192"),
        ("log.message.timestamp.after.max.ms", "9000", "message.timestamp.after.max.ms", "9000"),
        ("log.message.timestamp.before.max.ms", "9001", "message.timestamp.before.max.ms", "9001"),
        ("log.message.timestamp.type", "LogAppendTime", "message.timestamp.type", "LogAppendTime"),
        ("log.preallocate", "true", "preallocate", "true"),
        ("log.roll.hours", "2", "segment.ms", "7200000"),
        ("log.roll.jitter.hours", "1", "segment.jitter.ms", "3600000"),
    ];
    let broker = keys.iter().fold(Broker::builder(), |builder, (key, value, ..)| builder.set(key, value)).start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "t", 1, &[]);
    for (key, _, topic_key, value) in keys {
        assert_eq!(topic_config(&mut raw, "t", topic_key), (value.to_owned(), STATIC_BROKER_CONFIG), "{key}");
    }
}

#[test]
fn milliseconds_take_precedence_over_hours() {
    let broker = Broker::builder().set("log.roll.jitter.ms", "5").set("log.roll.jitter.hours", "1").start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "t", 1, &[]);
    assert_eq!(topic_config(&mut raw, "t", "segment.jitter.ms").0, "5");
}

#[test]
fn deletion_of_topics_can_be_disabled() {
    let broker = Broker::builder().set("delete.topic.enable", "false").start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "t", 1, &[]);
    let state = DeleteTopicState { name: Some(topic.name.clone()), ..Default::default() };
    let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(raw.call(6, &request).responses[0].error_code, ErrorCode::TOPIC_DELETION_DISABLED);
    assert_eq!(topic.produce(&mut raw, batch(&["still there"])), 0);
}

#[test]
fn topics_get_the_default_replication_factor() {
    let broker = Broker::builder().set("default.replication.factor", "3").start();
    let created = create(&mut Raw::connect(&broker), "t", 1, &[]);
    assert_eq!(created.error_code, ErrorCode::INVALID_REPLICATION_FACTOR, "{:?}", created.error_message);
}

#[test]
fn a_session_timeout_has_a_maximum() {
    let broker = Broker::builder().set("group.max.session.timeout.ms", "7000").start();
    let mut raw = Raw::connect(&broker);
    for (session_timeout_ms, expected) in
        [(7000, ErrorCode::MEMBER_ID_REQUIRED), (7001, ErrorCode::INVALID_SESSION_TIMEOUT)]
    {
        let protocol = JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(&[0; 10]) };
        let request = JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms,
            rebalance_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..Default::default()
        };
        assert_eq!(raw.call(7, &request).error_code, expected, "{session_timeout_ms}");
    }
}

#[test]
fn connections_have_a_maximum() {
    let broker = Broker::builder().set("max.connections", "2").allow("connections rejected").start();
    let mut open = [Raw::connect(&broker), Raw::connect(&broker)];
    for raw in &mut open {
        raw.call(12, &MetadataRequest::default());
    }
    Raw::connect(&broker).assert_closed("a third connection");
    for raw in &mut open {
        raw.call(12, &MetadataRequest::default());
    }
}

#[test]
fn idle_producers_expire() {
    let broker = Broker::builder()
        .set("producer.id.expiration.ms", "1000")
        .set("log.retention.check.interval.ms", "100")
        .start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "t", 1, &[]);
    topic.produce(&mut raw, producer_batch(7, 0, 0, &["a"]));
    let mut producers = || {
        let topics = vec![DescribeProducersTopicRequest { name: topic.name.clone(), partition_indexes: vec![0] }];
        let mut response = raw.call(0, &DescribeProducersRequest { topics });
        response.topics.remove(0).partitions.remove(0).active_producers
    };
    assert_eq!(producers().first().map(|producer| producer.producer_id), Some(7));
    wait_until("the producer to expire", Duration::from_secs(30), || producers().is_empty().then_some(()));
}

#[test]
fn the_topic_of_committed_offsets_has_its_own_segment_size() {
    let broker = Broker::builder().set("offsets.topic.segment.bytes", "2097152").start();
    let mut raw = Raw::connect(&broker);
    let request = FindCoordinatorRequest { key: "g".into(), key_type: 0, ..Default::default() };
    wait_until("the coordinator", Duration::from_secs(30), || raw.call(3, &request).error_code.is_ok().then_some(()));
    assert_eq!(topic_config(&mut raw, "__consumer_offsets", "segment.bytes").0, "2097152");
}

#[test]
fn high_watermarks_are_written_often() {
    let broker = Broker::builder().set("replica.high.watermark.checkpoint.interval.ms", "50").start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "t", 1, &[]);
    let written = || std::fs::read_to_string(broker.folder().join("replication-offset-checkpoint")).unwrap_or_default();
    for end in 1..=2 {
        topic.produce(&mut raw, batch(&["a"]));
        let line = format!("t 0 {end}");
        wait_until("the checkpoint", Duration::from_secs(30), || {
            written().lines().any(|one| one == line).then_some(())
        });
    }
}

/// Kafka's test suites use it: segments below the minimum of `segment.bytes`.
#[test]
fn segments_of_tests_may_be_small() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "t", 1, &[("internal.segment.bytes", "300")]);
    for _ in 0..10 {
        topic.produce(&mut raw, batch(&["a value of some length, so that few of these records fit"]));
    }
    let files = std::fs::read_dir(broker.folder().join("t-0")).expect("the partition");
    let logs = files.filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|e| e == "log")));
    assert!(logs.count() > 3);
}

#[test]
fn the_old_name_of_the_data_folder_works() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let data = folder.path().join("data");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    // The port is taken, so the program ends by itself, after it has locked its data folder.
    let listen = free.local_addr().expect("an address").to_string();
    let end = millstream_tests::Tool::new(millstream_tests::millstream())
        .args(["serve", "--listen", &listen, "--set", &format!("log.dir={}", data.display())])
        .run();
    assert_eq!(end.code, Some(1), "{}", end.stderr);
    assert!(data.join("meta.properties").exists(), "{}", end.stderr);
}
