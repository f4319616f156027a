//! The APIs of the transaction coordinator over a socket. What is expected was seen with Apache Kafka 4.2.

use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Records};

use super::client::{Client, PATIENCE, TestBroker};
use super::{TOPIC, text};

const ID: &str = "copier";

fn init_request() -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: Some(text(ID)),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
    }
}

/// A producer's id and epoch.
type Producer = (i64, i16);

impl Client {
    /// Waits until no transaction before is in the way, and returns the producer.
    fn init(&mut self) -> Producer {
        let found = self
            .ask(6, &FindCoordinatorRequest { key_type: 1, coordinator_keys: vec![text(ID)], ..Default::default() });
        assert_eq!(found.coordinators[0].error_code, ErrorCode::NONE);
        let waits_since = Instant::now();
        loop {
            let response = self.ask(5, &init_request());
            if response.error_code == ErrorCode::NONE {
                return (response.producer_id, response.producer_epoch);
            }
            assert_eq!(response.error_code, ErrorCode::CONCURRENT_TRANSACTIONS);
            assert!(waits_since.elapsed() < PATIENCE);
        }
    }

    fn add(&mut self, version: i16, (id, epoch): Producer, partitions: &[i32]) -> Vec<ErrorCode> {
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: text(ID),
            v3_and_below_producer_id: id,
            v3_and_below_producer_epoch: epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic { name: text(TOPIC), partitions: partitions.to_vec() }],
            ..Default::default()
        };
        let response = self.ask(version, &request);
        let results = &response.results_by_topic_v3_and_below[0].results_by_partition;
        results.iter().map(|result| result.partition_error_code).collect()
    }

    fn add_batched(&mut self, (id, epoch): Producer, verify_only: bool, partitions: &[i32]) -> Vec<ErrorCode> {
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: text(ID),
            producer_id: id,
            producer_epoch: epoch,
            verify_only,
            topics: vec![AddPartitionsToTxnTopic { name: text(TOPIC), partitions: partitions.to_vec() }],
        };
        let request = AddPartitionsToTxnRequest { transactions: vec![transaction], ..Default::default() };
        let response = self.ask(5, &request);
        let results = &response.results_by_transaction[0].topic_results[0].results_by_partition;
        results.iter().map(|result| result.partition_error_code).collect()
    }

    fn end(&mut self, version: i16, (id, epoch): Producer, committed: bool) -> (ErrorCode, Producer) {
        let request = EndTxnRequest { transactional_id: text(ID), producer_id: id, producer_epoch: epoch, committed };
        let response = self.ask(version, &request);
        (response.error_code, (response.producer_id, response.producer_epoch))
    }

    fn produce(&mut self, version: i16, (id, epoch): Producer, topic_id: uuid::Uuid) -> ErrorCode {
        let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
        batch.producer(id, epoch, 0).transactional(true);
        batch.append(1, None, Some(b"value"), []).unwrap();
        let records = Records::Bytes(Bytes::from(batch.build().unwrap()));
        let partition_data = vec![PartitionProduceData { index: 0, records }];
        let request = ProduceRequest {
            transactional_id: Some(text(ID)),
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![TopicProduceData { name: text(TOPIC), topic_id, partition_data }],
        };
        self.ask(version, &request).responses[0].partition_responses[0].error_code
    }

    fn state(&mut self) -> DescribedTransaction {
        let request = DescribeTransactionsRequest { transactional_ids: vec![text(ID)] };
        self.ask(0, &request).transaction_states.remove(0)
    }

    fn reaches(&mut self, state: &str) {
        let waits_since = Instant::now();
        while self.state().transaction_state.as_str() != state {
            assert!(waits_since.elapsed() < PATIENCE, "{:?}", self.state());
        }
    }

    fn commit_offset(&mut self, version: i16, (id, epoch): Producer, offset: i64, topic_id: uuid::Uuid) -> ErrorCode {
        let request = TxnOffsetCommitRequest {
            transactional_id: text(ID),
            group_id: text("g"),
            producer_id: id,
            producer_epoch: epoch,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: text(TOPIC),
                topic_id,
                partitions: vec![TxnOffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: offset,
                    committed_leader_epoch: -1,
                    committed_metadata: None,
                }],
            }],
            ..Default::default()
        };
        self.ask(version, &request).topics[0].partitions[0].error_code
    }

    /// Returns the offset of the group with its error code.
    fn offset(&mut self, require_stable: bool) -> (i64, ErrorCode) {
        let topics =
            vec![OffsetFetchRequestTopics { name: text(TOPIC), partition_indexes: vec![0], ..Default::default() }];
        let group = OffsetFetchRequestGroup { group_id: text("g"), topics: Some(topics), ..Default::default() };
        let request = OffsetFetchRequest { require_stable, groups: vec![group], ..Default::default() };
        let partition = self.ask(9, &request).groups.remove(0).topics.remove(0).partitions.remove(0);
        (partition.committed_offset, partition.error_code)
    }
}

