//! The calls that almost every test makes.

use bytes::Bytes;
use millstream_record::batches;
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Records, Str};
use uuid::Uuid;

use super::Raw;

/// The special timestamps of ListOffsets.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// The resource type of a topic's configs.
pub(crate) const TOPIC: i8 = 2;

/// Operations of IncrementalAlterConfigs.
pub(crate) const SET: i8 = 0;
pub(crate) const DELETE: i8 = 1;

/// Creates a topic with these configs and the broker's default number of replicas. Returns the response.
pub(crate) fn create(raw: &mut Raw, name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopicResult {
    let topic = creatable(name, partitions, configs);
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
    raw.call(7, &request).topics.remove(0)
}

/// Returns a topic as CreateTopics has it.
pub(crate) fn creatable(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let configs = configs
        .iter()
        .map(|(name, value)| CreatableTopicConfig { name: Str::from(*name), value: Some(Str::from(*value)) });
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: -1,
        configs: configs.collect(),
        ..Default::default()
    }
}

/// Sets configs of a topic, and deletes those without a value. Returns the error code and message.
pub(crate) fn alter(raw: &mut Raw, topic: &str, changes: &[(&str, Option<&str>)]) -> (ErrorCode, String) {
    let operation = |value: &Option<&str>| if value.is_some() { SET } else { DELETE };
    let changes: Vec<_> = changes.iter().map(|(name, value)| (*name, operation(value), *value)).collect();
    alter_by(raw, topic, &changes)
}

/// Changes configs of a topic by operations. Returns the error code and message.
pub(crate) fn alter_by(raw: &mut Raw, topic: &str, changes: &[(&str, i8, Option<&str>)]) -> (ErrorCode, String) {
    let answer = raw.call(1, &alter_request(topic, changes)).responses.remove(0);
    (answer.error_code, answer.error_message.map_or_else(String::new, |message| message.to_string()))
}

/// Returns the request that [`alter_by`] sends.
pub(crate) fn alter_request(topic: &str, changes: &[(&str, i8, Option<&str>)]) -> IncrementalAlterConfigsRequest {
    let configs = changes.iter().map(|(name, operation, value)| IncrementalAlterableConfig {
        name: Str::from(*name),
        config_operation: *operation,
        value: value.map(Str::from),
    });
    let resource = IncrementalAlterConfigsResource {
        resource_type: TOPIC,
        resource_name: topic.into(),
        configs: configs.collect(),
    };
    IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }
}

/// A topic's name and id, for versions that use either.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: Str,
    pub(crate) id: Uuid,
}

