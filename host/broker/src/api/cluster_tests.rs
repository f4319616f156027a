//! What two brokers of one cluster respond, over TCP.

use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_metadata::{BrokerRegistration, Endpoint, FeatureLevel, MetadataRecord, NO_LEADER, PartitionChange};
use millstream_partition::replica::LeaderView;
use millstream_partition::{Acks, Assignment, now_ms};
use millstream_record::{BatchBuilder, Codec, TimestampType};
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Records};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::cluster_for_tests::{Node, TOPIC, two_brokers_with};

/// The id of the topic `u`.
const OTHER: Uuid = Uuid::from_u128(8);

/// Returns the records of a broker with one listener, in a rack.
fn broker(id: i32, listener: &str, fenced: bool) -> [MetadataRecord; 2] {
    let endpoint = Endpoint { listener: listener.to_owned(), host: format!("host{id}"), port: 9000 };
    let broker = BrokerRegistration {
        id,
        incarnation: Uuid::from_u128(id as u128 + 100),
        endpoints: vec![endpoint],
        rack: Some(format!("rack{id}")),
        level_min: FeatureLevel::INITIAL.number(),
        level_max: FeatureLevel::NEWEST.number(),
    };
    let epoch = i64::from(id) + 1;
    [
        MetadataRecord::BrokerRegistered { broker, epoch },
        MetadataRecord::BrokerChanged { id, epoch, fenced: Some(fenced), shutting_down: None },
    ]
}

/// Returns the metadata of four brokers: 2 is fenced, and 3 has no listener for clients. The last partition of the
/// topic `u` has no leader.
fn four_brokers() -> Vec<MetadataRecord> {
    let mut records = [broker(2, "PLAINTEXT", true), broker(3, "INTERNAL", false)].concat();
    let replicas = vec![vec![0, 1], vec![1, 0], vec![0, 2], vec![3, 0], vec![0, 2]];
    records.push(MetadataRecord::TopicCreated {
        name: "u".to_owned(),
        id: OTHER,
        partitions: 5,
        configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
        replicas,
    });
    let change = PartitionChange {
        leader: Some(NO_LEADER),
        isr: Some(Vec::new()),
        elr: Some(vec![2]),
        last_known_elr: Some(vec![0]),
        ..PartitionChange::default()
    };
    records.push(MetadataRecord::PartitionChanged { id: OTHER, partition: 4, change });
    records
}

async fn cluster() -> [Node; 2] {
    two_brokers_with(&four_brokers()).await
}

