//! Proves the check: nodes with a bug each break a promise, and the check sees which one.
//!
//! The nodes run a build of the binary with the feature `seeded-bugs`, which `cargo xtask test` makes. An environment
//! variable chooses the bug. Without one, the same nodes under the same faults break nothing.

use std::path::PathBuf;
use std::time::Duration;

use millstream_client::{Acks, PartitionDescription, Producer, ProducerConfig, ProducerRecord};
use millstream_tests::{BrokerBuilder, Cluster, millstream};
use rustix::process::{Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};

use crate::checker::{Broken, Promise, assert_kept, compare, read_all};
use crate::commits::Commits;
use crate::disk::{DiskCluster, NOT_RUN};
use crate::faults::{PATIENCE, TOPIC, admin, create, whole};
use crate::replicas::compare_replicas;
use crate::workload::{Sent, Workload};

/// How often a fault is tried with a bug. Nearly always the first time is enough.
const ROUNDS: u32 = 5;

/// The time for one of them. Nodes with a bug may stop to commit for good.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// The time for a node with a bug to come back in sync. Some bugs keep it from that.
const IN_SYNC_MAX: Duration = Duration::from_secs(15);

const PRODUCERS: usize = 4;

/// The records that only a leader gets before it dies.
const RECORDS_OF_LEADER: u64 = 5;

const OFFSETS: &str = "__consumer_offsets";

/// Which followers hang while their leader dies.
#[derive(Debug, Clone, Copy)]
enum Hanging {
    /// All of them: nothing is replicated.
    All,
    /// The one that is not elected: records are replicated, and their producers get no response.
    Last,
}

/// Returns the binary with seeded bugs.
///
/// # Panics
/// When it does not exist, with the command that builds it.
fn program() -> PathBuf {
    let binary = millstream().with_file_name("millstream-seeded-bugs");
    assert!(binary.exists(), "{} is missing: run `cargo xtask test nemesis`, which builds it", binary.display());
    binary
}

/// Configures a node to have a bug.
pub(crate) fn with(bug: Option<&str>, node: BrokerBuilder) -> BrokerBuilder {
    let node = node.program(program()).allow("TEST BUILD WITH SEEDED BUGS");
    bug.into_iter().fold(node, |node, bug| node.env("MILLSTREAM_SEEDED_BUG", bug))
}

/// Producers and a group that commits.
struct Load {
    workload: Workload,
    commits: Commits,
}

impl Load {
    async fn start(bootstrap: &str) -> Self {
        create(bootstrap, 1).await;
        // Each record is a batch of its own, so that the batches of any two logs begin at the same offsets.
        let workload = Workload::start_with(bootstrap, TOPIC, PRODUCERS, 250, |config| config.batch_size = 1);
        let load = Self { workload, commits: Commits::start(bootstrap, TOPIC).await };
        whole(bootstrap).await;
        load
    }

    /// Stops all, and returns the promises that are broken.
    async fn stop(self, cluster: &Cluster) -> Vec<Broken> {
        let seen = self.workload.stop().await;
        let committed = self.commits.stop().await;
        let is_whole = timeout(IN_SYNC_MAX, whole(&cluster.bootstrap())).await.is_ok();
        let (acknowledged, mut broken) = compare(&seen, &read_all(&cluster.bootstrap(), TOPIC).await);
        let commits = committed.acknowledged;
        assert!(acknowledged > 100 && commits > 20, "too little happened: {acknowledged} records, {commits} commits");
        broken.extend(committed.broken);
        // A replica that is not in sync has committed nothing.
        if is_whole {
            broken.extend(compare_replicas(cluster, TOPIC).await);
        }
        broken
    }
}

/// Runs nodes with a bug until the check finds a promise of this kind broken.
pub(crate) async fn assert_seen(bug: &str, promise: Promise, run: impl AsyncFn(Option<&str>) -> Option<Vec<Broken>>) {
    for round in 1..=ROUNDS {
        let broken = match timeout(ROUND_MAX, run(Some(bug))).await {
            Ok(Some(broken)) => broken,
            Ok(None) => return println!("{NOT_RUN}"),
            Err(_) => Vec::new(),
        };
        let mut found = broken.iter().filter(|broken| broken.promise == promise);
        if let Some(first) = found.next() {
            let others = broken.len() - 1 - found.count();
            return println!("{bug}, round {round}: {first}; {others} broken promises of other kinds");
        }
        println!("{bug}, round {round}: {promise:?} is not broken, {} others are", broken.len());
    }
    panic!("{bug} is not seen in {ROUNDS} rounds");
}

