//! Transactions of our own client: committed as a whole or not at all, with both protocols.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_client::{
    CommittedOffset, Consumer, Error, IsolationLevel, Producer, ProducerBuilder, ProducerConfig, ProducerRecord,
    Remedy, TopicPartition,
};
use millstream_stage::Kind;
use millstream_tests::{Cluster, KafkaNode};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{FeatureUpdateKey, UpdateFeaturesRequest};

use crate::records::{create, from_beginning, read_all};
use crate::stages::stage;
use crate::support::Raw;
use crate::{PATIENCE, Server, both, both_mortal, run, unique};

const PARTITIONS: i32 = 3;

pub(crate) fn trials() -> Vec<Trial> {
    let older = Trial::test("transactions with the older protocol (Apache Kafka, transaction.version 0)", || {
        let node = KafkaNode::start_with(&["transaction.version=0"]);
        run(older_protocol(node.bootstrap()))
    });
    let ours = Trial::test("transactions with the older protocol (millstream)", || {
        let one = |name| (name, "1");
        let keys = ["default.replication.factor", "offsets.topic.replication.factor", "min.insync.replicas"];
        let cluster = Cluster::start(1, &keys.map(one));
        lower_transaction_version(cluster.address(1));
        run(older_protocol(cluster.bootstrap()))
    });
    let mut trials: Vec<Trial> = [
        both("a transaction is committed or aborted as a whole", outcomes),
        both("offsets are committed with the records of a transaction", offsets),
        both("a newer producer fences an older one with its transactional.id", fenced),
        both("a transaction with a rejected record can only be aborted", rejected),
        both("calls of a transaction need their order", order),
        both("a transaction with a record that a stage rejects can only be aborted", staged),
        both("an open transaction is aborted when its producer is closed", closed),
        both_mortal("transactions stay whole when the broker is killed", killed),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.push(ours);
    trials.push(older.with_ignored_flag(!KafkaNode::available()));
    trials
}

/// Turns the newer protocol off. A broker that is alone has no level to lower, so this is a cluster of one.
fn lower_transaction_version(address: SocketAddr) {
    let unsafe_downgrade = 3;
    let update = FeatureUpdateKey {
        feature: "transaction.version".into(),
        max_version_level: 0,
        upgrade_type: unsafe_downgrade,
        ..Default::default()
    };
    let request = UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() };
    assert_eq!(Raw::to(address).call(1, &request).error_code, ErrorCode::NONE);
}

async fn older_protocol(bootstrap: String) {
    outcomes(bootstrap.clone()).await;
    offsets(bootstrap.clone()).await;
    fenced(bootstrap.clone()).await;
    rejected(bootstrap.clone()).await;
    closed(bootstrap).await;
}

fn producer(bootstrap: &str, id: &str, changes: &[(&str, &str)]) -> ProducerBuilder {
    let mut config = ProducerConfig::new(bootstrap);
    config.set("transactional.id", id).unwrap();
    config.set("transaction.timeout.ms", "60000").unwrap();
    for (key, value) in changes {
        config.set(key, value).unwrap();
    }
    Producer::builder(config)
}

/// Returns a producer that has registered its transactional id.
async fn transactional(bootstrap: &str, id: &str, changes: &[(&str, &str)]) -> Producer {
    let producer = producer(bootstrap, id, changes).build().unwrap();
    producer.init_transactions().await.unwrap();
    producer
}

