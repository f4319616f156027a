//! Group coordinators of a cluster of real processes: a member goes on when its coordinator dies or stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use millstream_client::{
    Admin, ClientConfig, CommittedOffset, Consumer, ConsumerConfig, ListenerFuture, NewTopic, RebalanceListener,
    TopicPartition,
};
use millstream_tests::{Cluster, wait_until};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{
    FindCoordinatorRequest, ListGroupsRequest, OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use rustix::process::{Signal, kill_process};

use crate::support::Raw;

const PATIENCE: Duration = Duration::from_secs(60);
const GROUP: &str = "moving";

/// Counts the assignments, so that a rebalance shows.
#[derive(Default)]
struct Assignments(AtomicUsize);

impl RebalanceListener for Assignments {
    fn assigned<'a>(&'a self, _: &'a [TopicPartition]) -> ListenerFuture<'a> {
        self.0.fetch_add(1, Ordering::AcqRel);
        Box::pin(async {})
    }
}

/// Returns the node that coordinates the group, as another node names it.
fn coordinator(cluster: &Cluster, asked: i32) -> i32 {
    let mut raw = Raw::to(cluster.address(asked));
    let request = FindCoordinatorRequest { coordinator_keys: vec![GROUP.into()], ..Default::default() };
    wait_until("a coordinator", PATIENCE, || {
        let found = raw.call(6, &request).coordinators.remove(0);
        assert!(found.error_code.is_ok() || found.error_code.retriable(), "{}", found.error_code);
        found.error_code.is_ok().then_some(found.node_id)
    })
}

async fn committed(consumer: &Consumer, partition: &TopicPartition) -> i64 {
    consumer.committed(std::slice::from_ref(partition)).await.expect("a coordinator")[partition].offset
}

/// Commits and polls until another node coordinates the group and commits have succeeded there. Returns the last
/// committed offset, and the longest time between two commits.
async fn moved(cluster: &Cluster, consumer: &Consumer, from: i32, first: i64) -> (i64, Duration) {
    let partition = TopicPartition::new("t", 0);
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let (mut offset, mut after) = (first, 0);
    while after < 20 {
        assert!(begun.elapsed() < PATIENCE, "the coordinator is still node {from}");
        consumer.poll(Duration::from_millis(10)).await.expect("no fatal error");
        offset += 1;
        let next = CommittedOffset { offset, leader_epoch: -1, metadata: String::new() };
        consumer.commit_offsets(&BTreeMap::from([(partition.clone(), next)])).await.expect("committed as a member");
        (longest, last) = (longest.max(last.elapsed()), Instant::now());
        after += i32::from(coordinator(cluster, from % 3 + 1) != from);
    }
    assert_eq!(committed(consumer, &partition).await, offset);
    (offset, longest)
}

/// Creates a topic with one partition, once enough nodes are there. They register one after the other.
async fn create(bootstrap: &str) -> Admin {
    let topic = NewTopic { name: "t".to_owned(), partitions: Some(1), ..NewTopic::default() };
    let admin = Admin::new(ClientConfig::new(bootstrap)).expect("a valid config");
    let begun = Instant::now();
    while let Err(error) = admin.create_topics(std::slice::from_ref(&topic)).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    admin
}

/// Commits an offset outside of any generation, by whichever node coordinates the group.
async fn commit(consumer: &Consumer, offset: i64) {
    let committed = CommittedOffset { offset, leader_epoch: -1, metadata: String::new() };
    let offsets = BTreeMap::from([(TopicPartition::new("t", 0), committed)]);
    let begun = Instant::now();
    while let Err(error) = consumer.commit_offsets(&offsets).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
    }
}

