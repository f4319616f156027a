//! `stage.admit`: which records are rejected, skipped, or stored as they were sent.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_record::{BatchView, Codec, HEADER_LEN, batches};
use millstream_tests::Broker;
use millstream_wire::messages::InitProducerIdRequest;
use millstream_wire::{ErrorCode, Records};

use super::{NOT_NEGATIVE, rows, set, stored, stored_codecs, values};
use crate::support::{Raw, Topic, builder, compressed, fetch_request, fetched, producer_batch};

/// Rows 1 (not JSON) and 3 (rejected by the filter) are bad.
const MIXED: [&str; 5] = [r#"{"n":1}"#, "no json", r#"{"n":2}"#, r#"{"n":-1}"#, r#"{"n":3}"#];

fn started(options: &[(&str, &str)]) -> (Broker, Raw, Topic) {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    set(&mut raw, &topic, options);
    (broker, raw, topic)
}

fn kept(offsets_and_values: &[(i64, &str)]) -> BTreeMap<i64, String> {
    offsets_and_values.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

#[test]
fn a_bad_record_rejects_its_batch_and_is_named() {
    let (_broker, mut raw, topic) = started(&[("stage.admit", NOT_NEGATIVE)]);
    for codec in Codec::ALL {
        let answer = topic.produce_by(&mut raw, 9, compressed(codec, &MIXED));
        assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::INVALID_RECORD, -1), "{codec}");
        let [first, second] = &answer.record_errors[..] else { panic!("{:?}", answer.record_errors) };
        assert_eq!((first.batch_index, second.batch_index), (1, 3));
        let words = |error: &millstream_wire::messages::BatchIndexAndErrorMessage| {
            error.batch_index_error_message.as_deref().unwrap_or_default().to_owned()
        };
        assert!(words(first).contains("not JSON"), "{}", words(first));
        assert!(words(second).contains("json-compare"), "{}", words(second));
        let message = answer.error_message.as_deref().unwrap_or_default();
        assert!(message.contains("2 records are rejected") && message.contains("record 1"), "{message}");
    }
    // Older versions have no room for messages.
    assert_eq!(topic.produce_by(&mut raw, 7, compressed(Codec::None, &MIXED)).error_code, ErrorCode::INVALID_RECORD);
    assert_eq!(topic.end(&mut raw), 0, "nothing of a rejected batch is appended");
    assert_eq!(topic.produce(&mut raw, compressed(Codec::None, &[MIXED[0]])), 0);
}

#[test]
fn a_batch_that_passes_whole_is_stored_as_it_was_sent() {
    for codec in Codec::ALL {
        let (broker, mut raw, topic) = started(&[("stage.admit", NOT_NEGATIVE)]);
        let sent = compressed(codec, &[MIXED[0], MIXED[2], MIXED[4]]);
        assert_eq!(topic.produce(&mut raw, sent.clone()), 0);
        assert_eq!(topic.produce(&mut raw, sent.clone()), 3);
        let stored = stored(&broker, &topic);
        let all: Vec<BatchView<'_>> = batches(&stored).map(|batch| batch.expect("a sound batch")).collect();
        assert_eq!(all.len(), 2);
        for batch in all {
            // The leader sets the base offset and leader epoch; the CRC does not cover them.
            assert_eq!(batch.bytes()[16..], sent[16..], "{codec}");
        }
    }
}

