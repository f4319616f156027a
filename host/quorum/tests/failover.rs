//! A quorum on real files: what happens when its leader dies, and when a log is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_quorum::storage::FileDisk;
use millstream_quorum::{
    Machine, NodeId, Peer, Quorum, QuorumConfig, RaftQuorum, Request, Response, RestoreError, Transport, TransportError,
};
use parking_lot::Mutex;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// A network in which each node is reached at once.
#[derive(Default)]
struct Direct(Mutex<BTreeMap<NodeId, Weak<RaftQuorum>>>);

impl Transport for Direct {
    async fn send(&self, node_id: NodeId, _peer: &Peer, request: Request) -> Result<Response, TransportError> {
        let node = self.0.lock().get(&node_id).and_then(Weak::upgrade);
        match node {
            Some(node) => Ok(node.handle(request).await),
            None => Err(TransportError::Unreachable { node_id, reason: "it is down".to_owned() }),
        }
    }
}

/// A state that is the number of entries.
struct Count(u64);

impl Machine for Count {
    fn apply(&mut self, _index: u64, _bytes: &Bytes) {
        self.0 += 1;
    }

    fn snapshot(&self) -> Bytes {
        self.0.to_le_bytes().to_vec().into()
    }

    fn restore(&mut self, _index: u64, snapshot: &Bytes) -> Result<(), RestoreError> {
        self.0 = u64::from_le_bytes(snapshot[..].try_into()?);
        Ok(())
    }
}

async fn open(network: &Arc<Direct>, folder: &Path, id: NodeId) -> Arc<RaftQuorum> {
    open_with(network, folder, QuorumConfig::new(id)).await
}

async fn open_with(network: &Arc<Direct>, folder: &Path, config: QuorumConfig) -> Arc<RaftQuorum> {
    let id = config.node_id;
    let disk = Arc::new(FileDisk::open(&folder.join(id.to_string())).expect("a folder"));
    let quorum = RaftQuorum::open(config, disk, Count(0), Arc::clone(network)).await;
    let quorum = Arc::new(quorum.expect("a node"));
    network.0.lock().insert(id, Arc::downgrade(&quorum));
    quorum
}

fn peer(quorum: &RaftQuorum, id: NodeId) -> Peer {
    Peer { directory_id: quorum.directory_id(), address: format!("node-{id}:9093") }
}

/// Waits until a node knows a leader other than `not`.
async fn leader(node: &RaftQuorum, not: Option<NodeId>) -> NodeId {
    let mut known = node.leadership();
    let elected = known.wait_for(|known| known.leader.is_some() && known.leader != not);
    timeout(DEADLINE, elected).await.expect("a leader in time").expect("a running node").leader.expect("a leader")
}

async fn start(network: &Arc<Direct>, folder: &Path) -> BTreeMap<NodeId, Arc<RaftQuorum>> {
    let mut nodes = BTreeMap::new();
    for id in 1..=3 {
        nodes.insert(id, open(network, folder, id).await);
    }
    let voters = nodes.iter().map(|(id, node)| (*id, peer(node, *id))).collect();
    assert!(nodes[&1].bootstrap(voters).await.expect("an empty log"));
    for node in nodes.values() {
        leader(node, None).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_replaced_at_once_if_it_is_declared_dead() {
    for is_declared in [true, false] {
        let (folder, network) = (tempfile::tempdir().expect("a folder"), Arc::new(Direct::default()));
        let mut nodes = start(&network, folder.path()).await;
        let dead = leader(&nodes[&1], None).await;
        let first = nodes[&dead].propose(Bytes::from_static(b"one")).await.expect("a leader commits");
        let old = nodes.remove(&dead).expect("the leader");
        network.0.lock().remove(&dead);
        old.stop().await;
        let begun = Instant::now();
        if is_declared {
            for node in nodes.values() {
                let node = Arc::clone(node);
                tokio::spawn(async move { node.declare_dead(dead).await });
            }
        }
        let survivor = nodes.values().next().expect("a survivor");
        let next = leader(survivor, Some(dead)).await;
        println!("declared dead: {is_declared}, a new leader after {:?}", begun.elapsed());
        let second = timeout(DEADLINE, nodes[&next].propose(Bytes::from_static(b"two"))).await.expect("in time");
        assert!(second.expect("the new leader commits") > first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_was_lost_is_a_new_voter() {
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Arc::new(Direct::default()));
    let mut nodes = start(&network, folder.path()).await;
    let leading = leader(&nodes[&1], None).await;
    let lost = (1..=3).find(|id| *id != leading).expect("a follower");
    let old = nodes.remove(&lost).expect("the follower");
    old.stop().await;
    drop(old);
    std::fs::remove_dir_all(folder.path().join(lost.to_string())).expect("removable");
    let new = open(&network, folder.path(), lost).await;
    let next = leader(&nodes[&leading], None).await;
    let error = nodes[&next].add_voter(lost, peer(&new, lost)).await.expect_err("the id belongs to the lost log");
    assert!(error.to_string().contains("remove it before"), "{error}");
    assert!(new.describe().voters.is_empty(), "a lost log does not vote");
    nodes[&next].remove(lost).await.expect("a majority is left");
    nodes[&next].add_voter(lost, peer(&new, lost)).await.expect("a new voter");
    let described = nodes[&next].describe();
    assert!(described.voters.iter().any(|voter| voter.peer == peer(&new, lost)), "{described:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_while_it_joins_does_not_stop_the_quorum() {
    let (folder, network) = (tempfile::tempdir().expect("a folder"), Arc::new(Direct::default()));
    let first = open_with(
        &network,
        folder.path(),
        QuorumConfig { change_timeout: Duration::from_secs(8), ..QuorumConfig::new(1) },
    )
    .await;
    assert!(first.bootstrap(BTreeMap::from([(1, peer(&first, 1))])).await.expect("an empty log"));
    leader(&first, None).await;
    // It has confirmed the whole log as an observer, and ends before it is a voter.
    let second = open(&network, folder.path(), 2).await;
    first.add_observer(2, peer(&second, 2)).await.expect("an observer");
    let mut applied = second.applied_end();
    let end = first.propose(Bytes::from_static(b"one")).await.expect("committed") + 1;
    let followed = applied.wait_for(|applied| *applied >= end);
    timeout(DEADLINE, followed).await.expect("in time").expect("it runs");
    let ended = peer(&second, 2);
    second.stop().await;
    network.0.lock().remove(&2);
    let error = first.add_voter(2, ended).await.expect_err("it does not respond").to_string();
    assert!(error.contains("node 2 does not respond"), "{error}");
    // Nor does one that never responded.
    let never = Peer { directory_id: uuid::Uuid::from_u128(3), address: "node-3:9093".to_owned() };
    first.add_voter(3, never).await.expect_err("it does not respond");
    let proposed = timeout(DEADLINE, first.propose(Bytes::from_static(b"two"))).await.expect("in time");
    proposed.expect("the quorum of one decides");
    for id in [2, 3] {
        first.remove(id).await.expect("the quorum of one decides");
    }
    assert_eq!(first.describe().voters.len(), 1);
}
