//! The cluster as the clients of one listener see it: the brokers with their addresses, the partitions with their
//! leaders.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_metadata::{BrokerImage, MetadataImage, NO_LEADER, PartitionImage};
use millstream_wire::{ErrorCode, Str};

use crate::broker::Broker;
use crate::net::types::ConnectionInfo;
use crate::topics::Topic;

/// A broker with a listener of the client's.
pub(super) struct Node {
    pub(super) host: Str,
    pub(super) port: i32,
    pub(super) rack: Option<Str>,
    pub(super) is_fenced: bool,
}

/// The brokers and partitions of one image.
pub(super) struct ClusterView {
    pub(super) image: Arc<MetadataImage>,
    /// The registered brokers that the client can reach, fenced ones too.
    nodes: BTreeMap<i32, Node>,
    /// This broker.
    node_id: i32,
}

/// A partition as a client sees it.
pub(super) struct PartitionView {
    /// Why there is no leader for the client.
    pub(super) error_code: ErrorCode,
    /// The leader, or [`NO_LEADER`].
    pub(super) leader: i32,
    /// The replicas that cannot be reached.
    pub(super) offline: Vec<i32>,
}

impl ClusterView {
    pub(super) fn new(broker: &Broker, connection: &ConnectionInfo) -> Self {
        let image = broker.metadata.image();
        let node_id = broker.config.node_id;
        let node = |registered: &BrokerImage| {
            let registration = &registered.registration;
            let (host, port) = broker.endpoint(connection, registration.id)?;
            let rack = if registration.id == node_id { &broker.config.rack } else { &registration.rack };
            let rack = rack.as_deref().map(Str::from);
            Some((registration.id, Node { host, port, rack, is_fenced: registered.fenced }))
        };
        let nodes = image.brokers().filter_map(node).collect();
        Self { image, nodes, node_id }
    }

    /// Returns the brokers, in the order of their ids.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (i32, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Returns whether the client can reach a broker.
    pub(super) fn is_reachable(&self, id: i32) -> bool {
        self.nodes.get(&id).is_some_and(|node| !node.is_fenced)
    }

    /// Returns the leader of a partition and its unreachable replicas. `topic` has the replica of this broker, if there
    /// is one.
    pub(super) fn partition(&self, topic: &Topic, index: i32, stored: &PartitionImage) -> PartitionView {
        let own = topic.partition(index);
        // A replica that is not open yet counts only if it leads.
        let is_own_online = own.map_or(stored.leader != self.node_id, |partition| partition.is_online());
        let is_offline = |id: i32| !self.is_reachable(id) || id == self.node_id && !is_own_online;
        let offline: Vec<i32> = stored.replicas.iter().copied().filter(|id| is_offline(*id)).collect();
        let error_code = if stored.leader == self.node_id {
            if is_own_online { ErrorCode::NONE } else { ErrorCode::LEADER_NOT_AVAILABLE }
        } else if self.nodes.contains_key(&stored.leader) {
            ErrorCode::NONE
        } else if self.image.broker(stored.leader).is_some() {
            ErrorCode::LISTENER_NOT_FOUND
        } else {
            ErrorCode::LEADER_NOT_AVAILABLE
        };
        let leader = if error_code.is_ok() { stored.leader } else { NO_LEADER };
        PartitionView { error_code, leader, offline }
    }
}
