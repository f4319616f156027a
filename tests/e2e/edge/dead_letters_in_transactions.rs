//! Dead letters of records in transactions: they are committed and aborted with them.

use std::collections::BTreeSet;

use millstream_record::{BatchView, Codec, batches};
use millstream_tests::{Broker, Cluster};
use millstream_wire::ErrorCode;
use millstream_wire::messages::ProduceRequest;

use super::{NOT_NEGATIVE, Row, create_at, rows, set, stored};
use crate::support::{Protocol, Raw, Topic, TransactionalProducer, builder, read_committed, transaction_coordinator};

const OPTIONS: [(&str, &str); 3] =
    [("stage.admit", NOT_NEGATIVE), ("stage.admit.failure.policy", "dead-letter"), ("stage.dead.letter.topic", "dead")];

/// The first record is kept, and the others are not.
const MIXED: [&str; 3] = [r#"{"n":1}"#, "no json", r#"{"n":-1}"#];

fn started(broker: &Broker, protocol: Protocol) -> (Raw, Topic, TransactionalProducer) {
    let mut raw = Raw::connect(broker);
    let topic = Topic::create(&mut raw, "orders", 1, &[]);
    set(&mut raw, &topic, &OPTIONS);
    let producer = TransactionalProducer::init(Raw::connect(broker), "copier", protocol);
    (raw, topic, producer)
}

fn dead() -> Topic {
    Topic { name: "dead".into(), id: uuid::Uuid::nil() }
}

fn values(raw: &mut Raw, topic: &Topic) -> Vec<String> {
    read_committed(raw, topic).records.into_iter().map(|(_, value)| value).collect()
}

fn places(raw: &mut Raw) -> Vec<String> {
    rows(raw, &dead()).iter().map(|row: &Row| row.header("millstream.source.offset").to_owned()).collect()
}

#[test]
fn dead_letters_are_committed_and_aborted_with_their_records() {
    for protocol in Protocol::ALL {
        let broker = Broker::start();
        let (mut raw, topic, mut producer) = started(&broker, protocol);
        let batch = || builder(Codec::Gzip, &MIXED);
        // The first transaction is committed.
        assert_eq!(producer.produce(&mut raw, &topic, batch()), 0);
        assert_eq!(places(&mut raw), ["1", "2"], "{protocol:?}: readers of all records see them at once");
        let open = read_committed(&mut raw, &dead());
        assert_eq!((open.records, open.end), (Vec::new(), 0), "{protocol:?}");
        assert_eq!(producer.partitions(), ["dead-0", "orders-0"].map(str::to_owned).into(), "{protocol:?}");
        assert_eq!(producer.produce(&mut raw, &topic, batch()), 3);
        producer.end(true);
        assert_eq!(values(&mut raw, &dead()), [MIXED[1], MIXED[2], MIXED[1], MIXED[2]], "{protocol:?}");
        assert_eq!(values(&mut raw, &topic), [MIXED[0]; 2], "{protocol:?}");

        // The second one is aborted.
        assert_eq!(producer.produce(&mut raw, &topic, batch()), 7);
        assert_eq!(places(&mut raw), ["1", "2", "4", "5", "8", "9"], "{protocol:?}");
        producer.end(false);
        assert_eq!(values(&mut raw, &dead()).len(), 4, "{protocol:?}: an abort takes them back");
        assert_eq!(values(&mut raw, &topic), [MIXED[0]; 2], "{protocol:?}");
        assert_eq!(places(&mut raw).len(), 6, "{protocol:?}: readers of all records still see them");

        // The third one has no records but dead letters.
        assert_eq!(producer.produce(&mut raw, &topic, builder(Codec::None, &[MIXED[1]])), 11);
        producer.end(true);
        assert_eq!(values(&mut raw, &dead()).len(), 5, "{protocol:?}");
        for topic in [&topic, &dead()] {
            assert_eq!(read_committed(&mut raw, topic).end, topic.end(&mut raw), "{protocol:?}: nothing stays open");
        }
        // Stored as a coordinator stores offsets: with the producer, and without sequences.
        let on_disk = stored(&broker, &dead());
        let all: Vec<BatchView<'_>> = batches(&on_disk).map(|batch| batch.expect("a sound batch")).collect();
        let letters = all.iter().filter(|batch| !batch.is_control());
        assert!(letters.clone().all(|batch| batch.is_transactional() && batch.producer_id() == producer.id));
        assert!(letters.clone().all(|batch| batch.base_sequence() == -1));
        assert_eq!((letters.count(), all.len()), (4, 7), "{protocol:?}: each transaction has a marker");
    }
}

#[test]
fn a_repeated_batch_and_a_fenced_producer_write_no_dead_letter() {
    for protocol in Protocol::ALL {
        let broker = Broker::start();
        let (mut raw, topic, mut producer) = started(&broker, protocol);
        let batch = producer.batch(&topic, 0, builder(Codec::None, &MIXED));
        for _ in 0..3 {
            let answer = producer.send(&mut raw, &topic, 0, batch.clone());
            assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, 0), "{:?}", answer.error_message);
        }
        assert_eq!(places(&mut raw), ["1", "2"], "{protocol:?}");
        // Another instance aborts the transaction, and fences this one.
        let mut other = TransactionalProducer::init(Raw::connect(&broker), "copier", protocol);
        let late = producer.batch(&topic, 0, builder(Codec::None, &MIXED[1..]));
        let request = topic.produce_request(11, -1, 0, late);
        let answer = raw.call(11, &ProduceRequest { transactional_id: Some("copier".into()), ..request });
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(code, ErrorCode::INVALID_PRODUCER_EPOCH, "{protocol:?}");
        assert_eq!(places(&mut raw).len(), 2, "{protocol:?}");
        other.produce(&mut raw, &topic, builder(Codec::None, &[MIXED[1]]));
        other.end(true);
        assert_eq!(values(&mut raw, &dead()), [MIXED[1]], "{protocol:?}");
    }
}