fn started(folder: &tempfile::TempDir, keys: &[&str]) -> (TestBroker, Client, uuid::Uuid) {
    let keys: Vec<_> = keys.iter().copied().chain(["transaction.state.log.num.partitions=2"]).collect();
    let broker = TestBroker::start(folder.path(), &keys);
    let mut client = broker.connect();
    let topic_id = client.create_topic(TOPIC, 2);
    (broker, client, topic_id)
}

#[test]
fn a_new_instance_fences_the_one_before_and_aborts_its_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, _) = started(&folder, &["transaction.max.timeout.ms=60000"]);
    let first = client.init();
    assert_eq!(first.1, 0);
    let invalid = |client: &mut Client, request: &InitProducerIdRequest| client.ask(5, request).error_code;
    let empty = InitProducerIdRequest { transactional_id: Some(text("")), ..init_request() };
    assert_eq!(invalid(&mut client, &empty), ErrorCode::INVALID_REQUEST);
    for transaction_timeout_ms in [0, -1, 60_001] {
        let request = InitProducerIdRequest { transaction_timeout_ms, ..init_request() };
        assert_eq!(invalid(&mut client, &request), ErrorCode::INVALID_TRANSACTION_TIMEOUT);
    }
    let half = InitProducerIdRequest { producer_id: first.0, ..init_request() };
    assert_eq!(invalid(&mut client, &half), ErrorCode::INVALID_REQUEST);
    assert_eq!(client.add(3, first, &[0]), [ErrorCode::NONE]);
    assert_eq!(client.ask(5, &init_request()).error_code, ErrorCode::CONCURRENT_TRANSACTIONS);
    assert_eq!(client.init(), (first.0, 2));
    assert_eq!(client.add(3, first, &[0]), [ErrorCode::PRODUCER_FENCED]);
    assert_eq!(client.add(1, first, &[0]), [ErrorCode::INVALID_PRODUCER_EPOCH]);
    assert_eq!(client.end(4, first, true).0, ErrorCode::PRODUCER_FENCED);
    assert_eq!(client.end(1, first, true).0, ErrorCode::INVALID_PRODUCER_EPOCH);
    let late = InitProducerIdRequest { producer_id: first.0, producer_epoch: 0, ..init_request() };
    assert_eq!(invalid(&mut client, &late), ErrorCode::PRODUCER_FENCED);
    assert_eq!(client.ask(3, &late).error_code, ErrorCode::INVALID_PRODUCER_EPOCH);
    broker.stop();
}

#[test]
fn partitions_are_added_all_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, _) = started(&folder, &[]);
    let producer = client.init();
    let missing = [ErrorCode::OPERATION_NOT_ATTEMPTED, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION];
    assert_eq!(client.add(3, producer, &[0, 9]), missing);
    assert_eq!(client.add_batched(producer, false, &[0, 9]), missing);
    assert_eq!(client.state().transaction_state.as_str(), "Empty");
    assert_eq!(client.add_batched(producer, true, &[0]), [ErrorCode::TRANSACTION_ABORTABLE]);
    assert_eq!(client.add_batched(producer, false, &[0, 1]), [ErrorCode::NONE; 2]);
    assert_eq!(client.add_batched(producer, true, &[0]), [ErrorCode::NONE]);
    let state = client.state();
    assert_eq!((state.transaction_state.as_str(), &state.topics[0].partitions), ("Ongoing", &vec![0, 1]));
    broker.stop();
}

#[test]
fn the_newer_protocol_raises_the_epoch_and_its_requests_may_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, topic_id) = started(&folder, &[]);
    let producer @ (id, _) = client.init();
    assert_eq!(client.end(5, producer, true).0, ErrorCode::INVALID_TXN_STATE);
    // A way to get a new epoch.
    assert_eq!(client.end(5, producer, false), (ErrorCode::NONE, (id, 1)));
    assert_eq!(client.produce(13, (id, 1), topic_id), ErrorCode::NONE);
    assert_eq!(client.state().transaction_state.as_str(), "Ongoing");
    assert_eq!(client.end(5, (id, 1), true), (ErrorCode::NONE, (id, 2)));
    client.reaches("CompleteCommit");
    assert_eq!(client.end(5, (id, 1), true), (ErrorCode::NONE, (id, 2)));
    assert_eq!(client.end(5, (id, 1), false).0, ErrorCode::INVALID_TXN_STATE);
    // What is late of the transaction before neither joins the next one, nor ends it.
    assert_eq!(client.produce(13, (id, 1), topic_id), ErrorCode::INVALID_PRODUCER_EPOCH);
    assert_eq!(client.produce(13, (id, 2), topic_id), ErrorCode::NONE);
    assert_eq!(client.end(5, (id, 1), true).0, ErrorCode::PRODUCER_FENCED);
    broker.stop();
}