async fn metadata(node: &Node, version: i16) -> MetadataResponse {
    let topics = Some(vec![MetadataRequestTopic { name: Some("u".into()), ..Default::default() }]);
    node.call(&MetadataRequest { topics, ..Default::default() }, version).await
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_has_the_brokers_that_the_client_can_reach() {
    for node in &cluster().await {
        let response = metadata(node, 13).await;
        let brokers: Vec<_> =
            response.brokers.iter().map(|one| (one.node_id, one.host.as_str(), one.rack.as_deref())).collect();
        assert_eq!(brokers, [(0, "127.0.0.1", None), (1, "127.0.0.1", None)]);
    }
}

/// The error, the leader, the replicas, those in sync, and those offline.
type Seen = (ErrorCode, i32, Vec<i32>, Vec<i32>, Vec<i32>);

#[tokio::test(flavor = "multi_thread")]
async fn metadata_has_the_leader_and_the_offline_replicas_of_each_partition() {
    let nodes = cluster().await;
    let of = |response: &MetadataResponse| -> Vec<Seen> {
        let partitions = response.topics[0].partitions.iter().cloned();
        partitions
            .map(|one| (one.error_code, one.leader_id, one.replica_nodes, one.isr_nodes, one.offline_replicas))
            .collect()
    };
    let none = ErrorCode::NONE;
    let expected = [
        (none, 0, vec![0, 1], vec![0, 1], vec![]),
        (none, 1, vec![1, 0], vec![1, 0], vec![]),
        (none, 0, vec![0, 2], vec![0], vec![2]),
        (ErrorCode::LISTENER_NOT_FOUND, NO_LEADER, vec![3, 0], vec![3, 0], vec![3]),
        (ErrorCode::LEADER_NOT_AVAILABLE, NO_LEADER, vec![0, 2], vec![], vec![2]),
    ];
    for node in &nodes {
        assert_eq!(of(&metadata(node, 13).await), expected);
        assert_eq!(of(&metadata(node, 5).await)[3].0, ErrorCode::LEADER_NOT_AVAILABLE, "an older error");
        // Version 0 leaves out what cannot be reached.
        let oldest = of(&metadata(node, 0).await);
        assert_eq!((oldest[2].0, &oldest[2].2), (ErrorCode::REPLICA_NOT_AVAILABLE, &vec![0]));
        assert_eq!((oldest[3].0, &oldest[3].2), (ErrorCode::LEADER_NOT_AVAILABLE, &vec![0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fenced_brokers_are_described_if_they_are_requested() {
    for node in &cluster().await {
        let described = async |include_fenced_brokers| {
            let request = DescribeClusterRequest { include_fenced_brokers, ..Default::default() };
            let response = node.call(&request, 2).await;
            response.brokers.iter().map(|one| (one.broker_id, one.is_fenced)).collect::<Vec<_>>()
        };
        assert_eq!(described(false).await, [(0, false), (1, false)]);
        assert_eq!(described(true).await, [(0, false), (1, false), (2, true)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn described_partitions_have_the_replicas_that_may_lead() {
    for node in &cluster().await {
        let topics = vec![DescribeTopicPartitionsTopicRequest { name: "u".into() }];
        let cursor = Some(DescribeTopicPartitionsCursor { topic_name: "u".into(), partition_index: 2 });
        let request = DescribeTopicPartitionsRequest { topics, response_partition_limit: 2000, cursor };
        let mut response = node.call(&request, 0).await;
        let partitions = response.topics.remove(0).partitions;
        let leaders: Vec<_> =
            partitions.iter().map(|one| (one.partition_index, one.error_code, one.leader_id)).collect();
        assert_eq!(leaders, [(2, ErrorCode::NONE, 0), (3, ErrorCode::NONE, -1), (4, ErrorCode::NONE, -1)]);
        assert_eq!(partitions[0].offline_replicas, [2]);
        assert_eq!(partitions[2].eligible_leader_replicas.as_deref(), Some(&[2][..]));
        assert_eq!(partitions[2].last_known_elr.as_deref(), Some(&[0][..]));
    }
}

/// Returns a batch of two records.
fn batch() -> Bytes {
    let mut batch = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for value in ["a", "b"] {
        batch.append(now_ms(), None, Some(value.as_bytes()), []).expect("a small record fits");
    }
    batch.build().expect("a small batch fits").into()
}

fn produce(acks: i16) -> ProduceRequest {
    let partition_data = vec![PartitionProduceData { index: 0, records: Records::Bytes(batch()) }];
    let topic_data = vec![TopicProduceData { name: "t".into(), topic_id: TOPIC, partition_data }];
    ProduceRequest { acks, timeout_ms: 30_000, topic_data, ..Default::default() }
}

fn fetch(current_leader_epoch: i32) -> FetchRequest {
    let partition = FetchPartition { current_leader_epoch, partition_max_bytes: 1 << 20, ..Default::default() };
    let topics = vec![FetchTopic { topic: "t".into(), topic_id: TOPIC, partitions: vec![partition] }];
    FetchRequest { max_bytes: 1 << 20, session_epoch: -1, topics, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_names_the_leader_to_producers_and_consumers() {
    let nodes = cluster().await;
    let leader = LeaderIdAndEpoch { leader_id: 0, leader_epoch: 0 };
    let endpoint =
        NodeEndpoint { node_id: 0, host: "127.0.0.1".into(), port: i32::from(nodes[0].ports[0]), rack: None };
    for (version, names) in [(9, false), (10, true), (13, true)] {
        let mut response = nodes[1].call(&produce(-1), version).await;
        let refused = response.responses.remove(0).partition_responses.remove(0);
        assert_eq!(refused.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER);
        let expected = if names { (leader.clone(), vec![endpoint.clone()]) } else { Default::default() };
        assert_eq!((refused.current_leader, response.node_endpoints), expected, "version {version}");
    }
    let stored = nodes[0].call(&produce(-1), 13).await;
    assert_eq!((stored.responses[0].partition_responses[0].error_code, stored.node_endpoints), Default::default());
    let refused = nodes[1].call(&fetch(-1), 10).await.responses.remove(0).partitions.remove(0);
    assert_eq!((refused.error_code, refused.high_watermark), (ErrorCode::NOT_LEADER_OR_FOLLOWER, -1));
    nodes[0].assign(Assignment::Leader(view(3)));
    nodes[1].assign(Assignment::Follower { leader: 0, leader_epoch: 3 });
    let leader = LeaderIdAndEpoch { leader_epoch: 3, ..leader };
    for (version, names) in [(12, false), (16, true), (18, true)] {
        let mut response = nodes[1].call(&fetch(2), version).await;
        let refused = response.responses.remove(0).partitions.remove(0);
        assert_eq!((refused.error_code, refused.high_watermark), (ErrorCode::FENCED_LEADER_EPOCH, -1));
        let expected = if names { (leader.clone(), vec![endpoint.clone()]) } else { Default::default() };
        assert_eq!((refused.current_leader, response.node_endpoints), expected, "version {version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_produce_waits_for_the_leadership_that_its_client_knows() {
    let nodes = cluster().await;
    let error = async |node: &Node| {
        let response = node.call(&produce(1), 13).await;
        response.responses[0].partition_responses[0].error_code
    };
    // On a busy machine the leadership may come after the wait of 50 ms.
    let mut epoch = 0;
    let stored = loop {
        epoch += 1;
        let begun = Instant::now();
        let (stored, took) = tokio::join!(error(&nodes[1]), async {
            sleep(Duration::from_millis(5)).await;
            nodes[1].assign(Assignment::Leader(view(epoch)));
            begun.elapsed()
        });
        if stored.is_ok() || took < Duration::from_millis(40) || epoch == 20 {
            break stored;
        }
        nodes[1].assign(Assignment::Follower { leader: 0, leader_epoch: epoch });
    };
    assert_eq!(stored, ErrorCode::NONE);
    nodes[0].assign(Assignment::Follower { leader: 1, leader_epoch: epoch });
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        let begun = Instant::now();
        assert_eq!(error(&nodes[0]).await, ErrorCode::NOT_LEADER_OR_FOLLOWER);
        fastest = fastest.min(begun.elapsed());
    }
    assert!(fastest < Duration::from_millis(40), "the old leader rejects at once: {fastest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_epochs_are_compared_before_the_role() {
    let nodes = cluster().await;
    nodes[0].assign(Assignment::Follower { leader: 1, leader_epoch: 3 });
    nodes[1].assign(Assignment::Leader(view(3)));
    for (node, known, expected) in [
        (0, 2, ErrorCode::FENCED_LEADER_EPOCH),
        (0, 3, ErrorCode::NOT_LEADER_OR_FOLLOWER),
        (0, 4, ErrorCode::UNKNOWN_LEADER_EPOCH),
        (1, 2, ErrorCode::FENCED_LEADER_EPOCH),
        (1, 3, ErrorCode::NONE),
    ] {
        let fetched = nodes[node].call(&fetch(known), 18).await;
        // A follower of the epoch serves consumers too.
        let served = if expected == ErrorCode::NOT_LEADER_OR_FOLLOWER { ErrorCode::NONE } else { expected };
        assert_eq!(fetched.responses[0].partitions[0].error_code, served, "Fetch from {node}");
        let listed = list_offsets(&nodes[node], -2, known, 11).await;
        assert_eq!(listed.error_code, expected, "ListOffsets from {node}");
        let partition = OffsetForLeaderPartition { partition: 0, current_leader_epoch: known, leader_epoch: 0 };
        let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions: vec![partition] }];
        let ended = nodes[node].call(&OffsetForLeaderEpochRequest { replica_id: -2, topics }, 4).await;
        assert_eq!(ended.topics[0].partitions[0].error_code, expected, "OffsetForLeaderEpoch from {node}");
    }
}

fn view(leader_epoch: i32) -> LeaderView {
    LeaderView { leader_epoch, partition_epoch: 0, replicas: vec![0, 1], isr: vec![0, 1], min_isr: 2 }
}

async fn list_offsets(node: &Node, timestamp: i64, epoch: i32, version: i16) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition { partition_index: 0, timestamp, current_leader_epoch: epoch };
    let topics = vec![ListOffsetsTopic { name: "t".into(), partitions: vec![partition] }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    node.call(&request, version).await.topics.remove(0).partitions.remove(0)
}

/// The end of a log must not seem to go back when another broker leads: consumers would read records twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_tells_the_end_when_it_knows_what_is_committed() {
    let nodes = cluster().await;
    // The in-sync set is too small to commit what broker 1 copies.
    nodes[1].assign(Assignment::Follower { leader: 0, leader_epoch: 1 });
    nodes[0].assign(Assignment::Leader(LeaderView { isr: vec![0], ..view(1) }));
    nodes[0].append(4);
    let copied = async {
        while nodes[1].partition().log_end_offset().expect("online") < 4 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), copied).await.expect("the follower copies the records");
    nodes[1].assign(Assignment::Leader(LeaderView { isr: vec![1], ..view(2) }));
    assert_eq!(list_offsets(&nodes[1], -1, 2, 11).await.error_code, ErrorCode::OFFSET_NOT_AVAILABLE);
    assert_eq!(list_offsets(&nodes[1], -1, 2, 4).await.error_code, ErrorCode::LEADER_NOT_AVAILABLE);
    assert_eq!(list_offsets(&nodes[1], -3, 2, 11).await.error_code, ErrorCode::OFFSET_NOT_AVAILABLE);
    assert_eq!(list_offsets(&nodes[1], -2, 2, 11).await.offset, 0);
    nodes[1].assign(Assignment::Leader(LeaderView { isr: vec![1], min_isr: 1, partition_epoch: 1, ..view(2) }));
    let listed = list_offsets(&nodes[1], -1, 2, 11).await;
    assert_eq!((listed.error_code, listed.offset), (ErrorCode::NONE, 4));
}

async fn delete_records(node: &Node, offset: i64, timeout_ms: i32) -> (ErrorCode, i64) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: "t".into(), partitions }];
    let mut response = node.call(&DeleteRecordsRequest { topics, timeout_ms }, 2).await;
    let result = response.topics.remove(0).partitions.remove(0);
    (result.error_code, result.low_watermark)
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_are_gone_from_all_replicas_that_are_alive() {
    let nodes = cluster().await;
    let end = nodes[0].append(4);
    nodes[0].partition().committed(end, Acks::All).await.expect("committed");
    assert_eq!(delete_records(&nodes[1], 3, 30_000).await.0, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(delete_records(&nodes[0], 3, 30_000).await, (ErrorCode::NONE, 3));
    let start = nodes[1].partition().reader().expect("online").log_start_offset();
    assert_eq!(start, 3, "the follower has deleted them before the response");
    // A follower that is stuck is waited for.
    nodes[1].stop_fetching().await;
    assert_eq!(delete_records(&nodes[0], 4, 50).await, (ErrorCode::REQUEST_TIMED_OUT, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_describes_its_log_and_its_producers() {
    let nodes = cluster().await;
    let end = nodes[0].append(4);
    nodes[0].partition().committed(end, Acks::All).await.expect("committed");
    for (index, node) in nodes.iter().enumerate() {
        let response = node.call(&DescribeLogDirsRequest { topics: None }, 4).await;
        let topics = &response.results[0].topics;
        let count =
            |name: &str| topics.iter().find(|topic| topic.name == name).map_or(0, |topic| topic.partitions.len());
        // Of the topic `u` broker 0 has all partitions, and broker 1 the first two.
        assert_eq!((count("t"), count("u")), (1, [5, 2][index]), "broker {index}");
        let partition = &topics.iter().find(|topic| topic.name == "t").expect("described").partitions[0];
        assert_eq!((partition.offset_lag, partition.is_future_key), (0, false), "broker {index}");
        assert!(partition.partition_size > 0);
        let producers = async |name: &str, partition: i32| {
            let topics = vec![DescribeProducersTopicRequest { name: name.into(), partition_indexes: vec![partition] }];
            let response = node.call(&DescribeProducersRequest { topics }, 0).await;
            response.topics[0].partitions[0].error_code
        };
        assert_eq!(producers("t", 0).await, ErrorCode::NONE, "broker {index}");
        let expected = [ErrorCode::NONE, ErrorCode::NOT_LEADER_OR_FOLLOWER][index];
        assert_eq!(producers("u", 2).await, expected, "broker {index}");
    }
}

async fn create(node: &Node, replication_factor: i16, assignments: &[&[i32]]) -> (ErrorCode, String) {
    let assignment = |(partition_index, broker_ids): (i32, &&[i32])| CreatableReplicaAssignment {
        partition_index,
        broker_ids: broker_ids.to_vec(),
    };
    let topic = CreatableTopic {
        name: "new".into(),
        num_partitions: if assignments.is_empty() { 1 } else { -1 },
        replication_factor,
        assignments: (0..).zip(assignments).map(assignment).collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: true };
    let mut response = node.call(&request, 7).await;
    let result = response.topics.remove(0);
    (result.error_code, result.error_message.map(|text| text.as_str().to_owned()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_new_topics_are_checked_in_kafkas_words() {
    let nodes = cluster().await;
    let assignment = ErrorCode::INVALID_REPLICA_ASSIGNMENT;
    let cases: [(i16, &[&[i32]], ErrorCode, &str); 7] = [
        (9, &[], ErrorCode::INVALID_REPLICATION_FACTOR, "only 4 broker(s) are registered"),
        (0, &[], ErrorCode::INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0"),
        (-1, &[&[0, 7]], assignment, "includes broker 7, but no such broker is registered."),
        (-1, &[&[0, 1], &[1, 1]], assignment, "includes the broker 1 more than once."),
        (-1, &[&[0, 1], &[1]], assignment, "1 replica(s), but this is not consistent with previous partitions"),
        (-1, &[&[2]], assignment, "for partition 0 are fenced or in controlled shutdown."),
        (-1, &[&[0, 2], &[3, 1]], ErrorCode::NONE, ""),
    ];
    for (factor, assignments, code, words) in cases {
        let (found, message) = create(&nodes[0], factor, assignments).await;
        assert_eq!(found, code, "{factor} {assignments:?}: {message}");
        assert!(message.contains(words), "{factor} {assignments:?}: {message}");
    }
    let grow = async |broker_ids: &[i32]| {
        let assignments = Some(vec![CreatePartitionsAssignment { broker_ids: broker_ids.to_vec() }]);
        let topics = vec![CreatePartitionsTopic { name: "t".into(), count: 2, assignments }];
        let request = CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only: true };
        nodes[0].call(&request, 3).await.results.remove(0).error_code
    };
    assert_eq!((grow(&[1]).await, grow(&[1, 7]).await, grow(&[1, 0]).await), (assignment, assignment, ErrorCode::NONE));
}

async fn elect(node: &Node, election_type: i8, partitions: Option<&[i32]>) -> Vec<(i32, ErrorCode)> {
    let topic = |partitions: &[i32]| ElectLeadersTopicPartitions { topic: "u".into(), partitions: partitions.to_vec() };
    let topic_partitions = partitions.map(|partitions| vec![topic(partitions)]);
    let response = node.call(&ElectLeadersRequest { election_type, topic_partitions, timeout_ms: 30_000 }, 2).await;
    let results = response.replica_election_results.into_iter().flat_map(|topic| topic.partition_result);
    results.map(|result| (result.partition_id, result.error_code)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_elected_as_in_kafka() {
    let mut records = four_brokers();
    // Broker 1 leads partition 0, which prefers broker 0. In partition 4 only the fenced broker 2 is eligible.
    let moved = PartitionChange { leader: Some(1), ..PartitionChange::default() };
    records.push(MetadataRecord::PartitionChanged { id: OTHER, partition: 0, change: moved });
    let fenced = PartitionChange { replicas: Some(vec![2, 0]), ..PartitionChange::default() };
    records.push(MetadataRecord::PartitionChanged { id: OTHER, partition: 4, change: fenced });
    let nodes = two_brokers_with(&records).await;
    let (preferred, unclean) = (0, 1);
    assert_eq!(
        elect(&nodes[0], preferred, Some(&[0, 1, 4, 9])).await,
        [
            (0, ErrorCode::NONE),
            (1, ErrorCode::ELECTION_NOT_NEEDED),
            (4, ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE),
            (9, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        ]
    );
    let leader = |partition| nodes[0].broker.metadata.image().partition(OTHER, partition).expect("it exists").leader;
    assert_eq!(leader(0), 0);
    assert_eq!(elect(&nodes[0], preferred, None).await, [(4, ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE)]);
    assert_eq!(elect(&nodes[0], unclean, Some(&[0])).await, [(0, ErrorCode::ELECTION_NOT_NEEDED)]);
    assert_eq!(elect(&nodes[0], unclean, None).await, [(4, ErrorCode::NONE)]);
    assert_eq!(leader(4), 0, "the only replica that is alive");
    assert_eq!(elect(&nodes[0], 7, Some(&[0])).await, [(0, ErrorCode::INVALID_REQUEST)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ongoing_reassignments_are_listed() {
    let mut records = four_brokers();
    let change = PartitionChange {
        replicas: Some(vec![2, 1, 0]),
        adding: Some(vec![2]),
        removing: Some(vec![0]),
        ..PartitionChange::default()
    };
    records.push(MetadataRecord::PartitionChanged { id: OTHER, partition: 1, change });
    for node in &two_brokers_with(&records).await {
        let list = async |topics: Option<&[(&str, i32)]>| {
            let topic = |(name, index): &(&str, i32)| ListPartitionReassignmentsTopics {
                name: (*name).into(),
                partition_indexes: vec![*index],
            };
            let topics = topics.map(|topics| topics.iter().map(topic).collect());
            node.call(&ListPartitionReassignmentsRequest { topics, timeout_ms: 30_000 }, 0).await.topics
        };
        let all = list(None).await;
        let [topic] = all.as_slice() else { panic!("not one topic: {all:?}") };
        let [moving] = topic.partitions.as_slice() else { panic!("not one partition: {all:?}") };
        assert_eq!((topic.name.as_str(), moving.partition_index, &moving.replicas[..]), ("u", 1, &[2, 1, 0][..]));
        assert_eq!((&moving.adding_replicas[..], &moving.removing_replicas[..]), (&[2][..], &[0][..]));
        assert_eq!(list(Some(&[("u", 1), ("t", 0), ("absent", 0)])).await, all);
        assert_eq!(list(Some(&[("u", 0)])).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_in_sync_reject_only_acks_all() {
    let nodes = cluster().await;
    nodes[1].stop_fetching().await;
    nodes[0]
        .partition()
        .assign(Assignment::Leader(LeaderView { isr: vec![0], partition_epoch: 1, ..view(0) }))
        .expect("online");
    let refused = nodes[0].call(&produce(-1), 13).await.responses.remove(0).partition_responses.remove(0);
    let message =
        "The size of the current ISR : 1 is insufficient to satisfy the min.isr requirement of 2 for partition t-0";
    assert_eq!((refused.error_code, refused.error_message.as_deref()), (ErrorCode::NOT_ENOUGH_REPLICAS, Some(message)));
    let stored = nodes[0].call(&produce(1), 13).await.responses.remove(0).partition_responses.remove(0);
    assert_eq!((stored.error_code, stored.base_offset), (ErrorCode::NONE, 0));
}
