//! Stages at the edge inside of transactions: gaps, recoded batches, rejected batches, and views.

use std::time::Duration;

use millstream_client::{Producer, ProducerConfig, ProducerRecord, Remedy};
use millstream_record::{BatchView, Codec, batches};
use millstream_tests::Broker;
use millstream_wire::ErrorCode;
use tempfile::TempDir;

use super::{NOT_NEGATIVE, set, stored, stored_codecs, values};
use crate::guests::Guest;
use crate::support::{Protocol, Raw, Topic, TransactionalProducer, builder, create, read_committed};

/// Rows 1 (not JSON) and 3 (rejected by the filter) are bad.
const MIXED: [&str; 5] = [r#"{"n":1}"#, "no json", r#"{"n":2}"#, r#"{"n":-1}"#, r#"{"n":3}"#];

fn started(broker: &Broker, options: &[(&str, &str)], protocol: Protocol) -> (Raw, Topic, TransactionalProducer) {
    let mut raw = Raw::connect(broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[]);
    set(&mut raw, &topic, options);
    let producer = TransactionalProducer::init(Raw::connect(broker), "copier", protocol);
    (raw, topic, producer)
}

fn kept(offsets_and_values: &[(i64, &str)]) -> Vec<(i64, String)> {
    offsets_and_values.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

fn committed(raw: &mut Raw, topic: &Topic) -> Vec<(i64, String)> {
    read_committed(raw, topic).records
}

fn uncommitted(raw: &mut Raw, topic: &Topic) -> Vec<(i64, String)> {
    values(raw, topic).into_iter().collect()
}

#[test]
fn records_that_admission_drops_leave_gaps_in_a_transaction() {
    for protocol in Protocol::ALL {
        let broker = Broker::start();
        let options = [("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "skip")];
        let (mut raw, topic, mut producer) = started(&broker, &options, protocol);
        assert_eq!(producer.produce(&mut raw, &topic, builder(Codec::Lz4, &MIXED)), 0);
        assert_eq!(producer.produce(&mut raw, &topic, builder(Codec::None, &MIXED)), 5, "the gap's offsets are used");
        let first = [(0, MIXED[0]), (2, MIXED[2]), (4, MIXED[4]), (5, MIXED[0]), (7, MIXED[2]), (9, MIXED[4])];
        assert_eq!(uncommitted(&mut raw, &topic), kept(&first), "{protocol:?}");
        let open = read_committed(&mut raw, &topic);
        assert_eq!((open.records, open.end), (Vec::new(), 0), "{protocol:?}");
        producer.end(true);
        let done = read_committed(&mut raw, &topic);
        assert_eq!((done.records, done.end), (kept(&first), 11), "{protocol:?}: the marker is at 10");

        // A transaction that is aborted, of which the first batch is dropped whole.
        assert_eq!(producer.produce(&mut raw, &topic, builder(Codec::None, &[MIXED[1]; 2])), 11);
        assert_eq!(producer.produce(&mut raw, &topic, builder(Codec::None, &MIXED)), 13);
        assert_eq!(read_committed(&mut raw, &topic).end, 11, "{protocol:?}: a batch without records opens it too");
        producer.end(false);
        let done = read_committed(&mut raw, &topic);
        assert_eq!((done.records, done.end), (kept(&first), 19), "{protocol:?}");

        // A transaction of which nothing is kept.
        assert_eq!(producer.produce(&mut raw, &topic, builder(Codec::None, &[MIXED[3]; 3])), 19);
        producer.end(true);
        assert_eq!(producer.produce(&mut raw, &topic, builder(Codec::None, &[MIXED[3], MIXED[0]])), 23);
        producer.end(true);
        let done = read_committed(&mut raw, &topic);
        let all = [&first[..], &[(24, MIXED[0])]].concat();
        assert_eq!((done.records, done.end), (kept(&all), 26), "{protocol:?}");
    }
}

#[test]
fn a_repeated_batch_with_gaps_gets_its_offset_again() {
    for protocol in Protocol::ALL {
        let broker = Broker::start();
        let options = [("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "skip")];
        let (mut raw, topic, mut producer) = started(&broker, &options, protocol);
        let batch = producer.batch(&topic, 0, builder(Codec::None, &MIXED));
        for _ in 0..3 {
            let answer = producer.send(&mut raw, &topic, 0, batch.clone());
            assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, 0), "{:?}", answer.error_message);
        }
        producer.end(true);
        let wanted = kept(&[(0, MIXED[0]), (2, MIXED[2]), (4, MIXED[4])]);
        assert_eq!(committed(&mut raw, &topic), wanted, "{protocol:?}");
    }
}

#[test]
fn recoded_batches_stay_in_their_transaction() {
    let folder = TempDir::new().expect("a folder");
    let own_format = Guest::compressor().name("own-format").build();
    std::fs::write(folder.path().join("own-format.wasm"), own_format).expect("written");
    let ways: [&[(&str, &str)]; 4] = [
        &[("compression.type", "gzip")],
        &[("stage.compressor", "zstd")],
        &[("stage.compressor", "own-format")],
        &[("stage.compressor", "zstd"), ("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "skip")],
    ];
    for protocol in Protocol::ALL {
        for options in ways {
            let broker = Broker::builder().plugins(folder.path()).start();
            let (mut raw, topic, mut producer) = started(&broker, options, protocol);
            for (is_committed, values) in [(true, [MIXED[0]; 2]), (false, [MIXED[2]; 2]), (true, [MIXED[4]; 2])] {
                let sent = builder(Codec::Lz4, &values);
                let (id, epoch) = (producer.id, producer.epoch);
                let offset = producer.produce(&mut raw, &topic, sent);
                let on_disk = stored(&broker, &topic);
                let last: BatchView<'_> = batches(&on_disk).last().expect("a batch").expect("a sound batch");
                assert_eq!((last.base_offset(), last.is_transactional()), (offset, true), "{options:?}");
                assert_eq!((last.producer_id(), last.producer_epoch(), last.count()), (id, epoch, 2), "{options:?}");
                assert_ne!(last.attributes() & 7, Codec::Lz4.id(), "{options:?}: it is recoded");
                assert_eq!(read_committed(&mut raw, &topic).end, offset, "{options:?}: readers wait");
                producer.end(is_committed);
            }
            let wanted = kept(&[(0, MIXED[0]), (1, MIXED[0]), (6, MIXED[4]), (7, MIXED[4])]);
            let done = read_committed(&mut raw, &topic);
            assert_eq!((done.records, done.end), (wanted, 9), "{protocol:?} {options:?}");
            assert_eq!(uncommitted(&mut raw, &topic).len(), 6);
        }
        let broker = Broker::start();
        let (mut raw, topic, mut producer) = started(&broker, &[("stage.compressor", "zstd")], protocol);
        producer.produce(&mut raw, &topic, builder(Codec::None, &MIXED));
        producer.end(true);
        assert_eq!(stored_codecs(&broker, &topic), [Codec::Zstd, Codec::None], "the marker has no codec");
    }
}

#[test]
fn views_show_what_the_isolation_level_of_the_reader_allows() {
    for protocol in Protocol::ALL {
        let broker = Broker::start();
        let (mut raw, topic, mut producer) = started(&broker, &[], protocol);
        let made =
            create(&mut raw, "view", -1, &[("view.of", "topic"), ("stage.filter", r#"contains{"text":"keep"}"#)]);
        assert_eq!(made.error_code, ErrorCode::NONE, "{:?}", made.error_message);
        let view = Topic { name: "view".into(), id: made.topic_id };
        let values = |name: &str| ["hide".to_owned(), format!("keep {name}"), "hide".to_owned()];
        let sent = |name: &str| builder(Codec::Lz4, &values(name).each_ref().map(String::as_str));

        producer.produce(&mut raw, &topic, sent("committed"));
        producer.end(true);
        producer.produce(&mut raw, &topic, sent("aborted"));
        producer.end(false);
        // Plain records between the transactions, and behind an open one.
        topic.produce(&mut raw, sent("plain").build().expect("a batch"));
        producer.produce(&mut raw, &topic, sent("open"));
        topic.produce(&mut raw, sent("behind").build().expect("a batch"));

        let all =
            [(1, "keep committed"), (5, "keep aborted"), (9, "keep plain"), (12, "keep open"), (15, "keep behind")];
        assert_eq!(uncommitted(&mut raw, &view), kept(&all), "{protocol:?}");
        let seen = read_committed(&mut raw, &view);
        let stable = [all[0], all[2]];
        assert_eq!((seen.records, seen.end), (kept(&stable), 11), "{protocol:?}: the open transaction begins at 11");
        producer.end(true);
        let seen = read_committed(&mut raw, &view);
        let stable = [all[0], all[2], all[3], all[4]];
        assert_eq!((seen.records, seen.end), (kept(&stable), 18), "{protocol:?}");

        // A transaction of which the view shows nothing.
        producer.produce(&mut raw, &topic, builder(Codec::None, &["hide"; 3]));
        assert_eq!(read_committed(&mut raw, &view).end, 18);
        producer.end(false);
        assert_eq!(read_committed(&mut raw, &view).end, 22);
        assert_eq!(committed(&mut raw, &view), kept(&stable), "{protocol:?}");
    }
}

#[test]
fn a_batch_that_a_stage_rejects_leaves_a_transaction_that_can_be_aborted() {
    for protocol in Protocol::ALL {
        let broker = Broker::start();
        let (mut raw, topic, mut producer) = started(&broker, &[("stage.admit", NOT_NEGATIVE)], protocol);
        producer.produce(&mut raw, &topic, builder(Codec::None, &[MIXED[0]]));
        let answer = producer.try_produce(&mut raw, &topic, builder(Codec::None, &MIXED));
        assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "{protocol:?}");
        let message = answer.error_message.as_deref().unwrap_or_default();
        assert!(message.contains("2 records are rejected") && message.contains("not JSON"), "{message}");
        let named: Vec<i32> = answer.record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!(named, [1, 3], "{protocol:?}");
        let words = answer.record_errors[1].batch_index_error_message.as_deref().unwrap_or_default();
        assert!(words.contains("json-compare"), "{words}");
        producer.end(false);
        producer.produce(&mut raw, &topic, builder(Codec::None, &[MIXED[2]]));
        producer.end(true);
        let done = read_committed(&mut raw, &topic);
        assert_eq!((done.records, done.end), (kept(&[(2, MIXED[2])]), 4), "{protocol:?}");
        // The first batch of a transaction is rejected: there is nothing in it, and it ends all the same.
        let answer = producer.try_produce(&mut raw, &topic, builder(Codec::None, &[MIXED[1]]));
        assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "{protocol:?}");
        producer.end(false);
        producer.produce(&mut raw, &topic, builder(Codec::None, &[MIXED[4]]));
        producer.end(true);
        let last = committed(&mut raw, &topic).pop().expect("records");
        assert_eq!(last.1, MIXED[4], "{protocol:?}");
        assert_eq!(read_committed(&mut raw, &topic).end, topic.end(&mut raw), "{protocol:?}: nothing stays open");
    }
}

/// Millstream's own client does as Kafka's: a transaction with a rejected record cannot be committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_commit_what_a_stage_of_the_topic_has_rejected() {
    let broker = Broker::start();
    let mut raw = Raw::connect(&broker);
    let topic = Topic::create(&mut raw, "topic", 1, &[("stage.admit", NOT_NEGATIVE)]);
    let mut config = ProducerConfig::new(&broker.bootstrap());
    config.set("transactional.id", "copier").expect("a config");
    let producer = Producer::builder(config).build().expect("a valid config");
    producer.init_transactions().await.expect("a producer id");
    let record = |value: &'static str| ProducerRecord::new("topic").partition(0).value(value.as_bytes());
    for round in 0..2 {
        producer.begin_transaction().await.expect("no other transaction");
        producer.send_and_forget(record(MIXED[0])).await.expect("queued");
        producer.flush().await;
        producer.send_and_forget(record(MIXED[1])).await.expect("queued");
        let error = producer.commit_transaction().await.expect_err("a record is missing");
        assert_eq!(error.remedy(), Remedy::Abort, "{round}: {error}");
        assert!(error.to_string().contains("not JSON"), "{round}: {error}");
        producer.abort_transaction().await.expect("aborted");
        producer.begin_transaction().await.expect("no other transaction");
        producer.send_and_forget(record(MIXED[4])).await.expect("queued");
        producer.commit_transaction().await.expect("committed");
    }
    producer.close(Duration::from_secs(10)).await.expect("closed");
    let values: Vec<String> = committed(&mut raw, &topic).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [MIXED[4]; 2]);
}
