//! A quorum as a controller sees it.

use std::error::Error;
use std::future::Future;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

/// The id of a node, Kafka's `node.id`.
pub type NodeId = i32;

/// Where a member of the quorum is, and which one it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The id of the folder with the member's log. A node whose log was lost has a new one, and is a new member.
    pub directory_id: Uuid,
    /// The address of the member's controller listener.
    pub address: String,
}

/// The leader as a node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term, Kafka's leader epoch. A term has at most one leader.
    pub term: u64,
    /// The leader of the term, if it is known.
    pub leader: Option<NodeId>,
}

/// A member and the state of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The node.
    pub node_id: NodeId,
    /// Where it is.
    pub peer: Peer,
    /// The index that follows its last entry. Only the leader knows those of other nodes.
    pub log_end: Option<u64>,
    /// The number of entries that it is behind the leader. Only the leader knows it.
    pub lag: Option<u64>,
}

/// The state of the quorum as a node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The term and its leader.
    pub leadership: Leadership,
    /// The index that follows the last entry that this node applied.
    pub applied_end: u64,
    /// Whether the voters are being changed. Until that ends, a majority of both the old and the new ones is needed.
    pub is_changing: bool,
    /// The nodes that vote.
    pub voters: Vec<Replica>,
    /// The nodes that follow the log and do not vote.
    pub observers: Vec<Replica>,
}

/// Why a proposal fails.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads.
    #[error("this node does not lead the quorum; the leader is {}", hint(leader))]
    NotLeader {
        /// The leader, if it is known.
        leader: Option<(NodeId, Peer)>,
    },
    /// The entry was not committed in time. It may be committed later.
    #[error("no majority of the voters confirmed the entry in time: it may still be committed")]
    TimedOut,
    /// The entry is too large.
    #[error("an entry of {0} bytes exceeds the limit of {1}")]
    TooLarge(usize, usize),
    /// The quorum has stopped on this node.
    #[error("the quorum has stopped on this node: {0}")]
    Stopped(String),
}

/// Why the members cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Another node leads.
    #[error("this node does not lead the quorum; the leader is {}", hint(leader))]
    NotLeader {
        /// The leader, if it is known.
        leader: Option<(NodeId, Peer)>,
    },
    /// The node id belongs to another folder.
    #[error("node {node_id} is a member with directory id {directory_id}: remove it before its id is used again")]
    InUse {
        /// The node.
        node_id: NodeId,
        /// The folder of the member.
        directory_id: Uuid,
    },
    /// The node is not a member.
    #[error("node {0} is not a member of the quorum")]
    Unknown(NodeId),
    /// The node is the only voter.
    #[error("node {0} is the only voter and cannot be removed")]
    LastVoter(NodeId),
    /// The node does not respond.
    #[error("node {0} does not respond, so it does not become a voter")]
    NoResponse(NodeId),
    /// Another change is not finished.
    #[error("another change of the voters is not finished: {0}")]
    InProgress(String),
    /// The change was not committed in time. It may be committed later.
    #[error("the change of the voters did not finish in time: it may still be committed")]
    TimedOut,
    /// The quorum has stopped on this node.
    #[error("the quorum has stopped on this node: {0}")]
    Stopped(String),
}

fn hint(leader: &Option<(NodeId, Peer)>) -> String {
    leader.as_ref().map_or_else(|| "not known".to_owned(), |(id, peer)| format!("node {id} at {}", peer.address))
}

/// Why a state rejects a snapshot.
pub type RestoreError = Box<dyn Error + Send + Sync>;

/// The state that the committed entries add up to.
pub trait Machine: Send + 'static {
    /// Applies a committed entry. Indexes rise; those without bytes of the caller's are left out.
    fn apply(&mut self, index: u64, bytes: &Bytes);
    /// Returns the state as bytes.
    fn snapshot(&self) -> Bytes;
    /// Replaces the state by that of a snapshot, which contains all entries up to an index.
    fn restore(&mut self, index: u64, snapshot: &Bytes) -> Result<(), RestoreError>;
}

/// A replicated log, seen from one of its nodes.
pub trait Quorum: Send + Sync + 'static {
    /// Appends an entry to the log of the leader. Returns its index when it is committed and applied on this node.
    fn propose(&self, bytes: Bytes) -> impl Future<Output = Result<u64, ProposeError>> + Send;
    /// Returns the term and leader, and their changes.
    fn leadership(&self) -> watch::Receiver<Leadership>;
    /// Returns the index that follows the last applied entry, and its changes.
    fn applied_end(&self) -> watch::Receiver<u64>;
    /// Returns the state of the quorum.
    fn describe(&self) -> Description;
    /// Adds a node that follows the log. Only the leader can.
    fn add_observer(&self, node_id: NodeId, peer: Peer) -> impl Future<Output = Result<(), ChangeError>> + Send;
    /// Adds a voter, and waits until its log has caught up before it votes. A node that does not respond stays an
    /// observer. Only the leader can.
    fn add_voter(&self, node_id: NodeId, peer: Peer) -> impl Future<Output = Result<(), ChangeError>> + Send;
    /// Replaces the address of a member. Only the leader can.
    fn change_address(&self, node_id: NodeId, peer: Peer) -> impl Future<Output = Result<(), ChangeError>> + Send;
    /// Removes a voter or an observer. Only the leader can. A leader does not remove itself: it resigns, and the error
    /// names the new leader.
    fn remove(&self, node_id: NodeId) -> impl Future<Output = Result<(), ChangeError>> + Send;
    /// Notes that a node's process has ended. If it was the leader, an election starts at once.
    fn declare_dead(&self, node_id: NodeId) -> impl Future<Output = ()> + Send;
    /// Lets another voter become the leader, and returns when one is. Proposals on this node fail meanwhile. A node
    /// that does not lead does nothing.
    fn resign(&self) -> impl Future<Output = Result<(), ChangeError>> + Send;
    /// Writes a snapshot in the background.
    fn write_snapshot(&self) -> impl Future<Output = ()> + Send;
}
