//! Topics: creation, automatic creation, growth, deletion, and permanent ids.

use millstream_tests::Broker;
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Str};
use rustix::process::Signal;
use uuid::Uuid;

use crate::support::{Raw, Topic, batch};

fn creatable(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions: partitions, replication_factor: replicas, ..Default::default() }
}

fn create(raw: &mut Raw, topics: Vec<CreatableTopic>, validate_only: bool) -> Vec<CreatableTopicResult> {
    raw.call(7, &CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only }).topics
}

/// Returns what Metadata says of one topic.
fn describe(raw: &mut Raw, name: &str, allow_auto_topic_creation: bool) -> MetadataResponseTopic {
    let asked = MetadataRequestTopic { name: Some(Str::from(name)), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![asked]), allow_auto_topic_creation, ..Default::default() };
    raw.call(12, &request).topics.remove(0)
}

fn names(raw: &mut Raw) -> Vec<String> {
    let topics = raw.call(12, &MetadataRequest { topics: None, ..Default::default() }).topics;
    let mut names: Vec<_> = topics.into_iter().filter_map(|topic| topic.name.map(|name| name.to_string())).collect();
    names.sort();
    names
}

fn delete(raw: &mut Raw, topic: &Topic) -> ErrorCode {
    let state = DeleteTopicState { name: None, topic_id: topic.id };
    let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 30_000, ..Default::default() };
    raw.call(6, &request).responses[0].error_code
}

#[test]
fn each_topic_of_a_request_succeeds_or_fails_by_itself() {
    let broker = Broker::builder().set("num.partitions", "3").start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "there", 1, &[]);
    let assigned = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![0] };
    let topics = vec![
        creatable("fine", 2, 1),
        creatable("there", 1, 1),
        creatable("no-partitions", 0, 1),
        creatable("negative", -2, 1),
        creatable("replicas", 1, 3),
        creatable("defaults", -1, -1),
        CreatableTopic { assignments: vec![assigned], ..creatable("assigned", -1, -1) },
    ];
    let results = create(&mut raw, topics, false);
    let found: Vec<_> = results.iter().map(|topic| (topic.name.as_str(), topic.error_code)).collect();
    let expected = [
        ("fine", ErrorCode::NONE),
        ("there", ErrorCode::TOPIC_ALREADY_EXISTS),
        ("no-partitions", ErrorCode::INVALID_PARTITIONS),
        ("negative", ErrorCode::INVALID_PARTITIONS),
        ("replicas", ErrorCode::INVALID_REPLICATION_FACTOR),
        ("defaults", ErrorCode::NONE),
        ("assigned", ErrorCode::NONE),
    ];
    for expected in expected {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    // As in Kafka, a request for more partitions than the limit is rejected.
    for partitions in [10_001, i32::MAX] {
        let results = create(&mut raw, vec![creatable("huge", partitions, 1)], false);
        assert_eq!(results[0].error_code, ErrorCode::POLICY_VIOLATION, "{partitions} partitions");
    }
    assert_eq!(names(&mut raw), ["assigned", "defaults", "fine", "there"]);
    assert_eq!(describe(&mut raw, "defaults", false).partitions.len(), 3);
    assert_eq!(describe(&mut raw, "fine", false).partitions.len(), 2);
}

#[test]
fn a_name_twice_in_a_request_is_rejected() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let results = create(&mut raw, vec![creatable("twice", 1, 1), creatable("twice", 2, 1)], false);
    assert!(results.iter().all(|topic| topic.error_code == ErrorCode::INVALID_REQUEST), "{results:?}");
    assert!(names(&mut raw).is_empty());
}

#[test]
fn validate_only_changes_nothing() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    assert_eq!(create(&mut raw, vec![creatable("topic", 1, 1)], true)[0].error_code, ErrorCode::NONE);
    assert_eq!(create(&mut raw, vec![creatable("a/b", 1, 1)], true)[0].error_code, ErrorCode::INVALID_TOPIC_EXCEPTION);
    assert!(names(&mut raw).is_empty());
}

#[test]
fn a_bad_config_is_named() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    for (name, value) in
        [("retention.mss", "1"), ("retention.ms", "soon"), ("cleanup.policy", "burn"), ("segment.bytes", "-1")]
    {
        let config = CreatableTopicConfig { name: name.into(), value: Some(value.into()) };
        let topic = CreatableTopic { configs: vec![config], ..creatable("topic", 1, 1) };
        let result = create(&mut raw, vec![topic], false).remove(0);
        assert_eq!(result.error_code, ErrorCode::INVALID_CONFIG, "{name}={value}");
        let message = result.error_message.expect("words");
        assert!(message.contains(name), "{message}");
    }
    assert!(names(&mut raw).is_empty());
}

