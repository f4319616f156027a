//! Producing and consuming: the records read are the ones that were sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_client::{
    Acks, Admin, ClientConfig, Consumer, ConsumerConfig, ConsumerRecord, Error, NewTopic, OffsetReset, Producer,
    ProducerConfig, ProducerRecord, TopicPartition,
};

use crate::{PATIENCE, both, unique};

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("every codec keeps keys, values, nulls and headers", codecs),
        both("results come as futures and callbacks, in order", verdicts),
        both("acks 0, 1 and all", acks),
        both("records that cannot be sent are rejected with the reason", refusals),
        both("seek, pause, resume and look up by time", positions),
        both("a flush sends lingering batches", flush),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(crate) async fn create(bootstrap: &str, name: &str, partitions: i32) -> String {
    create_with(bootstrap, name, partitions, &[]).await
}

/// Creates a topic with these configs. A leader hears of a config that changes later a moment after the response.
pub(crate) async fn create_with(bootstrap: &str, name: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
    let name = unique(name);
    let admin = Admin::new(ClientConfig::new(bootstrap)).unwrap();
    let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let topic = NewTopic { name: name.clone(), partitions: Some(partitions), configs, ..NewTopic::default() };
    admin.create_topics(&[topic]).await.unwrap();
    name
}

pub(crate) fn from_beginning(bootstrap: &str) -> ConsumerConfig {
    let mut config = ConsumerConfig::new(bootstrap);
    config.auto_offset_reset = OffsetReset::Earliest;
    config
}

/// Reads everything up to the ends of the topic.
pub(crate) async fn read_all(bootstrap: &str, topic: &str) -> Vec<ConsumerRecord> {
    let consumer = Consumer::builder(from_beginning(bootstrap)).build().unwrap();
    let partitions = consumer.partitions(topic).await.unwrap();
    let ends = consumer.end_offsets(&partitions).await.unwrap();
    consumer.assign(partitions).unwrap();
    let mut all = Vec::new();
    while !ends.iter().all(|(partition, end)| consumer.position(partition).is_some_and(|position| position >= *end)) {
        all.extend(consumer.poll(Duration::from_millis(100)).await.unwrap());
    }
    consumer.close().await.unwrap();
    all
}

async fn codecs(bootstrap: String) {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = create(&bootstrap, codec, 3).await;
        let mut config = ProducerConfig::new(&bootstrap);
        config.set("compression.type", codec).unwrap();
        let producer = Producer::builder(config).build().unwrap();
        let mut sent = BTreeMap::new();
        for number in 0..500_u32 {
            let (key, value) = (format!("key {number}"), format!("value {number} ").repeat(number as usize % 20));
            let mut record = ProducerRecord::new(&topic).timestamp(1_700_000_000_000 + i64::from(number));
            record = if number % 7 == 0 { record } else { record.key(key.as_bytes()) };
            record = if number % 11 == 0 { record } else { record.value(value.as_bytes()) };
            record = record.header("h", Some(b"1")).header("h", None).header("", Some(key.as_bytes()));
            let delivery = producer.send(record.clone()).await.unwrap();
            sent.insert(number, (delivery, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec)));
        }
        producer.flush().await;
        let mut expected = BTreeMap::new();
        for (number, (delivery, key, value)) in sent {
            let stored = delivery.await.unwrap();
            assert_eq!(stored.timestamp, 1_700_000_000_000 + i64::from(number));
            expected.insert((stored.partition, stored.offset), (number, key, value));
        }
        assert_eq!(expected.len(), 500, "every record has a place of its own");
        let records = read_all(&bootstrap, &topic).await;
        assert_eq!(records.len(), 500, "{codec}");
        for record in records {
            let (number, key, value) = &expected[&(record.partition, record.offset)];
            assert_eq!((record.key.as_deref(), record.value.as_deref()), (key.as_deref(), value.as_deref()));
            assert_eq!(record.timestamp, 1_700_000_000_000 + i64::from(*number));
            let headers: Vec<_> = record.headers.iter().map(|h| (&h.name[..], h.value.as_deref())).collect();
            let name = format!("key {number}");
            assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (b"h", None), (b"", Some(name.as_bytes()))]);
        }
        producer.close(PATIENCE).await.unwrap();
    }
}

async fn verdicts(bootstrap: String) {
    let topic = create(&bootstrap, "verdicts", 1).await;
    let producer = Producer::builder(ProducerConfig::new(&bootstrap)).build().unwrap();
    let called = Arc::new(Mutex::new(Vec::new()));
    for number in 0..100 {
        let called = called.clone();
        let record = ProducerRecord::new(&topic).value(b"v");
        let callback = move |verdict: Result<millstream_client::RecordMetadata, Error>| {
            called.lock().unwrap().push((number, verdict.unwrap().offset));
        };
        producer.send_with_callback(record, callback).await.unwrap();
    }
    producer.send_and_forget(ProducerRecord::new(&topic).value(b"v")).await.unwrap();
    let last = producer.send(ProducerRecord::new(&topic).value(b"v")).await.unwrap().await.unwrap();
    assert_eq!((&*last.topic, last.partition, last.offset), (topic.as_str(), 0, 101));
    producer.close(PATIENCE).await.unwrap();
    let expected: Vec<(i64, i64)> = (0..100).map(|number| (number, number)).collect();
    assert_eq!(*called.lock().unwrap(), expected);
}

