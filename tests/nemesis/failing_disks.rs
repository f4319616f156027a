//! Disks that are full, fsyncs that fail or stall, and damaged bytes, on one node of a cluster under load.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millstream_client::NewTopic;
use millstream_tests::{Broker, Cluster};
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::time::sleep;

use crate::checker::{check, read_all};
use crate::disk::{DiskCluster, NOT_RUN};
use crate::faults::{
    PATIENCE, TOPIC, admin, assert_no_errors, controller, create, finish, leader_of, whole, whole_without,
};
use crate::process_faults::{Fault, FaultyCluster, NOT_RUN as NO_COMPILER};
use crate::workload::Workload;

/// What nodes log about a disk that fails.
const DISK_FAILS: [&str; 18] = [
    "is full: it takes no records of producers",
    "this replica cannot be in sync",
    "this replica has left the in-sync set",
    "this replica stays in sync",
    "No space left on device",
    "Input/output error",
    "out of service since an fsync or a repair failed",
    "a damaged log is set aside",
    "is damaged at byte",
    "Too many open files",
    "is offline",
    "cannot write the",
    "cannot be set aside",
    "an index entry is wrong",
    "whose data folder is gone is copied again",
    // A disk that is cut off forgets what was not synced.
    "a torn tail is cut off",
    "the log is scanned",
    "the leader epochs are made again from the log",
];

pub(crate) fn allow_failing_disks(cluster: &mut Cluster) {
    for id in 1..=3 {
        DISK_FAILS.iter().for_each(|part| cluster.node_of(id).allow(part));
    }
}

/// Waits until a node has logged `part`, after the first `from` bytes of its log.
pub(crate) async fn logs(node: &Broker, from: usize, part: &str) {
    let begun = Instant::now();
    while !node.log()[from..].contains(part) {
        assert!(begun.elapsed() < PATIENCE, "{part:?} is not logged");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the folders of a node's damaged logs.
fn set_aside(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.to_str().is_some_and(|path| path.ends_with("-damaged"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_disk_of_a_node_is_full() {
    let Some(mut nodes) = DiskCluster::start(&[("log.segment.bytes", "1048576")]) else { return println!("{NOT_RUN}") };
    allow_failing_disks(&mut nodes.cluster);
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, 6).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 4, 1000);
    for round in 0..2 {
        sleep(Duration::from_millis(500)).await;
        // Each node leads partitions, and follows those of the others.
        let victim = if round == 0 { leader_of(&bootstrap, 0).await } else { controller(&bootstrap).await };
        let (begun, from) = (Instant::now(), nodes.cluster.node_of(victim).log().len());
        nodes.disk(victim).fill();
        logs(nodes.cluster.node_of(victim), from, "this replica has left the in-sync set").await;
        whole_without(&bootstrap, victim).await;
        println!("full disk of node {victim}: the others lead after {:?}", begun.elapsed());
        sleep(Duration::from_millis(1000)).await;
        assert!(nodes.cluster.node_of(victim).is_running(), "a full disk does not end a node");
        if round == 1 {
            nodes.cluster.kill(victim);
            nodes.cluster.restart(victim);
            whole_without(&bootstrap, victim).await;
        }
        nodes.disk(victim).free();
        let freed = Instant::now();
        whole(&bootstrap).await;
        println!("node {victim} is in sync {:?} after there is space", freed.elapsed());
    }
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_fsync_failed_is_copied_again() {
    let Some(mut nodes) = FaultyCluster::start(&[]) else { return println!("{NO_COMPILER}") };
    allow_failing_disks(&mut nodes.cluster);
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, 3).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 500);
    for victim in [leader_of(&bootstrap, 0).await, controller(&bootstrap).await] {
        sleep(Duration::from_millis(500)).await;
        let folder = nodes.cluster.node_of(victim).folder().to_owned();
        let (from, before) = (nodes.cluster.node_of(victim).log().len(), set_aside(&folder).len());
        nodes.set(victim, Fault::FailingRecords, 1);
        logs(nodes.cluster.node_of(victim), from, "a damaged log is set aside").await;
        whole(&bootstrap).await;
        assert_eq!(set_aside(&folder).len(), before + 1);
    }
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}

/// Setting a log aside writes checkpoints, and opens a new log.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_copied_again_once_files_can_be_opened() {
    let Some(mut nodes) = FaultyCluster::start(&[]) else { return println!("{NO_COMPILER}") };
    allow_failing_disks(&mut nodes.cluster);
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, 3).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 300);
    let victim = leader_of(&bootstrap, 0).await;
    let (pid, from) = (nodes.cluster.node_of(victim).pid(), nodes.cluster.node_of(victim).log().len());
    sleep(Duration::from_millis(500)).await;
    let before = open_no_more_files(pid);
    nodes.set(victim, Fault::FailingRecords, 1);
    logs(nodes.cluster.node_of(victim), from, "a damaged replica cannot be set aside").await;
    prlimit(Some(pid), Resource::Nofile, before).expect("the limit of a child");
    whole(&bootstrap).await;
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}