/// Reads the values of all committed records, sorted. Fails if a transaction stays open.
async fn committed_values(bootstrap: &str, topic: &str) -> Vec<String> {
    let mut config = from_beginning(bootstrap);
    config.isolation_level = IsolationLevel::ReadCommitted;
    let consumer = Consumer::builder(config).build().unwrap();
    let partitions = consumer.partitions(topic).await.unwrap();
    let all = Consumer::builder(from_beginning(bootstrap)).build().unwrap();
    let ends = all.end_offsets(&partitions).await.unwrap();
    all.close().await.unwrap();
    consumer.assign(partitions).unwrap();
    let mut values = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !ends.iter().all(|(partition, end)| consumer.position(partition).is_some_and(|position| position >= *end)) {
        assert!(std::time::Instant::now() < deadline, "a transaction of {topic} stays open");
        let records = consumer.poll(Duration::from_millis(100)).await.unwrap();
        values.extend(records.into_iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
    }
    consumer.close().await.unwrap();
    values.sort();
    values
}

async fn send(producer: &Producer, topic: &str, names: &[&str]) {
    try_send(producer, topic, names, &mut 0).await.unwrap();
}

/// Sends records and counts those that are queued.
async fn try_send(producer: &Producer, topic: &str, names: &[&str], sent: &mut u64) -> Result<(), Error> {
    for (partition, name) in (0..PARTITIONS).cycle().zip(names) {
        let record = ProducerRecord::new(topic).partition(partition).value(name.as_bytes());
        producer.send_and_forget(record).await?;
        *sent += 1;
    }
    Ok(())
}

async fn outcomes(bootstrap: String) {
    let topic = create(&bootstrap, "outcomes", PARTITIONS).await;
    let producer = transactional(&bootstrap, &unique("outcomes"), &[("compression.type", "lz4")]).await;
    for round in 0..3 {
        producer.begin_transaction().await.unwrap();
        let [a, b, c] = [0, 1, 2].map(|number| format!("kept {round}.{number}"));
        send(&producer, &topic, &[&a, &b, &c]).await;
        producer.commit_transaction().await.unwrap();
        producer.begin_transaction().await.unwrap();
        send(&producer, &topic, &["dropped", "dropped", "dropped"]).await;
        // Some are stored and some are not sent.
        if round == 1 {
            producer.flush().await;
        }
        producer.abort_transaction().await.unwrap();
        // Without a record and without offsets.
        producer.begin_transaction().await.unwrap();
        producer.commit_transaction().await.unwrap();
    }
    producer.close(PATIENCE).await.unwrap();
    let expected = ["kept 0.0", "kept 0.1", "kept 0.2", "kept 1.0", "kept 1.1", "kept 1.2", "kept 2.0", "kept 2.1"];
    assert_eq!(committed_values(&bootstrap, &topic).await, [&expected[..], &["kept 2.2"]].concat());
    let all = read_all(&bootstrap, &topic).await;
    let dropped = all.iter().filter(|record| record.value.as_deref() == Some(b"dropped")).count();
    assert!(dropped >= PARTITIONS as usize, "the flushed records are stored: {dropped}");
}

async fn offsets(bootstrap: String) {
    let (source, sink) = (create(&bootstrap, "source", 1).await, create(&bootstrap, "sink", 1).await);
    let plain = Producer::builder(ProducerConfig::new(&bootstrap)).build().unwrap();
    for number in 0..10 {
        let value = number.to_string();
        plain.send_and_forget(ProducerRecord::new(&source).value(value.as_bytes())).await.unwrap();
    }
    plain.close(PATIENCE).await.unwrap();

    let mut config = from_beginning(&bootstrap);
    config.group_id = Some(unique("copier"));
    config.enable_auto_commit = false;
    config.isolation_level = IsolationLevel::ReadCommitted;
    config.max_poll_records = 5;
    let consumer = Consumer::builder(config).build().unwrap();
    consumer.subscribe([&source]).unwrap();
    let producer = transactional(&bootstrap, &unique("copier"), &[]).await;
    let partition = TopicPartition::new(source.as_str(), 0);
    let stored = async || {
        let committed = consumer.committed(std::slice::from_ref(&partition)).await.unwrap();
        committed.get(&partition).map(|committed| committed.offset)
    };
    for committed in [true, false] {
        let mut records = Vec::new();
        while records.len() < 5 {
            records.extend(consumer.poll(PATIENCE).await.unwrap());
        }
        producer.begin_transaction().await.unwrap();
        for record in &records {
            producer.send_and_forget(ProducerRecord::new(&sink).value(record.value.as_deref().unwrap())).await.unwrap();
        }
        let group = consumer.group_metadata().unwrap();
        assert!(group.generation_id >= 0 && !group.member_id.is_empty());
        producer.send_offsets_to_transaction(&consumer.positions(), &group).await.unwrap();
        match committed {
            true => producer.commit_transaction().await.unwrap(),
            false => producer.abort_transaction().await.unwrap(),
        }
        assert_eq!(stored().await, Some(5), "committed: {committed}");
    }
    // Offsets alone are a transaction too.
    producer.begin_transaction().await.unwrap();
    let group = consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&consumer.positions(), &group).await.unwrap();
    producer.commit_transaction().await.unwrap();
    assert_eq!(stored().await, Some(10));
    // A member of an earlier generation is fenced.
    producer.begin_transaction().await.unwrap();
    let late = millstream_client::ConsumerGroupMetadata { generation_id: group.generation_id - 1, ..group };
    let offsets = BTreeMap::from([(partition.clone(), CommittedOffset::new(3))]);
    let error = producer.send_offsets_to_transaction(&offsets, &late).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Abort, "{error}");
    assert!(error.to_string().contains("ILLEGAL_GENERATION"), "{error}");
    assert_eq!(producer.commit_transaction().await.unwrap_err().remedy(), Remedy::Abort);
    producer.abort_transaction().await.unwrap();
    assert_eq!(stored().await, Some(10));
    producer.close(PATIENCE).await.unwrap();
    consumer.close().await.unwrap();
    assert_eq!(committed_values(&bootstrap, &sink).await, ["0", "1", "2", "3", "4"]);
}