async fn partition_of(bootstrap: &str, topic: &str) -> PartitionDescription {
    let begun = Instant::now();
    loop {
        let described = admin(bootstrap).describe_topics(&[topic.to_owned()]).await;
        match described.map(|mut topics| topics.remove(0).partitions.remove(0)) {
            Ok(partition) if partition.leader.is_some() => return partition,
            other => assert!(begun.elapsed() < PATIENCE, "{topic} has no leader: {other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until another node than the one that died leads.
async fn wait_for_leader(bootstrap: &str, topic: &str, dead: i32) {
    let begun = Instant::now();
    while partition_of(bootstrap, topic).await.leader == Some(dead) {
        assert!(begun.elapsed() < PATIENCE, "node {dead} is not replaced as the leader of {topic}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Returns a producer that waits for the leader only, and knows it. None of its records is promised to be kept.
async fn producer_of_leader(bootstrap: &str) -> Producer {
    let mut config = ProducerConfig::new(bootstrap);
    (config.acks, config.enable_idempotence, config.batch_size) = (Acks::Leader, Some(false), 1);
    config.client.request_timeout = Duration::from_secs(1);
    config.delivery_timeout = Duration::from_secs(2);
    let producer = Producer::builder(config).build().expect("a producer");
    let value = Sent::value(PRODUCERS, 0);
    let sent = producer.send(ProducerRecord::new(TOPIC).value(value.as_bytes())).await.expect("room for a record");
    sent.await.expect("a leader that stores it");
    producer
}

/// Sends records to the leader, and waits until it has them.
async fn write_to_leader(producer: Producer) {
    for number in 1..=RECORDS_OF_LEADER {
        let value = Sent::value(PRODUCERS, number);
        let sent = producer.send(ProducerRecord::new(TOPIC).value(value.as_bytes())).await;
        // The leader may be one of the nodes that hang.
        let _ = sent.expect("room for a record").await;
    }
    let _ = producer.close(Duration::from_secs(1)).await;
}

/// Kills the leader of a topic while its followers hang, so that they lack its last records, or their producers lack
/// the responses.
async fn a_leader_dies(bug: Option<&str>, topic: &str, hanging: Hanging) -> Vec<Broken> {
    let settings = [("offsets.topic.num.partitions", "1")];
    let mut cluster = Cluster::start_with(3, &settings, |_, node| with(bug, node));
    let bootstrap = cluster.bootstrap();
    let load = Load::start(&bootstrap).await;
    let producer = producer_of_leader(&bootstrap).await;
    sleep(Duration::from_millis(500)).await;
    let partition = partition_of(&bootstrap, topic).await;
    let leader = partition.leader.expect("a leader");
    let mut followers = partition.replicas.iter().copied().filter(|id| *id != leader);
    let hanging: Vec<i32> = match hanging {
        // The first of them is elected. It hangs last, so that its log is not shorter than that of the other.
        Hanging::All => followers.rev().collect(),
        Hanging::Last => followers.next_back().into_iter().collect(),
    };
    for id in &hanging {
        kill_process(cluster.node_of(*id).pid(), Signal::STOP).expect("the process runs");
        sleep(Duration::from_millis(200)).await;
    }
    write_to_leader(producer).await;
    cluster.kill(leader);
    for id in &hanging {
        kill_process(cluster.node_of(*id).pid(), Signal::CONT).expect("the process runs");
    }
    wait_for_leader(&bootstrap, topic, leader).await;
    // The new leader takes more records than the old one had.
    sleep(Duration::from_millis(1000)).await;
    cluster.restart(leader);
    sleep(Duration::from_millis(500)).await;
    load.stop(&cluster).await
}

/// Kills all nodes, and starts those first that did not lead.
async fn all_nodes_die(bug: Option<&str>) -> Vec<Broken> {
    let settings = [("broker.session.timeout.ms", "1500"), ("broker.heartbeat.interval.ms", "300")];
    let mut cluster = Cluster::start_with(3, &settings, |_, node| with(bug, node));
    let bootstrap = cluster.bootstrap();
    let load = Load::start(&bootstrap).await;
    sleep(Duration::from_millis(1000)).await;
    let leader = partition_of(&bootstrap, TOPIC).await.leader.expect("a leader");
    cluster.kill_all();
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.restart(id);
    }
    wait_for_leader(&bootstrap, TOPIC, leader).await;
    cluster.restart(leader);
    whole(&bootstrap).await;
    load.stop(&cluster).await
}

/// Cuts the power of all nodes.
async fn the_power_fails(bug: Option<&str>) -> Option<Vec<Broken>> {
    let mut nodes = DiskCluster::start_with(&[], |node| with(bug, node))?;
    let bootstrap = nodes.cluster.bootstrap();
    let load = Load::start(&bootstrap).await;
    sleep(Duration::from_millis(500)).await;
    nodes.cut_power(&[1, 2, 3]);
    for id in 1..=3 {
        nodes.cluster.restart(id);
    }
    whole(&bootstrap).await;
    Some(load.stop(&nodes.cluster).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bug_nothing_is_broken() {
    assert_kept(&a_leader_dies(None, TOPIC, Hanging::All).await);
    assert_kept(&a_leader_dies(None, OFFSETS, Hanging::All).await);
    assert_kept(&a_leader_dies(None, TOPIC, Hanging::Last).await);
    assert_kept(&all_nodes_die(None).await);
    assert_kept(&the_power_fails(None).await.unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_before_replication_is_seen() {
    let run = async |bug: Option<&str>| Some(a_leader_dies(bug, TOPIC, Hanging::All).await);
    assert_seen("acknowledge-before-replicating", Promise::Kept, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_fsync_is_seen() {
    assert_seen("skip-fsync", Promise::Kept, the_power_fails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_to_the_high_watermark_is_seen() {
    let run = async |bug: Option<&str>| Some(all_nodes_die(bug).await);
    assert_seen("truncate-to-high-watermark", Promise::Kept, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ignores_epochs_is_seen() {
    let run = async |bug: Option<&str>| Some(a_leader_dies(bug, TOPIC, Hanging::All).await);
    assert_seen("ignore-epoch", Promise::SameContent, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_followers_forget_are_seen() {
    let run = async |bug: Option<&str>| Some(a_leader_dies(bug, TOPIC, Hanging::Last).await);
    assert_seen("drop-producer-state", Promise::Once, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_responds_at_append_is_seen() {
    let run = async |bug: Option<&str>| Some(a_leader_dies(bug, OFFSETS, Hanging::All).await);
    assert_seen("respond-at-append", Promise::OffsetKept, run).await;
}
