//! Nodes that come and go: joining, leaving, losing a disk, and what is rejected.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_client::{PartitionDescription, TopicPartition};
use millstream_tests::{Broker, BrokerBuilder, Cluster, Tool, free_ports, millstream};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::checker::check;
use crate::faults::{PATIENCE, TOPIC, admin, create, whole, whole_without};
use crate::plugins::{filter, json, output, push};
use crate::workload::{Seen, Workload};

/// Waits until the cluster has these brokers, none of them fenced.
async fn brokers_become(bootstrap: &str, expected: &[i32]) {
    let (begun, admin) = (Instant::now(), admin(bootstrap));
    loop {
        let found = admin.describe_cluster().await.map(|cluster| {
            let alive = cluster.brokers.into_iter().filter(|broker| !broker.fenced);
            alive.map(|broker| broker.id).collect::<Vec<_>>()
        });
        if found.as_ref().is_ok_and(|found| found == expected) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{found:?} and not {expected:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_alone_becomes_the_first_node_without_losing_anything() {
    let folder = TempDir::new().expect("a folder");
    let mut alone = Broker::builder().set("node.id", "1").folder(folder.path()).start();
    let workload = Workload::start(&alone.bootstrap(), "old", 1, 200);
    sleep(Duration::from_millis(700)).await;
    let seen = workload.stop().await;
    alone.stop(Signal::TERM);
    let port = free_ports(1)[0];
    let first = Cluster::node(1, port, port, &[]).folder(folder.path()).start();
    assert!(check(&first.bootstrap(), "old", &seen).await > 20, "the old records are there");
    let second = Cluster::node(2, 0, port, &[]).start();
    brokers_become(&second.bootstrap(), &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_was_lost_is_a_new_member_and_gets_its_records_back() {
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 3).await;
    let workload = Workload::start(&bootstrap, TOPIC, 1, 200);
    sleep(Duration::from_millis(500)).await;
    cluster.kill(2);
    let folder = cluster.node_of(2).folder().to_owned();
    std::fs::remove_dir_all(&folder).expect("removable");
    sleep(Duration::from_millis(300)).await;
    cluster.restart(2);
    whole(&bootstrap).await;
    let seen = workload.stop().await;
    whole(&bootstrap).await;
    // What the other replicas hold must be enough, and what the new one has copied.
    cluster.kill(3);
    cluster.kill(1);
    cluster.restart(1);
    whole_without(&bootstrap, 3).await;
    assert!(check(&cluster.bootstrap(), TOPIC, &seen).await > 50);
    let quorum = admin(&bootstrap).describe_quorum().await.expect("described");
    assert_eq!(quorum.voters.len(), 3, "{quorum:?}");
}

/// Waits until the partition is as `wanted` says.
async fn partition_becomes(bootstrap: &str, wanted: impl Fn(&PartitionDescription) -> bool) {
    let (begun, admin) = (Instant::now(), admin(bootstrap));
    loop {
        let topics = admin.describe_topics(&[TOPIC.to_owned()]).await;
        if topics.as_ref().is_ok_and(|topics| topics.iter().flat_map(|topic| &topic.partitions).all(&wanted)) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{topics:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Produces to a partition with two replicas until both hold every record. Both are killed, and the last one in sync
/// loses its disk and comes back first.
async fn lost_disk_of_the_last_leader(min_in_sync: &str) -> (Cluster, Vec<Seen>) {
    let mut cluster = Cluster::start(5, &[("default.replication.factor", "2"), ("min.insync.replicas", min_in_sync)]);
    let bootstrap = cluster.bootstrap();
    brokers_become(&bootstrap, &[1, 2, 3, 4, 5]).await;
    create(&bootstrap, 1).await;
    let partition = TopicPartition::new(TOPIC, 0);
    let moved = BTreeMap::from([(partition.clone(), Some(vec![2, 3]))]);
    admin(&bootstrap).alter_reassignments(&moved).await.expect("a response")[&partition].clone().expect("moved");
    partition_becomes(&bootstrap, |one| one.replicas == [2, 3] && one.in_sync.len() == 2).await;
    let workload = Workload::start(&bootstrap, TOPIC, 1, 200);
    sleep(Duration::from_millis(500)).await;
    let seen = workload.stop().await;
    cluster.kill(3);
    partition_becomes(&bootstrap, |one| one.leader == Some(2) && one.in_sync == [2]).await;
    cluster.kill(2);
    partition_becomes(&bootstrap, |one| one.leader.is_none()).await;
    std::fs::remove_dir_all(cluster.node_of(2).folder()).expect("removable");
    cluster.restart(2);
    brokers_become(&bootstrap, &[1, 2, 4, 5]).await;
    (cluster, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_was_lost_does_not_lead_with_an_empty_log() {
    let (mut cluster, seen) = lost_disk_of_the_last_leader("2").await;
    let bootstrap = cluster.bootstrap();
    cluster.restart(3);
    whole(&bootstrap).await;
    assert!(check(&bootstrap, TOPIC, &seen).await > 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_leader_whose_disk_was_lost_waits_for_an_operator() {
    let (mut cluster, seen) = lost_disk_of_the_last_leader("1").await;
    let bootstrap = cluster.bootstrap();
    cluster.restart(3);
    brokers_become(&bootstrap, &[1, 2, 3, 4, 5]).await;
    // The other replica may lack records, and an empty one leads even less.
    partition_becomes(&bootstrap, |one| one.leader.is_none()).await;
    let run = |arguments: &[&str]| {
        Tool::new(millstream()).arg("cluster").args(arguments).args(["-b", &bootstrap]).limit(PATIENCE).succeed()
    };
    let partition = format!("{TOPIC}:0");
    run(&["reassign", &partition, "--to", "3,2"]);
    run(&["elect", &partition, "--unclean"]);
    whole(&bootstrap).await;
    assert!(check(&bootstrap, TOPIC, &seen).await > 20);
}

#[test]
fn what_does_not_belong_to_a_cluster_is_rejected_by_name() {
    let mut cluster = Cluster::start(1, &[]);
    let port = cluster.node_port(1);
    let rejected = |node: BrokerBuilder| node.rejected();
    // A node id that is in use.
    let words = rejected(Cluster::node(1, 0, port, &[]));
    assert!(words.contains("node id 1 is in use"), "{words}");
    // The data of another cluster.
    let folder = TempDir::new().expect("a folder");
    let mut other = Broker::builder().set("node.id", "7").folder(folder.path()).start();
    other.stop(Signal::TERM);
    let words = rejected(Cluster::node(7, 0, port, &[]).folder(folder.path()));
    assert!(words.contains("belongs to cluster.id="), "{words}");
    // The folder of a node, without its cluster.
    cluster.stop(1);
    let folder = cluster.node_of(1).folder().to_owned();
    let words = rejected(Broker::builder().set("node.id", "1").folder(folder));
    assert!(words.contains("has the data of a node of a cluster"), "{words}");
    cluster.restart(1);
}

/// Waits until a node has this number of replicas, and returns how it is described.
fn replicas_become(bootstrap: &str, node: i32, wanted: usize) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let found = json(bootstrap, &["cluster", "describe", "--json"]);
        let described = found["nodes"].as_array().expect("a list").iter().find(|one| one["id"] == node);
        let described = described.expect("the node").clone();
        if described["replicas"] == wanted {
            return described;
        }
        assert!(begun.elapsed() < PATIENCE, "node {node} does not come to {wanted} replicas: {found}");
    }
}

#[test]
fn an_internal_topic_does_not_come_back_to_a_node_that_is_drained() {
    let folder = TempDir::new().expect("a folder");
    // The controller looks at the internal topics often.
    let mut cluster =
        Cluster::start(3, &[("broker.session.timeout.ms", "1000"), ("broker.heartbeat.interval.ms", "100")]);
    let bootstrap = cluster.bootstrap();
    push(&bootstrap, &folder, &filter(1));
    replicas_become(&bootstrap, 3, 1);
    output(&bootstrap, &["cluster", "drain", "3"]);
    assert_eq!(replicas_become(&bootstrap, 3, 0)["state"], "cordoned");
    // It stays so over a restart, which registers the broker again.
    cluster.stop(3);
    cluster.restart(3);
    let bootstrap = cluster.bootstrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        replicas_become(&bootstrap, 3, 0);
    }
    output(&bootstrap, &["cluster", "drain", "3", "--undo"]);
    assert_eq!(replicas_become(&bootstrap, 3, 1)["state"], "alive");
}
