//! Power cuts of one node and of all of them.
//!
//! `MILLSTREAM_NEMESIS_CUTS` makes the run longer.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::checker::{Promise, compare, read_all};
use crate::commits::Commits;
use crate::disk::{DiskCluster, NOT_RUN};
use crate::faults::{TOPIC, assert_no_errors, controller, create, finish, finish_commits, leader_of, wanted, whole};
use crate::workload::Workload;

/// The cuts of all nodes in the test command.
const CUTS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_power_of_one_node_is_cut() {
    run_cuts(2, async |nodes, round| {
        let bootstrap = nodes.cluster.bootstrap();
        vec![if round % 2 == 0 { leader_of(&bootstrap, 0).await } else { controller(&bootstrap).await }]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_power_of_all_nodes_is_cut() {
    let cuts = wanted("MILLSTREAM_NEMESIS_CUTS").unwrap_or(CUTS);
    run_cuts(cuts, async |_, _| vec![1, 2, 3]).await;
}

/// Without fsync the same cut loses records, so the disks really forget them and the check sees it.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_what_was_not_synced() {
    let Some(mut nodes) = DiskCluster::start(&[("flush.mode", "page-cache")]) else { return println!("{NOT_RUN}") };
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, 1).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 1, 1000);
    sleep(Duration::from_millis(500)).await;
    let seen = workload.stop().await;
    nodes.cut_power(&[1, 2, 3]);
    for id in 1..=3 {
        nodes.cluster.restart(id);
    }
    whole(&bootstrap).await;
    let (acknowledged, broken) = compare(&seen, &read_all(&bootstrap, TOPIC).await);
    println!("{} of {acknowledged} acknowledged records are lost", broken.len());
    assert!(broken.iter().any(|broken| broken.promise == Promise::Kept), "{broken:?}");
}

async fn run_cuts(cuts: usize, victims: impl AsyncFn(&DiskCluster, usize) -> Vec<i32>) {
    let settings = [("log.segment.bytes", "1048576")];
    let Some(mut nodes) = DiskCluster::start(&settings) else { return println!("{NOT_RUN}") };
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, 6).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 4, 1000);
    let commits = Commits::start(&bootstrap, TOPIC).await;
    for round in 0..cuts {
        sleep(Duration::from_millis(300 + fastrand::u64(0..700))).await;
        let victims = victims(&nodes, round).await;
        let begun = Instant::now();
        nodes.cut_power(&victims);
        for id in &victims {
            nodes.cluster.restart(*id);
        }
        whole(&bootstrap).await;
        println!("power cut of {victims:?}: whole after {:?}", begun.elapsed());
    }
    finish_commits(commits).await;
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}