#[test]
fn skipped_records_leave_a_gap_in_every_codec() {
    for codec in Codec::ALL {
        let options = [("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "skip")];
        let (broker, mut raw, topic) = started(&options);
        assert_eq!(topic.produce(&mut raw, compressed(codec, &MIXED)), 0);
        assert_eq!(topic.produce(&mut raw, compressed(codec, &MIXED)), 5, "the gap's offsets are used up");
        let wanted = [(0, MIXED[0]), (2, MIXED[2]), (4, MIXED[4]), (5, MIXED[0]), (7, MIXED[2]), (9, MIXED[4])];
        assert_eq!(values(&mut raw, &topic), kept(&wanted), "{codec}");
        assert_eq!(stored_codecs(&broker, &topic), [codec; 2]);
    }
}

#[test]
fn with_policy_pass_bad_records_are_stored_as_they_are() {
    let (broker, mut raw, topic) = started(&[("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "pass")]);
    let sent = compressed(Codec::Zstd, &MIXED);
    assert_eq!(topic.produce(&mut raw, sent.clone()), 0);
    assert_eq!(stored(&broker, &topic)[16..], sent[16..]);
}

#[test]
fn a_response_without_records_ends_in_a_batch_that_clients_move_past() {
    let (_broker, mut raw, topic) = started(&[("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "skip")]);
    topic.produce(&mut raw, compressed(Codec::None, &[MIXED[0]]));
    for _ in 0..20 {
        topic.produce(&mut raw, compressed(Codec::None, &[MIXED[1]; 2]));
    }
    let fetch = |raw: &mut Raw, offset, bytes| {
        let answer = raw.call(12, &fetch_request(12, &[(&topic, 0, offset, bytes)], 0, 1));
        let Records::Bytes(bytes) = fetched(answer).records else { panic!("no records") };
        bytes
    };
    assert_eq!(batches(&fetch(&mut raw, 0, 1 << 20)).count(), 21, "as they lie, where there is more than those");
    for offset in [1, 2, 20] {
        let shown = fetch(&mut raw, offset, 400);
        let all: Vec<_> = batches(&shown).collect::<Result<_, _>>().expect("sound");
        assert_eq!(all.len(), 1, "{offset}");
        assert!(all[0].is_control() && all[0].next_offset() == 41, "{:?}", all[0]);
    }
    topic.produce(&mut raw, compressed(Codec::None, &[MIXED[2]]));
    let first = |shown: Bytes| batches(&shown).next().expect("a batch").expect("sound").base_offset();
    assert_eq!(first(fetch(&mut raw, 20, 400)), 41, "the next one that has records");
    assert_eq!(first(fetch(&mut raw, 41, 400)), 41);
}

#[test]
fn a_batch_without_kept_records_still_takes_its_offsets() {
    let (broker, mut raw, topic) = started(&[("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "skip")]);
    let producer = raw.call(4, &InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() });
    let sequenced = |sequence, values: &[&str]| producer_batch(producer.producer_id, 0, sequence, values);
    assert_eq!(topic.produce(&mut raw, sequenced(0, &[MIXED[1], MIXED[1], MIXED[1]])), 0);
    assert_eq!(topic.produce(&mut raw, sequenced(3, &[MIXED[0], MIXED[1]])), 3);
    assert_eq!(topic.produce(&mut raw, sequenced(5, &[MIXED[1]])), 5);
    assert_eq!(topic.produce(&mut raw, sequenced(6, &[MIXED[2]])), 6);
    // A repeated batch gets its first response again.
    assert_eq!(topic.produce(&mut raw, sequenced(0, &[MIXED[1], MIXED[1], MIXED[1]])), 0);
    assert_eq!(topic.produce(&mut raw, sequenced(5, &[MIXED[1]])), 5);
    assert_eq!(
        topic.produce_by(&mut raw, 9, sequenced(9, &[MIXED[0]])).error_code,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
    );
    assert_eq!(values(&mut raw, &topic), kept(&[(3, MIXED[0]), (6, MIXED[2])]));
    assert_eq!(batches(&stored(&broker, &topic)).next().expect("a batch").expect("sound").size(), HEADER_LEN);
    // A lookup by time passes over the batch.
    assert_eq!(topic.offset_for(&mut raw, 0, 0).offset, 3);
}

#[test]
fn a_chain_of_eight_sees_what_those_before_it_keep() {
    let stages: Vec<String> = (0..8).map(|n| format!(r#"json-compare{{"path":"/n","op":"!=","value":{n}}}"#)).collect();
    let options = [("stage.admit", &*stages.join(" | ")), ("stage.admit.failure.policy", "skip")];
    let (_broker, mut raw, topic) = started(&options);
    let sent: Vec<String> = (0..10).map(|n| format!(r#"{{"n":{n}}}"#)).chain(["no json".to_owned()]).collect();
    let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
    assert_eq!(topic.produce(&mut raw, compressed(Codec::Lz4, &sent)), 0);
    assert_eq!(values(&mut raw, &topic), kept(&[(8, r#"{"n":8}"#), (9, r#"{"n":9}"#)]));
    set(&mut raw, &topic, &[("stage.admit.failure.policy", "fail")]);
    let answer = topic.produce_by(&mut raw, 9, compressed(Codec::Lz4, &sent));
    let refused: Vec<i32> = answer.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(refused, [0, 1, 2, 3, 4, 5, 6, 7, 10]);
}

#[test]
fn admitted_batches_get_the_topics_timestamp_type_and_codec() {
    let options = [
        ("stage.admit", NOT_NEGATIVE),
        ("stage.admit.failure.policy", "skip"),
        ("message.timestamp.type", "LogAppendTime"),
        ("compression.type", "zstd"),
    ];
    let (broker, mut raw, topic) = started(&options);
    for sent in
        [compressed(Codec::Gzip, &MIXED), compressed(Codec::Zstd, &[MIXED[0]]), compressed(Codec::None, &[MIXED[2]])]
    {
        let answer = topic.produce_by(&mut raw, 9, sent);
        assert_eq!(answer.error_code, ErrorCode::NONE);
        assert!(answer.log_append_time_ms > 0);
        let read = rows(&mut raw, &topic);
        assert_eq!(read.last().expect("a record").timestamp, answer.log_append_time_ms);
    }
    assert_eq!(stored_codecs(&broker, &topic), [Codec::Zstd; 3]);
    assert_eq!(rows(&mut raw, &topic).iter().map(|row| row.offset).collect::<Vec<_>>(), [0, 2, 4, 5, 6]);
}

#[test]
fn acks_0_closes_the_connection_on_a_rejection_without_a_response() {
    let (broker, mut raw, topic) = started(&[("stage.admit", NOT_NEGATIVE)]);
    raw.send(9, &topic.produce_request(9, 0, 0, compressed(Codec::None, &[MIXED[0]])));
    // The next response belongs to the next request.
    assert_eq!(topic.end(&mut raw), 1);
    raw.send(9, &topic.produce_request(9, 0, 0, compressed(Codec::None, &MIXED)));
    raw.assert_closed("a rejected record with acks=0");
    assert_eq!(topic.end(&mut Raw::connect(&broker)), 1);
}

#[test]
fn requests_of_a_connection_are_appended_in_order_and_so_are_the_responses() {
    let (_broker, mut raw, topic) = started(&[("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "skip")]);
    let plain = Topic::create(&mut raw, "plain", 1, &[]);
    let mut sent = Vec::new();
    for index in 0..100 {
        let to = if index % 3 == 0 { &plain } else { &topic };
        let batch = compressed(Codec::None, &[&format!(r#"{{"n":{index}}}"#), "no json"]);
        sent.push((raw.send(9, &to.produce_request(9, -1, 0, batch)), index));
    }
    let mut ends = [0, 0];
    for (correlation, index) in sent {
        let response = raw.receive::<millstream_wire::messages::ProduceRequest>(9, correlation);
        let answer = &response.responses[0].partition_responses[0];
        let end = &mut ends[usize::from(index % 3 == 0)];
        assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, *end), "{index}");
        *end += 2;
    }
    let order: Vec<i64> = values(&mut raw, &topic).into_keys().collect();
    assert_eq!(order, (0..66).map(|n| n * 2).collect::<Vec<i64>>());
}

#[test]
fn configs_are_in_force_from_the_next_batch() {
    let (_broker, mut raw, topic) = started(&[]);
    let bad = || compressed(Codec::None, &["no json"]);
    assert_eq!(topic.produce(&mut raw, bad()), 0);
    set(&mut raw, &topic, &[("stage.admit", NOT_NEGATIVE)]);
    assert_eq!(topic.produce_by(&mut raw, 9, bad()).error_code, ErrorCode::INVALID_RECORD);
    super::alter(&mut raw, &topic.name, &[("stage.admit", None)]);
    assert_eq!(topic.produce(&mut raw, bad()), 1);
}

#[test]
fn stages_are_there_again_after_a_kill() {
    let (mut broker, mut raw, topic) = started(&[("stage.admit", NOT_NEGATIVE)]);
    topic.produce(&mut raw, compressed(Codec::None, &[MIXED[0]]));
    broker.kill();
    broker.restart();
    let mut raw = Raw::connect(&broker);
    let answer = topic.produce_by(&mut raw, 9, compressed(Codec::None, &MIXED));
    assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD);
    assert_eq!(topic.produce(&mut raw, compressed(Codec::None, &[MIXED[0]])), 1);
}

#[test]
fn a_large_batch_goes_to_the_filter_in_parts() {
    let (_broker, mut raw, topic) = started(&[
        ("stage.admit", r#"contains{"text":"yes"}"#),
        ("stage.admit.failure.policy", "skip"),
        ("max.message.bytes", "8388608"),
    ]);
    // 40 MiB of records, more than the filter's memory holds, compressed to a few KiB.
    let fill = "x".repeat(4000);
    let sent: Vec<String> =
        (0..10_000).map(|n| format!("{} {n} {fill}", if n % 5 == 0 { "yes" } else { "no" })).collect();
    let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
    assert_eq!(topic.produce(&mut raw, builder(Codec::Zstd, &sent).build().expect("built")), 0);
    let offsets: Vec<i64> = values(&mut raw, &topic).into_keys().collect();
    assert_eq!(offsets, (0..10_000).step_by(5).collect::<Vec<i64>>());
    assert_eq!(topic.end(&mut raw), 10_000);
}