/// Lets a process open no file, and keeps what is open so. Returns the limit of before.
fn open_no_more_files(pid: Pid) -> Rlimit {
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(3), maximum }).expect("the limit of a child")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_fsyncs_stall() {
    let Some(nodes) = FaultyCluster::start(&[]) else { return println!("{NO_COMPILER}") };
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, 3).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 300);
    for victim in [leader_of(&bootstrap, 0).await, controller(&bootstrap).await] {
        sleep(Duration::from_millis(500)).await;
        nodes.set(victim, Fault::StallMs, 2500);
        sleep(Duration::from_millis(1000)).await;
        nodes.set(victim, Fault::StallMs, 0);
        whole(&bootstrap).await;
    }
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}

/// A follower leaves the in-sync set, and comes back. A leader keeps its place, and its producers wait.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_disk_stalls_for_longer_than_the_lag_time() {
    let settings = [("replica.lag.time.max.ms", "1000")];
    let Some(mut nodes) = FaultyCluster::start(&settings) else { return println!("{NO_COMPILER}") };
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, 3).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 300);
    for of_leader in [false, true] {
        sleep(Duration::from_millis(500)).await;
        let leader = leader_of(&bootstrap, 0).await;
        let victim = if of_leader { leader } else { leader % 3 + 1 };
        let from = [leader, victim].map(|id| nodes.cluster.node_of(id).log().len());
        nodes.set(victim, Fault::StallMs, 4000);
        if !of_leader {
            logs(nodes.cluster.node_of(leader), from[0], "followers lag and leave the in-sync set").await;
        }
        logs(nodes.cluster.node_of(victim), from[1], "the disk stalls: an fsync took 4.").await;
        nodes.set(victim, Fault::StallMs, 0);
        let over = Instant::now();
        whole(&bootstrap).await;
        println!("node {victim} is in sync {:?} after its disk stalled", over.elapsed());
    }
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}

/// A node opens a file for each new segment, and for each connection.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_node_can_open_no_more_files() {
    let settings = [("log.roll.ms", "100"), ("replica.lag.time.max.ms", "2000")];
    let mut cluster = Cluster::start(3, &settings);
    allow_failing_disks(&mut cluster);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 3).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 300);
    for of_controller in [false, true] {
        sleep(Duration::from_millis(500)).await;
        let victim = if of_controller { controller(&bootstrap).await } else { leader_of(&bootstrap, 0).await };
        let (pid, from) = (cluster.node_of(victim).pid(), cluster.node_of(victim).log().len());
        let before = open_no_more_files(pid);
        logs(cluster.node_of(victim), from, "no file descriptor left").await;
        // The others lead, and the node goes on. It accepts no connection.
        let others: Vec<String> =
            (1..=3).filter(|id| *id != victim).map(|id| cluster.address(id).to_string()).collect();
        whole_without(&others.join(","), victim).await;
        sleep(Duration::from_millis(1000)).await;
        assert!(cluster.node_of(victim).is_running(), "the node goes on");
        prlimit(Some(pid), Resource::Nofile, before).expect("the limit of a child");
        let over = Instant::now();
        whole(&bootstrap).await;
        println!("node {victim} is in sync {:?} after it can open files", over.elapsed());
    }
    assert_no_errors(&finish(&cluster, workload).await);
}

/// The log of the metadata cannot be trusted after a failed fsync, and it has no replica in the same process.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_store_the_metadata_ends_and_comes_back() {
    let Some(mut nodes) = FaultyCluster::start(&[]) else { return println!("{NO_COMPILER}") };
    allow_failing_disks(&mut nodes.cluster);
    let bootstrap = nodes.cluster.bootstrap();
    create(&bootstrap, 3).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 300);
    sleep(Duration::from_millis(500)).await;
    let victim = controller(&bootstrap).await;
    nodes.set(victim, Fault::FailingMetadata, 1);
    let topic = NewTopic {
        name: "other".to_owned(),
        partitions: Some(1),
        replication_factor: None,
        configs: Default::default(),
    };
    // The controller fails in the middle of it.
    let _ = admin(&bootstrap).create_topics(&[topic]).await;
    let begun = Instant::now();
    while nodes.cluster.node_of(victim).is_running() {
        assert!(begun.elapsed() < PATIENCE, "the node goes on");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(nodes.cluster.node_of(victim).log().contains("the metadata cannot be stored"));
    whole_without(&bootstrap, victim).await;
    nodes.cluster.kill(victim);
    nodes.cluster.restart(victim);
    whole(&bootstrap).await;
    assert_no_errors(&finish(&nodes.cluster, workload).await);
}