async fn fenced(bootstrap: String) {
    let topic = create(&bootstrap, "fenced", PARTITIONS).await;
    let id = unique("fenced");
    let zombie = transactional(&bootstrap, &id, &[]).await;
    zombie.begin_transaction().await.unwrap();
    send(&zombie, &topic, &["zombie", "zombie", "zombie"]).await;
    zombie.flush().await;
    // Aborts the open transaction of the zombie first.
    let newer = transactional(&bootstrap, &id, &[]).await;
    newer.begin_transaction().await.unwrap();
    send(&newer, &topic, &["a", "b", "c"]).await;
    let error = zombie.commit_transaction().await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Stop, "{error}");
    for error in [zombie.begin_transaction().await, zombie.abort_transaction().await] {
        assert_eq!(error.unwrap_err().remedy(), Remedy::Stop);
    }
    newer.commit_transaction().await.unwrap();
    // A zombie that is in the middle of a transaction learns it from its records, and stops at the abort.
    let zombie = newer;
    zombie.begin_transaction().await.unwrap();
    let newer = transactional(&bootstrap, &id, &[]).await;
    let record = ProducerRecord::new(&topic).partition(0).value(b"zombie");
    let error = zombie.send(record).await.unwrap().await.unwrap_err();
    assert!(matches!(error.remedy(), Remedy::Abort | Remedy::Stop), "{error}");
    assert!(zombie.commit_transaction().await.is_err());
    let _ = zombie.abort_transaction().await;
    assert_eq!(zombie.begin_transaction().await.unwrap_err().remedy(), Remedy::Stop);
    for producer in [newer, zombie] {
        producer.close(PATIENCE).await.unwrap();
    }
    assert_eq!(committed_values(&bootstrap, &topic).await, ["a", "b", "c"]);
}

async fn rejected(bootstrap: String) {
    let topic = create(&bootstrap, "rejected", PARTITIONS).await;
    let changes = [("max.request.size", "2000000"), ("batch.size", "2000000"), ("linger.ms", "0")];
    let producer = transactional(&bootstrap, &unique("rejected"), &changes).await;
    for round in ["first", "second"] {
        producer.begin_transaction().await.unwrap();
        send(&producer, &topic, &["dropped", "dropped"]).await;
        producer.flush().await;
        // Only the broker knows the topic's limit, 1 MB by default.
        let large = vec![0; 1_500_000];
        let error = producer.send(ProducerRecord::new(&topic).partition(2).value(&large)).await.unwrap().await;
        let error = error.unwrap_err();
        assert!(error.to_string().contains("MESSAGE_TOO_LARGE"), "{error}");
        assert_eq!(error.remedy(), Remedy::Abort);
        let later = producer.send(ProducerRecord::new(&topic).value(b"late")).await.unwrap_err();
        assert_eq!(later.remedy(), Remedy::Abort, "{later}");
        let error = producer.commit_transaction().await.unwrap_err();
        assert!(error.to_string().contains("MESSAGE_TOO_LARGE"), "{error}");
        assert_eq!(error.remedy(), Remedy::Abort);
        producer.abort_transaction().await.unwrap();
        producer.begin_transaction().await.unwrap();
        send(&producer, &topic, &[round, round, round]).await;
        producer.commit_transaction().await.unwrap();
    }
    // A record that is not even queued counts as missing too.
    producer.begin_transaction().await.unwrap();
    send(&producer, &topic, &["dropped"]).await;
    let large = vec![0; 2_500_000];
    let error = producer.send(ProducerRecord::new(&topic).value(&large)).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Abort, "{error}");
    assert_eq!(producer.commit_transaction().await.unwrap_err().remedy(), Remedy::Abort);
    producer.close(PATIENCE).await.unwrap();
    assert_eq!(committed_values(&bootstrap, &topic).await, ["first", "first", "first", "second", "second", "second"]);
}

async fn staged(bootstrap: String) {
    let topic = create(&bootstrap, "staged", PARTITIONS).await;
    let serializer = stage("json", Kind::Serializer);
    let producer = producer(&bootstrap, &unique("staged"), &[]).serializer(serializer).build().unwrap();
    producer.init_transactions().await.unwrap();
    producer.begin_transaction().await.unwrap();
    send(&producer, &topic, &["1", "no JSON", "3"]).await;
    let error = producer.commit_transaction().await.unwrap_err();
    assert!(error.remedy() == Remedy::Abort && error.to_string().contains("not JSON"), "{error}");
    producer.abort_transaction().await.unwrap();
    producer.begin_transaction().await.unwrap();
    send(&producer, &topic, &["1", "2", "3"]).await;
    producer.commit_transaction().await.unwrap();
    producer.close(PATIENCE).await.unwrap();
    assert_eq!(committed_values(&bootstrap, &topic).await, ["1", "2", "3"]);
}

