//! What two brokers of one cluster respond, over TCP.

use millstream_metadata::{BrokerRegistration, Endpoint, FeatureLevel, MetadataRecord, NO_LEADER, PartitionChange};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;
use uuid::Uuid;

use crate::cluster_for_tests::{Node, two_brokers_with};

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

#[tokio::test(flavor = "multi_thread")]
async fn metadata_has_the_leader_and_the_offline_replicas_of_each_partition() {
    let nodes = cluster().await;
    let of = |response: &MetadataResponse| -> Vec<(ErrorCode, i32, Vec<i32>, Vec<i32>, Vec<i32>)> {
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