impl Topic {
    /// Creates a topic.
    pub(crate) fn create(raw: &mut Raw, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Self {
        let created = create(raw, name, partitions, configs);
        assert_eq!(created.error_code, ErrorCode::NONE, "{name}: {:?}", created.error_message);
        Self { name: name.into(), id: created.topic_id }
    }

    /// Returns a produce request for one partition.
    pub(crate) fn produce_request(&self, version: i16, acks: i16, partition: i32, records: Vec<u8>) -> ProduceRequest {
        let data = PartitionProduceData { index: partition, records: Records::Bytes(records.into()) };
        let by_id = version >= 13;
        let topic = TopicProduceData {
            name: if by_id { Str::default() } else { self.name.clone() },
            topic_id: if by_id { self.id } else { Uuid::nil() },
            partition_data: vec![data],
        };
        ProduceRequest { transactional_id: None, acks, timeout_ms: 30_000, topic_data: vec![topic] }
    }

    /// Produces to partition 0 with acks=all and returns the partition's response.
    pub(crate) fn produce_by(&self, raw: &mut Raw, version: i16, records: Vec<u8>) -> PartitionProduceResponse {
        let response = raw.call(version, &self.produce_request(version, -1, 0, records));
        assert_eq!(response.responses.len(), 1);
        assert_eq!(response.responses[0].partition_responses.len(), 1);
        response.responses.into_iter().next().and_then(|topic| topic.partition_responses.into_iter().next()).unwrap()
    }

    /// Produces to partition 0, which must succeed. Returns the base offset.
    pub(crate) fn produce(&self, raw: &mut Raw, records: Vec<u8>) -> i64 {
        let answer = self.produce_by(raw, 9, records);
        assert_eq!(answer.error_code, ErrorCode::NONE, "{:?}", answer.error_message);
        answer.base_offset
    }

    /// Returns the offset that ListOffsets finds in a partition.
    pub(crate) fn offset_for(&self, raw: &mut Raw, partition: i32, timestamp: i64) -> ListOffsetsPartitionResponse {
        let asked = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp };
        let topics = vec![ListOffsetsTopic { name: self.name.clone(), partitions: vec![asked] }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let response = raw.call(8, &request);
        response.topics[0].partitions[0].clone()
    }

    /// Returns the log end offset of partition 0.
    pub(crate) fn end(&self, raw: &mut Raw) -> i64 {
        let found = self.offset_for(raw, 0, LATEST);
        assert_eq!(found.error_code, ErrorCode::NONE);
        found.offset
    }

    /// Returns the log start offset of partition 0.
    pub(crate) fn start(&self, raw: &mut Raw) -> i64 {
        let found = self.offset_for(raw, 0, EARLIEST);
        assert_eq!(found.error_code, ErrorCode::NONE);
        found.offset
    }

    /// Fetches from partition 0 without waiting.
    pub(crate) fn fetch(&self, raw: &mut Raw, offset: i64) -> PartitionData {
        let response = raw.call(12, &fetch_request(12, &[(self, 0, offset, 64 << 20)], 0, 0));
        fetched(response)
    }

    /// Fetches all values of partition 0 from an offset on, in several fetches if needed.
    pub(crate) fn read(&self, raw: &mut Raw, mut offset: i64) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let data = self.fetch(raw, offset);
            assert_eq!(data.error_code, ErrorCode::NONE);
            let bytes = data.records.as_bytes().cloned().unwrap_or_default();
            if bytes.is_empty() {
                return all;
            }
            all.extend(values(&bytes, offset));
            offset = batches(&bytes).last().expect("a batch").expect("a sound batch").next_offset();
        }
    }
}

/// Returns a fetch request for these (topic, partition, offset, maximum bytes).
pub(crate) fn fetch_request(
    version: i16,
    targets: &[(&Topic, i32, i64, i32)],
    max_wait_ms: i32,
    min_bytes: i32,
) -> FetchRequest {
    let topics = targets.iter().map(|(topic, partition, offset, max_bytes)| FetchTopic {
        topic: if version >= 13 { Str::default() } else { topic.name.clone() },
        topic_id: if version >= 13 { topic.id } else { Uuid::nil() },
        partitions: vec![FetchPartition {
            partition: *partition,
            fetch_offset: *offset,
            partition_max_bytes: *max_bytes,
            ..Default::default()
        }],
    });
    FetchRequest { max_wait_ms, min_bytes, max_bytes: 64 << 20, topics: topics.collect(), ..Default::default() }
}

/// Returns the only partition of a response.
pub(crate) fn fetched(response: FetchResponse) -> PartitionData {
    assert_eq!(response.error_code, ErrorCode::NONE);
    response.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next()).expect("one partition")
}

/// Returns the values from an offset on in fetched bytes. Checks the CRC of each batch.
pub(crate) fn values(bytes: &Bytes, from: i64) -> Vec<String> {
    let mut all = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.expect("a sound batch");
        batch.verify_crc().expect("the right CRC");
        let records = batch.records(64 << 20).expect("records that can be decompressed");
        for record in records.iter() {
            let record = record.expect("a sound record");
            if record.offset >= from {
                all.push(String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned());
            }
        }
    }
    all
}
