//! Configs of topics and of the broker: completely described, and in force at once.

use millstream_tests::Broker;
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Str};

use crate::support::{DELETE, Raw, SET, TOPIC, Topic, alter_by, batch};

const BROKER: i8 = 4;

/// The source of a value.
const DYNAMIC_TOPIC: i8 = 1;
const ONE_BROKER: i8 = 2;
const ALL_BROKERS: i8 = 3;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// The configs of a topic in Kafka 4.4.
const TOPIC_OPTIONS: [&str; 37] = [
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "errors.deadletterqueue.group.enable",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.decompressed.message.bytes",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.copy.lag.bytes",
    "remote.copy.lag.ms",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

fn describe(raw: &mut Raw, kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| Str::from(*key)).collect()),
    };
    let request =
        DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, include_documentation: true };
    raw.call(4, &request).results.remove(0)
}

fn value(raw: &mut Raw, topic: &str, key: &str) -> (String, i8) {
    let result = describe(raw, TOPIC, topic, Some(&[key]));
    assert_eq!(result.configs.len(), 1, "{key}");
    let config = &result.configs[0];
    (config.value.as_deref().unwrap_or_default().to_owned(), config.config_source)
}

/// The operations of IncrementalAlterConfigs on lists.
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

#[test]
fn a_topic_is_described_with_every_config_its_source_and_synonyms() {
    let broker = Broker::builder().set("log.retention.ms", "7200000").start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "topic", 1, &[("max.message.bytes", "5000")]);
    let result = describe(&mut raw, TOPIC, "topic", None);
    assert_eq!(result.error_code, ErrorCode::NONE);
    let mut names: Vec<_> = result.configs.iter().map(|config| config.name.as_str()).collect();
    names.sort_unstable();
    let missing: Vec<_> = TOPIC_OPTIONS.iter().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "an option twice: {names:?}");
    for config in &result.configs {
        let name = config.name.as_str();
        // A config without a default has no synonym.
        let Some(synonym) = config.synonyms.first() else {
            assert_eq!(config.value, None, "{name} has a value from nowhere");
            continue;
        };
        assert_eq!(synonym.source, config.config_source, "{name}");
        // Kafka shows a broker config that is in hours as hours, and the test does not convert it.
        if !synonym.name.ends_with(".hours") {
            assert_eq!(synonym.value, config.value, "{name}");
        }
        assert!((1..=9).contains(&config.config_type), "{name}: type {}", config.config_type);
        assert!(config.documentation.as_ref().is_some_and(|words| !words.is_empty()), "{name} has no documentation");
        let source = match name {
            "max.message.bytes" => DYNAMIC_TOPIC,
            "retention.ms" => STATIC_BROKER,
            _ => DEFAULT,
        };
        assert_eq!(config.config_source, source, "{name}");
    }
    let find = |name: &str| result.configs.iter().find(|config| config.name.as_str() == name).expect("an option");
    let synonyms = |name: &str| -> Vec<(String, String, i8)> {
        let synonyms = find(name).synonyms.iter();
        let text = |value: &Option<Str>| value.as_deref().unwrap_or_default().to_owned();
        synonyms.map(|synonym| (synonym.name.to_string(), text(&synonym.value), synonym.source)).collect()
    };
    assert_eq!(
        synonyms("max.message.bytes"),
        [
            ("max.message.bytes".to_owned(), "5000".to_owned(), DYNAMIC_TOPIC),
            ("message.max.bytes".to_owned(), "1048588".to_owned(), DEFAULT),
        ]
    );
    assert_eq!(synonyms("retention.ms")[0], ("log.retention.ms".to_owned(), "7200000".to_owned(), STATIC_BROKER));
    for (name, value) in [
        ("cleanup.policy", "delete"),
        ("errors.deadletterqueue.group.enable", "false"),
        ("max.decompressed.message.bytes", "2147483639"),
        ("remote.copy.lag.bytes", "-1"),
        ("remote.copy.lag.ms", "0"),
    ] {
        assert_eq!(find(name).value.as_deref(), Some(value), "{name}");
    }
}

#[test]
fn options_of_what_is_not_there_cannot_be_turned_on() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "topic", 1, &[]);
    for (name, bad, good) in [
        ("errors.deadletterqueue.group.enable", "true", "false"),
        ("remote.storage.enable", "true", "false"),
        ("compression.lz4.level", "3", "9"),
    ] {
        for (value, error) in [(bad, ErrorCode::INVALID_CONFIG), (good, ErrorCode::NONE)] {
            let (answer, message) = alter_by(&mut raw, "topic", &[(name, SET, Some(value))]);
            assert_eq!(answer, error, "{name}={value}: {message}");
        }
    }
}

