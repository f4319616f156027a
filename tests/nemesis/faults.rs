//! What happens to producers when nodes die, stop or are paused.
//!
//! `MILLSTREAM_NEMESIS_KILLS` and `MILLSTREAM_NEMESIS_RECORDS` make the run with kills longer.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use millstream_client::{Admin, ClientConfig, Error, NewTopic, ProducerConfig};
use millstream_tests::{Cluster, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{MetadataRequest, MetadataRequestTopic, MetadataResponsePartition};
use rustix::process::{Signal, kill_process};
use tokio::time::sleep;

use crate::checker::{assert_kept, check};
use crate::commits::Commits;
use crate::raw::Raw;
use crate::replicas::compare_replicas;
use crate::workload::{Seen, Workload};

pub(crate) const TOPIC: &str = "records";

/// The time for a cluster to be whole again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the number in an environment variable.
pub(crate) fn wanted(variable: &str) -> Option<usize> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

pub(crate) fn admin(bootstrap: &str) -> Admin {
    Admin::new(ClientConfig::new(bootstrap)).expect("an admin client")
}

/// Creates the topic, once enough nodes have joined.
pub(crate) async fn create(bootstrap: &str, partitions: i32) {
    create_with(bootstrap, partitions, &[]).await;
}

/// Creates the topic with configs of its own, once enough nodes have joined.
pub(crate) async fn create_with(bootstrap: &str, partitions: i32, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let topic = NewTopic { name: TOPIC.to_owned(), partitions: Some(partitions), configs, ..NewTopic::default() };
    let (begun, admin) = (Instant::now(), admin(bootstrap));
    loop {
        match admin.create_topics(std::slice::from_ref(&topic)).await {
            Ok(_) => return,
            Err(Error::Broker { code: ErrorCode::INVALID_REPLICATION_FACTOR, .. }) if begun.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("the topic cannot be created: {error}"),
        }
    }
}

/// Waits until all replicas of all partitions are in sync.
pub(crate) async fn whole(bootstrap: &str) {
    whole_without(bootstrap, -1).await;
}

/// Waits until all replicas are in sync, but for those of one node.
///
/// Each node has to say so: one that was cut off does not know yet that it has left the in-sync sets.
pub(crate) async fn whole_without(bootstrap: &str, missing: i32) {
    let begun = Instant::now();
    let is_in_sync = |one: &MetadataResponsePartition| {
        let mut others = one.replica_nodes.iter().filter(|id| **id != missing);
        one.leader_id >= 0 && one.leader_id != missing && others.all(|id| one.isr_nodes.contains(id))
    };
    loop {
        let views = tokio::task::block_in_place(|| views(bootstrap));
        let is_whole = |view: &View| view.as_ref().is_some_and(|partitions| partitions.iter().all(is_in_sync));
        if !views.is_empty() && views.iter().all(is_whole) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the cluster is not whole: {views:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The partitions of the topic as one node knows them; `None` from a node that does not know the topic yet.
type View = Option<Vec<MetadataResponsePartition>>;

/// Returns the views of all nodes that run.
fn views(bootstrap: &str) -> Vec<View> {
    let addresses = bootstrap.split(',').map(|address| address.parse().expect("an address"));
    let running = addresses.filter(|address| TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok());
    let view = |address| {
        let mut raw = Raw::to(address);
        let topics = vec![MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() }];
        let request = MetadataRequest { topics: Some(topics), ..Default::default() };
        raw.try_send(12, &request).ok()?;
        let topic = raw.try_receive::<MetadataRequest>(12, raw.correlation())?.topics.pop()?;
        topic.error_code.is_ok().then_some(topic.partitions)
    };
    running.map(view).collect()
}

pub(crate) async fn leader_of(bootstrap: &str, partition: usize) -> i32 {
    let topics = admin(bootstrap).describe_topics(&[TOPIC.to_owned()]).await.expect("described");
    topics[0].partitions[partition].leader.expect("a leader")
}

/// Returns the controller. While one is elected, there is none.
pub(crate) async fn controller(bootstrap: &str) -> i32 {
    let (begun, admin) = (Instant::now(), admin(bootstrap));
    loop {
        let described = admin.describe_cluster().await.expect("described");
        if let Some(controller) = described.controller {
            return controller;
        }
        assert!(begun.elapsed() < PATIENCE, "there is no controller: {described:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Stops the producers, and checks what they have seen. Returns it.
pub(crate) async fn finish(cluster: &Cluster, workload: Workload) -> Vec<Seen> {
    let seen = workload.stop().await;
    whole(&cluster.bootstrap()).await;
    let acknowledged = check(&cluster.bootstrap(), TOPIC, &seen).await;
    assert_kept(&compare_replicas(cluster, TOPIC).await);
    let gap = seen.iter().map(|seen| seen.longest_gap).max().unwrap_or_default();
    println!("{acknowledged} acknowledged, none lost or twice; longest gap {gap:?}");
    assert!(acknowledged > 100, "too little happened");
    seen
}

/// Stops the commits, and checks that no committed offset is lost.
pub(crate) async fn finish_commits(commits: Commits) {
    let committed = commits.stop().await;
    assert_kept(&committed.broken);
    println!("{} commits of offsets acknowledged, none lost", committed.acknowledged);
    assert!(committed.acknowledged > 0, "too little happened");
}

pub(crate) fn assert_no_errors(seen: &[Seen]) {
    let errors: Vec<&String> = seen.iter().flat_map(|seen| &seen.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// Waits until this number of records is acknowledged.
pub(crate) async fn acknowledged(workload: &Workload, count: usize) {
    let (mut progress, mut before) = (Instant::now(), 0);
    while workload.acknowledged() < count {
        if workload.acknowledged() > before {
            (progress, before) = (Instant::now(), workload.acknowledged());
        }
        assert!(progress.elapsed() < PATIENCE, "nothing is acknowledged any more, after {before} records");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_leaders_are_killed() {
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    let kills = wanted("MILLSTREAM_NEMESIS_KILLS").unwrap_or(4);
    let records = wanted("MILLSTREAM_NEMESIS_RECORDS").unwrap_or(0);
    create(&bootstrap, 3).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, if records > 0 { 1000 } else { 300 });
    let commits = Commits::start(&bootstrap, TOPIC).await;
    for round in 0..kills {
        sleep(Duration::from_millis(500)).await;
        // In turns the leader of a partition and the controller.
        let victim = if round % 2 == 0 { leader_of(&bootstrap, 0).await } else { controller(&bootstrap).await };
        println!("kill {} of {kills}: node {victim}, after {} records", round + 1, workload.acknowledged());
        cluster.kill(victim);
        sleep(Duration::from_millis(1000)).await;
        cluster.restart(victim);
        whole(&bootstrap).await;
        acknowledged(&workload, records * (round + 1) / kills).await;
    }
    finish_commits(commits).await;
    assert_no_errors(&finish(&cluster, workload).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_is_not_seen_by_producers() {
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 3).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 300);
    for id in 1..=3 {
        sleep(Duration::from_millis(300)).await;
        cluster.stop(id);
        cluster.restart(id);
        whole(&bootstrap).await;
    }
    assert_no_errors(&finish(&cluster, workload).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_all_nodes_are_killed_at_once() {
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 3).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 300);
    let commits = Commits::start(&bootstrap, TOPIC).await;
    for _ in 0..2 {
        sleep(Duration::from_millis(700)).await;
        cluster.kill_all();
        for id in 1..=3 {
            cluster.restart(id);
        }
        whole(&bootstrap).await;
    }
    finish_commits(commits).await;
    assert_no_errors(&finish(&cluster, workload).await);
}

/// A paused node is not seen to end: its session has to expire.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_leader_is_paused_for_longer_than_its_session() {
    let settings = [("broker.session.timeout.ms", "1000"), ("broker.heartbeat.interval.ms", "200")];
    let mut cluster = Cluster::start(3, &settings);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 3).await;
    let workload = Workload::start(&bootstrap, TOPIC, 3, 300);
    let commits = Commits::start(&bootstrap, TOPIC).await;
    for of_controller in [false, true] {
        sleep(Duration::from_millis(500)).await;
        let victim = if of_controller { controller(&bootstrap).await } else { leader_of(&bootstrap, 0).await };
        let pid = cluster.node_of(victim).pid();
        kill_process(pid, Signal::STOP).expect("paused");
        sleep(Duration::from_millis(3000)).await;
        kill_process(pid, Signal::CONT).expect("resumed");
        whole(&bootstrap).await;
    }
    finish_commits(commits).await;
    assert_no_errors(&finish(&cluster, workload).await);
}

/// The producers find the new leader while the batches that the old one has are still without a response.
#[tokio::test(flavor = "multi_thread")]
async fn batches_of_a_leader_that_hangs_are_stored_once() {
    let settings = [("broker.session.timeout.ms", "1000"), ("broker.heartbeat.interval.ms", "200")];
    let mut cluster = Cluster::start(3, &settings);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 3).await;
    let find_leaders = |config: &mut ProducerConfig| config.client.metadata_max_age = Duration::from_millis(200);
    let workload = Workload::start_with(&bootstrap, TOPIC, 16, 100, find_leaders);
    for _ in 0..3 {
        sleep(Duration::from_millis(500)).await;
        let victim = leader_of(&bootstrap, 0).await;
        let pid = cluster.node_of(victim).pid();
        kill_process(pid, Signal::STOP).expect("paused");
        sleep(Duration::from_millis(2500)).await;
        kill_process(pid, Signal::CONT).expect("resumed");
        whole(&bootstrap).await;
    }
    assert_no_errors(&finish(&cluster, workload).await);
}

/// The heartbeats that a controller missed while it was paused went to another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_was_paused_fences_no_broker() {
    let settings = [("broker.session.timeout.ms", "1000"), ("broker.heartbeat.interval.ms", "200")];
    let mut cluster = Cluster::start(3, &settings);
    let bootstrap = cluster.bootstrap();
    create(&bootstrap, 3).await;
    whole(&bootstrap).await;
    for _ in 0..2 {
        let paused = controller(&bootstrap).await;
        let fenced =
            |cluster: &mut Cluster, by: i32| cluster.node_of(by).log().matches("its session has expired").count();
        let before: usize = (1..=3).map(|id| fenced(&mut cluster, id)).sum();
        let pid = cluster.node_of(paused).pid();
        kill_process(pid, Signal::STOP).expect("paused");
        wait_until("another controller to fence the node", PATIENCE, || {
            let now: usize = (1..=3).map(|id| fenced(&mut cluster, id)).sum();
            (now > before).then_some(())
        });
        kill_process(pid, Signal::CONT).expect("resumed");
        whole(&bootstrap).await;
        let after: usize = (1..=3).map(|id| fenced(&mut cluster, id)).sum();
        assert_eq!(after, before + 1, "only node {paused} was silent");
    }
}
