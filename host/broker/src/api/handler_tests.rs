//! Handlers alone: a broker without sockets, and requests that were never encoded.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use millstream_log::DataDir;
use millstream_metadata::{MetadataRecord, MetadataStore};
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_wire::messages::*;
use millstream_wire::{ApiKey, ErrorCode, Records, Request};
use tempfile::TempDir;

use super::handler::{Handler, RequestContext, Started, TwoStageHandler};
use super::{create_partitions, create_topics, delete_topics, describe_configs, fetch, list_offsets, metadata};
use super::{find, incremental_alter_configs, offset_for_leader_epoch, produce, request_metrics};
use crate::broker::Broker;
use crate::config::RawConfig;
use crate::edge::plugins::Plugins;
use crate::net::message_memory::Share;
use crate::net::types::ConnectionInfo;
use crate::server::{Opened, open};

/// The name, the partitions and the configs of a topic.
pub(super) type NewTopic<'a> = (&'a str, i32, &'a [(&'a str, &'a str)]);

/// A broker that listens nowhere.
pub(super) struct Fixture {
    pub(super) broker: Arc<Broker>,
    connection: Arc<ConnectionInfo>,
    _data: (Vec<DataDir>, TempDir),
}

impl Fixture {
    fn new(configs: &[&str]) -> Self {
        Self::with_plugins(configs, Plugins::new(|| Err("these tests have no plug-ins".to_owned())))
    }

    pub(super) fn with_plugins(configs: &[&str], plugins: Plugins) -> Self {
        Self::with_metadata(configs, plugins, &[])
    }

    /// Opens a broker in a folder that already holds these records of metadata.
    pub(super) fn with_metadata(configs: &[&str], plugins: Plugins, stored: &[MetadataRecord]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let data_dir = DataDir::open(folder.path(), None, 0).expect("an empty folder");
        let metadata = MetadataStore::open(folder.path(), 0).expect("an empty folder");
        let mut draft = metadata.draft(0);
        draft.add(stored).expect("records that fit");
        metadata.commit(&draft).expect("committed");
        drop(metadata);
        let mut raw = RawConfig::default();
        raw.set_pair(&format!("log.dirs={}", folder.path().display())).expect("a config");
        configs.iter().for_each(|pair| raw.set_pair(pair).expect("a config"));
        let opened = open(raw.check().expect("valid configs"), plugins, data_dir, vec![None]);
        let Opened { broker, data_dirs, .. } = opened.expect("a broker");
        let address = "127.0.0.1:9092".parse().expect("an address");
        let metrics = request_metrics();
        let connection = Arc::new(ConnectionInfo { id: 1, peer: address, local: address, listener: 0, metrics });
        Self { broker, connection, _data: (data_dirs, folder) }
    }

    pub(super) fn context(&self, api: ApiKey, version: i16) -> RequestContext {
        RequestContext {
            api: find(api).expect("an API of the broker"),
            version,
            correlation_id: 1,
            client_id: None,
            connection: Arc::clone(&self.connection),
            received: Instant::now(),
            share: Share::default(),
        }
    }

    async fn handle<H: Handler>(&self, request: H::Request) -> <H::Request as Request>::Response {
        H::handle(&self.broker, &self.context(H::Request::KEY, *H::VERSIONS.end()), request).await
    }

    pub(super) fn start<H: TwoStageHandler>(&self, version: i16, request: H::Request) -> Started {
        H::start(&self.broker, self.context(H::Request::KEY, version), Ok(request)).expect("the connection stays open")
    }

