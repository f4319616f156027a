//! Transactions in the log: produce, markers, reads of committed records, and what survives a restart. Coordinators are
//! not asked here.

use std::time::Duration;

use bytes::Bytes;
use millstream_record::{Codec, batches};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;

use super::client::{Client, TestBroker, batch, broker, builder, fetch_request, now_ms, produce_request, start_in};

const COMMITTED: i8 = 1;

/// Markers come over the only listener, and no coordinator is asked.
const SETTINGS: [&str; 2] = ["transaction.partition.verification.enable=false", "inter.broker.listener.name=PLAINTEXT"];

/// A producer's id, epoch, and sequence of the first record.
#[derive(Clone, Copy)]
struct Producer(i64, i16, i32);

fn transactional(Producer(id, epoch, sequence): Producer, records: usize) -> Bytes {
    let mut builder = builder(Codec::None);
    builder.producer(id, epoch, sequence).transactional(true);
    for _ in 0..records {
        builder.append(now_ms(), None, Some(b"value"), []).expect("appended");
    }
    builder.build().expect("built").into()
}

impl Client {
    async fn produce_as(&mut self, id: Option<&str>, version: i16, batch: Bytes) -> PartitionProduceResponse {
        let transactional_id = id.map(Into::into);
        let request = ProduceRequest { transactional_id, ..produce_request("t", 0, batch, -1) };
        self.ask(version, &request).await.responses.remove(0).partition_responses.remove(0)
    }

    /// Produces a transactional batch, and returns its offset.
    async fn send_in_transaction(&mut self, producer: Producer, records: usize) -> i64 {
        let response = self.produce_as(Some("tx"), 11, transactional(producer, records)).await;
        assert_eq!(response.error_code, ErrorCode::NONE, "{:?}", response.error_message);
        response.base_offset
    }

    async fn end_with(&mut self, marker: WritableTxnMarker) -> ErrorCode {
        let topics = vec![WritableTxnMarkerTopic { name: "t".into(), partition_indexes: vec![0] }];
        let markers = vec![WritableTxnMarker { topics, ..marker }];
        let mut response = self.ask(2, &WriteTxnMarkersRequest { markers }).await;
        response.markers.remove(0).topics.remove(0).partitions.remove(0).error_code
    }

    async fn end(&mut self, producer_id: i64, commits: bool) {
        let marker = WritableTxnMarker { producer_id, transaction_result: commits, ..Default::default() };
        assert_eq!(self.end_with(marker).await, ErrorCode::NONE);
    }

    async fn fetch_committed(&mut self, offset: i64, max_bytes: i32) -> PartitionData {
        let mut request = fetch_request(&[("t", 0, offset)], 0, 1);
        request.isolation_level = COMMITTED;
        request.topics[0].partitions[0].partition_max_bytes = max_bytes;
        self.ask(12, &request).await.responses.remove(0).partitions.remove(0)
    }

    /// Looks up an offset, and returns it with its timestamp.
    async fn offset_at(&mut self, isolation_level: i8, timestamp: i64) -> (i64, i64) {
        let partitions = vec![ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp }];
        let topics = vec![ListOffsetsTopic { name: "t".into(), partitions }];
        let request = ListOffsetsRequest { replica_id: -1, isolation_level, topics, ..Default::default() };
        let found = self.ask(11, &request).await.topics.remove(0).partitions.remove(0);
        assert_eq!(found.error_code, ErrorCode::NONE);
        (found.offset, found.timestamp)
    }

    async fn active_producers(&mut self) -> Vec<ProducerState> {
        let topics = vec![DescribeProducersTopicRequest { name: "t".into(), partition_indexes: vec![0] }];
        let mut response = self.ask(0, &DescribeProducersRequest { topics }).await;
        response.topics.remove(0).partitions.remove(0).active_producers
    }
}

fn offsets(data: &PartitionData) -> Vec<i64> {
    let records = data.records.as_bytes().cloned().unwrap_or_default();
    batches(&records).map(|batch| batch.expect("sound").base_offset()).collect()
}

fn aborted(data: &PartitionData) -> Vec<(i64, i64)> {
    let aborted = data.aborted_transactions.as_ref().expect("a list");
    aborted.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect()
}

