//! Views: what they show, how fetches get past what they hide, and which topics can become views.

mod command_line;
mod gaps;
mod plugins;
mod policies;
mod rules;
mod shown;

use millstream_record::batches;
use millstream_tests::{Broker, Tool, millstream};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;

use crate::guests::Guest;
use crate::support::{Raw, Topic, alter, create, fetch_request, fetched};

/// Keeps the values that contain "keep".
const KEEP: &str = r#"contains{"text":"keep"}"#;

/// Creates a view, which must succeed.
fn view(raw: &mut Raw, name: &str, of: &str, filter: &str) -> Topic {
    let created = create(raw, name, -1, &[("view.of", of), ("stage.filter", filter)]);
    assert_eq!(created.error_code, ErrorCode::NONE, "{name}: {:?}", created.error_message);
    Topic { name: name.into(), id: created.topic_id }
}

/// Deletes a topic by its name. Returns the error code and message.
pub(crate) fn delete(raw: &mut Raw, name: &str) -> (ErrorCode, String) {
    let state = DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let request = DeleteTopicsRequest { topics: vec![state], timeout_ms: 30_000, ..Default::default() };
    let answer = raw.call(6, &request).responses.remove(0);
    (answer.error_code, answer.error_message.map_or_else(String::new, |message| message.to_string()))
}

/// Pushes a plug-in and activates it.
fn push(broker: &Broker, guest: &Guest) {
    let file = broker.scratch().join("guest.wasm");
    std::fs::write(&file, guest.build()).expect("written");
    Tool::new(millstream()).args(["plugin", "push"]).arg(&file).args(["-b", &broker.bootstrap()]).succeed();
}

/// A record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// The result of one fetch.
struct Fetched {
    records: Vec<Seen>,
    /// The offset at which most clients continue: after the last batch.
    next: i64,
    /// The offset at which KafkaJS continues: after the last record, even one of a control batch.
    next_of_records: i64,
    data: PartitionData,
}

/// Returns the records of partition 0 from an offset on. The response's batches must be correct.
fn seen(data: PartitionData, offset: i64) -> Fetched {
    assert_eq!(data.error_code, ErrorCode::NONE);
    let bytes = data.records.as_bytes().cloned().unwrap_or_default();
    let mut fetched = Fetched { records: Vec::new(), next: offset, next_of_records: offset, data };
    for batch in batches(&bytes) {
        let batch = batch.expect("a sound batch");
        batch.verify_crc().expect("the right CRC");
        for record in &batch.records(64 << 20).expect("records that can be decompressed") {
            let record = record.expect("a sound record");
            fetched.next_of_records = record.offset + 1;
            if record.offset >= offset && !batch.is_control() {
                let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                fetched.records.push(Seen {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: owned(record.key),
                    value: owned(record.value),
                    headers: record.headers.map(|header| (header.name.to_vec(), owned(header.value))).collect(),
                });
            }
        }
        assert!(batch.base_offset() >= fetched.next || fetched.next == offset, "batches in order");
        fetched.next = batch.next_offset();
    }
    fetched
}

/// Fetches once from partition 0.
fn fetch(raw: &mut Raw, topic: &Topic, offset: i64, max_bytes: i32, max_wait_ms: i32, min_bytes: i32) -> Fetched {
    let request = fetch_request(12, &[(topic, 0, offset, max_bytes)], max_wait_ms, min_bytes);
    seen(fetched(raw.call(12, &request)), offset)
}

/// Reads all records of partition 0 from an offset to the end of the log. `next` returns the offset of each following
/// fetch.
fn read_all(raw: &mut Raw, topic: &Topic, from: i64, max_bytes: i32, next: fn(&Fetched) -> i64) -> Vec<Seen> {
    let (mut all, mut offset) = (Vec::new(), from);
    loop {
        let fetched = fetch(raw, topic, offset, max_bytes, 0, 0);
        let end = fetched.data.high_watermark;
        if offset >= end {
            assert!(fetched.records.is_empty());
            return all;
        }
        let after = next(&fetched);
        assert!(after > offset, "a fetch from {offset} of {end} leads nowhere");
        all.extend(fetched.records);
        offset = after;
    }
}
