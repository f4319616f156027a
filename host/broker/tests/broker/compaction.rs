//! Compaction in a running broker: of topics, of internal topics, and its configs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_record::{Codec, batches};
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Records, Str};

use super::client::{Client, PATIENCE, TestBroker, broker, builder, start_in};

const QUICK: &[&str] = &[
    "log.cleaner.backoff.ms=10",
    "log.flush.scheduler.interval.ms=20",
    "log.cleaner.min.cleanable.ratio=0.01",
    "log.cleaner.delete.retention.ms=0",
];

/// Segments of a few records each, so that there is something to compact.
const SMALL: &[(&str, &str)] = &[("cleanup.policy", "compact"), ("internal.segment.bytes", "1000")];

async fn put(client: &mut Client, topic: &str, key: &str, value: Option<&str>) {
    let mut batch = builder(Codec::None);
    batch.append(1_700_000_000_000, Some(key.as_bytes()), value.map(str::as_bytes), []).expect("appended");
    let stored = client.produce(topic, 0, batch.build().expect("built")).await;
    assert_eq!(stored.error_code, ErrorCode::NONE);
}

/// Returns what a consumer from the start finds: each record's offset, key and value.
async fn rows(client: &mut Client, topic: &str) -> Vec<(i64, String, Option<String>)> {
    let (mut rows, mut from) = (Vec::new(), 0);
    loop {
        let data = client.fetch(topic, 0, from).await;
        assert_eq!(data.error_code, ErrorCode::NONE);
        let Records::Bytes(bytes) = data.records else { return rows };
        if bytes.is_empty() {
            return rows;
        }
        for batch in batches(&bytes).map(|batch| batch.expect("whole")) {
            batch.verify_crc().expect("undamaged");
            from = batch.next_offset();
            for record in batch.records(1 << 20).expect("readable").iter().map(|record| record.expect("good")) {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                rows.push((record.offset, record.key.map(text).unwrap_or_default(), record.value.map(text)));
            }
        }
    }
}