/// The producer's own records in the dead letter topic keep their sequences.
#[test]
fn a_producer_may_write_to_the_dead_letter_topic_itself() {
    for protocol in Protocol::ALL {
        let mut broker = Broker::start();
        let (mut raw, topic, mut producer) = started(&broker, protocol);
        let dead = Topic::create(&mut raw, "dead", 1, &[]);
        // The first batch of the transaction in that partition is a dead letter, and then a record of its own.
        for round in 0..2 {
            for own in ["a", "b", "c"] {
                producer.produce(&mut raw, &topic, builder(Codec::None, &MIXED[1..]));
                producer.produce(&mut raw, &dead, builder(Codec::None, &[own]));
            }
            let repeated = producer.batch(&dead, 0, builder(Codec::None, &["d"]));
            for _ in 0..7 {
                producer.produce(&mut raw, &topic, builder(Codec::None, &MIXED[1..2]));
                let answer = producer.send(&mut raw, &dead, 0, repeated.clone());
                assert_eq!(answer.error_code, ErrorCode::NONE, "{protocol:?} {round}: {:?}", answer.error_message);
            }
            producer.took(&dead, 1);
            producer.end(true);
            let values = values(&mut raw, &dead);
            let own: Vec<&str> = values.iter().map(String::as_str).filter(|value| value.len() == 1).collect();
            assert_eq!(own.len(), 4 * (round + 1), "{protocol:?}: a repeated record is stored once: {values:?}");
            broker.kill();
            broker.restart();
            raw = Raw::connect(&broker);
            producer.reconnect(Raw::connect(&broker));
        }
    }
}

#[test]
fn a_dead_letter_that_cannot_be_written_leaves_a_transaction_that_can_be_aborted() {
    for protocol in Protocol::ALL {
        let broker = Broker::start();
        let (mut raw, topic, mut producer) = started(&broker, protocol);
        let large = [("max.message.bytes", "2000000")];
        let dead = Topic::create(&mut raw, "dead", 1, &large);
        set(&mut raw, &topic, &large);
        assert_eq!(crate::views::delete(&mut raw, "dead").0, ErrorCode::NONE);
        producer.produce(&mut raw, &topic, builder(Codec::None, &MIXED[..1]));
        let answer = producer.try_produce(&mut raw, &topic, builder(Codec::None, &MIXED));
        assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD, "{protocol:?}");
        let message = answer.error_message.as_deref().unwrap_or_default();
        assert!(message.contains("dead letter") && message.contains("max.message.bytes of dead is"), "{message}");
        producer.end(false);
        assert_eq!(read_committed(&mut raw, &topic).records, [], "{protocol:?}");
        Topic::create(&mut raw, "dead", 1, &large);
        producer.produce(&mut raw, &topic, builder(Codec::None, &MIXED));
        producer.end(true);
        assert_eq!(values(&mut raw, &topic), [MIXED[0]], "{protocol:?}");
        assert_eq!(values(&mut raw, &dead), [MIXED[1], MIXED[2]], "{protocol:?}");
    }
}

/// The marker of another transaction must not take the offset that a dead letter names.
#[test]
fn dead_letters_are_written_once_while_other_transactions_end() {
    const ROUNDS: usize = 40;
    for protocol in Protocol::ALL {
        let broker = Broker::start();
        let (mut raw, topic, _) = started(&broker, protocol);
        std::thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                let (broker, topic) = (&broker, &topic);
                scope.spawn(move || {
                    let mut raw = Raw::connect(broker);
                    let mut producer = TransactionalProducer::init(Raw::connect(broker), name, protocol);
                    for round in 0..ROUNDS {
                        producer.produce(&mut raw, topic, builder(Codec::None, &MIXED[1..]));
                        producer.end(round % 4 > 0);
                    }
                });
            }
        });
        let places = places(&mut raw);
        assert_eq!(places.len(), 3 * ROUNDS * 2, "{protocol:?}: each dead letter is written once");
        let distinct: BTreeSet<&String> = places.iter().collect();
        assert_eq!(distinct.len(), places.len(), "{protocol:?}: each names an offset of its own");
    }
}

