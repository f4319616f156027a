//! Nodes with two data folders, the second one on a disk that fails or is taken away, under load.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use millstream_tests::wait_until;
use tokio::time::sleep;

use crate::disk::{DiskCluster, NOT_RUN};
use crate::failing_disks::{allow_failing_disks, logs};
use crate::faults::{PATIENCE, TOPIC, admin, assert_no_errors, create, finish, leader_of, whole};
use crate::workload::Workload;

const PARTITIONS: i32 = 6;

/// Starts a cluster whose nodes have partitions in both of their folders.
async fn start() -> Option<DiskCluster> {
    let mut nodes = DiskCluster::start_with_second_folders(&[("log.segment.bytes", "1048576")])?;
    allow_failing_disks(&mut nodes.cluster);
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, PARTITIONS).await;
    whole(&bootstrap).await;
    Some(nodes)
}

/// Returns the partitions of the topic that a data folder has.
fn partitions_in(folder: &Path) -> BTreeSet<i32> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let partition = |name: &str| name.strip_prefix(TOPIC)?.strip_prefix('-')?.parse().ok();
    names.filter_map(|name| partition(name.to_str()?)).collect()
}

/// Waits until a node is in sync for these partitions of the topic, and for no others.
async fn in_sync_only(bootstrap: &str, node: i32, partitions: &BTreeSet<i32>) {
    let (begun, admin) = (Instant::now(), admin(bootstrap));
    loop {
        let described = admin.describe_topics(&[TOPIC.to_owned()]).await;
        let in_sync = described.as_ref().ok().map(|topics| {
            let partitions = topics[0].partitions.iter().zip(0..);
            partitions.filter(|(one, _)| one.in_sync.contains(&node)).map(|(_, index)| index).collect::<BTreeSet<i32>>()
        });
        if in_sync.as_ref() == Some(partitions) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "node {node} is in sync for {in_sync:?}, expected {partitions:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_folder_goes_on_when_the_disk_of_one_fails() {
    let Some(mut nodes) = start().await else { return println!("{NOT_RUN}") };
    let bootstrap = nodes.cluster.bootstrap();
    let workload = Workload::start(&bootstrap, TOPIC, 4, 1000);
    for _ in 0..2 {
        sleep(Duration::from_millis(500)).await;
        let index = partitions_in(&nodes.disk(1).data()).first().copied().expect("a partition on the disk");
        // A leader, so that partitions get another one.
        let victim = leader_of(&bootstrap, usize::try_from(index).expect("an index")).await;
        let kept = partitions_in(nodes.cluster.folder(victim));
        assert!((1..6).contains(&kept.len()), "both folders have partitions: {kept:?}");
        let (begun, from) = (Instant::now(), nodes.cluster.node_of(victim).log().len());
        nodes.disk(victim).cut_off();
        logs(nodes.cluster.node_of(victim), from, "is offline: ").await;
        in_sync_only(&bootstrap, victim, &kept).await;
        println!("node {victim} without a folder: the other one alone is in sync after {:?}", begun.elapsed());
        sleep(Duration::from_millis(1000)).await;
        assert!(nodes.cluster.node_of(victim).is_running(), "the node goes on with its other folder");
        in_sync_only(&bootstrap, victim, &kept).await;
        nodes.cluster.stop(victim);
        nodes.disk(victim).remount();
        nodes.cluster.restart(victim);
        whole(&bootstrap).await;
        assert_eq!(partitions_in(nodes.cluster.folder(victim)), kept, "each partition is where it was");
    }
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_folder_takes_only_its_partitions_out_of_sync() {
    let Some(mut nodes) = start().await else { return println!("{NOT_RUN}") };
    let bootstrap = nodes.cluster.bootstrap();
    let workload = Workload::start(&bootstrap, TOPIC, 4, 1000);
    sleep(Duration::from_millis(500)).await;
    let victim = leader_of(&bootstrap, 0).await;
    let kept = partitions_in(nodes.cluster.folder(victim));
    nodes.disk(victim).fill();
    in_sync_only(&bootstrap, victim, &kept).await;
    nodes.disk(victim).free();
    whole(&bootstrap).await;
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_a_folder_that_is_taken_off_the_list_are_copied_again() {
    let Some(mut nodes) = start().await else { return println!("{NOT_RUN}") };
    let bootstrap = nodes.cluster.bootstrap();
    let workload = Workload::start(&bootstrap, TOPIC, 4, 500);
    sleep(Duration::from_millis(500)).await;
    let victim = leader_of(&bootstrap, 0).await;
    let (data, from) = (nodes.disk(victim).data(), nodes.cluster.node_of(victim).log().len());
    let moved = partitions_in(&data);
    nodes.cluster.kill(victim);
    nodes.cluster.node_of(victim).set_more_folders(&[]);
    nodes.cluster.restart(victim);
    logs(nodes.cluster.node_of(victim), from, "whose data folder is gone is copied again").await;
    whole(&bootstrap).await;
    let folder = nodes.cluster.folder(victim).to_path_buf();
    let has_all = || (partitions_in(&folder) == (0..PARTITIONS).collect()).then_some(());
    wait_until("all partitions in the folder that is left", PATIENCE, has_all);
    // The old logs come back: those that are used since then stay in use.
    nodes.cluster.kill(victim);
    nodes.cluster.node_of(victim).set_more_folders(&[&data]);
    nodes.cluster.node_of(victim).allow("an old copy is set aside");
    nodes.cluster.restart(victim);
    // The metadata may still say that the node is in sync.
    wait_until("the old copies to be set aside", PATIENCE, || partitions_in(&data).is_empty().then_some(()));
    whole(&bootstrap).await;
    has_all().expect("the new copies stay in use");
    assert!(!moved.is_empty());
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}