#[test]
fn the_older_protocol_keeps_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, topic_id) = started(&folder, &[]);
    let producer = client.init();
    for committed in [true, false] {
        assert_eq!(client.end(4, producer, committed).0, ErrorCode::INVALID_TXN_STATE);
    }
    assert_eq!(client.produce(11, producer, topic_id), ErrorCode::TRANSACTION_ABORTABLE);
    assert_eq!(client.add(3, producer, &[0]), [ErrorCode::NONE]);
    assert_eq!(client.produce(11, producer, topic_id), ErrorCode::NONE);
    assert_eq!(client.end(4, producer, true).0, ErrorCode::NONE);
    client.reaches("CompleteCommit");
    assert_eq!(client.end(4, producer, true).0, ErrorCode::NONE);
    assert_eq!(client.end(4, producer, false).0, ErrorCode::INVALID_TXN_STATE);
    assert_eq!(client.state().producer_epoch, producer.1);
    broker.stop();
}

#[test]
fn a_transaction_that_times_out_is_aborted_and_its_id_expires() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [
        "transaction.abort.timed.out.transaction.cleanup.interval.ms=20",
        "transaction.remove.expired.transaction.cleanup.interval.ms=20",
        "transactional.id.expiration.ms=1000",
    ];
    let (broker, mut client, topic_id) = started(&folder, &keys);
    client.init();
    let short = InitProducerIdRequest { transaction_timeout_ms: 50, ..init_request() };
    let producer = client.ask(5, &short);
    let producer = (producer.producer_id, producer.producer_epoch);
    assert_eq!(client.add(3, producer, &[0]), [ErrorCode::NONE]);
    client.reaches("CompleteAbort");
    assert_eq!(client.state().producer_epoch, producer.1 + 1);
    assert_eq!(client.add(3, producer, &[0]), [ErrorCode::PRODUCER_FENCED]);
    assert_eq!(client.end(4, producer, true).0, ErrorCode::PRODUCER_FENCED);
    assert_eq!(client.end(5, producer, true).0, ErrorCode::INVALID_TXN_STATE);
    assert_eq!(client.produce(11, producer, topic_id), ErrorCode::INVALID_PRODUCER_EPOCH);
    let waits_since = Instant::now();
    while client.state().error_code != ErrorCode::TRANSACTIONAL_ID_NOT_FOUND {
        assert!(waits_since.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.add(3, producer, &[0]), [ErrorCode::INVALID_PRODUCER_ID_MAPPING]);
    broker.stop();
}

#[test]
fn offsets_count_once_their_transaction_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, topic_id) = started(&folder, &["offsets.topic.num.partitions=2"]);
    let producer @ (id, _) = client.init();
    // The group's partition joins by itself, also before any produce.
    assert_eq!(client.commit_offset(6, producer, 5, topic_id), ErrorCode::NONE);
    assert_eq!(client.offset(false), (-1, ErrorCode::NONE));
    assert_eq!(client.offset(true), (-1, ErrorCode::UNSTABLE_OFFSET_COMMIT));
    assert_eq!(client.end(5, producer, true), (ErrorCode::NONE, (id, 1)));
    client.reaches("CompleteCommit");
    assert_eq!(client.offset(true), (5, ErrorCode::NONE));
    // In the older protocol AddOffsetsToTxn comes first.
    assert_eq!(client.commit_offset(4, (id, 1), 6, topic_id), ErrorCode::TRANSACTION_ABORTABLE);
    let add =
        AddOffsetsToTxnRequest { transactional_id: text(ID), producer_id: id, producer_epoch: 1, group_id: text("g") };
    assert_eq!(client.ask(4, &add).error_code, ErrorCode::NONE);
    assert_eq!(client.commit_offset(4, (id, 1), 6, topic_id), ErrorCode::NONE);
    // What is pending is still there after a restart, and an abort takes it back.
    broker.stop();
    let broker = TestBroker::start(folder.path(), &[]);
    let mut client = broker.connect();
    assert_eq!(client.offset(true), (-1, ErrorCode::UNSTABLE_OFFSET_COMMIT));
    assert_eq!(client.offset(false), (5, ErrorCode::NONE));
    assert_eq!(client.end(4, (id, 1), false).0, ErrorCode::NONE);
    client.reaches("CompleteAbort");
    assert_eq!(client.offset(true), (5, ErrorCode::NONE));
    assert_eq!(client.commit_offset(6, (id, 0), 7, topic_id), ErrorCode::INVALID_PRODUCER_EPOCH);
    broker.stop();
}