    /// Creates topics, each with its partitions and configs. Returns the error codes.
    pub(super) async fn create(&self, topics: &[NewTopic<'_>]) -> Vec<ErrorCode> {
        let topics = topics.iter().map(|(name, num_partitions, configs)| CreatableTopic {
            name: (*name).into(),
            num_partitions: *num_partitions,
            replication_factor: -1,
            configs: configs
                .iter()
                .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) })
                .collect(),
            ..Default::default()
        });
        let request = CreateTopicsRequest { topics: topics.collect(), timeout_ms: 30_000, validate_only: false };
        let response = self.handle::<create_topics::CreateTopics>(request).await;
        response.topics.iter().map(|topic| topic.error_code).collect()
    }

    fn produce(&self, acks: i16, topics: &[(&str, i32)]) -> Started {
        let topic_data = topics.iter().map(|(name, index)| TopicProduceData {
            name: (*name).into(),
            partition_data: vec![PartitionProduceData { index: *index, records: Records::Bytes(batch()) }],
            ..Default::default()
        });
        let topic_data = topic_data.collect();
        self.start::<produce::Produce>(
            12,
            ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..Default::default() },
        )
    }

    /// Returns the error code and the offset of a partition.
    pub(super) async fn offset(&self, topic: &str, partition_index: i32, timestamp: i64) -> (ErrorCode, i64) {
        let partition = ListOffsetsPartition { partition_index, timestamp, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: topic.into(), partitions: vec![partition] }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let mut response = self.handle::<list_offsets::ListOffsets>(request).await;
        let partition = response.topics.remove(0).partitions.remove(0);
        (partition.error_code, partition.offset)
    }
}

/// Returns a batch of two records.
fn batch() -> Bytes {
    let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for value in ["a", "b"] {
        let now = millstream_partition::now_ms();
        batch.append(now, None, Some(value.as_bytes()), std::iter::empty()).expect("room for a record");
    }
    batch.build().expect("a batch").into()
}

pub(super) const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

