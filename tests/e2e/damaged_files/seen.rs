//! What clients see of the topics of the fixture.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_record::batches;
use millstream_tests::wait_until;
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;

use super::PATIENCE;
use crate::support::{Committed, Raw, Topic, read_committed, values};

/// The topics of the fixture.
pub(super) struct Known {
    /// A topic of several segments, and another one with the same offsets and other outcomes.
    pub(super) topics: [Topic; 2],
    pub(super) compacted: Topic,
}

/// The group that commits offsets.
pub(super) const GROUP: &str = "group";

const MAX_TIMESTAMP: i64 = -3;

/// What clients see of partition 0 of a topic.
#[derive(Debug, PartialEq, Eq)]
struct OfTopic {
    start: i64,
    end: i64,
    /// The offset and the time that a lookup by each time finds.
    by_time: Vec<(i64, (i64, i64))>,
    /// The end of each leader epoch.
    epochs: Vec<(i32, i64)>,
    /// All values, of control records too.
    values: Vec<String>,
    committed: Committed,
}

/// What clients see of a broker. A part that is not looked at is `None`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    cluster_id: String,
    topics: Vec<Option<OfTopic>>,
    /// The last value of each key of the compacted topic.
    keys: Option<BTreeMap<String, String>>,
    /// What the group has committed for each topic.
    group: Option<Vec<i64>>,
}

impl Seen {
    pub(super) fn of(raw: &mut Raw, known: &Known) -> Self {
        Self::besides(raw, known, "")
    }

    /// Looks at all but the partition with this folder.
    pub(super) fn besides(raw: &mut Raw, known: &Known, left_out: &str) -> Self {
        let is_in = |name: &str| format!("{name}-0") != left_out;
        let metadata = raw.call(12, &MetadataRequest { topics: None, ..Default::default() });
        let cluster_id = metadata.cluster_id.expect("a cluster id").to_string();
        let topics = known.topics.iter().map(|topic| is_in(&topic.name).then(|| OfTopic::of(raw, topic))).collect();
        let keys = is_in(&known.compacted.name).then(|| last_values(raw, &known.compacted));
        let group = is_in("__consumer_offsets")
            .then(|| known.topics.iter().map(|topic| committed_offset(raw, topic)).collect());
        Self { cluster_id, topics, keys, group }
    }

    /// Compares what both have looked at.
    pub(super) fn assert_eq(&self, expected: &Self, what: &str) {
        self.compare(expected, what, |found, expected| {
            assert_eq!((found.start, &found.values), (expected.start, &expected.values), "{what}");
            assert_eq!(found.by_time, expected.by_time, "{what}: offsets by time");
            assert_eq!(found.committed, expected.committed, "{what}: committed records");
            assert_eq!(found.epochs, expected.epochs, "{what}: leader epochs");
        });
    }

    /// Does the same, but for the leader epochs.
    pub(super) fn assert_eq_but_epochs(&self, expected: &Self, what: &str) {
        self.compare(expected, what, |found, expected| {
            assert_eq!((found.start, &found.values), (expected.start, &expected.values), "{what}");
            assert_eq!(found.by_time, expected.by_time, "{what}: offsets by time");
            assert_eq!(found.committed, expected.committed, "{what}: committed records");
        });
    }

    /// Checks that all records are there, and that others may be there before them.
    pub(super) fn assert_holds(&self, expected: &Self, what: &str) {
        self.compare(expected, what, |found, expected| {
            assert!(found.start <= expected.start, "{what}: {} after {}", found.start, expected.start);
            assert!(found.values.ends_with(&expected.values), "{what}: {:?}", found.values);
            assert!(found.committed.records.ends_with(&expected.committed.records), "{what}: {:?}", found.committed);
        });
    }

    fn compare(&self, expected: &Self, what: &str, of_topic: impl Fn(&OfTopic, &OfTopic)) {
        assert_eq!(self.cluster_id, expected.cluster_id, "{what}");
        if let (Some(found), Some(expected)) = (&self.keys, &expected.keys) {
            assert_eq!(found, expected, "{what}: the values of the compacted topic");
        }
        if let (Some(found), Some(expected)) = (&self.group, &expected.group) {
            assert_eq!(found, expected, "{what}: the offsets of the group");
        }
        for (found, expected) in self.topics.iter().zip(&expected.topics) {
            if let (Some(found), Some(expected)) = (found, expected) {
                assert_eq!(found.end, expected.end, "{what}: the end");
                of_topic(found, expected);
            }
        }
    }
}

impl OfTopic {
    fn of(raw: &mut Raw, topic: &Topic) -> Self {
        let (start, end) = (topic.start(raw), topic.end(raw));
        let bytes = stored(raw, topic, start);
        let mut times: Vec<i64> = batches(&bytes).map(|batch| batch.expect("a batch").max_timestamp()).collect();
        times.push(MAX_TIMESTAMP);
        let mut find = |time| {
            let found = topic.offset_for(raw, 0, time);
            assert_eq!(found.error_code, ErrorCode::NONE);
            (time, (found.offset, found.timestamp))
        };
        let by_time = times.into_iter().map(&mut find).collect();
        let epochs = (0..4).map(|epoch| end_of_epoch(raw, topic, epoch)).collect();
        Self { start, end, by_time, epochs, values: values(&bytes, start), committed: read_committed(raw, topic) }
    }
}

/// Returns the bytes of partition 0 from an offset on.
fn stored(raw: &mut Raw, topic: &Topic, mut offset: i64) -> Bytes {
    let mut all = Vec::new();
    loop {
        let data = topic.fetch(raw, offset);
        assert_eq!(data.error_code, ErrorCode::NONE, "{}", topic.name);
        let bytes = data.records.as_bytes().cloned().unwrap_or_default();
        match batches(&bytes).last() {
            None => return all.into(),
            Some(last) => offset = last.expect("a sound batch").next_offset(),
        }
        all.extend_from_slice(&bytes);
    }
}

/// Returns the last value of each key.
fn last_values(raw: &mut Raw, topic: &Topic) -> BTreeMap<String, String> {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let mut last = BTreeMap::new();
    for batch in batches(&stored(raw, topic, 0)) {
        for record in &batch.expect("a batch").records(1 << 20).expect("records") {
            let record = record.expect("a sound record");
            last.insert(text(record.key), text(record.value));
        }
    }
    last
}

fn end_of_epoch(raw: &mut Raw, topic: &Topic, leader_epoch: i32) -> (i32, i64) {
    let asked = OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch };
    let topics = vec![OffsetForLeaderTopic { topic: topic.name.clone(), partitions: vec![asked] }];
    let mut answer = raw.call(4, &OffsetForLeaderEpochRequest { replica_id: -1, topics }).topics.remove(0);
    let end = answer.partitions.remove(0);
    (end.leader_epoch, end.end_offset)
}

fn committed_offset(raw: &mut Raw, topic: &Topic) -> i64 {
    let topics = vec![OffsetFetchRequestTopic { name: topic.name.clone(), partition_indexes: vec![0] }];
    let request = OffsetFetchRequest { group_id: GROUP.into(), topics: Some(topics), ..Default::default() };
    wait_until("the coordinator", PATIENCE, || {
        let response = raw.call(7, &request);
        assert!(response.error_code.is_ok() || response.error_code.retriable(), "{}", response.error_code);
        response.error_code.is_ok().then(|| response.topics[0].partitions[0].committed_offset)
    })
}