/// Waits until the log of a topic has fewer records than a number.
async fn compacted(client: &mut Client, topic: &str, below: usize) -> Vec<(i64, String, Option<String>)> {
    let started = Instant::now();
    loop {
        let found = rows(client, topic).await;
        if found.len() < below {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{} records are left in {topic}", found.len());
        tokio::task::yield_now().await;
    }
}

fn checkpoint(broker: &TestBroker) -> String {
    std::fs::read_to_string(broker.folder.path().join("cleaner-offset-checkpoint")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_keeps_the_last_record_of_each_key() {
    let first = broker(QUICK).await;
    let mut client = first.connect().await;
    client.create("t", 1, SMALL).await;
    client.create("plain", 1, &[("internal.segment.bytes", "1000")]).await;
    for number in 0..300 {
        for topic in ["t", "plain"] {
            put(&mut client, topic, &format!("key {}", number % 10), Some(&format!("value {number}"))).await;
        }
    }
    let found = compacted(&mut client, "t", 60).await;
    let last: BTreeMap<_, _> = found.iter().map(|(offset, key, value)| (key.as_str(), (*offset, value))).collect();
    for key in 0..10i64 {
        let value = Some(format!("value {}", 290 + key));
        assert_eq!(last[&*format!("key {key}")], (290 + key, &value));
    }
    assert_eq!(rows(&mut client, "plain").await.len(), 300);
    // Kafka's checkpoint names the first offset that was not compacted.
    let started = Instant::now();
    while !checkpoint(&first).contains("\nt 0 2") {
        assert!(started.elapsed() < PATIENCE, "{}", checkpoint(&first));
        tokio::task::yield_now().await;
    }
    assert!(checkpoint(&first).starts_with("0\n") && !checkpoint(&first).contains("plain"));
    assert_eq!((client.offset("t", 0, -1).await.0, client.offset("t", 0, -2).await.0), (300, 0));

    let second = start_in(first.stop().await, QUICK).await;
    let mut client = second.connect().await;
    let again = rows(&mut client, "t").await;
    assert!(again.len() <= found.len() && again.last() == found.last());
    // A tombstone removes its key, and then itself.
    put(&mut client, "t", "key 3", None).await;
    for number in 0..200 {
        put(&mut client, "t", &format!("key {}", 4 + number % 2), Some("later")).await;
    }
    let started = Instant::now();
    loop {
        if rows(&mut client, "t").await.iter().all(|(_, key, _)| key != "key 3") {
            break;
        }
        // The pass after the one that sets the horizon needs new records.
        put(&mut client, "t", "key 4", Some("later")).await;
        assert!(started.elapsed() < PATIENCE, "the tombstone is still there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_offsets_stop_growing() {
    let settings = [QUICK, &["offsets.topic.num.partitions=1", "offsets.topic.segment.bytes=1048576"]].concat();
    let first = broker(&settings).await;
    let mut client = first.connect().await;
    client.create("t", 1, &[]).await;
    let find = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    let started = Instant::now();
    while client.ask(4, &find).await.coordinators[0].error_code != ErrorCode::NONE {
        assert!(started.elapsed() < PATIENCE);
    }
    let metadata: Str = "m".repeat(4000).into();
    let mut last = 0;
    for number in 0..800 {
        let partitions = vec![OffsetCommitRequestPartition {
            partition_index: 0,
            committed_offset: number,
            committed_metadata: Some(metadata.clone()),
            ..Default::default()
        }];
        let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
        let request = OffsetCommitRequest {
            group_id: "g".into(),
            generation_id_or_member_epoch: -1,
            topics,
            ..Default::default()
        };
        let started = Instant::now();
        loop {
            let error = client.ask(8, &request).await.topics[0].partitions[0].error_code;
            if error == ErrorCode::NONE {
                break;
            }
            assert_eq!(error, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
            assert!(started.elapsed() < PATIENCE);
        }
        last = number;
    }
    // Three segments of a MiB were written, and one commit of them counts.
    let size = || -> u64 {
        let folder = first.folder.path().join("__consumer_offsets-0");
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
        let logs = entries.filter(|entry| entry.path().extension().is_some_and(|suffix| suffix == "log"));
        logs.map(|entry| entry.metadata().map_or(0, |file| file.len())).sum()
    };
    let started = Instant::now();
    while size() > 1_200_000 {
        assert!(started.elapsed() < PATIENCE, "{} bytes", size());
        tokio::task::yield_now().await;
    }
    let second = start_in(first.stop().await, &settings).await;
    let mut client = second.connect().await;
    let fetch = OffsetFetchRequest {
        group_id: "g".into(),
        topics: Some(vec![OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0] }]),
        ..Default::default()
    };
    let started = Instant::now();
    loop {
        let fetched = client.ask(7, &fetch).await;
        if fetched.error_code == ErrorCode::NONE {
            assert_eq!(fetched.topics[0].partitions[0].committed_offset, last);
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{:?}", fetched.error_code);
    }
}

/// Sets configs of the broker while it runs. Returns the error and its message.
async fn set(client: &mut Client, configs: &[(&str, &str)]) -> (ErrorCode, String) {
    let configs = configs.iter().map(|(name, value)| IncrementalAlterableConfig {
        name: (*name).into(),
        config_operation: 0,
        value: Some((*value).into()),
    });
    let resource =
        IncrementalAlterConfigsResource { resource_type: 4, resource_name: "".into(), configs: configs.collect() };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response = client.ask(1, &request).await.responses.remove(0);
    (response.error_code, response.error_message.map(|text| text.as_str().to_owned()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_holds_the_cleaner_back() {
    let broker = broker(&[QUICK, &["log.cleaner.io.max.bytes.per.second=1"]].concat()).await;
    let mut client = broker.connect().await;
    client.create("t", 1, SMALL).await;
    for number in 0..100 {
        put(&mut client, "t", "key", Some(&format!("value {number}"))).await;
    }
    assert_eq!(rows(&mut client, "t").await.len(), 100, "a byte in a second is not enough");
    let (error, message) = set(&mut client, &[("log.cleaner.dedupe.buffer.size", "1000")]).await;
    assert_eq!(error, ErrorCode::INVALID_CONFIG);
    assert!(message.contains("at least 1MB per cleaner thread"), "{message}");
    let (error, message) = set(&mut client, &[("log.cleaner.enable", "false")]).await;
    assert_eq!(error, ErrorCode::INVALID_REQUEST);
    assert!(message.contains("Cannot update these configs dynamically: log.cleaner.enable"), "{message}");
    // A pass that waits does not delay a stop.
    let started = Instant::now();
    let folder = broker.stop().await;
    assert!(started.elapsed().as_secs() < 10);
    let second = start_in(folder, QUICK).await;
    compacted(&mut second.connect().await, "t", 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleaner_that_is_off_leaves_all_records() {
    let broker = broker(&[QUICK, &["log.cleaner.enable=false"]].concat()).await;
    let mut client = broker.connect().await;
    client.create("t", 1, SMALL).await;
    for number in 0..60 {
        put(&mut client, "t", "key", Some(&format!("value {number}"))).await;
    }
    assert_eq!(rows(&mut client, "t").await.len(), 60);
    assert_eq!(checkpoint(&broker), "");
}

/// Returns the value of a config of the broker, and its source.
async fn described(client: &mut Client, name: &str) -> (String, i8) {
    let resource = DescribeConfigsResource {
        resource_type: 4,
        resource_name: "0".into(),
        configuration_keys: Some(vec![name.into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let config = client.ask(4, &request).await.results.remove(0).configs.remove(0);
    (config.value.as_deref().unwrap_or_default().to_owned(), config.config_source)
}

/// Kafka's configs of the cleaner can be changed on a broker that is alone too, and act at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configs_of_the_cleaner_change_while_the_broker_runs() {
    const ALL_BROKERS: i8 = 3;
    const FILE: i8 = 4;
    let slow = [QUICK, &["log.cleaner.io.max.bytes.per.second=1"]].concat();
    let first = broker(&slow).await;
    let mut client = first.connect().await;
    client.create("t", 1, SMALL).await;
    for number in 0..100 {
        put(&mut client, "t", "key", Some(&format!("value {number}"))).await;
    }
    let name = "log.cleaner.io.max.bytes.per.second";
    assert_eq!(described(&mut client, name).await, ("1".to_owned(), FILE));
    assert_eq!(rows(&mut client, "t").await.len(), 100);
    assert_eq!(first.running.cleaner_stats().passes, 0);

    assert_eq!(set(&mut client, &[(name, "1e9"), ("log.cleaner.threads", "2")]).await.0, ErrorCode::NONE);
    assert_eq!(described(&mut client, name).await, ("1e9".to_owned(), ALL_BROKERS));
    compacted(&mut client, "t", 60).await;
    let started = Instant::now();
    let stats = loop {
        let stats = first.running.cleaner_stats();
        if stats.passes > 0 {
            break stats;
        }
        assert!(started.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    };
    assert!((0.0..60.0).contains(&stats.recopy_percent), "{stats:?}");
    assert!(stats.max_buffer_utilization_percent > 0.0 && stats.max_clean_time > Duration::ZERO, "{stats:?}");
    assert!(stats.time_since_last_run.is_some() && stats.uncleanable_partitions == 0, "{stats:?}");

    // A stop keeps them, also beside those of the file.
    let second = start_in(first.stop().await, &slow).await;
    let mut client = second.connect().await;
    assert_eq!(described(&mut client, "log.cleaner.threads").await, ("2".to_owned(), ALL_BROKERS));
    for number in 0..100 {
        put(&mut client, "t", "key", Some(&format!("later {number}"))).await;
    }
    compacted(&mut client, "t", 60).await;
}

/// A batch that cannot be read is counted, and its log is left as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_compacted_is_counted() {
    let first = broker(&[QUICK, &["log.cleaner.io.max.bytes.per.second=1"]].concat()).await;
    let mut client = first.connect().await;
    client.create("t", 1, SMALL).await;
    for number in 0..100 {
        put(&mut client, "t", "key", Some(&format!("value {number}"))).await;
    }
    let folder = first.stop().await;
    let log = folder.path().join("t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&log).expect("a segment");
    // A byte of the first record's value, which no header covers.
    bytes[72] ^= 1;
    std::fs::write(&log, bytes).expect("damaged");
    let second = start_in(folder, QUICK).await;
    let started = Instant::now();
    loop {
        let stats = second.running.cleaner_stats();
        if stats.uncleanable_partitions == 1 && stats.uncleanable_bytes > 1000 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{stats:?}");
        tokio::task::yield_now().await;
    }
}
