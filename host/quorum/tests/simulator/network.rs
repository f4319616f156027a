//! A network that loses, delays, repeats and reorders requests and responses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use millstream_quorum::{NodeId, Peer, RaftQuorum, Request, Response, Transport, TransportError};
use parking_lot::Mutex;
use tokio::time::sleep;

/// What all links have in common.
#[derive(Default)]
pub(crate) struct Network {
    nodes: Mutex<BTreeMap<NodeId, Weak<RaftQuorum>>>,
    /// Links that carry nothing, from a node to another.
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// The share of messages that are lost, and that arrive twice, in thousandths.
    pub(crate) loss: Mutex<(u16, u16)>,
}

impl Network {
    pub(crate) fn attach(&self, node_id: NodeId, quorum: &Arc<RaftQuorum>) {
        self.nodes.lock().insert(node_id, Arc::downgrade(quorum));
    }

    pub(crate) fn detach(&self, node_id: NodeId) {
        self.nodes.lock().remove(&node_id);
    }

    pub(crate) fn cut(&self, links: impl IntoIterator<Item = (NodeId, NodeId)>) {
        self.cut.lock().extend(links);
    }

    pub(crate) fn heal(&self) {
        self.cut.lock().clear();
    }

    /// Carries a message over a link. Returns false if it is lost.
    async fn carry(&self, from: NodeId, to: NodeId) -> bool {
        let slow = fastrand::u8(..50) == 0;
        sleep(Duration::from_micros(fastrand::u64(100..if slow { 150_000 } else { 8_000 }))).await;
        let is_lost = fastrand::u16(..1000) < self.loss.lock().0;
        !is_lost && !self.cut.lock().contains(&(from, to))
    }

    fn node(&self, node_id: NodeId) -> Option<Arc<RaftQuorum>> {
        self.nodes.lock().get(&node_id).and_then(Weak::upgrade)
    }

    async fn deliver(self: Arc<Self>, from: NodeId, to: NodeId, request: Request) -> Option<Response> {
        if !self.carry(from, to).await {
            return None;
        }
        // The bytes are those of a socket.
        let request = Request::decode(&request.encode()).expect("a request can be read");
        let node = self.node(to)?;
        let response = node.handle(request).await;
        // A node that lost its power while it worked does not respond.
        let is_same = self.node(to).is_some_and(|now| Arc::ptr_eq(&now, &node));
        if !is_same || !self.carry(to, from).await {
            return None;
        }
        Some(Response::decode(&response.encode()).expect("a response can be read"))
    }
}

/// A node's side of the network.
pub(crate) struct Link {
    pub(crate) node_id: NodeId,
    pub(crate) network: Arc<Network>,
}

impl Transport for Link {
    async fn send(&self, node_id: NodeId, _peer: &Peer, request: Request) -> Result<Response, TransportError> {
        let (from, network) = (self.node_id, Arc::clone(&self.network));
        let unreachable = |reason: &str| TransportError::Unreachable { node_id, reason: reason.to_owned() };
        if fastrand::u16(..1000) < network.loss.lock().1 {
            tokio::spawn(Arc::clone(&network).deliver(from, node_id, request.clone()));
        }
        // The request goes on even if the sender stops waiting.
        let delivery = tokio::spawn(network.deliver(from, node_id, request));
        match delivery.await {
            Ok(Some(response)) => Ok(response),
            _ => {
                sleep(Duration::from_millis(fastrand::u64(1..100))).await;
                Err(unreachable("the message is lost"))
            }
        }
    }
}