async fn acks(bootstrap: String) {
    let topic = create(&bootstrap, "acks", 1).await;
    for (acks, offset) in [(Acks::All, 0), (Acks::Leader, 1), (Acks::None, -1)] {
        let mut config = ProducerConfig::new(&bootstrap);
        config.acks = acks;
        let producer = Producer::builder(config).build().unwrap();
        let stored = producer.send(ProducerRecord::new(&topic).value(b"v")).await.unwrap().await.unwrap();
        assert_eq!(stored.offset, offset, "{acks:?}");
        producer.close(PATIENCE).await.unwrap();
    }
    // With acks=0 no response says when the record is stored: the test reads until it is there.
    let consumer = Consumer::builder(from_beginning(&bootstrap)).build().unwrap();
    consumer.assign([TopicPartition::new(topic, 0)]).unwrap();
    let mut read = 0;
    while read < 3 {
        read += consumer.poll(PATIENCE).await.unwrap().len();
    }
    consumer.close().await.unwrap();
}

async fn refusals(bootstrap: String) {
    let topic = create(&bootstrap, "refusals", 1).await;
    let mut config = ProducerConfig::new(&bootstrap);
    config.max_block = Duration::from_millis(500);
    config.max_request_size = 2_000_000;
    config.batch_size = 2_000_000;
    let producer = Producer::builder(config).build().unwrap();
    let error = producer.send(ProducerRecord::new(&topic).partition(7)).await.unwrap_err();
    assert!(matches!(error, Error::UnknownPartition { partition: 7, partitions: 1, .. }), "{error}");
    let large = vec![0; 3_000_000];
    let error = producer.send(ProducerRecord::new(&topic).value(&large)).await.unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { key: "max.request.size", .. }), "{error}");
    assert!(!error.retriable());
    let error = producer.send(ProducerRecord::new("no such topic!").value(b"v")).await.unwrap_err();
    assert!(error.to_string().contains("INVALID_TOPIC"), "{error}");
    // Only the broker knows the topic's limit, 1 MB by default.
    let delivery = producer.send(ProducerRecord::new(&topic).value(&large[..1_500_000])).await.unwrap();
    let error = delivery.await.unwrap_err();
    assert!(error.to_string().contains("MESSAGE_TOO_LARGE"), "{error}");
    // The failed record does not block the next one.
    let stored = producer.send(ProducerRecord::new(&topic).value(b"v")).await.unwrap().await.unwrap();
    assert_eq!(stored.offset, 0);
    producer.close(PATIENCE).await.unwrap();
    let closed = Producer::builder(ProducerConfig::new("127.0.0.1:1")).build().unwrap();
    let late = closed.clone();
    closed.close(PATIENCE).await.unwrap();
    assert!(matches!(late.send(ProducerRecord::new(&topic)).await, Err(Error::Closed)));
}

async fn positions(bootstrap: String) {
    let topic = create(&bootstrap, "positions", 1).await;
    let producer = Producer::builder(ProducerConfig::new(&bootstrap)).build().unwrap();
    for number in 0..100_i64 {
        let value = number.to_string();
        let record = ProducerRecord::new(&topic).value(value.as_bytes()).timestamp(1_700_000_000_000 + 1000 * number);
        producer.send_and_forget(record).await.unwrap();
    }
    producer.close(PATIENCE).await.unwrap();
    let mut config = from_beginning(&bootstrap);
    config.max_poll_records = 10;
    let consumer = Consumer::builder(config).build().unwrap();
    let partition = TopicPartition::new(topic.as_str(), 0);
    consumer.assign([partition.clone()]).unwrap();
    let first_of = async |consumer: &Consumer| consumer.poll(PATIENCE).await.unwrap()[0].offset;
    assert_eq!(first_of(&consumer).await, 0);
    assert_eq!(consumer.position(&partition), Some(10));
    consumer.seek(&partition, 55).unwrap();
    assert_eq!(first_of(&consumer).await, 55);
    consumer.seek_to_beginning(&partition).unwrap();
    assert_eq!(first_of(&consumer).await, 0);
    let times = BTreeMap::from([(partition.clone(), 1_700_000_041_500)]);
    let found = consumer.offsets_for_times(&times).await.unwrap()[&partition];
    assert_eq!((found.offset, found.timestamp), (42, 1_700_000_042_000));
    let after = BTreeMap::from([(partition.clone(), 1_800_000_000_000)]);
    assert_eq!(consumer.offsets_for_times(&after).await.unwrap()[&partition].offset, -1);
    let all = [partition.clone()];
    assert_eq!(consumer.beginning_offsets(&all).await.unwrap()[&partition], 0);
    assert_eq!(consumer.end_offsets(&all).await.unwrap()[&partition], 100);
    consumer.pause(&all);
    assert!(consumer.poll(Duration::from_millis(300)).await.unwrap().is_empty());
    consumer.resume(&all);
    assert_eq!(first_of(&consumer).await, 10);
    consumer.seek_to_end(&partition).unwrap();
    assert!(consumer.poll(Duration::from_millis(700)).await.unwrap().is_empty());
    assert_eq!(consumer.position(&partition), Some(100));
    // An offset that does not exist resets the position as auto.offset.reset says.
    consumer.seek(&partition, 1000).unwrap();
    assert_eq!(first_of(&consumer).await, 0);
    consumer.close().await.unwrap();
}

async fn flush(bootstrap: String) {
    let topic = create(&bootstrap, "flush", 1).await;
    let mut config = ProducerConfig::new(&bootstrap);
    config.linger = Duration::from_secs(50);
    let producer = Producer::builder(config).build().unwrap();
    for _ in 0..10 {
        producer.send_and_forget(ProducerRecord::new(&topic).value(b"v")).await.unwrap();
    }
    tokio::time::timeout(Duration::from_secs(20), producer.flush()).await.expect("a flush does not linger");
    assert_eq!(read_all(&bootstrap, &topic).await.len(), 10);
    producer.close(PATIENCE).await.unwrap();
}