/// A node that was paused does not know that another one coordinates its groups now. It has a request to process before
/// it learns of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_was_paused_returns_no_old_offset() {
    let settings = [("broker.session.timeout.ms", "1000"), ("broker.heartbeat.interval.ms", "200")];
    let mut cluster = Cluster::start(3, &settings);
    create(&cluster.bootstrap()).await;
    let mut config = ConsumerConfig::new(&cluster.bootstrap());
    config.group_id = Some(GROUP.to_owned());
    config.client.request_timeout = Duration::from_secs(2);
    let consumer = Consumer::builder(config).build().expect("a valid config");
    consumer.assign([TopicPartition::new("t", 0)]).expect("not subscribed");
    let topics = OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() };
    let group = OffsetFetchRequestGroup { group_id: GROUP.into(), topics: Some(vec![topics]), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], require_stable: true, ..Default::default() };
    for round in 0..3 {
        commit(&consumer, 2 * round).await;
        let (paused, mut raw) = wait_until("the offset", PATIENCE, || {
            let coordinator = coordinator(&cluster, 1);
            let mut raw = Raw::to(cluster.address(coordinator));
            let found = raw.call(8, &request).groups.remove(0);
            let offset = found.topics.first().map(|topic| topic.partitions[0].committed_offset);
            (offset == Some(2 * round)).then_some((coordinator, raw))
        });
        let pid = cluster.node_of(paused).pid();
        kill_process(pid, Signal::STOP).expect("a process");
        commit(&consumer, 2 * round + 1).await;
        let correlation = raw.send(8, &request);
        kill_process(pid, Signal::CONT).expect("a process");
        let found = raw.receive::<OffsetFetchRequest>(8, correlation).groups.remove(0);
        match found.error_code {
            ErrorCode::NONE => assert_eq!(found.topics[0].partitions[0].committed_offset, 2 * round + 1),
            error => assert_eq!(error, ErrorCode::NOT_COORDINATOR),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_goes_on_when_its_coordinator_is_killed_or_stopped() {
    let mut cluster = Cluster::start(3, &[]);
    let bootstrap = cluster.bootstrap();
    let admin = create(&bootstrap).await;
    let mut config = ConsumerConfig::new(&bootstrap);
    config.group_id = Some(GROUP.to_owned());
    config.enable_auto_commit = false;
    config.heartbeat_interval = Duration::from_millis(200);
    let assignments = Arc::new(Assignments::default());
    let consumer = Consumer::builder(config).rebalance_listener(Arc::clone(&assignments) as _).build();
    let consumer = consumer.expect("a valid config");
    consumer.subscribe(["t"]).expect("it has a group");
    let begun = Instant::now();
    while consumer.assignment().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no assignment");
        consumer.poll(Duration::from_millis(20)).await.expect("no fatal error");
    }

    let killed = coordinator(&cluster, 1);
    cluster.kill(killed);
    let (offset, gap) = moved(&cluster, &consumer, killed, 0).await;
    println!("the coordinator was killed: {gap:?} without a commit");
    cluster.restart(killed);
    let stopped = coordinator(&cluster, killed);
    cluster.stop(stopped);
    let (offset, gap) = moved(&cluster, &consumer, stopped, offset).await;
    println!("the coordinator was stopped: {gap:?} without a commit");
    cluster.restart(stopped);
    assert_eq!(assignments.0.load(Ordering::Acquire), 1, "no rebalance");
    let group = admin.describe_group(GROUP).await.expect("a coordinator");
    assert_eq!((group.state.as_str(), group.members.len()), ("Stable", 1));
    assert_eq!(committed(&consumer, &TopicPartition::new("t", 0)).await, offset);
    let lists = |id: &i32| {
        let listed = Raw::to(cluster.address(*id)).call(5, &ListGroupsRequest::default());
        listed.groups.iter().any(|group| group.group_id.as_str() == GROUP)
    };
    let listing: Vec<i32> = (1..=3).filter(lists).collect();
    assert_eq!(listing, [coordinator(&cluster, 1)], "only the coordinator lists it");
    consumer.close().await.expect("closed");
}