#[test]
fn a_topic_is_created_automatically() {
    let broker = Broker::builder().set("num.partitions", "3").start();
    let mut raw = Raw::connect(&broker);
    assert_eq!(describe(&mut raw, "asked-for", false).error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert!(names(&mut raw).is_empty());
    let ready = millstream_tests::wait_until("the topic", std::time::Duration::from_secs(20), || {
        let topic = describe(&mut raw, "asked-for", true);
        (!topic.error_code.retriable()).then_some(topic)
    });
    assert_eq!((ready.error_code, ready.partitions.len()), (ErrorCode::NONE, 3));
    assert!(!ready.topic_id.is_nil());
    let topic = Topic { name: "asked-for".into(), id: ready.topic_id };
    assert_eq!(topic.produce(&mut raw, batch(&["value"])), 0);
}

#[test]
fn no_topic_is_created_automatically_where_that_is_off() {
    let broker = Broker::builder().set("auto.create.topics.enable", "false").start();
    let mut raw = Raw::connect(&broker);
    assert_eq!(describe(&mut raw, "asked-for", true).error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert!(names(&mut raw).is_empty());
}

#[test]
fn metadata_has_all_topics_none_or_the_requested_ones() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topics = ["a", "b"].map(|name| Topic::create(&mut raw, name, 1, &[]));
    // In version 0 an empty list means all; in later versions null means all, and an empty list none.
    let empty = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    assert_eq!(raw.call(0, &empty).topics.len(), 2);
    for version in 1..=13 {
        assert_eq!(raw.call(version, &empty).topics.len(), 0, "v{version}");
        let all = raw.call(version, &MetadataRequest { topics: None, ..Default::default() });
        assert_eq!(all.topics.len(), 2, "v{version}");
        assert_eq!(all.brokers.len(), 1, "v{version}");
        let told = format!("{}:{}", all.brokers[0].host.as_str(), all.brokers[0].port);
        assert_eq!(told, broker.bootstrap(), "v{version}");
    }
    // By id the name is null, or empty as Java's Admin sends it.
    for (version, name) in [(12, None), (12, Some("")), (13, None), (13, Some(""))] {
        let mut find = |topic_id| {
            let by_id = MetadataRequestTopic { name: name.map(Str::from), topic_id };
            let request = MetadataRequest { topics: Some(vec![by_id]), ..Default::default() };
            raw.call(version, &request).topics.remove(0)
        };
        let found = find(topics[1].id);
        assert_eq!((found.error_code, found.name.as_deref()), (ErrorCode::NONE, Some("b")), "v{version} {name:?}");
        let unknown = find(Uuid::from_u128(1));
        assert_eq!((unknown.error_code, unknown.name), (ErrorCode::UNKNOWN_TOPIC_ID, None), "v{version} {name:?}");
    }
}

/// A change that a client began is completed before another one begins, even if the client disconnects. Otherwise one
/// name could get two ids, and one request's topic could not be opened by the other.
#[test]
fn a_change_is_completed_after_its_client_disconnects() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    for round in 0..5 {
        let name = format!("topic-{round}");
        let topics = vec![creatable(&name, 30, 1)];
        let request = CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: false };
        for _ in 0..10 {
            Raw::connect(&broker).send(7, &request);
        }
        create(&mut raw, vec![creatable(&name, 30, 1)], false);
        let topic = describe(&mut raw, &name, false);
        assert_eq!(topic.partitions.len(), 30, "{name}");
        let offline = topic.partitions.iter().filter(|partition| partition.error_code.is_err()).count();
        assert_eq!(offline, 0, "partitions of {name} without a leader");
    }
}

