//! Reads a topic to its end, and compares it with what the producers have seen.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use millstream_client::{Consumer, ConsumerConfig, OffsetReset};

use crate::workload::{Seen, Sent};

/// The time for reading a topic.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads every record of a topic, by partition.
pub(crate) async fn read_all(bootstrap: &str, topic: &str) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut config = ConsumerConfig::new(bootstrap);
    config.auto_offset_reset = OffsetReset::Earliest;
    let consumer = Consumer::builder(config).build().expect("a consumer");
    let partitions = consumer.partitions(topic).await.expect("the topic exists");
    let ends = consumer.end_offsets(&partitions).await.expect("every partition has a leader");
    consumer.assign(partitions.clone()).expect("partitions of the topic");
    let mut read: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    let begun = Instant::now();
    let is_read = |consumer: &Consumer| {
        partitions.iter().all(|partition| ends[partition] == 0 || consumer.position(partition) >= Some(ends[partition]))
    };
    while !is_read(&consumer) {
        assert!(begun.elapsed() < PATIENCE, "{topic} cannot be read to its end {ends:?}");
        for record in consumer.poll(Duration::from_millis(200)).await.expect("a readable topic") {
            let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
            read.entry(record.partition).or_default().push((record.offset, value));
        }
    }
    consumer.close().await.expect("closed");
    read
}

/// Checks that everything acknowledged is stored once, where it was acknowledged, and in order. Returns the number of
/// acknowledged records.
///
/// # Panics
/// A promise is broken.
pub(crate) fn check(seen: &[Seen], read: &BTreeMap<i32, Vec<(i64, String)>>) -> usize {
    let (acknowledged, broken) = compare(seen, read);
    let shown = broken.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(broken.is_empty(), "{} broken promises:\n{shown}", broken.len());
    acknowledged
}

/// Compares what producers have seen with what is stored. Returns the number of acknowledged records, and the promises
/// that are broken.
pub(crate) fn compare(seen: &[Seen], read: &BTreeMap<i32, Vec<(i64, String)>>) -> (usize, Vec<String>) {
    let mut found: HashMap<&str, (i32, i64)> = HashMap::new();
    let mut broken = Vec::new();
    for (partition, records) in read {
        let mut last: HashMap<&str, u64> = HashMap::new();
        let mut next = 0;
        for (offset, value) in records {
            if *offset < next {
                broken.push(format!("offset {offset} of partition {partition} is read twice or out of order"));
            }
            next = offset + 1;
            if let Some(before) = found.insert(value, (*partition, *offset)) {
                broken.push(format!("{value} is stored twice: at {before:?} and {:?}", (partition, offset)));
            }
            let (producer, number) = value.split_once(':').expect("a value of the workload");
            let number: u64 = number.parse().expect("a number");
            if let Some(before) = last.insert(producer, number).filter(|before| *before >= number) {
                broken.push(format!("{value} comes after number {before} of its producer"));
            }
        }
    }
    let mut acknowledged = 0;
    for sent in seen.iter().flat_map(|seen| &seen.sent) {
        let Some(stored) = sent.stored else { continue };
        acknowledged += 1;
        let value = Sent::value(sent.producer, sent.number);
        match found.get(value.as_str()) {
            None => broken.push(format!("{value} was acknowledged at {stored:?} and is lost")),
            // A duplicate whose offset the broker no longer knows.
            Some(_) if stored.1 < 0 => {}
            Some(at) if *at != stored => {
                broken.push(format!("{value} was acknowledged at {stored:?} and is at {at:?}"))
            }
            Some(_) => {}
        }
    }
    (acknowledged, broken)
}
