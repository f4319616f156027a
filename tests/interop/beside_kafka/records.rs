//! The APIs about topics and their records.

use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_wire::Str;
use millstream_wire::messages::*;

use super::{Seen, create};
use crate::support::{Raw, Topic, batch, now_ms, producer_batch};

/// Creates topics with records: one with three partitions, one compacted, and one both compacted and deleted.
fn topics(raw: &mut Raw, prefix: &str) -> [Topic; 3] {
    let name = |kind: &str| format!("{prefix}-{kind}");
    let plain = create(raw, &name("plain"), 3, &[]);
    let compacted = create(raw, &name("compacted"), 1, &[("cleanup.policy", "compact")]);
    let both = create(raw, &name("both"), 1, &[("cleanup.policy", "compact,delete")]);
    for _ in 0..5 {
        plain.produce(raw, batch(&["value"]));
    }
    for topic in [&compacted, &both] {
        topic.produce(raw, keyed_batch());
    }
    [plain, compacted, both]
}

/// Returns a batch with keys, which compacted topics require.
fn keyed_batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for key in ["a", "b", "c"] {
        builder.append(now_ms(), Some(key.as_bytes()), Some(b"value"), []).expect("room for a record");
    }
    builder.build().expect("a batch")
}

fn delete(raw: &mut Raw, version: i16, topic: &str, partition_index: i32, offset: i64) -> DeleteRecordsResponse {
    let partitions = vec![DeleteRecordsPartition { partition_index, offset }];
    let topics = vec![DeleteRecordsTopic { name: topic.into(), partitions }];
    raw.call(version, &DeleteRecordsRequest { topics, timeout_ms: 30_000 })
}

pub(super) fn delete_records(raw: &mut Raw, seen: &mut Seen) {
    let [plain, compacted, both] = topics(raw, "delete");
    for (version, partition, offset) in
        [(0, 0, 2), (1, 0, 1), (2, 0, -2), (2, 0, 6), (2, 0, 100), (2, 9, 0), (2, 1, 0), (2, 0, 3), (2, 0, -1)]
    {
        let response = delete(raw, version, &plain.name, partition, offset);
        seen.add(&format!("v{version} {partition} {offset}"), &response);
        seen.add("start", &plain.start(raw));
    }
    for topic in [&*compacted.name, &*both.name, "no-such-topic", "bad name", ""] {
        for offset in [0, 1, -1, 100] {
            seen.add(&format!("{topic} {offset}"), &delete(raw, 2, topic, 0, offset));
        }
    }
    let below = plain.fetch(raw, 0);
    seen.add("a fetch below the start", &(below.error_code, below.high_watermark, below.log_start_offset));
    seen.add("nothing", &raw.call(2, &DeleteRecordsRequest::default()));
    // The next record follows the ones that were deleted.
    seen.add("next", &plain.produce(raw, batch(&["next"])));
    let start = plain.start(raw);
    seen.add("left", &plain.read(raw, start));
}

pub(super) fn describe_log_dirs(raw: &mut Raw, seen: &mut Seen) {
    let [plain, ..] = topics(raw, "dirs");
    let asked =
        |topic: &str, partitions: &[i32]| DescribableLogDirTopic { topic: topic.into(), partitions: partitions.into() };
    for version in 1..=5 {
        for (what, topics) in [
            ("one", Some(vec![asked(&plain.name, &[0, 2])])),
            ("absent", Some(vec![asked("no-such-topic", &[0]), asked(&plain.name, &[9])])),
            ("none", Some(Vec::new())),
            ("all", None),
        ] {
            let mut response = raw.call(version, &DescribeLogDirsRequest { topics });
            assert_eq!(response.results.len(), 1, "one folder");
            let folder = &mut response.results[0];
            assert!(folder.log_dir.starts_with('/'), "{}", folder.log_dir);
            assert_eq!(folder.total_bytes > 0 && folder.usable_bytes > 0, version >= 4);
            (folder.log_dir, folder.total_bytes, folder.usable_bytes) = (Str::EMPTY, 0, 0);
            folder.topics.retain(|topic| topic.name.starts_with("dirs-"));
            folder.topics.sort_by(|one, other| one.name.cmp(&other.name));
            folder.topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|found| found.partition_index));
            seen.add(&format!("v{version} {what}"), &response);
        }
    }
}

pub(super) fn describe_producers(raw: &mut Raw, seen: &mut Seen) {
    let [plain, ..] = topics(raw, "producers");
    let init = InitProducerIdRequest {
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let producer = raw.call(4, &init);
    plain.produce(raw, producer_batch(producer.producer_id, producer.producer_epoch, 0, &["a", "b"]));
    let topic = |name: &str, partitions: &[i32]| DescribeProducersTopicRequest {
        name: name.into(),
        partition_indexes: partitions.into(),
    };
    let topics =
        vec![topic(&plain.name, &[0, 1, 9]), topic("no-such-topic", &[0]), topic("bad name", &[0]), topic("", &[0])];
    let mut response = raw.call(0, &DescribeProducersRequest { topics });
    for found in &mut response.topics[0].partitions {
        assert!(found.active_producers.iter().all(|state| state.producer_id == producer.producer_id));
        // Kafka 4.4.0 does not list a producer that is only idempotent, and sends no message here.
        found.active_producers.clear();
        found.error_message = None;
    }
    seen.add("producers", &response);
    seen.add("nothing", &raw.call(0, &DescribeProducersRequest::default()));
}

pub(super) fn describe_topic_partitions(raw: &mut Raw, seen: &mut Seen) {
    let [plain, compacted, both] = topics(raw, "pages");
    let cursor =
        |topic: &str, partition_index| DescribeTopicPartitionsCursor { topic_name: topic.into(), partition_index };
    let mut ask = |what: &str, names: &[&str], limit: i32, cursor: Option<DescribeTopicPartitionsCursor>| {
        let topics = names.iter().map(|name| DescribeTopicPartitionsTopicRequest { name: Str::from(*name) }).collect();
        let request = DescribeTopicPartitionsRequest { topics, response_partition_limit: limit, cursor };
        let mut response = raw.call(0, &request);
        for topic in &mut response.topics {
            assert_eq!(topic.topic_id.is_nil(), topic.error_code.is_err(), "{topic:?}");
            topic.topic_id = uuid::Uuid::nil();
            for partition in &mut topic.partitions {
                // Our leader epochs count the starts of the broker.
                partition.leader_epoch = 0;
            }
        }
        seen.add(what, &response);
    };
    let all = [&*plain.name, &*compacted.name, &*both.name];
    ask("three", &all, 2000, None);
    ask("twice", &[&plain.name, &plain.name], 2000, None);
    ask("two partitions", &all, 2, None);
    for limit in [3, 2, 1, 0, -1] {
        ask(&format!("limit {limit}"), &all, limit, Some(cursor(&plain.name, 1)));
    }
    ask("the last page", &all, 2000, Some(cursor(&plain.name, 2)));
    ask("a cursor past the end", &all, 2000, Some(cursor(&plain.name, 7)));
    ask("a cursor before the start", &all, 2000, Some(cursor(&plain.name, -1)));
    ask("a cursor on another topic", &[&compacted.name], 2000, Some(cursor(&plain.name, 0)));
    ask("absent and bad names", &["no-such-topic", "bad name", &compacted.name], 2000, None);
    ask("after an absent topic", &["no-such-topic", &plain.name], 1, None);
    // All topics, from a cursor on that only the last of these topics sorts behind.
    ask("all", &[], 2000, Some(cursor(&plain.name, 0)));
}
