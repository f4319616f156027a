//! The stages of topics at the broker's edge, for clients that do not know of them.

mod admit;
mod compressor;
mod dead_letters;
mod dead_letters_in_transactions;
mod quick;
mod refusals;
mod slow;
mod transactions;

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_record::{BatchView, Codec, batches};
use millstream_tests::{Broker, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest};

use crate::support::{Raw, Topic, alter, creatable};

const PATIENCE: Duration = Duration::from_secs(60);

/// Admits JSON whose `n` is at least 0. A value that is not JSON is an error of its row; a negative number is rejected.
const NOT_NEGATIVE: &str = r#"json-compare{"path":"/n","op":">=","value":0}"#;

/// Sets configs of a topic, which must succeed.
fn set(raw: &mut Raw, topic: &Topic, options: &[(&str, &str)]) {
    let options: Vec<_> = options.iter().map(|(name, value)| (*name, Some(*value))).collect();
    let (code, message) = alter(raw, &topic.name, &options);
    assert_eq!(code, ErrorCode::NONE, "{message}");
}

/// Creates a topic with one partition, led by the first of its replicas, once all nodes are there.
fn create_at(raw: &mut Raw, name: &str, replicas: &[i32]) -> Topic {
    let assignments = vec![CreatableReplicaAssignment { partition_index: 0, broker_ids: replicas.to_vec() }];
    let topic = CreatableTopic { assignments, num_partitions: -1, ..creatable(name, -1, &[]) };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
    let created = wait_until("all nodes", PATIENCE, || {
        let created = raw.call(7, &request).topics.remove(0);
        created.error_code.is_ok().then_some(created)
    });
    Topic { name: name.into(), id: created.topic_id }
}

/// A record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    offset: i64,
    timestamp: i64,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

impl Row {
    /// Returns a header by name; of several with one name, the last.
    fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().rev().find(|(known, _)| known == name);
        header.map_or_else(|| panic!("no header {name} in {self:?}"), |(_, value)| value)
    }
}

/// Reads every record of a partition.
fn rows_of(raw: &mut Raw, topic: &Topic, partition: i32) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut offset = 0;
    loop {
        let request = crate::support::fetch_request(12, &[(topic, partition, offset, 64 << 20)], 0, 0);
        let data = crate::support::fetched(raw.call(12, &request));
        assert_eq!(data.error_code, ErrorCode::NONE);
        let bytes = data.records.as_bytes().cloned().unwrap_or_default();
        for batch in batches(&bytes) {
            let batch = batch.expect("a sound batch");
            batch.verify_crc().expect("the CRC is right");
            offset = batch.next_offset();
            if batch.is_control() {
                continue;
            }
            for row in &batch.records(64 << 20).expect("records") {
                let row = row.expect("a sound record");
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                rows.push(Row {
                    offset: row.offset,
                    timestamp: row.timestamp,
                    key: row.key.map(text),
                    value: row.value.map(text),
                    headers: row.headers.map(|h| (text(h.name), text(h.value.unwrap_or_default()))).collect(),
                });
            }
        }
        if bytes.is_empty() {
            return rows;
        }
    }
}

fn rows(raw: &mut Raw, topic: &Topic) -> Vec<Row> {
    rows_of(raw, topic, 0)
}

/// Returns the offsets and values of a topic's records.
fn values(raw: &mut Raw, topic: &Topic) -> BTreeMap<i64, String> {
    rows(raw, topic).into_iter().map(|row| (row.offset, row.value.unwrap_or_default())).collect()
}

/// Returns the batches of a partition's first segment as they are on disk.
fn stored(broker: &Broker, topic: &Topic) -> Vec<u8> {
    let path = format!("{}-0/00000000000000000000.log", &*topic.name);
    std::fs::read(broker.folder().join(path)).expect("the first segment")
}

/// Returns the codec of every batch on disk.
fn stored_codecs(broker: &Broker, topic: &Topic) -> Vec<Codec> {
    let stored = stored(broker, topic);
    let codec = |batch: BatchView<'_>| batch.codec().expect("one of Kafka's");
    batches(&stored).map(|batch| codec(batch.expect("a sound batch"))).collect()
}
