//! Group coordinators on two brokers: each coordinates the groups of the partitions that it leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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

use crate::cluster_for_tests::{Node, TOPIC, two_brokers_with};

const OFFSETS: Uuid = Uuid::from_u128(8);

/// Starts two brokers. Each leads one partition of `__consumer_offsets`.
async fn two_coordinators() -> [Node; 2] {
    two_brokers_with(&[MetadataRecord::TopicCreated {
        name: CONSUMER_OFFSETS.to_owned(),
        id: OFFSETS,
        partitions: 2,
        configs: BTreeMap::default(),
        replicas: vec![vec![0, 1], vec![1, 0]],
    }])
    .await
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
    let loaded = async {
        while nodes[1].committed("b") == Err(GroupError::CoordinatorLoadInProgress) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), loaded).await.expect("loaded");
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
    let led_by = |leader| {
        let change = PartitionChange { leader: Some(leader), ..Default::default() };
        MetadataRecord::PartitionChanged { id: OFFSETS, partition: 0, change }
    };
    nodes[1].change(&[led_by(1)]);
    assert_eq!(nodes[1].coordinator("b", 0).await, at(1, 0));
    nodes[1].change(&[led_by(NO_LEADER)]);
    assert_eq!(nodes[1].coordinator("b", 0).await, Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
}