/// What a broker asks that writes dead letters late, when the transaction of their records has ended. The producer of
/// the older protocol is the same in the next transaction.
#[test]
fn late_dead_letters_do_not_join_the_next_transaction() {
    let broker = Broker::start();
    let (mut raw, topic, mut producer) = started(&broker, Protocol::Older);
    let (dead, other) = (Topic::create(&mut raw, "dead", 1, &[]), Topic::create(&mut raw, "other", 1, &[]));
    producer.produce(&mut raw, &topic, builder(Codec::None, &MIXED[..1]));
    assert_eq!(producer.try_add(&dead, 0, Some(&topic)), ErrorCode::NONE);
    assert_eq!(producer.partitions(), ["dead-0", "orders-0"].map(str::to_owned).into());
    producer.end(true);
    assert_eq!(producer.try_add(&dead, 0, Some(&topic)), ErrorCode::TRANSACTION_ABORTABLE);
    producer.produce(&mut raw, &other, builder(Codec::None, &["of the next one"]));
    assert_eq!(producer.try_add(&dead, 0, Some(&topic)), ErrorCode::TRANSACTION_ABORTABLE);
    assert_eq!(producer.partitions(), ["other-0".to_owned()].into());
    producer.end(true);
}

#[test]
fn dead_letters_of_a_killed_broker_are_decided_with_their_transaction() {
    for protocol in Protocol::ALL {
        for is_committed in [true, false] {
            let mut broker = Broker::start();
            let (mut before, topic, mut producer) = started(&broker, protocol);
            producer.produce(&mut before, &topic, builder(Codec::None, &MIXED));
            broker.kill();
            broker.restart();
            let mut raw = Raw::connect(&broker);
            producer.reconnect(Raw::connect(&broker));
            assert_eq!(read_committed(&mut raw, &dead()).records, [], "{protocol:?}");
            producer.produce(&mut raw, &topic, builder(Codec::None, &MIXED));
            producer.end(is_committed);
            let wanted = if is_committed { 4 } else { 0 };
            assert_eq!(values(&mut raw, &dead()).len(), wanted, "{protocol:?}");
            assert_eq!(places(&mut raw).len(), 4, "{protocol:?}");
        }
    }
}

/// Starts a cluster with the records, the dead letters and the coordinator on three nodes: the leaders of the two
/// topics are on nodes 1 and 2, and the coordinator is on node 3.
fn cluster() -> (Cluster, Topic, Topic) {
    let cluster = Cluster::start(3, &[]);
    let mut first = Raw::to(cluster.address(1));
    let topic = create_at(&mut first, "orders", &[1, 2, 3]);
    let letters = create_at(&mut first, "dead", &[2, 1, 3]);
    set(&mut first, &topic, &OPTIONS);
    (cluster, topic, letters)
}

/// Makes a producer with the coordinator on node 3.
fn producer_of_third(cluster: &Cluster, protocol: Protocol) -> TransactionalProducer {
    let mut first = Raw::to(cluster.address(1));
    let mut ids = (0..1000).map(|number| format!("copier-{protocol:?}-{number}"));
    let id = ids.find(|id| transaction_coordinator(&mut first, id) == 3).expect("an id of node 3");
    TransactionalProducer::init(Raw::to(cluster.address(3)), &id, protocol)
}

#[test]
fn dead_letters_join_the_transaction_across_nodes() {
    let (cluster, topic, letters) = cluster();
    let [mut first, mut second] = [1, 2].map(|node| Raw::to(cluster.address(node)));
    for protocol in Protocol::ALL {
        let mut producer = producer_of_third(&cluster, protocol);
        let before = values(&mut second, &letters).len();
        for is_committed in [true, false, true] {
            producer.produce(&mut first, &topic, builder(Codec::None, &MIXED));
            producer.produce(&mut first, &topic, builder(Codec::None, &MIXED));
            assert_eq!(producer.partitions(), ["dead-0", "orders-0"].map(str::to_owned).into(), "{protocol:?}");
            producer.end(is_committed);
        }
        assert_eq!(values(&mut second, &letters).len() - before, 8, "{protocol:?}");
        assert_eq!(read_committed(&mut second, &letters).end, letters.end(&mut second), "{protocol:?}");
    }
}

#[test]
fn dead_letters_stay_in_the_transaction_when_their_leader_dies() {
    for protocol in Protocol::ALL {
        let (mut cluster, topic, letters) = cluster();
        let mut first = Raw::to(cluster.address(1));
        let mut producer = producer_of_third(&cluster, protocol);
        for is_committed in [true, false] {
            producer.produce(&mut first, &topic, builder(Codec::None, &MIXED));
            if is_committed {
                cluster.kill(2);
            }
            producer.produce(&mut first, &topic, builder(Codec::None, &MIXED));
            producer.end(is_committed);
        }
        let wanted = [MIXED[1], MIXED[2], MIXED[1], MIXED[2]];
        assert_eq!(values(&mut first, &letters), wanted, "{protocol:?}");
        assert_eq!(values(&mut first, &topic), [MIXED[0]; 2], "{protocol:?}");
        assert_eq!(read_committed(&mut first, &letters).end, letters.end(&mut first), "{protocol:?}");
    }
}
