//! Nodes that come and go: joining, leaving, losing a disk, and what is rejected.

use std::time::Duration;

use millstream_tests::{Broker, Cluster};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::checker::read_all;
use crate::faults::admin;
use crate::workload::Workload;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_alone_becomes_the_first_node_without_losing_anything() {
    let folder = TempDir::new().expect("a folder");
    let mut alone = Broker::builder().set("node.id", "1").folder(folder.path()).start();
    let workload = Workload::start(&alone.bootstrap(), "old", 1, 200);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let seen = workload.stop().await;
    alone.stop(Signal::TERM);
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let first = Cluster::node(1, port, port, &[]).folder(folder.path()).start();
    let read = read_all(&first.bootstrap(), "old").await;
    assert!(crate::checker::check(&seen, &read) > 20, "the old records are there");
    let second = Cluster::node(2, 0, port, &[]).start();
    let nodes = admin(&second.bootstrap()).describe_cluster().await.expect("described");
    assert_eq!(nodes.brokers.iter().map(|broker| broker.id).collect::<Vec<_>>(), [1, 2]);
}
