//! Reads a topic to its end, and compares it with what the producers have seen.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use millstream_client::{Consumer, ConsumerConfig, OffsetReset};
use tokio::time::sleep;

use crate::workload::{KEYS, Seen, Sent};

/// The time without a record while a topic is read.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a leader may not know that another one leads.
const LATE_MAX: Duration = Duration::from_secs(5);

/// What the nodes promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// An acknowledged record is stored.
    Kept,
    /// A record is stored once.
    Once,
    /// An acknowledged record is where the acknowledgement says.
    InPlace,
    /// The records of a producer are in the order of sending.
    InOrder,
    /// All replicas have the same content at an offset.
    SameContent,
    /// A committed offset of a group does not go back.
    OffsetKept,
    /// A reader of committed records sees nothing that is not committed.
    CommittedOnly,
    /// The records and the offset of a transaction count together, and once.
    Atomic,
    /// Every transaction ends, so that readers of committed records get to the end.
    Stable,
}

/// A promise that is broken.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) promise: Promise,
    what: String,
}

impl Broken {
    pub(crate) fn new(promise: Promise, what: String) -> Self {
        Self { promise, what }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Fails the test if a promise is broken.
///
/// # Panics
/// A promise is broken.
pub(crate) fn assert_kept(broken: &[Broken]) {
    let shown: Vec<String> = broken.iter().take(20).map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{} broken promises:\n{}", broken.len(), shown.join("\n"));
}

/// Reads every record of a topic, by partition.
pub(crate) async fn read_all(bootstrap: &str, topic: &str) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut config = ConsumerConfig::new(bootstrap);
    config.auto_offset_reset = OffsetReset::Earliest;
    let consumer = Consumer::builder(config).build().expect("a consumer");
    let partitions = consumer.partitions(topic).await.expect("the topic exists");
    let ends = consumer.end_offsets(&partitions).await.expect("every partition has a leader");
    consumer.assign(partitions.clone()).expect("partitions of the topic");
    let mut read: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    let mut progress = Instant::now();
    let is_read = |consumer: &Consumer| {
        partitions.iter().all(|partition| ends[partition] == 0 || consumer.position(partition) >= Some(ends[partition]))
    };
    while !is_read(&consumer) {
        assert!(progress.elapsed() < PATIENCE, "{topic} cannot be read to its end {ends:?}");
        for record in consumer.poll(Duration::from_millis(200)).await.expect("a readable topic") {
            let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
            progress = Instant::now();
            read.entry(record.partition).or_default().push((record.offset, value));
        }
    }
    consumer.close().await.expect("closed");
    read
}

/// Reads a topic, and checks that everything acknowledged is stored once, where it was acknowledged, and in order.
/// Returns the number of acknowledged records.
///
/// A leader that was paused serves what it knew as committed, until it hears that another one leads. A record that it
/// does not show yet is not lost, so the topic is read again for a while.
///
/// # Panics
/// A promise is broken.
pub(crate) async fn check(bootstrap: &str, topic: &str, seen: &[Seen]) -> usize {
    let begun = Instant::now();
    loop {
        let (acknowledged, broken) = compare(seen, &read_all(bootstrap, topic).await);
        let may_be_late = broken.iter().all(|broken| broken.promise == Promise::Kept) && begun.elapsed() < LATE_MAX;
        if !broken.is_empty() && may_be_late {
            println!("{} acknowledged records are not seen yet", broken.len());
            sleep(Duration::from_millis(200)).await;
            continue;
        }
        if !broken.is_empty() {
            let errors: Vec<&String> = seen.iter().flat_map(|seen| &seen.errors).collect();
            println!("errors of the producers: {errors:?}");
        }
        assert_kept(&broken);
        return acknowledged;
    }
}

/// Compares what producers have seen with what is stored. Returns the number of acknowledged records, and the promises
/// that are broken.
pub(crate) fn compare(seen: &[Seen], read: &BTreeMap<i32, Vec<(i64, String)>>) -> (usize, Vec<Broken>) {
    let mut broken = Vec::new();
    let found = places(read, &mut broken);
    let mut breaks = |promise, what| broken.push(Broken::new(promise, what));
    let mut acknowledged = 0;
    for sent in seen.iter().flat_map(|seen| &seen.sent) {
        let Some(stored) = sent.stored else { continue };
        acknowledged += 1;
        let value = Sent::value(sent.producer, sent.number);
        match found.get(value.as_str()) {
            None => breaks(Promise::Kept, format!("{value} was acknowledged at {stored:?} and is lost")),
            // A duplicate whose offset the broker no longer knows.
            Some(_) if stored.1 < 0 => {}
            Some(at) if *at != stored => {
                breaks(Promise::InPlace, format!("{value} was acknowledged at {stored:?} and is at {at:?}"))
            }
            Some(_) => {}
        }
    }
    (acknowledged, broken)
}

/// Compares what producers have seen with a compacted topic: of each key the last value is there. Returns the number of
/// acknowledged records, and the promises that are broken.
pub(crate) fn compare_last(seen: &[Seen], read: &BTreeMap<i32, Vec<(i64, String)>>) -> (usize, Vec<Broken>) {
    let mut broken = Vec::new();
    let found = places(read, &mut broken);
    let mut breaks = |promise, what| broken.push(Broken::new(promise, what));
    let mut stored_last: HashMap<(usize, u64), u64> = HashMap::new();
    for value in found.keys() {
        let (producer, number) = value.split_once(':').expect("a value of the workload");
        let (producer, number): (usize, u64) = (producer.parse().expect("a number"), number.parse().expect("a number"));
        let last = stored_last.entry((producer, number % KEYS)).or_default();
        *last = number.max(*last);
    }
    let mut acknowledged_last: HashMap<(usize, u64), &Sent> = HashMap::new();
    let mut acknowledged = 0;
    for sent in seen.iter().flat_map(|seen| &seen.sent) {
        let Some(stored) = sent.stored else { continue };
        acknowledged += 1;
        // Those of a producer are in the order of their numbers.
        acknowledged_last.insert((sent.producer, sent.number % KEYS), sent);
        let value = Sent::value(sent.producer, sent.number);
        if let Some(at) = found.get(value.as_str()).filter(|at| stored.1 >= 0 && **at != stored) {
            breaks(Promise::InPlace, format!("{value} was acknowledged at {stored:?} and is at {at:?}"));
        }
    }
    for (key, sent) in acknowledged_last {
        let value = Sent::value(sent.producer, sent.number);
        match stored_last.get(&key) {
            Some(last) if *last >= sent.number => {}
            // A record whose fate is not known may have replaced it.
            other => breaks(Promise::Kept, format!("{value} was acknowledged, and the last of its key is {other:?}")),
        }
    }
    (acknowledged, broken)
}

/// Returns where each value is. Notes those that are stored twice or out of order.
fn places<'r>(read: &'r BTreeMap<i32, Vec<(i64, String)>>, broken: &mut Vec<Broken>) -> HashMap<&'r str, (i32, i64)> {
    let mut found: HashMap<&str, (i32, i64)> = HashMap::new();
    let mut breaks = |promise, what| broken.push(Broken::new(promise, what));
    for (partition, records) in read {
        let mut last: HashMap<&str, u64> = HashMap::new();
        let mut next = 0;
        for (offset, value) in records {
            if *offset < next {
                let what = format!("offset {offset} of partition {partition} is read twice or out of order");
                breaks(Promise::InOrder, what);
            }
            next = offset + 1;
            if let Some(before) = found.insert(value, (*partition, *offset)) {
                let what = format!("{value} is stored twice: at {before:?} and {:?}", (partition, offset));
                breaks(Promise::Once, what);
            }
            let (producer, number) = value.split_once(':').expect("a value of the workload");
            let number: u64 = number.parse().expect("a number");
            if let Some(before) = last.insert(producer, number).filter(|before| *before >= number) {
                breaks(Promise::InOrder, format!("{value} comes after number {before} of its producer"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compacted_topic_has_the_last_value_of_each_key() {
        let sent = |number, stored: Option<i64>| Sent { producer: 0, number, stored: stored.map(|offset| (0, offset)) };
        // The numbers 1 and 21 have the same key. What became of 41 is not known.
        let sent = vec![sent(1, Some(0)), sent(2, Some(1)), sent(21, Some(2)), sent(41, None)];
        let seen = [Seen { sent, ..Seen::default() }];
        let promises = |rows: &[(i64, &str)]| -> Vec<Promise> {
            let rows = rows.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect();
            compare_last(&seen, &BTreeMap::from([(0, rows)])).1.iter().map(|broken| broken.promise).collect()
        };
        assert_eq!(promises(&[(1, "0:2"), (2, "0:21")]), []);
        assert_eq!(promises(&[(0, "0:1"), (1, "0:2"), (2, "0:21")]), []);
        assert_eq!(promises(&[(1, "0:2"), (3, "0:41")]), []);
        assert_eq!(promises(&[(0, "0:1"), (1, "0:2")]), [Promise::Kept]);
        assert_eq!(promises(&[(2, "0:21")]), [Promise::Kept]);
        assert_eq!(promises(&[(1, "0:2"), (3, "0:21")]), [Promise::InPlace]);
        assert_eq!(promises(&[(0, "0:2"), (1, "0:2"), (2, "0:21")]), [Promise::Once, Promise::InOrder]);
    }
}