#[test]
fn only_the_requested_configs_are_described() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "topic", 1, &[]);
    let result = describe(&mut raw, TOPIC, "topic", Some(&["retention.ms", "no.such.option", "cleanup.policy"]));
    let mut names: Vec<_> = result.configs.iter().map(|config| config.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["cleanup.policy", "retention.ms"]);
    assert_eq!(describe(&mut raw, TOPIC, "absent", None).error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn a_broker_is_described() {
    let broker = Broker::builder().set("num.partitions", "7").start();
    let mut raw = Raw::connect(&broker);
    let id = raw.call(12, &MetadataRequest::default()).brokers[0].node_id.to_string();
    let result = describe(&mut raw, BROKER, &id, None);
    assert_eq!(result.error_code, ErrorCode::NONE);
    let find = |name: &str| result.configs.iter().find(|config| config.name.as_str() == name).expect("an option");
    assert_eq!(find("num.partitions").value.as_deref(), Some("7"));
    assert_eq!(find("num.partitions").config_source, STATIC_BROKER);
    assert_eq!(find("message.max.bytes").value.as_deref(), Some("1048588"));
    assert_eq!(find("message.max.bytes").config_source, DEFAULT);
    assert!(describe(&mut raw, BROKER, "4711", None).error_code.is_err());
    assert!(describe(&mut raw, 77, "x", None).error_code.is_err());
}

#[test]
fn a_change_is_in_force_at_once_and_can_be_undone() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    let large = batch(&[&"x".repeat(2000)]);
    topic.produce(&mut raw, large.clone());
    assert_eq!(alter_by(&mut raw, "topic", &[("max.message.bytes", SET, Some("1000"))]).0, ErrorCode::NONE);
    assert_eq!(value(&mut raw, "topic", "max.message.bytes"), ("1000".to_owned(), DYNAMIC_TOPIC));
    assert_eq!(topic.produce_by(&mut raw, 9, large.clone()).error_code, ErrorCode::MESSAGE_TOO_LARGE);
    assert_eq!(alter_by(&mut raw, "topic", &[("max.message.bytes", DELETE, None)]).0, ErrorCode::NONE);
    assert_eq!(value(&mut raw, "topic", "max.message.bytes"), ("1048588".to_owned(), DEFAULT));
    topic.produce(&mut raw, large);

    assert_eq!(
        alter_by(&mut raw, "topic", &[("message.timestamp.type", SET, Some("LogAppendTime"))]).0,
        ErrorCode::NONE
    );
    let stamped = topic.produce_by(&mut raw, 9, batch(&["value"]));
    assert!(stamped.log_append_time_ms > 0);
}

#[test]
fn lists_are_appended_to_and_subtracted_from() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "topic", 1, &[]);
    assert_eq!(alter_by(&mut raw, "topic", &[("cleanup.policy", APPEND, Some("compact"))]).0, ErrorCode::NONE);
    assert_eq!(value(&mut raw, "topic", "cleanup.policy").0, "delete,compact");
    assert_eq!(alter_by(&mut raw, "topic", &[("cleanup.policy", SUBTRACT, Some("delete"))]).0, ErrorCode::NONE);
    // Kafka Connect compares with exactly this text.
    assert_eq!(value(&mut raw, "topic", "cleanup.policy").0, "compact");
    let (error, _) = alter_by(&mut raw, "topic", &[("retention.ms", APPEND, Some("5"))]);
    assert!(error.is_err(), "only lists can be appended to");
}

#[test]
fn a_bad_change_is_rejected_as_a_whole_and_named() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "topic", 1, &[]);
    for (name, bad) in
        [("retention.ms", "soon"), ("retention.mss", "1"), ("max.message.bytes", "-1"), ("compression.type", "rar")]
    {
        let changes = [("segment.ms", SET, Some("60000")), (name, SET, Some(bad))];
        let (error, message) = alter_by(&mut raw, "topic", &changes);
        assert_eq!(error, ErrorCode::INVALID_CONFIG, "{name}={bad}");
        assert!(message.contains(name), "{message}");
        assert_eq!(value(&mut raw, "topic", "segment.ms").1, DEFAULT, "{name}={bad}: half of it was done");
    }
    assert_eq!(
        alter_by(&mut raw, "absent", &[("retention.ms", SET, Some("1"))]).0,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
}

/// AlterConfigs replaces all configs: the ones that it does not name return to their defaults.
#[test]
fn alter_configs_replaces_all() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    Topic::create(&mut raw, "topic", 1, &[("retention.ms", "1000000"), ("segment.ms", "2000000")]);
    for version in 0..=2 {
        for validate_only in [true, false] {
            let config = AlterableConfig { name: "segment.ms".into(), value: Some("3000000".into()) };
            let resource =
                AlterConfigsResource { resource_type: TOPIC, resource_name: "topic".into(), configs: vec![config] };
            let answer = raw.call(version, &AlterConfigsRequest { resources: vec![resource], validate_only });
            assert_eq!(answer.responses[0].error_code, ErrorCode::NONE, "v{version}");
            if validate_only && version == 0 {
                assert_eq!(value(&mut raw, "topic", "segment.ms").0, "2000000");
            }
        }
        assert_eq!(value(&mut raw, "topic", "segment.ms"), ("3000000".to_owned(), DYNAMIC_TOPIC), "v{version}");
        assert_eq!(value(&mut raw, "topic", "retention.ms"), ("604800000".to_owned(), DEFAULT), "v{version}");
    }
}

