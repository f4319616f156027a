//! Two brokers over TCP: the follower's fetches, a failover by metadata, divergence, and what is rejected.

use std::time::Duration;

use millstream_metadata::MetadataRecord;
use millstream_partition::replica::LeaderView;
use millstream_partition::{Acks, Assignment, PartitionError};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{FetchRequest, ReplicaState};
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use crate::api::request_stats;
use crate::cluster_for_tests::{Node, TOPIC, two_brokers, two_brokers_set};

impl Node {
    async fn isr_becomes(&self, isr: &[i32]) {
        let wait = async {
            while *self.partition().isr() != *isr {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), wait).await.expect("the in-sync set changes");
    }
}

fn view(leader_epoch: i32, isr: &[i32]) -> LeaderView {
    LeaderView { leader_epoch, partition_epoch: 0, replicas: vec![0, 1], isr: isr.to_vec(), min_isr: 2 }
}

/// Waits until both logs have the same bytes and a high watermark.
async fn equal(nodes: &[Node; 2], end: i64) {
    let same = async {
        loop {
            let [one, two] = nodes.each_ref().map(|node| std::fs::read(node.log_file()).unwrap_or_default());
            let marks = nodes.each_ref().map(|node| node.partition().high_watermark());
            if one == two && marks == [end, end] {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), same).await.expect("the follower catches up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_has_what_acks_all_confirms() {
    let nodes = two_brokers().await;
    for _ in 0..20 {
        let end = nodes[0].append(10);
        let committed = nodes[0].partition().committed(end, Acks::All);
        timeout(Duration::from_secs(60), committed).await.expect("in time").expect("committed");
        let follower = nodes[1].partition();
        assert!(follower.recovery_point().expect("online") >= end.offset, "it has synced the records");
    }
    equal(&nodes, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_lost_its_role_follows_the_new_one() {
    let nodes = two_brokers().await;
    let end = nodes[0].append(5);
    nodes[0].partition().committed(end, Acks::All).await.expect("committed");
    equal(&nodes, 5).await;
    // Broker 1 leads now, and broker 0 learns of it late: what it still appends is lost, and never confirmed.
    nodes[1].assign(Assignment::Leader(view(1, &[0, 1])));
    let never = nodes[0].append(3);
    let never = nodes[0].partition().committed(never, Acks::All);
    nodes[0].assign(Assignment::Follower { leader: 1, leader_epoch: 1 });
    assert!(matches!(never.await, Err(PartitionError::NotLeader { leader: 1 })));
    let end = nodes[1].append(4);
    nodes[1].partition().committed(end, Acks::All).await.expect("committed");
    equal(&nodes, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stops_leaves_the_in_sync_set_and_one_that_returns_joins_it() {
    let nodes = two_brokers().await;
    let end = nodes[0].append(5);
    nodes[0].partition().committed(end, Acks::All).await.expect("committed");
    nodes[1].stop_fetching().await;
    let end = nodes[0].append(1);
    nodes[0].isr_becomes(&[0]).await;
    assert_eq!(nodes[0].partition().high_watermark(), 5, "min.insync.replicas is 2");
    let partition = nodes[0].broker.metadata.image().topic_by_id(TOPIC).expect("it exists").partitions[0].clone();
    assert_eq!((&*partition.isr, partition.partition_epoch, partition.leader_epoch), (&[0][..], 1, 0));
    let committed = nodes[0].partition().committed(end, Acks::All);
    nodes[1].fetch();
    committed.await.expect("committed");
    nodes[0].isr_becomes(&[0, 1]).await;
    equal(&nodes, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_held_back_waits_without_many_fetches() {
    let set = |name: &str, value: &str| MetadataRecord::TopicConfigChanged {
        id: TOPIC,
        name: name.to_owned(),
        value: Some(value.to_owned()),
    };
    // The leader alone commits what the follower lacks.
    let more = [set("leader.replication.throttled.replicas", "0:0"), set("min.insync.replicas", "1")];
    let rate = "leader.replication.throttled.rate";
    let nodes = two_brokers_set(&[&format!("{rate}=1"), "replica.fetch.max.bytes=1"], &more).await;
    for _ in 0..3 {
        let end = nodes[0].append(5);
        let committed = nodes[0].partition().committed(end, Acks::All);
        timeout(Duration::from_secs(60), committed).await.expect("one in sync is not held back").expect("committed");
    }
    nodes[1].stop_fetching().await;
    nodes[0].append(5);
    nodes[0].isr_becomes(&[0]).await;
    let fetches = || {
        let stats = request_stats(&nodes[0].broker.request_metrics);
        stats.iter().find(|api| api.api == "Fetch").expect("it is served").requests
    };
    nodes[1].fetch();
    let before = fetches();
    sleep(Duration::from_secs(1)).await;
    assert!((1..20).contains(&(fetches() - before)), "{} fetches", fetches() - before);
    assert_eq!(*nodes[0].partition().isr(), [0], "the rate allows no batch");
    let (broker, value) = (Some(0), Some("1000000".to_owned()));
    nodes[0].change(&[MetadataRecord::BrokerConfigChanged { broker, name: rate.to_owned(), value }]);
    nodes[0].isr_becomes(&[0, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_of_a_replica_needs_the_listener_for_brokers() {
    let nodes = two_brokers().await;
    let request = FetchRequest {
        replica_state: ReplicaState { replica_id: 1, replica_epoch: 2 },
        session_epoch: -1,
        ..Default::default()
    };
    for (port, expected) in nodes[0].ports.into_iter().zip([ErrorCode::CLUSTER_AUTHORIZATION_FAILED, ErrorCode::NONE]) {
        let connection = Connection::open("127.0.0.1", port, 1 << 20, Duration::from_secs(60)).await;
        let response = connection.expect("connected").call(&request, 18).await.expect("a response");
        assert_eq!(response.error_code, expected);
    }
}
