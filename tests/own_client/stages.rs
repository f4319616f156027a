//! Stages in the client: what they change, what they reject, and what they cost topics without stages.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::Trial;
use millstream_client::{Consumer, Error, Producer, ProducerConfig, ProducerRecord, TopicPartition};
use millstream_stage::{Engine, EngineConfig, Kind, Library, Stage, StageSpec};

use crate::guests::{Guest, VALUES};
use crate::records::{create, from_beginning, read_all};
use crate::{PATIENCE, both};

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("every compressor is read by the native codecs and by itself", compressors),
        both("murmur2 in the sandbox chooses the partition of the native one", partitioners),
        both("a row that a serializer rejects fails alone", refused_rows),
        both("a consumer runs a filter and a deserializer", filters),
        both("a stage that traps fails its batch and no other", traps),
        both("a record that a filter rejects stops the consumer before it", stopped),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the library for all tests: one engine, with the default plug-ins.
pub(crate) fn library() -> Arc<Library> {
    static LIBRARY: OnceLock<Arc<Library>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let library = Library::new(Engine::new(EngineConfig::default()).unwrap());
        for plugin in &millstream_plugins::DEFAULTS {
            library.add_embedded(plugin.name, plugin.needs_deadline, || plugin.component());
        }
        Arc::new(library)
    });
    library.clone()
}

pub(crate) fn stage(spec: &str, kind: Kind) -> Arc<Stage> {
    library().resolve(&StageSpec::parse(spec).unwrap(), kind).unwrap()
}

fn guest(guest: &Guest) -> Arc<Stage> {
    let plugin = library().engine().load(&guest.build()).unwrap();
    Arc::new(Stage::new(plugin, "{}").unwrap())
}

async fn compressors(bootstrap: String) {
    for name in ["gzip", "snappy", "lz4", "zstd"] {
        let topic = create(&bootstrap, name, 1).await;
        let compressor = stage(name, Kind::Compressor);
        let producer =
            Producer::builder(ProducerConfig::new(&bootstrap)).compressor(compressor.clone()).build().unwrap();
        let values: Vec<String> = (0..300).map(|number| format!("value {number} ").repeat(1 + number % 30)).collect();
        for value in &values {
            producer.send_and_forget(ProducerRecord::new(&topic).value(value.as_bytes())).await.unwrap();
        }
        producer.close(PATIENCE).await.unwrap();
        assert!(compressor.stats().calls > 0);
        let native = read_all(&bootstrap, &topic).await;
        let read: Vec<&[u8]> = native.iter().map(|record| record.value.as_deref().unwrap()).collect();
        assert!(read.iter().eq(values.iter().map(String::as_bytes).collect::<Vec<_>>().iter()), "{name}");

        let before = compressor.stats().calls;
        let consumer = Consumer::builder(from_beginning(&bootstrap)).decompressor(compressor.clone()).build().unwrap();
        consumer.assign([TopicPartition::new(topic, 0)]).unwrap();
        let mut count = 0;
        while count < values.len() {
            for record in consumer.poll(PATIENCE).await.unwrap() {
                assert_eq!(record.value.as_deref(), Some(values[count].as_bytes()));
                count += 1;
            }
        }
        assert!(compressor.stats().calls > before, "the stage decompressed");
        consumer.close().await.unwrap();
    }
    let private = Producer::builder(ProducerConfig::new(&bootstrap)).compressor(guest(&Guest::compressor())).build();
    let error = private.unwrap_err();
    assert!(error.to_string().contains("the private format"), "{error}");
}

async fn partitioners(bootstrap: String) {
    let topic = create(&bootstrap, "murmur2", 7).await;
    let native = Producer::builder(ProducerConfig::new(&bootstrap)).build().unwrap();
    let murmur2 = stage("murmur2", Kind::Partitioner);
    let staged = Producer::builder(ProducerConfig::new(&bootstrap)).partitioner(murmur2.clone()).build().unwrap();
    let mut pairs = Vec::new();
    for number in 0..200 {
        let key = format!("key-{number}");
        let record = ProducerRecord::new(&topic).key(key.as_bytes()).value(b"v");
        pairs.push((native.send(record.clone()).await.unwrap(), staged.send(record).await.unwrap()));
    }
    let mut used = BTreeSet::new();
    for (native, staged) in pairs {
        let partition = native.await.unwrap().partition;
        assert_eq!(staged.await.unwrap().partition, partition);
        used.insert(partition);
    }
    assert_eq!(used.len(), 7);
    // A partition that the caller sets takes precedence.
    let record = ProducerRecord::new(&topic).key(b"key-0").partition(5);
    assert_eq!(staged.send(record).await.unwrap().await.unwrap().partition, 5);
    assert!(murmur2.stats().calls < 200, "rows go in batches");
    native.close(PATIENCE).await.unwrap();
    staged.close(PATIENCE).await.unwrap();
}

