//! The records of the topics, and what a reader sees of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_client::IsolationLevel::{self, ReadCommitted, ReadUncommitted};
use millstream_client::{Consumer, ConsumerConfig, OffsetReset, Producer, ProducerConfig, ProducerRecord};

use super::{COMPACTED, PATIENCE};

/// The time of the first record of a load; the others follow in seconds.
const BEGUN_BEFORE: Duration = Duration::from_secs(4 * 3600);

/// The records of a batch, and of a transaction in a partition.
const BATCH: usize = 5;

/// The keys of a topic.
const KEYS: usize = 20;

/// What was written.
#[derive(Default)]
pub(super) struct Load {
    next: usize,
    /// The number of records by topic.
    written: BTreeMap<&'static str, usize>,
    /// The last committed value of each key, by topic.
    values: BTreeMap<&'static str, BTreeMap<String, Option<String>>>,
}

impl Load {
    /// Returns how many records were written to a topic.
    pub(super) fn written(&self, topic: &str) -> usize {
        self.written[topic]
    }

    /// Returns the last committed value of each key that was not deleted, by compacted topic.
    pub(super) fn last_values(&self) -> BTreeMap<&'static str, BTreeMap<String, String>> {
        let there = |values: &BTreeMap<String, Option<String>>| {
            values.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect()
        };
        COMPACTED.iter().map(|name| (*name, there(&self.values[name]))).collect()
    }

    /// Writes records with these many numbers to each topic.
    pub(super) async fn write(&mut self, bootstrap: &str, count: usize) {
        let numbers: Vec<usize> = (self.next..self.next + count).collect();
        self.next += count;
        for (topic, codec) in [("plain", "lz4"), ("compacted", "none"), ("both", "zstd")] {
            let producer = producer(bootstrap, codec, None);
            for batch in numbers.chunks(BATCH) {
                self.send(&producer, topic, batch, true).await;
            }
            producer.close(PATIENCE).await.expect("closed");
        }
        // Transactions of two producers overlap. Those of the second one are aborted now and then.
        for topic in ["transactions", "table"] {
            let ids = ["first", "second"].map(|id| format!("{topic}-{id}"));
            let producers = ids.each_ref().map(|id| producer(bootstrap, "none", Some(id)));
            for one in &producers {
                one.init_transactions().await.expect("registered");
            }
            let [first, second] = &producers;
            for (at, batch) in numbers.chunks(2 * BATCH).enumerate() {
                let (of_second, of_first) = batch.split_at(BATCH);
                let commits = at % 3 != 1;
                first.begin_transaction().await.expect("begun");
                second.begin_transaction().await.expect("begun");
                self.send(second, topic, of_second, commits).await;
                self.send(first, topic, of_first, true).await;
                match commits {
                    true => second.commit_transaction().await.expect("committed"),
                    false => second.abort_transaction().await.expect("aborted"),
                }
                first.commit_transaction().await.expect("committed");
            }
            for one in producers {
                one.close(PATIENCE).await.expect("closed");
            }
        }
    }

    /// Sends one batch. Every ninth record deletes its key.
    async fn send(&mut self, producer: &Producer, topic: &'static str, numbers: &[usize], counts: bool) {
        let begun = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").saturating_sub(BEGUN_BEFORE);
        let begun = i64::try_from(begun.as_millis()).expect("a time");
        let mut sent = Vec::new();
        for &number in numbers {
            // The first half of the keys is not written any more later: their records stay where they are.
            let key = format!("key-{}", if number < 100 { number % KEYS } else { number % (KEYS / 2) });
            let value = (number % 9 != 4).then(|| format!("{topic}-{number}-{}", "x".repeat(number % 150)));
            let mut record = ProducerRecord::new(topic).timestamp(begun + 1000 * number as i64).key(key.as_bytes());
            record = record.header("number", Some(b"n"));
            if let Some(value) = &value {
                record = record.value(value.as_bytes());
            }
            sent.push(producer.send(record).await.expect("buffered"));
            *self.written.entry(topic).or_default() += 1;
            if counts {
                self.values.entry(topic).or_default().insert(key, value);
            }
        }
        for delivery in sent {
            delivery.await.expect("stored");
        }
    }
}

fn producer(bootstrap: &str, codec: &str, transactional_id: Option<&str>) -> Producer {
    let mut config = ProducerConfig::new(bootstrap);
    config.linger = Duration::from_millis(5);
    config.set("compression.type", codec).expect("a codec");
    config.transactional_id = transactional_id.map(Into::into);
    Producer::builder(config).build().expect("a producer")
}

/// A record as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) headers: usize,
}

/// What readers see of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// With `read_committed`.
    pub(super) committed: Vec<Row>,
    /// With `read_uncommitted`.
    pub(super) all: Vec<Row>,
    /// The first offset, and the end at both levels.
    pub(super) bounds: [i64; 3],
    /// The offset that a lookup by time finds, for a time in the middle.
    pub(super) middle: Option<i64>,
}

/// Returns what readers see of partition 0 of a topic.
pub(super) async fn see(bootstrap: &str, topic: &str) -> Seen {
    let (committed, [start, stable, _]) = read(bootstrap, topic, ReadCommitted).await;
    let (all, [_, end, middle]) = read(bootstrap, topic, ReadUncommitted).await;
    Seen { committed, all, bounds: [start, stable, end], middle: (middle >= 0).then_some(middle) }
}

/// Reads partition 0. Returns also its start, its end, and the offset for a time in the middle.
async fn read(bootstrap: &str, topic: &str, level: IsolationLevel) -> (Vec<Row>, [i64; 3]) {
    let mut config = ConsumerConfig::new(bootstrap);
    config.auto_offset_reset = OffsetReset::Earliest;
    config.isolation_level = level;
    let consumer = Consumer::builder(config).build().expect("a consumer");
    let partitions = consumer.partitions(topic).await.expect("the topic exists");
    let start = consumer.beginning_offsets(&partitions).await.expect("a leader")[&partitions[0]];
    let end = consumer.end_offsets(&partitions).await.expect("a leader")[&partitions[0]];
    consumer.assign(partitions.clone()).expect("a partition");
    let (mut rows, begun) = (Vec::new(), Instant::now());
    while consumer.position(&partitions[0]).is_none_or(|position| position < end) {
        assert!(begun.elapsed() < PATIENCE, "{topic} cannot be read to {end}, after {} records", rows.len());
        for record in consumer.poll(Duration::from_millis(100)).await.expect("a readable topic") {
            let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
            rows.push(Row {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.map(text),
                value: record.value.map(text),
                headers: record.headers.len(),
            });
        }
    }
    let middle = rows.get(rows.len() / 2).map_or(0, |row: &Row| row.timestamp);
    let times = BTreeMap::from([(partitions[0].clone(), middle)]);
    let found = consumer.offsets_for_times(&times).await.expect("a leader");
    let middle = found.get(&partitions[0]).map_or(-1, |found| found.offset);
    consumer.close().await.expect("closed");
    (rows, [start, end, middle])
}