/// Returns the first segment of a partition on a node.
fn segment(node: &Broker, topic: &str, partition: usize) -> PathBuf {
    node.folder().join(format!("{topic}-{partition}/00000000000000000000.log"))
}

/// Flips a bit of a value after the first third of a file, and drops the file from the page cache.
fn flip_a_bit(path: &Path) {
    let bytes = std::fs::read(path).expect("a segment");
    let is_value = |bytes: &[u8]| bytes[0].is_ascii_digit() && bytes[1] == b':' && bytes[2].is_ascii_digit();
    let third = bytes.len() / 3;
    let at = third + bytes[third..].windows(3).position(is_value).expect("a value");
    let file = OpenOptions::new().write(true).open(path).expect("a segment");
    file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("written");
    file.sync_all().expect("synced");
    fadvise(&file, 0, None, Advice::DontNeed).expect("dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_follower_is_copied_again_after_a_restart() {
    let mut cluster = Cluster::start(3, &[]);
    allow_failing_disks(&mut cluster);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 1).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 500);
    sleep(Duration::from_millis(1000)).await;
    let victim = leader_of(&bootstrap, 0).await % 3 + 1;
    cluster.kill(victim);
    flip_a_bit(&segment(cluster.node_of(victim), TOPIC, 0));
    cluster.restart(victim);
    logs(cluster.node_of(victim), 0, "a damaged log is set aside").await;
    whole(&bootstrap).await;
    assert_eq!(set_aside(cluster.node_of(victim).folder()).len(), 1);
    let seen = workload.stop().await;
    whole(&bootstrap).await;
    // The copy is as good as the others.
    for other in (1..=3).filter(|id| *id != victim) {
        cluster.kill(other);
    }
    cluster.restart(victim % 3 + 1);
    whole_without(&bootstrap, (victim + 1) % 3 + 1).await;
    assert!(check(&bootstrap, TOPIC, &seen).await > 100);
    assert_no_errors(&seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_leader_serves_no_damage_and_another_replica_leads() {
    let mut cluster = Cluster::start(3, &[]);
    allow_failing_disks(&mut cluster);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 1).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 500);
    sleep(Duration::from_millis(1000)).await;
    let victim = leader_of(&bootstrap, 0).await;
    flip_a_bit(&segment(cluster.node_of(victim), TOPIC, 0));
    // A reader from the start finds the damage, and gets the records from the next leader.
    read_all(&bootstrap, TOPIC).await;
    logs(cluster.node_of(victim), 0, "a damaged log is set aside").await;
    whole(&bootstrap).await;
    assert_eq!(set_aside(cluster.node_of(victim).folder()).len(), 1);
    assert_no_errors(&finish(&cluster, workload).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_replica_is_never_set_aside() {
    let mut cluster = Cluster::start(3, &[("default.replication.factor", "1"), ("min.insync.replicas", "1")]);
    allow_failing_disks(&mut cluster);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 1).await;
    let workload = Workload::start(&bootstrap, TOPIC, 1, 500);
    sleep(Duration::from_millis(700)).await;
    let seen = workload.stop().await;
    assert_no_errors(&seen);
    let victim = leader_of(&bootstrap, 0).await;
    cluster.kill(victim);
    let log = segment(cluster.node_of(victim), TOPIC, 0);
    let whole_log = std::fs::read(&log).expect("a segment");
    flip_a_bit(&log);
    let from = cluster.node_of(victim).log().len();
    cluster.restart(victim);
    logs(cluster.node_of(victim), from, "holds every committed record of the partition").await;
    assert_eq!(set_aside(cluster.node_of(victim).folder()).len(), 0);
    // A backup repairs it.
    cluster.kill(victim);
    std::fs::write(&log, whole_log).expect("restored");
    cluster.restart(victim);
    whole(&bootstrap).await;
    assert!(check(&bootstrap, TOPIC, &seen).await > 50);
}