async fn broker_with_topic() -> (TestBroker, Client) {
    let broker = broker(&SETTINGS).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    (broker, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_depend_on_the_isolation_level() {
    let (_broker, mut client) = broker_with_topic().await;
    client.produce("t", 0, batch(&[b"1", b"2", b"3", b"4", b"5"])).await;
    assert_eq!(client.send_in_transaction(Producer(1, 0, 0), 2).await, 5);
    client.produce("t", 0, batch(&[b"8"])).await;
    assert_eq!((client.offset_at(0, -1).await, client.offset_at(COMMITTED, -1).await), ((8, -1), (5, -1)));
    assert_eq!((client.offset_at(0, -2).await, client.offset_at(COMMITTED, -2).await), ((0, -1), (0, -1)));
    // The newest record is not visible, though visible ones lie below it.
    assert!(client.offset_at(0, -3).await.0 >= 5);
    assert_eq!(client.offset_at(COMMITTED, -3).await, (-1, -1));
    let newest = client.offset_at(0, -3).await.1;
    assert!(client.offset_at(0, newest).await.0 >= 5);
    assert_eq!(client.offset_at(COMMITTED, newest + 1).await, (-1, -1));
    // Markers have timestamps too.
    tokio::time::sleep(Duration::from_millis(2)).await;
    client.end(1, true).await;
    for level in [0, COMMITTED] {
        assert_eq!((client.offset_at(level, -1).await.0, client.offset_at(level, -3).await.0), (9, 8));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_read_stops_at_open_transactions_and_names_the_aborted_ones() {
    let (_broker, mut client) = broker_with_topic().await;
    for (offset, producer) in [10, 11, 12].into_iter().enumerate() {
        assert_eq!(client.send_in_transaction(Producer(producer, 0, 0), 1).await, offset as i64);
    }
    let data = client.fetch_committed(0, 1 << 20).await;
    assert_eq!((data.high_watermark, data.last_stable_offset, aborted(&data)), (3, 0, vec![]));
    assert!(data.records.is_empty());
    let data = client.fetch("t", 0, 0).await;
    assert_eq!((data.last_stable_offset, offsets(&data)), (0, vec![0, 1, 2]));
    assert_eq!(data.aborted_transactions, None);
    assert_eq!(client.send_in_transaction(Producer(10, 0, 1), 1).await, 3);
    client.end(11, false).await;
    client.end(10, false).await;
    let data = client.fetch_committed(0, 1 << 20).await;
    // By first offset, as KafkaJS reads the list.
    assert_eq!((data.last_stable_offset, aborted(&data)), (2, vec![(10, 0), (11, 1)]));
    assert_eq!(offsets(&data), [0, 1]);
    client.end(12, true).await;
    let data = client.fetch_committed(0, 1 << 20).await;
    assert_eq!((data.last_stable_offset, aborted(&data)), (7, vec![(10, 0), (11, 1)]));
    assert_eq!(offsets(&data), [0, 1, 2, 3, 4, 5, 6]);
    // A small fetch names only the transactions of its bytes.
    let data = client.fetch_committed(0, 1).await;
    assert_eq!((offsets(&data), aborted(&data)), (vec![0], vec![(10, 0)]));
    let data = client.fetch_committed(6, 1 << 20).await;
    assert_eq!((offsets(&data), aborted(&data)), (vec![6], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_for_committed_records_ends_with_the_marker() {
    let (broker, mut writer) = broker_with_topic().await;
    let mut reader = broker.connect().await;
    let mut request = fetch_request(&[("t", 0, 0)], 60_000, 200);
    request.isolation_level = COMMITTED;
    reader.send(12, &request).await;
    writer.send_in_transaction(Producer(1, 0, 0), 10).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), reader.stream.readable()).await.is_err());
    writer.end(1, true).await;
    let (_, mut response) = reader.receive::<FetchRequest>(12).await;
    assert_eq!(offsets(&response.responses.remove(0).partitions.remove(0)), [0, 10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_a_transaction_name_it_and_nothing_else_is_written_meanwhile() {
    let (_broker, mut client) = broker_with_topic().await;
    let first = Producer(1, 0, 0);
    let response = client.produce_as(None, 11, transactional(first, 1)).await;
    assert_eq!(response.error_code, ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    assert_eq!(client.send_in_transaction(first, 1).await, 0);
    let mut plain = builder(Codec::None);
    plain.producer(1, 0, 1).append(now_ms(), None, Some(b"value"), []).expect("appended");
    let plain: Bytes = plain.build().expect("built").into();
    for id in [None, Some("tx")] {
        assert_eq!(client.produce_as(id, 11, plain.clone()).await.error_code, ErrorCode::INVALID_TXN_STATE);
    }
    client.end(1, true).await;
    assert_eq!(client.produce_as(None, 11, plain).await.base_offset, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_come_from_other_brokers_and_are_fenced_by_epochs() {
    let (_broker, mut client) = broker_with_topic().await;
    client.send_in_transaction(Producer(1, 3, 0), 1).await;
    let marker = |producer_epoch, coordinator_epoch, transaction_version| WritableTxnMarker {
        producer_id: 1,
        producer_epoch,
        coordinator_epoch,
        transaction_version,
        ..Default::default()
    };
    for (epoch, version) in [(2, 0), (3, 2)] {
        assert_eq!(client.end_with(marker(epoch, 5, version)).await, ErrorCode::INVALID_PRODUCER_EPOCH);
    }
    assert_eq!(client.active_producers().await[0].current_txn_start_offset, 0);
    assert_eq!(client.end_with(marker(4, 5, 2)).await, ErrorCode::NONE);
    assert_eq!(client.end_with(marker(5, 4, 2)).await, ErrorCode::TRANSACTION_COORDINATOR_FENCED);
    let state = client.active_producers().await.remove(0);
    let found = (state.producer_epoch, state.last_sequence, state.coordinator_epoch, state.current_txn_start_offset);
    assert_eq!(found, (4, -1, 5, -1));
    let absent = WritableTxnMarkerTopic { name: "absent".into(), partition_indexes: vec![0] };
    let markers = vec![WritableTxnMarker { topics: vec![absent], ..marker(4, 5, 2) }];
    let response = client.ask(1, &WriteTxnMarkersRequest { markers }).await;
    assert_eq!(response.markers[0].topics[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    // A listener for clients does not take them.
    let other = broker(&[]).await;
    let mut client = other.connect().await;
    client.create("t", 1, &[]).await;
    assert_eq!(client.end_with(marker(0, 0, 0)).await, ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    assert_eq!(client.offset("t", 0, -1).await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_open_and_aborted_transactions() {
    let (broker, mut client) = broker_with_topic().await;
    client.send_in_transaction(Producer(1, 0, 0), 1).await;
    client.send_in_transaction(Producer(2, 0, 0), 1).await;
    client.end(1, false).await;
    client.produce("t", 0, batch(&[b"plain"])).await;
    let broker = start_in(broker.stop().await, &SETTINGS).await;
    let mut client = broker.connect().await;
    let data = client.fetch_committed(0, 1 << 20).await;
    assert_eq!((data.last_stable_offset, offsets(&data), aborted(&data)), (1, vec![0], vec![(1, 0)]));
    client.end(2, true).await;
    let data = client.fetch_committed(0, 1 << 20).await;
    assert_eq!((offsets(&data), aborted(&data)), (vec![0, 1, 2, 3, 4], vec![(1, 0)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_of_an_open_transaction_hold_no_reader_back() {
    let (_broker, mut client) = broker_with_topic().await;
    client.send_in_transaction(Producer(1, 0, 0), 1).await;
    client.produce("t", 0, batch(&[b"1"])).await;
    client.produce("t", 0, batch(&[b"2"])).await;
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 2 }];
    let topics = vec![DeleteRecordsTopic { name: "t".into(), partitions }];
    let deleted = client.ask(2, &DeleteRecordsRequest { topics, timeout_ms: 30_000 }).await;
    assert_eq!(deleted.topics[0].partitions[0].error_code, ErrorCode::NONE);
    // The transaction is still open, so its end is where the log starts.
    assert_eq!((client.offset_at(COMMITTED, -1).await.0, client.offset_at(0, -1).await.0), (2, 3));
    assert_eq!(client.fetch_committed(2, 1 << 20).await.last_stable_offset, 2);
    client.end(1, false).await;
    let data = client.fetch_committed(2, 1 << 20).await;
    assert_eq!((data.last_stable_offset, offsets(&data)), (4, vec![2, 3]));
}