/// A group that has only offsets of an open transaction is deleted, and the commit leaves nothing.
#[test]
fn a_group_may_be_deleted_during_a_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, topic_id) = started(&folder, &[]);
    let producer = client.init();
    assert_eq!(client.commit_offset(6, producer, 5, topic_id), ErrorCode::NONE);
    let deleted = client.ask(2, &DeleteGroupsRequest { groups_names: vec![text("g")] });
    assert_eq!(deleted.results[0].error_code, ErrorCode::NONE);
    assert_eq!(client.end(5, producer, true).0, ErrorCode::NONE);
    client.reaches("CompleteCommit");
    assert_eq!(client.offset(true), (-1, ErrorCode::NONE));
    broker.stop();
    let broker = TestBroker::start(folder.path(), &[]);
    assert_eq!(broker.connect().offset(true), (-1, ErrorCode::NONE));
    broker.stop();
}

#[test]
fn a_topic_that_is_deleted_during_a_transaction_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, _) = started(&folder, &[]);
    let producer = client.init();
    assert_eq!(client.add(3, producer, &[0, 1]), [ErrorCode::NONE; 2]);
    let request = DeleteTopicsRequest { topic_names: vec![text(TOPIC)], timeout_ms: 10_000, ..Default::default() };
    assert_eq!(client.ask(5, &request).responses[0].error_code, ErrorCode::NONE);
    assert_eq!(client.end(4, producer, true).0, ErrorCode::NONE);
    client.reaches("CompleteCommit");
    broker.stop();
}

#[test]
fn transactions_are_listed_by_state_producer_and_name() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, _) = started(&folder, &[]);
    let producer = client.init();
    assert_eq!(client.add(3, producer, &[0]), [ErrorCode::NONE]);
    let list = |client: &mut Client, version, request: ListTransactionsRequest| {
        let response = client.ask(version, &request);
        let ids: Vec<_> = response.transaction_states.iter().map(|one| one.transactional_id.to_string()).collect();
        (response.error_code, ids, response.unknown_state_filters)
    };
    let all = || ListTransactionsRequest { duration_filter: -1, ..Default::default() };
    let found = || (ErrorCode::NONE, vec![ID.to_owned()], Vec::new());
    let nothing = || (ErrorCode::NONE, Vec::new(), Vec::new());
    assert_eq!(list(&mut client, 0, all()), found());
    let of_state = |state| ListTransactionsRequest { state_filters: vec![text(state)], ..all() };
    assert_eq!(list(&mut client, 1, of_state("Ongoing")), found());
    assert_eq!(list(&mut client, 1, of_state("Empty")), nothing());
    let unknown = (ErrorCode::NONE, Vec::new(), vec![text("Running")]);
    assert_eq!(list(&mut client, 1, of_state("Running")), unknown);
    let of_producer = ListTransactionsRequest { producer_id_filters: vec![producer.0 + 1], ..all() };
    assert_eq!(list(&mut client, 1, of_producer), nothing());
    assert_eq!(list(&mut client, 1, ListTransactionsRequest { duration_filter: 3_600_000, ..all() }), nothing());
    let named = |pattern| ListTransactionsRequest { transactional_id_pattern: Some(text(pattern)), ..all() };
    assert_eq!(list(&mut client, 2, named("cop.*")), found());
    assert_eq!(list(&mut client, 2, named("op")), nothing());
    assert_eq!(list(&mut client, 2, named("")), found());
    assert_eq!(list(&mut client, 2, named("(")).0, ErrorCode::INVALID_REGULAR_EXPRESSION);
    broker.stop();
}

/// The keys of the topic act when it is created.
#[test]
fn the_topic_of_transactions_has_the_configured_shape() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [
        "transaction.state.log.num.partitions=3",
        "transaction.state.log.replication.factor=2",
        "transaction.state.log.min.isr=2",
        "transaction.state.log.segment.bytes=2097152",
    ];
    let broker = TestBroker::start(folder.path(), &keys);
    let mut client = broker.connect();
    client.init();
    assert_eq!(client.partitions("__transaction_state"), 3);
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: text("__transaction_state"),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let configs = client.ask(4, &request).results.remove(0).configs;
    let value = |name: &str| {
        let config = configs.iter().find(|config| config.name.as_str() == name).unwrap();
        config.value.as_ref().map(ToString::to_string).unwrap()
    };
    assert_eq!(value("cleanup.policy"), "compact");
    assert_eq!(value("min.insync.replicas"), "2");
    assert_eq!(value("segment.bytes"), "2097152");
    let grow = CreatePartitionsTopic { name: text("__transaction_state"), count: 9, assignments: None };
    let grown = client.ask(3, &CreatePartitionsRequest { topics: vec![grow], timeout_ms: 1000, validate_only: false });
    assert_eq!(grown.results[0].error_code, ErrorCode::INVALID_PARTITIONS);
    broker.stop();
}