#[tokio::test(flavor = "multi_thread")]
async fn each_topic_of_a_request_has_its_own_result() {
    let fixture = Fixture::new(&["num.partitions=3"]);
    let created = fixture.create(&[("a", 2, &[]), ("b", 0, &[]), ("c", -1, &[]), ("d", 1, &[("retention.ms", "x")])]);
    let expected = [ErrorCode::NONE, ErrorCode::INVALID_PARTITIONS, ErrorCode::NONE, ErrorCode::INVALID_CONFIG];
    assert_eq!(created.await, expected);
    assert_eq!(fixture.create(&[("a", 1, &[])]).await, [ErrorCode::TOPIC_ALREADY_EXISTS]);
    let topics = Some(vec![MetadataRequestTopic { name: Some("c".into()), ..Default::default() }]);
    let response = fixture.handle::<metadata::Metadata>(MetadataRequest { topics, ..Default::default() }).await;
    let partitions = &response.topics[0].partitions;
    assert_eq!(partitions.len(), 3);
    assert!(partitions.iter().all(|partition| partition.leader_id == 0 && partition.isr_nodes == [0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_only_validated_changes_nothing() {
    let fixture = Fixture::new(&[]);
    fixture.create(&[("t", 1, &[])]).await;
    let topics = vec![CreatePartitionsTopic { name: "t".into(), count: 4, assignments: None }];
    let request = CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only: true };
    let response = fixture.handle::<create_partitions::CreatePartitions>(request).await;
    assert_eq!(response.results[0].error_code, ErrorCode::NONE);
    let configs =
        vec![IncrementalAlterableConfig { name: "retention.ms".into(), config_operation: 0, value: Some("7".into()) }];
    let resources = vec![IncrementalAlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs }];
    let request = IncrementalAlterConfigsRequest { resources, validate_only: true };
    let response = fixture.handle::<incremental_alter_configs::IncrementalAlterConfigs>(request).await;
    assert_eq!(response.responses[0].error_code, ErrorCode::NONE);

    assert_eq!(fixture.offset("t", 1, LATEST).await.0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configuration_keys: Some(vec!["retention.ms".into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = fixture.handle::<describe_configs::DescribeConfigs>(request).await;
    assert_eq!(response.results[0].configs[0].value.as_deref(), Some("604800000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_produce_waits_only_for_what_its_acks_ask_for() {
    let fixture = Fixture::new(&[]);
    fixture.create(&[("t", 1, &[])]).await;
    assert!(matches!(fixture.produce(0, &[("t", 0)]), Started::Silent));
    assert!(matches!(fixture.produce(1, &[("t", 0)]), Started::Ready(_)));
    let Started::Later(committed) = fixture.produce(-1, &[("t", 0)]) else { panic!("acks=all waits for the disk") };
    assert!(committed.await.is_ok_and(|response| response.is_some()));
    assert_eq!(fixture.offset("t", 0, LATEST).await, (ErrorCode::NONE, 6));
    assert_eq!(fixture.offset("t", 0, EARLIEST).await, (ErrorCode::NONE, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_produce_with_acks_0_closes_the_connection() {
    let fixture = Fixture::new(&[]);
    fixture.create(&[("t", 1, &[])]).await;
    let context = fixture.context(ApiKey::Produce, 12);
    let partition_data = vec![PartitionProduceData { index: 9, records: Records::Bytes(batch()) }];
    let topic_data = vec![TopicProduceData { name: "t".into(), partition_data, ..Default::default() }];
    let request = ProduceRequest { acks: 0, timeout_ms: 30_000, topic_data, ..Default::default() };
    let closed = produce::Produce::start(&fixture.broker, context, Ok(request)).err().expect("no partition 9");
    assert!(closed.to_string().contains("acks=0"), "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_one_produce_do_not_fail_together() {
    let fixture = Fixture::new(&["flush.mode=page-cache"]);
    fixture.create(&[("plain", 1, &[]), ("recoded", 1, &[("compression.type", "zstd")])]).await;
    let topics = [("plain", 0), ("absent", 0), ("recoded", 0), ("__consumer_offsets", 0)];
    match fixture.produce(-1, &topics) {
        Started::Alone(work) => drop(work.await.expect("appended").await.expect("a response")),
        Started::Later(_) | Started::Ready(_) | Started::Silent => panic!("a recoded topic is appended apart"),
    }
    assert_eq!(fixture.offset("plain", 0, LATEST).await, (ErrorCode::NONE, 2));
    assert_eq!(fixture.offset("recoded", 0, LATEST).await, (ErrorCode::NONE, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_is_ready_or_waits() {
    let fixture = Fixture::new(&[]);
    fixture.create(&[("t", 1, &[])]).await;
    let fetch = |fetch_offset| {
        let partition = FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() };
        let topics = vec![FetchTopic { topic: "t".into(), partitions: vec![partition], ..Default::default() }];
        let request =
            FetchRequest { max_wait_ms: 60_000, min_bytes: 1, max_bytes: 1 << 20, topics, ..Default::default() };
        fixture.start::<fetch::Fetch>(12, request)
    };
    let Started::Later(waiting) = fetch(0) else { panic!("there is nothing to read") };
    assert!(matches!(fixture.produce(1, &[("t", 0)]), Started::Ready(_)));
    assert!(waiting.await.is_ok_and(|response| response.is_some()), "the produce ends the wait");
    assert!(matches!(fetch(0), Started::Ready(_)));
    assert!(matches!(fetch(99), Started::Ready(_)), "an offset out of range is a result at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_epochs_are_fenced() {
    let fixture = Fixture::new(&[]);
    fixture.create(&[("t", 1, &[])]).await;
    fixture.produce(1, &[("t", 0)]);
    let ask = async |current_leader_epoch, leader_epoch| {
        let partition = OffsetForLeaderPartition { partition: 0, current_leader_epoch, leader_epoch };
        let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions: vec![partition] }];
        let request = OffsetForLeaderEpochRequest { replica_id: -2, topics };
        let mut response = fixture.handle::<offset_for_leader_epoch::OffsetForLeaderEpoch>(request).await;
        let end = response.topics.remove(0).partitions.remove(0);
        (end.error_code, end.end_offset)
    };
    assert_eq!(ask(-1, 0).await, (ErrorCode::NONE, 2));
    assert_eq!(ask(99, 0).await.0, ErrorCode::UNKNOWN_LEADER_EPOCH);
    assert_eq!(ask(0, 99).await, (ErrorCode::NONE, -1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_gone_for_every_handler() {
    let fixture = Fixture::new(&[]);
    fixture.create(&[("t", 1, &[])]).await;
    let delete = async || {
        let topics = vec![DeleteTopicState { name: Some("t".into()), ..Default::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        fixture.handle::<delete_topics::DeleteTopics>(request).await.responses.remove(0).error_code
    };
    assert_eq!(delete().await, ErrorCode::NONE);
    assert_eq!(delete().await, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(fixture.offset("t", 0, LATEST).await.0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(fixture.create(&[("t", 1, &[])]).await, [ErrorCode::NONE]);
}
