//! Nodes that come and go: joining, leaving, losing a disk, and what is rejected.

use std::time::{Duration, Instant};

use millstream_tests::{Broker, BrokerBuilder, Cluster};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::checker::{check, read_all};
use crate::faults::{PATIENCE, TOPIC, admin, create, whole, whole_without};
use crate::workload::Workload;

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
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let first = Cluster::node(1, port, port, &[]).folder(folder.path()).start();
    let read = read_all(&first.bootstrap(), "old").await;
    assert!(check(&seen, &read) > 20, "the old records are there");
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
    let read = read_all(&cluster.bootstrap(), TOPIC).await;
    assert!(check(&seen, &read) > 50);
    let quorum = admin(&bootstrap).describe_quorum().await.expect("described");
    assert_eq!(quorum.voters.len(), 3, "{quorum:?}");
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
