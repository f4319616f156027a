//! Group coordinators on two brokers: each coordinates the groups of the partitions that it leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millstream_client::{CommittedOffset, Consumer, ConsumerConfig, ListenerFuture, RebalanceListener, TopicPartition};
use millstream_coordinator::group::{
    CONSUMER_OFFSETS, Caller, CommitRequest, GroupError, OffsetToCommit, partition_of,
};
use millstream_metadata::{MetadataRecord, NO_LEADER, PartitionChange};
use millstream_partition::replica::LeaderView;
use millstream_partition::{Assignment, Partition};
use millstream_wire::ErrorCode;
use millstream_wire::messages::FindCoordinatorRequest;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::cluster_for_tests::{Node, TOPIC, two_brokers_set, two_brokers_with};

const OFFSETS: Uuid = Uuid::from_u128(8);

/// Starts two brokers. Each leads one partition of `__consumer_offsets`.
async fn two_coordinators() -> [Node; 2] {
    two_brokers_with(&[offsets_topic(1)]).await
}

fn offsets_topic(min_isr: usize) -> MetadataRecord {
    MetadataRecord::TopicCreated {
        name: CONSUMER_OFFSETS.to_owned(),
        id: OFFSETS,
        partitions: 2,
        configs: [("min.insync.replicas".to_owned(), min_isr.to_string())].into(),
        replicas: vec![vec![0, 1], vec![1, 0]],
    }
}

/// Returns a new leader of the partition of "b".
fn led_by(leader: i32) -> MetadataRecord {
    let change = PartitionChange { leader: Some(leader), ..Default::default() };
    MetadataRecord::PartitionChanged { id: OFFSETS, partition: 0, change }
}

impl Node {
    fn offsets_partition(&self, group: &str) -> Arc<Partition> {
        self.broker.partition(CONSUMER_OFFSETS, partition_of(group, 2)).expect("the topic exists")
    }

    /// Asks for the coordinator of a group on one of the listeners. Returns its id and its port, or the error.
    async fn coordinator(&self, group: &str, listener: usize) -> Result<(i32, i32), ErrorCode> {
        let request = FindCoordinatorRequest { coordinator_keys: vec![group.into()], ..Default::default() };
        let found = self.call_on(listener, &request, 6).await.coordinators.remove(0);
        if found.error_code == ErrorCode::NONE { Ok((found.node_id, found.port)) } else { Err(found.error_code) }
    }

    async fn has_loaded(&self, group: &str) {
        let loaded = async {
            while self.committed(group) == Err(GroupError::CoordinatorLoadInProgress) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(60), loaded).await.expect("loaded");
    }

    /// Returns the number of heartbeats that this broker has received.
    fn heartbeats(&self) -> u64 {
        let stats = super::request_stats(&self.broker.request_metrics);
        stats.iter().find(|api| api.api == "Heartbeat").map_or(0, |api| api.responses)
    }

    /// Returns the offset that a group has committed on this broker, or the error.
    fn committed(&self, group: &str) -> Result<Option<i64>, GroupError> {
        let found = self.broker.groups.fetch_offsets(group, &[(Arc::from("t"), 0)])?;
        Ok(found.get("t").and_then(|partitions| Some(partitions.get(&0)?.offset)))
    }

    async fn commit(&self, group: &str, offset: i64) -> Result<(), GroupError> {
        let offset = OffsetToCommit {
            topic: Arc::from("t"),
            topic_id: TOPIC,
            partition: 0,
            offset,
            leader_epoch: -1,
            metadata: Arc::from(""),
        };
        let caller = Caller { member_id: "", instance_id: None };
        let request = CommitRequest { caller, generation: -1, retention_ms: None, offsets: vec![offset] };
        let committed = self.broker.groups.commit(group, request);
        timeout(Duration::from_secs(60), committed).await.expect("in time")
    }
}