/// Sets configs of a broker, or for "" the defaults of all brokers. `None` removes one.
fn set_broker(raw: &mut Raw, broker: &str, name: &str, value: Option<&str>) -> (ErrorCode, String) {
    let config = IncrementalAlterableConfig {
        name: name.into(),
        config_operation: if value.is_some() { SET } else { DELETE },
        value: value.map(Str::from),
    };
    let resource =
        IncrementalAlterConfigsResource { resource_type: BROKER, resource_name: broker.into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer = raw.call(1, &request).responses.remove(0);
    (answer.error_code, answer.error_message.map_or_else(String::new, |message| message.to_string()))
}

/// The broker's defaults for topics change while it runs, for one broker or for all, and are in force at once.
#[test]
fn defaults_of_topics_change_while_the_broker_runs() {
    let mut broker = Broker::builder().set("log.retention.hours", "1").start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    let own = Topic::create(&mut raw, "own", 1, &[("max.message.bytes", "3000")]);
    let large = batch(&[&"x".repeat(2000)]);
    topic.produce(&mut raw, large.clone());

    let set = |raw: &mut Raw, broker, name, value| {
        let (error, message) = set_broker(raw, broker, name, value);
        assert_eq!(error, ErrorCode::NONE, "{name} of {broker:?}: {message}");
    };
    set(&mut raw, "", "message.max.bytes", Some("1000"));
    assert_eq!(topic.produce_by(&mut raw, 9, large.clone()).error_code, ErrorCode::MESSAGE_TOO_LARGE);
    own.produce(&mut raw, large.clone());
    assert_eq!(value(&mut raw, "topic", "max.message.bytes"), ("1000".to_owned(), ALL_BROKERS));
    set(&mut raw, "0", "message.max.bytes", Some("4000"));
    topic.produce(&mut raw, large.clone());
    let config = describe(&mut raw, TOPIC, "topic", Some(&["max.message.bytes"])).configs.remove(0);
    let synonyms: Vec<_> = config.synonyms.iter().map(|one| (one.name.as_str(), one.source)).collect();
    let name = "message.max.bytes";
    assert_eq!(synonyms, [(name, ONE_BROKER), (name, ALL_BROKERS), (name, DEFAULT)]);
    // The finest unit wins over the one in the file.
    assert_eq!(value(&mut raw, "topic", "retention.ms"), ("3600000".to_owned(), STATIC_BROKER));
    set(&mut raw, "", "log.retention.ms", Some("5000"));
    assert_eq!(value(&mut raw, "topic", "retention.ms"), ("5000".to_owned(), ALL_BROKERS));
    // New topics have them, too, and lists start with them.
    set(&mut raw, "", "log.cleanup.policy", Some("compact"));
    Topic::create(&mut raw, "new", 1, &[]);
    assert_eq!(alter_by(&mut raw, "new", &[("cleanup.policy", APPEND, Some("delete"))]).0, ErrorCode::NONE);
    assert_eq!(value(&mut raw, "new", "cleanup.policy").0, "compact,delete");
    set(&mut raw, "", "log.cleanup.policy", None);

    broker.kill();
    broker.restart();
    let mut raw = Raw::connect(&broker);
    set(&mut raw, "0", "message.max.bytes", None);
    assert_eq!(topic.produce_by(&mut raw, 9, large.clone()).error_code, ErrorCode::MESSAGE_TOO_LARGE);
    set(&mut raw, "", "message.max.bytes", None);
    topic.produce(&mut raw, large);
    assert_eq!(value(&mut raw, "topic", "max.message.bytes").1, DEFAULT);

    for (broker, name, bad, code, words) in [
        ("0", "log.retention.hours", "1", ErrorCode::INVALID_REQUEST, "Cannot update these configs dynamically"),
        ("0", "min.insync.replicas", "1", ErrorCode::INVALID_CONFIG, "while ELR is enabled"),
        ("", "log.segment.bytes", "7", ErrorCode::INVALID_CONFIG, "expected at least 1048576"),
        ("", "log.cleaner.min.compaction.lag.ms", "9223372036854775807", ErrorCode::NONE, ""),
        ("", "log.cleaner.max.compaction.lag.ms", "5", ErrorCode::INVALID_CONFIG, "is above max.compaction.lag.ms"),
    ] {
        let (error, message) = set_broker(&mut raw, broker, name, Some(bad));
        assert_eq!(error, code, "{name}: {message}");
        assert!(message.contains(words), "{name}: {message}");
    }
}
