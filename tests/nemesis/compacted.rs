//! Compacted topics while nodes are killed and lose their power, with compaction under way all the time: the last value
//! of each key stays, on every replica.
//!
//! `MILLSTREAM_NEMESIS_KILLS`, `MILLSTREAM_NEMESIS_RECORDS` and `MILLSTREAM_NEMESIS_CUTS` make the runs longer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_record::batches;
use millstream_tests::Cluster;
use tokio::time::sleep;

use crate::checker::{Broken, Promise, assert_kept, compare_last, read_all};
use crate::disk::{DiskCluster, NOT_RUN};
use crate::faults::{
    PATIENCE, TOPIC, acknowledged, assert_no_errors, controller, create_with, leader_of, wanted, whole,
};
use crate::replicas::logs;
use crate::workload::{Seen, Workload};

const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 3;

/// The kills and the cuts in the test command.
const KILLS: usize = 4;
const CUTS: usize = 3;

/// Configs of the nodes, so that a pass is nearly always under way.
const QUICK: [(&str, &str); 3] =
    [("log.cleaner.backoff.ms", "20"), ("log.cleaner.min.cleanable.ratio", "0.01"), ("log.cleaner.threads", "2")];

/// Segments of about a second.
const CONFIGS: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("internal.segment.bytes", "16384")];

#[tokio::test(flavor = "multi_thread")]
async fn keys_keep_their_last_value_when_nodes_are_killed() {
    let mut cluster = Cluster::start(3, &QUICK);
    let bootstrap = cluster.bootstrap();
    let kills = wanted("MILLSTREAM_NEMESIS_KILLS").unwrap_or(KILLS);
    let records = wanted("MILLSTREAM_NEMESIS_RECORDS").unwrap_or(0);
    create_with(&bootstrap, PARTITIONS, &CONFIGS).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, PRODUCERS, if records > 0 { 1000 } else { 300 });
    for round in 0..kills {
        sleep(Duration::from_millis(300 + fastrand::u64(0..700))).await;
        let victims = match round % 3 {
            0 => vec![leader_of(&bootstrap, 0).await],
            1 => vec![controller(&bootstrap).await],
            _ => vec![1, 2, 3],
        };
        println!("kill {} of {kills}: nodes {victims:?}, after {} records", round + 1, workload.acknowledged());
        victims.iter().for_each(|id| cluster.kill(*id));
        sleep(Duration::from_millis(fastrand::u64(0..500))).await;
        victims.iter().for_each(|id| cluster.restart(*id));
        whole(&bootstrap).await;
        acknowledged(&workload, records * (round + 1) / kills).await;
    }
    finish(&mut cluster, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_keep_their_last_value_when_the_power_is_cut() {
    let Some(mut nodes) = DiskCluster::start(&QUICK) else { return println!("{NOT_RUN}") };
    // Snapshots are not synced, since they follow from the log.
    (1..=3).for_each(|id| nodes.cluster.node_of(id).allow("a damaged producer snapshot is removed"));
    let bootstrap = nodes.cluster.bootstrap();
    let cuts = wanted("MILLSTREAM_NEMESIS_CUTS").unwrap_or(CUTS);
    create_with(&bootstrap, PARTITIONS, &CONFIGS).await;
    whole(&bootstrap).await;
    let workload = Workload::start(&bootstrap, TOPIC, PRODUCERS, 500);
    for round in 0..cuts {
        sleep(Duration::from_millis(300 + fastrand::u64(0..700))).await;
        let victims = match round % 2 {
            0 => vec![1, 2, 3],
            _ => vec![leader_of(&bootstrap, 0).await],
        };
        let begun = Instant::now();
        nodes.cut_power(&victims);
        victims.iter().for_each(|id| nodes.cluster.restart(*id));
        whole(&bootstrap).await;
        println!("power cut {} of {cuts}, of {victims:?}: whole after {:?}", round + 1, begun.elapsed());
    }
    finish(&mut nodes.cluster, workload).await;
}

/// Stops the producers, and checks what they have seen, what every replica has, and that there was compaction.
async fn finish(cluster: &mut Cluster, workload: Workload) {
    // The last pass is after the last fault.
    let before = passes(cluster);
    let begun = Instant::now();
    while passes(cluster).iter().zip(&before).any(|(now, before)| now <= before) {
        assert!(
            begun.elapsed() < PATIENCE,
            "a node does not compact: {:?} passes, and {before:?} before",
            passes(cluster)
        );
        sleep(Duration::from_millis(50)).await;
    }
    let seen = workload.stop().await;
    whole(&cluster.bootstrap()).await;
    let read = read_all(&cluster.bootstrap(), TOPIC).await;
    let (acknowledged, broken) = compare_last(&seen, &read);
    assert_kept(&broken);
    assert_kept(&compare_replicas(cluster, &seen).await);
    let left: usize = read.values().map(Vec::len).sum();
    println!("{acknowledged} acknowledged, {left} left, all keys right; passes of the nodes: {:?}", passes(cluster));
    assert!(acknowledged > 500 && left < acknowledged, "too little happened");
    assert_no_errors(&seen);
}

/// Returns how many passes each node has ended.
fn passes(cluster: &mut Cluster) -> Vec<usize> {
    (1..=3).map(|id| cluster.node_of(id).log().matches("compacted in").count()).collect()
}

/// Compares the last value of each key on each replica with what the producers have seen. The replicas are compacted
/// each by itself, so that their files differ.
async fn compare_replicas(cluster: &Cluster, seen: &[Seen]) -> Vec<Broken> {
    let begun = Instant::now();
    loop {
        let mut broken = Vec::new();
        for id in (1..).take(cluster.len()) {
            let of_node = compare_last(seen, &read_node(cluster, id)).1;
            broken.extend(of_node.into_iter().map(|one| Broken::new(one.promise, format!("node {id}: {one}"))));
        }
        // A replica may still lack the last batches, or a pass may put another file in the place of one that is read.
        let may_be_late = broken.iter().all(|broken| broken.promise == Promise::Kept);
        if broken.is_empty() || !may_be_late || begun.elapsed() > PATIENCE {
            return broken;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Reads the records in the files of a node, by partition.
fn read_node(cluster: &Cluster, id: i32) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut read: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let rows = read.entry(partition).or_default();
        for bytes in logs(&cluster.folder(id).join(format!("{TOPIC}-{partition}"))) {
            // The last batch may be half written at this moment.
            for batch in batches(&bytes).map_while(Result::ok) {
                batch.verify_crc().expect("undamaged");
                for record in batch.records(1 << 20).expect("records").iter().map(|record| record.expect("a record")) {
                    let value = record.value.expect("a value").to_vec();
                    rows.push((record.offset, String::from_utf8(value).expect("text")));
                }
            }
        }
        // A merged segment may be read together with one of its sources.
        rows.sort();
        rows.dedup();
    }
    read
}