/// Returns the state of the partition of "b" after a failover from broker 0 to broker 1.
fn view(isr: &[i32]) -> LeaderView {
    LeaderView { leader_epoch: 1, partition_epoch: 0, replicas: vec![0, 1], isr: isr.to_vec(), min_isr: isr.len() }
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_are_on_the_broker_that_leads_their_partition_next() {
    let nodes = two_coordinators().await;
    // "b" is in partition 0, which broker 0 leads.
    assert_eq!(partition_of("b", 2), 0);
    nodes[0].commit("b", 5).await.expect("committed");
    assert_eq!(nodes[0].committed("b"), Ok(Some(5)));
    assert_eq!(nodes[1].committed("b"), Err(GroupError::NotCoordinator));
    assert_eq!(nodes[1].commit("b", 6).await, Err(GroupError::NotCoordinator));
    // Broker 1 leads now, and broker 0 learns of it late: its commit is never confirmed.
    let [old, new] = nodes.each_ref().map(|node| node.offsets_partition("b"));
    let view = LeaderView { leader_epoch: 1, partition_epoch: 0, replicas: vec![0, 1], isr: vec![0, 1], min_isr: 2 };
    nodes[1].assign_partition(&new, Assignment::Leader(view));
    let late = nodes[0].commit("b", 7);
    let (late, ()) = tokio::join!(late, async {
        while old.log_end_offset().expect("online") == new.log_end_offset().expect("online") {
            sleep(Duration::from_millis(1)).await;
        }
        nodes[0].assign_partition(&old, Assignment::Follower { leader: 1, leader_epoch: 1 });
    });
    assert_eq!(late, Err(GroupError::NotCoordinator));
    assert_eq!(nodes[0].committed("b"), Err(GroupError::NotCoordinator));
    nodes[1].has_loaded("b").await;
    assert_eq!(nodes[1].committed("b"), Ok(Some(5)));
    nodes[1].commit("b", 8).await.expect("committed by both brokers");
    assert_eq!(nodes[1].committed("b"), Ok(Some(8)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_of_a_group_is_the_leader_of_its_partition() {
    let nodes = two_coordinators().await;
    let at = |node: usize, listener: usize| Ok((node as i32, i32::from(nodes[node].ports[listener])));
    for node in &nodes {
        for listener in [0, 1] {
            assert_eq!(node.coordinator("b", listener).await, at(0, listener));
            assert_eq!(node.coordinator("a", listener).await, at(1, listener));
        }
    }
    let fenced = MetadataRecord::BrokerChanged { id: 0, epoch: 1, fenced: Some(true), shutting_down: None };
    nodes[1].change(&[fenced]);
    assert_eq!(nodes[1].coordinator("b", 0).await, Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    nodes[1].change(&[led_by(1)]);
    assert_eq!(nodes[1].coordinator("b", 0).await, at(1, 0));
    nodes[1].change(&[led_by(NO_LEADER)]);
    assert_eq!(nodes[1].coordinator("b", 0).await, Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_enough_replicas_fails_in_time_and_counts_once_they_are_back() {
    let nodes = two_brokers_set(&["offsets.commit.timeout.ms=100"], &[offsets_topic(2)]).await;
    nodes[1].stop_fetching().await;
    assert_eq!(nodes[0].commit("b", 5).await, Err(GroupError::CoordinatorNotAvailable), "it is not committed");
    let is_small = async {
        while *nodes[0].offsets_partition("b").isr() != [0] {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), is_small).await.expect("the follower leaves the in-sync set");
    assert_eq!(nodes[0].commit("b", 6).await, Err(GroupError::CoordinatorNotAvailable), "it is not appended");
    assert_eq!(nodes[0].committed("b"), Ok(None));
    nodes[1].fetch();
    let is_back = async {
        while nodes[0].committed("b") != Ok(Some(5)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), is_back).await.expect("the first offset is committed");
}

/// Counts the assignments, so that a rebalance shows.
#[derive(Default)]
struct Assignments(AtomicUsize);

impl RebalanceListener for Assignments {
    fn assigned<'a>(&'a self, _: &'a [TopicPartition]) -> ListenerFuture<'a> {
        self.0.fetch_add(1, Ordering::AcqRel);
        Box::pin(async {})
    }
}

/// Starts a member of group "b" and waits for its assignment.
async fn member(nodes: &[Node; 2], assignments: &Arc<Assignments>) -> Consumer {
    let [one, two] = nodes.each_ref().map(|node| node.ports[0]);
    let mut config = ConsumerConfig::new(&format!("127.0.0.1:{one},127.0.0.1:{two}"));
    config.group_id = Some("b".to_owned());
    config.heartbeat_interval = Duration::from_millis(50);
    config.enable_auto_commit = false;
    let consumer = Consumer::builder(config).rebalance_listener(Arc::clone(assignments) as _).build();
    let consumer = consumer.expect("a valid config");
    consumer.subscribe(["t"]).expect("it has a group");
    let joined = async {
        while consumer.assignment().is_empty() {
            consumer.poll(Duration::from_millis(20)).await.expect("no fatal error");
        }
    };
    timeout(Duration::from_secs(60), joined).await.expect("joined");
    consumer
}

/// Checks that a member continues at broker 1 as the same member: it sends heartbeats and commits.
async fn continues_at_broker_1(nodes: &[Node; 2], consumer: &Consumer, assignments: &Assignments, member_id: &str) {
    let before = nodes[1].heartbeats();
    let continues = async {
        while nodes[1].heartbeats() < before + 3 {
            consumer.poll(Duration::from_millis(20)).await.expect("no fatal error");
        }
        let committed = CommittedOffset { offset: 5, leader_epoch: -1, metadata: String::new() };
        consumer.commit_offsets(&BTreeMap::from([(TopicPartition::new("t", 0), committed)])).await
    };
    timeout(Duration::from_secs(60), continues).await.expect("in time").expect("committed as a member");
    assert_eq!(nodes[1].committed("b"), Ok(Some(5)));
    let described = nodes[1].broker.groups.describe("b").expect("served here");
    assert_eq!((described.state, &*described.members[0].member_id), ("Stable", member_id));
    assert_eq!(assignments.0.load(Ordering::Acquire), 1, "no rebalance");
}

fn member_id(node: &Node) -> String {
    node.broker.groups.describe("b").expect("served here").members[0].member_id.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_follows_its_coordinator() {
    let nodes = two_coordinators().await;
    let assignments = Arc::default();
    let consumer = member(&nodes, &assignments).await;
    let id = member_id(&nodes[0]);
    for node in &nodes {
        node.change(&[led_by(1)]);
    }
    nodes[0].assign_partition(&nodes[0].offsets_partition("b"), Assignment::Follower { leader: 1, leader_epoch: 1 });
    nodes[1].assign_partition(&nodes[1].offsets_partition("b"), Assignment::Leader(view(&[0, 1])));
    continues_at_broker_1(&nodes, &consumer, &assignments, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_outlives_its_coordinator() {
    let nodes = two_coordinators().await;
    let assignments = Arc::default();
    let consumer = member(&nodes, &assignments).await;
    let id = member_id(&nodes[0]);
    // The connections break. For a while broker 1 still names broker 0 as the coordinator.
    nodes[0].stop_fetching().await;
    timeout(Duration::from_secs(1), async {
        loop {
            consumer.poll(Duration::from_millis(20)).await.expect("no fatal error");
        }
    })
    .await
    .expect_err("polled for a second");
    nodes[1].change(&[led_by(1)]);
    nodes[1].assign_partition(&nodes[1].offsets_partition("b"), Assignment::Leader(view(&[1])));
    continues_at_broker_1(&nodes, &consumer, &assignments, &id).await;
}