#[test]
fn deletion_takes_the_data_and_frees_the_name() {
    let broker = Broker::builder().set("log.segment.delete.delay.ms", "0").start();
    let mut raw = Raw::connect(&broker);
    let old = Topic::create(&mut raw, "topic", 2, &[]);
    old.produce(&mut raw, batch(&["old"]));
    assert_eq!(delete(&mut raw, &old), ErrorCode::NONE);
    assert_eq!(delete(&mut raw, &old), ErrorCode::UNKNOWN_TOPIC_ID);
    assert!(names(&mut raw).is_empty());
    let new = Topic::create(&mut raw, "topic", 1, &[]);
    assert_ne!(new.id, old.id);
    assert_eq!(new.produce(&mut raw, batch(&["new"])), 0);
    assert_eq!(new.read(&mut raw, 0), ["new"]);
    // The old id does not lead to the new topic.
    assert_eq!(old.produce_by(&mut raw, 13, batch(&["lost"])).error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    millstream_tests::wait_until("the old files to go", std::time::Duration::from_secs(20), || {
        let folders = std::fs::read_dir(broker.folder()).expect("the data folder").flatten();
        let left: Vec<_> = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("topic")).collect();
        (left.len() == 1).then_some(())
    });
}

/// As in Kafka, the folder has another name until its files are removed, so that the name of the topic is free.
#[test]
fn the_files_of_a_deleted_topic_stay_for_a_while() {
    let mut broker = Broker::builder().set("log.segment.delete.delay.ms", "600000").start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    topic.produce(&mut raw, batch(&["old"]));
    assert_eq!(delete(&mut raw, &topic), ErrorCode::NONE);
    let folders = |broker: &Broker| -> Vec<_> {
        let entries = std::fs::read_dir(broker.folder()).expect("the data folder").flatten();
        let names = entries.map(|entry| entry.file_name().into_string().expect("text"));
        names.filter(|name| name.starts_with("topic")).collect()
    };
    let [folder] = &folders(&broker)[..] else { panic!("{:?}", folders(&broker)) };
    let id = folder.strip_prefix("topic-0.").and_then(|rest| rest.strip_suffix("-delete")).expect("another name");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{folder}");
    assert!(broker.folder().join(folder).join("00000000000000000000.log").exists());
    // The next start does not wait.
    assert_eq!(broker.stop(Signal::TERM).code(), Some(0));
    broker.restart();
    millstream_tests::wait_until("the old files to go", std::time::Duration::from_secs(20), || {
        folders(&broker).is_empty().then_some(())
    });
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 2, &[]);
    topic.produce(&mut raw, batch(&["kept"]));
    let mut grow = |count, validate_only| {
        let topic = CreatePartitionsTopic { name: "topic".into(), count, assignments: None };
        let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only };
        raw.call(3, &request).results[0].error_code
    };
    for count in [2, 1, 0, -1] {
        assert_eq!(grow(count, false), ErrorCode::INVALID_PARTITIONS, "{count}");
    }
    assert_eq!(grow(4, true), ErrorCode::NONE);
    assert_eq!(grow(3, false), ErrorCode::NONE);
    assert_eq!(describe(&mut raw, "topic", false).partitions.len(), 3);
    let answer = raw.call(9, &topic.produce_request(9, -1, 2, batch(&["new"])));
    assert_eq!(answer.responses[0].partition_responses[0].error_code, ErrorCode::NONE);
    assert_eq!(topic.read(&mut raw, 0), ["kept"]);
}

#[test]
fn topics_their_ids_and_configs_survive_a_kill_and_a_restart() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let cluster = raw.call(12, &MetadataRequest::default()).cluster_id;
    let kept = Topic::create(&mut raw, "kept", 3, &[("retention.ms", "86400000")]);
    let gone = Topic::create(&mut raw, "gone", 1, &[]);
    assert_eq!(delete(&mut raw, &gone), ErrorCode::NONE);
    kept.produce(&mut raw, batch(&["value"]));
    for kill in [true, false] {
        if kill {
            broker.kill();
        } else {
            broker.stop(Signal::TERM);
        }
        broker.restart();
        let mut raw = Raw::connect(&broker);
        assert_eq!(names(&mut raw), ["kept"], "kill: {kill}");
        let found = describe(&mut raw, "kept", false);
        assert_eq!((found.topic_id, found.partitions.len()), (kept.id, 3), "kill: {kill}");
        assert_eq!(raw.call(12, &MetadataRequest::default()).cluster_id, cluster, "kill: {kill}");
        assert_eq!(kept.read(&mut raw, 0), ["value"], "kill: {kill}");
        let resource =
            DescribeConfigsResource { resource_type: 2, resource_name: "kept".into(), configuration_keys: None };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let configs = raw.call(4, &request).results.remove(0).configs;
        let retention = configs.iter().find(|config| config.name.as_str() == "retention.ms").expect("the option");
        assert_eq!(retention.value.as_deref(), Some("86400000"), "kill: {kill}");
    }
}
