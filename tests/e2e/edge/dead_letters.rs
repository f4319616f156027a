//! Dead letters: their topic and content, and that none is lost or written twice without need.

use millstream_record::{Codec, Header};
use millstream_tests::{Broker, Cluster, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::InitProducerIdRequest;
use rustix::process::{Signal, kill_process};

use super::{NOT_NEGATIVE, PATIENCE, Row, alter, create_at, rows, rows_of, set};
use crate::support::{Raw, Topic, builder, compressed, producer_batch};

const OPTIONS: [(&str, &str); 3] =
    [("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "dead-letter"), ("stage.dead.letter.topic", "dead")];

fn started(settings: &[(&str, &str)], partitions: i32) -> (Broker, Raw, Topic) {
    let builder = settings.iter().fold(Broker::builder(), |builder, (key, value)| builder.set(key, value));
    let broker = builder.start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "orders", partitions, &[]);
    set(&mut raw, &topic, &OPTIONS);
    (broker, raw, topic)
}

fn dead() -> Topic {
    Topic { name: "dead".into(), id: uuid::Uuid::nil() }
}

#[test]
fn a_dead_letter_is_the_record_with_the_reason_and_its_place() {
    let (_broker, mut raw, topic) = started(&[], 1);
    topic.produce(&mut raw, compressed(Codec::None, &[r#"{"n":0}"#; 3]));
    let mut batch = builder(Codec::Gzip, &[r#"{"n":1}"#]);
    let own = [Header::new("trace", Some(b"abc")), Header::new("trace", None)];
    batch.append(1_700_000_000_123, Some(b"key"), Some(b"no json"), own).expect("appended");
    batch.append(1_700_000_000_456, None, Some(br#"{"n":-5}"#), []).expect("appended");
    batch.append(1_700_000_000_789, Some(b"tombstone"), None, []).expect("appended");
    assert_eq!(topic.produce(&mut raw, batch.build().expect("built")), 3);
    let offsets: Vec<i64> = rows(&mut raw, &topic).iter().map(|row| row.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    assert_eq!(topic.end(&mut raw), 7);

    let letters = rows(&mut raw, &dead());
    let [bad, refused, tombstone] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(
        (bad.key.as_deref(), bad.value.as_deref(), bad.timestamp),
        (Some("key"), Some("no json"), 1_700_000_000_123)
    );
    assert_eq!(bad.headers[..2], [("trace".to_owned(), "abc".to_owned()), ("trace".to_owned(), String::new())]);
    assert!(bad.header("millstream.error").contains("not JSON"), "{bad:?}");
    assert_eq!((refused.value.as_deref(), refused.timestamp), (Some(r#"{"n":-5}"#), 1_700_000_000_456));
    assert_eq!((tombstone.key.as_deref(), tombstone.value.as_deref()), (Some("tombstone"), None));
    for (letter, offset) in letters.iter().zip(["4", "5", "6"]) {
        assert_eq!(letter.header("millstream.plugin"), "json-compare");
        assert_eq!(letter.header("millstream.version"), "0", "the binary's");
        assert_eq!(letter.header("millstream.source.topic"), "orders");
        assert_eq!(letter.header("millstream.source.partition"), "0");
        assert_eq!(letter.header("millstream.source.offset"), offset);
    }
}

#[test]
fn dead_letters_go_to_the_partition_number_of_their_source_if_it_exists() {
    let (_broker, mut raw, topic) = started(&[("num.partitions", "2")], 3);
    for partition in [0, 1, 2, 1] {
        let request = topic.produce_request(9, 1, partition, compressed(Codec::None, &["no json"]));
        assert_eq!(raw.call(9, &request).responses[0].partition_responses[0].error_code, ErrorCode::NONE);
    }
    let places = |raw: &mut Raw, partition| -> Vec<(String, String)> {
        let place = |row: &Row| {
            (row.header("millstream.source.partition").to_owned(), row.header("millstream.source.offset").to_owned())
        };
        rows_of(raw, &dead(), partition).iter().map(place).collect()
    };
    let pair = |partition: &str, offset: &str| (partition.to_owned(), offset.to_owned());
    assert_eq!(places(&mut raw, 0), [pair("0", "0"), pair("2", "0")]);
    assert_eq!(places(&mut raw, 1), [pair("1", "0"), pair("1", "1")]);
}

#[test]
fn a_repeated_batch_writes_no_second_dead_letter() {
    let (_broker, mut raw, topic) = started(&[], 1);
    let producer = raw.call(4, &InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() });
    let sequenced = |sequence, values: &[&str]| producer_batch(producer.producer_id, 0, sequence, values);
    for _ in 0..3 {
        assert_eq!(topic.produce(&mut raw, sequenced(0, &["no json", r#"{"n":1}"#])), 0);
        assert_eq!(
            topic.produce_by(&mut raw, 9, sequenced(7, &["no json"])).error_code,
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
        );
    }
    assert_eq!(topic.produce(&mut raw, sequenced(2, &["no json"])), 2);
    assert_eq!(rows(&mut raw, &dead()).len(), 2);
}

/// Two connections write to one partition. Every offset is in exactly one of the two topics, at the place that the dead
/// letters name.
#[test]
fn offsets_of_dead_letters_and_records_never_collide() {
    let (broker, mut raw, topic) = started(&[], 1);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (broker, topic) = (&broker, &topic);
            scope.spawn(move || {
                let mut raw = Raw::connect(broker);
                for round in 0..60 {
                    let good = format!(r#"{{"n":{round}}}"#);
                    let values: &[&str] =
                        if (round + writer) % 3 == 0 { &[&good] } else { &["no json", &good, "nor this"] };
                    topic.produce(&mut raw, compressed(Codec::Lz4, values));
                }
            });
        }
    });
    let mut offsets: Vec<i64> = rows(&mut raw, &topic).iter().map(|row| row.offset).collect();
    let letters = rows(&mut raw, &dead());
    offsets.extend(letters.iter().map(|row| row.header("millstream.source.offset").parse::<i64>().expect("a number")));
    offsets.sort_unstable();
    assert_eq!(offsets, (0..topic.end(&mut raw)).collect::<Vec<i64>>());
}

#[test]
fn a_dead_letter_that_cannot_be_written_rejects_its_batch() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let large = [("max.message.bytes", "2000000")];
    let topic = Topic::create(&mut raw, "orders", 1, &large);
    Topic::create(&mut raw, "dead", 1, &large);
    set(&mut raw, &topic, &OPTIONS);
    // Without its dead letter topic, a batch is rejected: the topic would be created with a lower limit.
    assert_eq!(crate::views::delete(&mut raw, "dead").0, ErrorCode::NONE);
    let answer = topic.produce_by(&mut raw, 9, compressed(Codec::None, &["no json"]));
    assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD);
    let message = answer.error_message.as_deref().unwrap_or_default();
    assert!(message.contains("dead letter") && message.contains("max.message.bytes of dead is"), "{message}");
    assert_eq!(topic.produce(&mut raw, compressed(Codec::None, &[r#"{"n":1}"#])), 0, "good records are stored");
    let dead = Topic::create(&mut raw, "dead", 1, &large);
    assert_eq!(topic.produce(&mut raw, compressed(Codec::None, &["no json"])), 1);
    assert_eq!(rows(&mut raw, &dead).len(), 1);
}

#[test]
fn dead_letters_that_do_not_fit_into_one_batch_are_written_as_several() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let small = [("max.message.bytes", "1000")];
    let topic = Topic::create(&mut raw, "orders", 1, &small);
    let dead = Topic::create(&mut raw, "dead", 1, &small);
    set(&mut raw, &topic, &OPTIONS);
    // The headers alone are larger than a batch.
    topic.produce(&mut raw, compressed(Codec::None, &["no json"; 40]));
    assert_eq!(rows(&mut raw, &dead).len(), 40);
}

#[test]
fn a_killed_broker_has_lost_nothing_that_was_acknowledged() {
    for flush_mode in ["fsync", "page-cache"] {
        let (mut broker, mut raw, topic) = started(&[("flush.mode", flush_mode)], 1);
        let producer = raw.call(4, &InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() });
        let id = producer.producer_id;
        // Pipelined batches of three records, killed at any point. The responses are counted.
        let mut sequence = 0;
        for round in 0..6 {
            let mut sent = Vec::new();
            for _ in 0..5 {
                let good = format!(r#"{{"n":{sequence}}}"#);
                let bad = format!("bad {sequence}");
                let values = [&*good, &*bad, &*bad];
                let request = topic.produce_request(9, -1, 0, producer_batch(id, 0, sequence, &values));
                sent.push((raw.send(9, &request), sequence));
                sequence += 3;
            }
            let answered = sent[..round].iter().map(|(correlation, sequence)| {
                let response = raw.receive::<millstream_wire::messages::ProduceRequest>(9, *correlation);
                let answer = response.responses[0].partition_responses[0].clone();
                assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, i64::from(*sequence)));
            });
            let answered = answered.count();
            broker.kill();
            broker.restart();
            raw = Raw::connect(&broker);
            // The producer retries every batch without a response.
            for (_, sequence) in &sent[answered..] {
                let good = format!(r#"{{"n":{sequence}}}"#);
                let bad = format!("bad {sequence}");
                assert_eq!(
                    topic.produce(&mut raw, producer_batch(id, 0, *sequence, &[&good, &bad, &bad])),
                    i64::from(*sequence)
                );
            }
        }
        let kept: Vec<i64> = rows(&mut raw, &topic).iter().map(|row| row.offset).collect();
        assert_eq!(kept, (0..i64::from(sequence)).step_by(3).collect::<Vec<i64>>(), "{flush_mode}");
        let letters = rows(&mut raw, &dead());
        for offset in (0..i64::from(sequence)).filter(|offset| offset % 3 != 0) {
            let (offset, value) = (offset.to_string(), format!("bad {}", offset / 3 * 3));
            let mut found = letters.iter().filter(|row| row.header("millstream.source.offset") == offset);
            assert!(found.clone().count() >= 1, "{flush_mode}: offset {offset} is nowhere");
            assert!(found.all(|row| row.value.as_deref() == Some(&*value)), "{flush_mode}: {offset}");
        }
    }
}

#[test]
fn dead_letters_stay_after_their_topic_is_no_longer_set() {
    let (_broker, mut raw, topic) = started(&[], 1);
    topic.produce(&mut raw, compressed(Codec::None, &["no json"]));
    let (code, message) = alter(&mut raw, &topic.name, &[("stage.admit", None), ("stage.admit.failure.policy", None)]);
    assert_eq!(code, ErrorCode::NONE, "{message}");
    assert_eq!(topic.produce(&mut raw, compressed(Codec::None, &["no json"])), 1);
    assert_eq!(rows(&mut raw, &dead()).len(), 1);
}

#[test]
fn the_largest_record_of_a_topic_fits_its_dead_letter_topic() {
    let (_broker, mut raw, topic) = started(&[], 1);
    let limit = 1_048_588;
    let overhead = compressed(Codec::None, &[&"x".repeat(1_000_000)]).len() - 1_000_000;
    let value = "x".repeat(limit - overhead);
    let batch = compressed(Codec::None, &[&value]);
    assert_eq!(batch.len(), limit);
    assert_eq!(topic.produce(&mut raw, batch), 0);
    let letters = rows(&mut raw, &dead());
    assert_eq!(letters[0].value.as_deref().map(str::len), Some(value.len()));
    // A batch that compresses well may be larger than the limit.
    let value = "y".repeat(3_000_000);
    assert_eq!(topic.produce(&mut raw, compressed(Codec::Zstd, &[&value])), 1);
    assert_eq!(rows(&mut raw, &dead()).len(), 2);
}

#[test]
fn a_dead_letter_topic_that_is_too_small_is_rejected() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "orders", 1, &[("max.message.bytes", "2000000")]);
    let refused = |raw: &mut Raw| {
        let options = OPTIONS.map(|(name, value)| (name, Some(value)));
        let (code, message) = alter(raw, &topic.name, &options);
        assert_eq!(code, ErrorCode::INVALID_CONFIG, "{message}");
        assert!(message.contains("max.message.bytes of dead is 1048588"), "{message}");
        assert!(message.contains("2000000"), "{message}");
    };
    refused(&mut raw);
    let letters = Topic::create(&mut raw, "dead", 1, &[]);
    refused(&mut raw);
    assert_eq!(alter(&mut raw, &letters.name, &[("max.message.bytes", Some("2000000"))]).0, ErrorCode::NONE);
    set(&mut raw, &topic, &OPTIONS);
}

#[test]
fn a_dead_letter_topic_cannot_be_made_too_small_later() {
    let (_broker, mut raw, topic) = started(&[], 1);
    let problem =
        "max.message.bytes of dead is 1000, and records of orders of up to 1048588 bytes may become dead letters";
    let created = crate::support::create(&mut raw, "dead", 1, &[("max.message.bytes", "1000")]);
    assert_eq!(created.error_code, ErrorCode::INVALID_CONFIG);
    let message = created.error_message.as_deref().unwrap_or_default();
    assert!(message.contains(problem), "{message}");
    let dead = Topic::create(&mut raw, "dead", 1, &[]);
    let (code, message) = alter(&mut raw, &dead.name, &[("max.message.bytes", Some("1000"))]);
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert!(message.contains(problem), "{message}");
    // The other end of the scale: the topic is made larger.
    let (code, message) = alter(&mut raw, &topic.name, &[("max.message.bytes", Some("2000000"))]);
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert!(message.contains("max.message.bytes of dead is 1048588"), "{message}");
    let (code, message) = alter(&mut raw, &dead.name, &[("cleanup.policy", Some("compact"))]);
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert!(message.contains("dead is compacted, and orders sends its dead letters to dead"), "{message}");
    assert_eq!(alter(&mut raw, &dead.name, &[("retention.ms", Some("1000000"))]), (ErrorCode::NONE, String::new()));
}

#[test]
fn a_dead_letter_that_is_sent_again_has_the_headers_once() {
    let (_broker, mut raw, topic) = started(&[], 1);
    topic.produce(&mut raw, compressed(Codec::None, &["no json"]));
    for again in 1..4 {
        let letters = rows(&mut raw, &dead());
        let letter = letters.last().expect("a dead letter");
        let mut batch = builder(Codec::None, &[]);
        let headers = letter.headers.iter().map(|(name, value)| Header::new(name, Some(value.as_bytes())));
        batch.append(1_700_000_000_000, None, Some(b"no json"), headers).expect("appended");
        assert_eq!(topic.produce(&mut raw, batch.build().expect("built")), again);
    }
    for (offset, letter) in rows(&mut raw, &dead()).iter().enumerate() {
        assert_eq!(letter.headers.len(), 6, "{letter:?}");
        assert_eq!(letter.header("millstream.source.offset"), offset.to_string());
    }
}

/// A replica that is needed for the commit of the dead letter is paused.
#[test]
fn a_dead_letter_that_is_not_committed_in_time_lets_the_producer_retry() {
    // The paused node stays in the in-sync set.
    let patience = [("broker.session.timeout.ms", "60000"), ("replica.lag.time.max.ms", "60000")];
    let mut cluster = Cluster::start(3, &patience);
    let mut raw = Raw::to(cluster.address(1));
    let topic = create_at(&mut raw, "orders", &[1]);
    let dead = create_at(&mut raw, "dead", &[1, 2]);
    set(&mut raw, &topic, &OPTIONS);
    let send = |raw: &mut Raw| topic.produce_by(raw, 9, compressed(Codec::None, &["no json"])).error_code;
    wait_until("a first dead letter", PATIENCE, || send(&mut raw).is_ok().then_some(()));
    let paused = cluster.node_of(2).pid();
    kill_process(paused, Signal::STOP).expect("a signal");
    assert_eq!(send(&mut raw), ErrorCode::REQUEST_TIMED_OUT);
    kill_process(paused, Signal::CONT).expect("a signal");
    wait_until("a retry that succeeds", PATIENCE, || send(&mut raw).is_ok().then_some(()));
    assert!(rows(&mut raw, &dead).len() >= 2);
}