async fn order(bootstrap: String) {
    let topic = create(&bootstrap, "order", 1).await;
    let plain = Producer::builder(ProducerConfig::new(&bootstrap)).build().unwrap();
    assert!(matches!(plain.init_transactions().await, Err(Error::State(_))));
    plain.close(PATIENCE).await.unwrap();
    let mut config = ProducerConfig::new(&bootstrap);
    config.set("transactional.id", &unique("order")).unwrap();
    let producer = Producer::builder(config).build().unwrap();
    assert!(matches!(producer.begin_transaction().await, Err(Error::State(_))));
    assert!(matches!(producer.send(ProducerRecord::new(&topic)).await, Err(Error::State(_))));
    producer.init_transactions().await.unwrap();
    assert!(matches!(producer.init_transactions().await, Err(Error::State(_))));
    assert!(matches!(producer.send(ProducerRecord::new(&topic)).await, Err(Error::State(_))));
    for ended in [producer.commit_transaction().await, producer.abort_transaction().await] {
        assert!(matches!(ended, Err(Error::State(_))), "{ended:?}");
    }
    producer.begin_transaction().await.unwrap();
    assert!(matches!(producer.begin_transaction().await, Err(Error::State(_))));
    producer.commit_transaction().await.unwrap();
    producer.close(PATIENCE).await.unwrap();
    // The broker's limit is transaction.max.timeout.ms.
    let mut config = ProducerConfig::new(&bootstrap);
    config.set("transactional.id", &unique("order")).unwrap();
    config.set("transaction.timeout.ms", "900001").unwrap();
    let producer = Producer::builder(config).build().unwrap();
    let error = producer.init_transactions().await.unwrap_err();
    assert!(error.to_string().contains("INVALID_TRANSACTION_TIMEOUT"), "{error}");
    assert_eq!(error.remedy(), Remedy::Stop);
    producer.close(PATIENCE).await.unwrap();
}

async fn closed(bootstrap: String) {
    let topic = create(&bootstrap, "closed", PARTITIONS).await;
    let producer = transactional(&bootstrap, &unique("closed"), &[]).await;
    producer.begin_transaction().await.unwrap();
    send(&producer, &topic, &["dropped", "dropped", "dropped"]).await;
    producer.flush().await;
    let lingering = producer.send(ProducerRecord::new(&topic).value(b"dropped")).await.unwrap();
    producer.close(PATIENCE).await.unwrap();
    assert!(matches!(lingering.await, Err(Error::Aborted) | Ok(_)));
    assert_eq!(committed_values(&bootstrap, &topic).await, [""; 0]);
}

/// Records of each transaction, spread over all partitions.
const RECORDS: usize = 30;

async fn killed(server: Arc<Mutex<Server>>) {
    let bootstrap = server.lock().unwrap().bootstrap();
    let topic = create(&bootstrap, "killed", PARTITIONS).await;
    let changes = [("batch.size", "500"), ("linger.ms", "1"), ("max.block.ms", "60000")];
    let serializer = stage("json", Kind::Serializer);
    let producer = producer(&bootstrap, &unique("killed"), &changes).serializer(serializer.clone()).build().unwrap();
    producer.init_transactions().await.unwrap();
    let mut expected = BTreeMap::new();
    let mut killer: Option<tokio::task::JoinHandle<()>> = None;
    let mut kills = 0;
    let (mut number, mut sent) = (0, 0);
    while kills < 3 || killer.is_some() {
        if killer.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
            killer.take().unwrap().await.unwrap();
        }
        if killer.is_none() && kills < 3 && number % 20 == 19 {
            let server = server.clone();
            killer = Some(tokio::task::spawn_blocking(move || server.lock().unwrap().bounce()));
            kills += 1;
        }
        // JSON, for the serializer.
        let name = format!("\"transaction {number}\"");
        let keep = number % 4 != 3;
        producer.begin_transaction().await.unwrap();
        let outcome = match try_send(&producer, &topic, &[name.as_str(); RECORDS], &mut sent).await {
            Ok(()) if keep => producer.commit_transaction().await,
            Ok(()) => producer.abort_transaction().await,
            failed => failed,
        };
        match outcome.map_err(|error| (error.remedy(), error)) {
            Ok(()) if keep => drop(expected.insert(name, RECORDS)),
            Ok(()) => {}
            Err((Remedy::Abort, _)) => producer.abort_transaction().await.unwrap(),
            Err((_, error)) => panic!("{error}"),
        }
        number += 1;
    }
    producer.close(PATIENCE).await.unwrap();
    let mut found = BTreeMap::new();
    for value in committed_values(&bootstrap, &topic).await {
        *found.entry(value).or_default() += 1;
    }
    assert_eq!(found, expected);
    assert!(expected.len() > 30, "{}", expected.len());
    assert_eq!(serializer.stats().records, sent, "each record is serialized once, also when its batch is retried");
}