async fn refused_rows(bootstrap: String) {
    let topic = create(&bootstrap, "refused", 1).await;
    let json = stage("json", Kind::Serializer);
    let producer = Producer::builder(ProducerConfig::new(&bootstrap)).serializer(json).build().unwrap();
    let mut deliveries = Vec::new();
    for number in 0..100 {
        let value = if number % 10 == 3 { "{\"open\":".to_owned() } else { format!("{{\"n\":{number}}}") };
        deliveries.push(producer.send(ProducerRecord::new(&topic).value(value.as_bytes())).await.unwrap());
    }
    for (number, delivery) in deliveries.into_iter().enumerate() {
        match delivery.await {
            Ok(_) => assert_ne!(number % 10, 3),
            Err(error) => {
                assert_eq!(number % 10, 3, "{error}");
                assert!(matches!(&error, Error::Row { plugin, .. } if &**plugin == "json"), "{error}");
                assert!(!error.retriable());
            }
        }
    }
    producer.close(PATIENCE).await.unwrap();
    let stored = read_all(&bootstrap, &topic).await;
    let first: serde_json::Value = serde_json::from_slice(stored[3].value.as_deref().unwrap()).unwrap();
    assert_eq!((stored.len(), &first["n"]), (90, &4.into()));
}

async fn filters(bootstrap: String) {
    let topic = create(&bootstrap, "filters", 2).await;
    let producer = Producer::builder(ProducerConfig::new(&bootstrap)).build().unwrap();
    for number in 0..1000 {
        let value = format!("{{\"n\":{number},\"word\":\"{}\"}}", if number % 2 == 0 { "even" } else { "odd" });
        producer.send_and_forget(ProducerRecord::new(&topic).value(value.as_bytes())).await.unwrap();
    }
    producer.close(PATIENCE).await.unwrap();
    let chain = "contains{\"text\":\"even\"} | json-compare{\"path\":\"/n\",\"op\":\">=\",\"value\":900}";
    let mut builder = Consumer::builder(from_beginning(&bootstrap)).deserializer(stage("json", Kind::Serializer));
    for filter in library().resolve_chain(chain, Kind::Filter).unwrap() {
        builder = builder.filter(filter);
    }
    let consumer = builder.build().unwrap();
    let partitions = consumer.partitions(&topic).await.unwrap();
    let ends = consumer.end_offsets(&partitions).await.unwrap();
    consumer.assign(partitions).unwrap();
    let mut numbers = BTreeSet::new();
    // Positions also move over filtered records, so the end is reached.
    while !ends.iter().all(|(partition, end)| consumer.position(partition).is_some_and(|position| position >= *end)) {
        for record in consumer.poll(Duration::from_millis(100)).await.unwrap() {
            let value: serde_json::Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
            numbers.insert(value["n"].as_u64().unwrap());
        }
    }
    assert!(numbers.into_iter().eq((900..1000).step_by(2)));
    consumer.close().await.unwrap();
}

async fn traps(bootstrap: String) {
    let topic = create(&bootstrap, "traps", 1).await;
    // Fails for batches whose first value begins with an x, and for no others.
    let hook = "(if (i32.eq (i32.load8_u (i32.load offset=52 (local.get $p))) (i32.const 120)) (then unreachable))";
    let serializer = guest(&Guest::serializer().columns(VALUES).hook_with_rows("serialize", hook));
    let producer = Producer::builder(ProducerConfig::new(&bootstrap)).serializer(serializer.clone()).build().unwrap();
    let mut verdicts = Vec::new();
    for value in ["a", "x", "b"] {
        let delivery = producer.send(ProducerRecord::new(&topic).value(value.as_bytes())).await.unwrap();
        // Each record is in a batch of its own.
        producer.flush().await;
        verdicts.push(delivery.await.map(|stored| stored.offset));
    }
    let [Ok(0), Err(Error::Stage(error)), Ok(1)] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert!(error.fault.is_trap(), "{error}");
    assert_eq!(serializer.stats().traps, 1);
    producer.close(PATIENCE).await.unwrap();
    assert_eq!(read_all(&bootstrap, &topic).await.len(), 2);
}

async fn stopped(bootstrap: String) {
    let topic = create(&bootstrap, "stopped", 1).await;
    let producer = Producer::builder(ProducerConfig::new(&bootstrap)).build().unwrap();
    for value in ["{\"n\":1}", "{\"n\":2}", "not json", "{\"n\":4}"] {
        producer.send_and_forget(ProducerRecord::new(&topic).value(value.as_bytes())).await.unwrap();
    }
    producer.close(PATIENCE).await.unwrap();
    let json = stage("json", Kind::Serializer);
    let consumer = Consumer::builder(from_beginning(&bootstrap)).deserializer(json).build().unwrap();
    let partition = TopicPartition::new(topic.as_str(), 0);
    consumer.assign([partition.clone()]).unwrap();
    assert_eq!(consumer.poll(PATIENCE).await.unwrap().len(), 2);
    for _ in 0..2 {
        // The position stays there until the application seeks.
        let error = consumer.poll(PATIENCE).await.unwrap_err();
        assert!(matches!(&error, Error::Record { offset: 2, .. }), "{error}");
        assert_eq!(consumer.position(&partition), Some(2));
    }
    consumer.seek(&partition, 3).unwrap();
    assert_eq!(consumer.poll(PATIENCE).await.unwrap()[0].offset, 3);
    consumer.close().await.unwrap();
}
