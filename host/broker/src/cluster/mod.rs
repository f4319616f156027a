//! A node among the nodes of its cluster: the quorum of the metadata, and the calls between nodes.
//!
//! | File | Subject |
//! |---|---|
//! | `mod.rs` | the node's quorum, and commits of the metadata |
//! | `machine.rs` | the metadata as the state of the quorum's log |
//! | `call.rs` | what nodes ask each other |
//! | `frame.rs` | the bytes on a connection between nodes |
//! | `peers.rs` | connections to other nodes, and the quorum's transport |
//! | `service.rs` | the other end of such a connection |
//! | `forming.rs` | the first start: forming a cluster, or joining one |
//! | `liveness.rs` | which processes have ended |
//! | `session.rs` | the session of this broker with the controller |
//!
//! Nodes talk on the listener of `controller.listener.names`, in a protocol of their own. Clients never see it. The
//! controller (`crate::controller`) decides, and this module knows neither topics nor partitions.

mod call;
mod forming;
mod frame;
mod liveness;
mod machine;
mod peers;
mod service;
mod session;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millstream_metadata::entry::{ReplicatedImage, changes};
use millstream_metadata::{Draft, MetadataStore};
use millstream_quorum::storage::FileDisk;
use millstream_quorum::{Leadership, NodeId, Peer, ProposeError, Quorum, QuorumConfig, RaftQuorum, Replica};
use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use call::{BatchTransaction, Call, Changed, EdgeCall, EdgeReply, Member, NotPrepared, QuorumState, Reply};
pub(crate) use forming::{FormError, Place, Standing};
pub(crate) use liveness::Processes;
pub(crate) use peers::PeerError;
pub(crate) use service::{ControllerCalls, EdgeCalls, FIRST_BYTE, serve};

use crate::config::{ClusterConfig, HostPort};
use crate::error::ApiError;
use machine::ImageMachine;
use peers::Peers;
use session::Session;

/// The folder of the quorum's log and snapshots.
const FOLDER: &str = "__cluster_metadata-quorum";

/// The time without a leader after which a voter starts an election. It is for hosts that vanish or hang: the end of a
/// process is seen at once. A shorter time would cost elections on a busy machine.
const ELECTION_TIMEOUT: Range<Duration> = Duration::from_millis(500)..Duration::from_millis(1000);

/// The time between two heartbeats of the quorum's leader.
const QUORUM_HEARTBEAT: Duration = Duration::from_millis(100);

/// The time for a call that changes the members.
const LEADER_TIMEOUT: Duration = Duration::from_secs(35);

/// Why a change is not committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// Another node leads.
    #[error("this node is not the controller")]
    NotController,
    /// The image has changed since the decision.
    #[error("the metadata has changed since the decision")]
    Overtaken,
    /// It may be committed later, or not.
    #[error("{0}")]
    Unknown(String),
}

/// Notes the first reason why the node cannot go on.
fn fail(fatal: &watch::Sender<Option<String>>, reason: String) {
    fatal.send_if_modified(|fatal| {
        let is_first = fatal.is_none();
        fatal.get_or_insert(reason);
        is_first
    });
}

fn commit_error(error: ProposeError) -> CommitError {
    match error {
        ProposeError::NotLeader { .. } => CommitError::NotController,
        error => CommitError::Unknown(error.to_string()),
    }
}

/// This node in its cluster.
pub(crate) struct Cluster {
    pub(crate) node_id: NodeId,
    /// Random for each start of the process.
    pub(crate) incarnation: Uuid,
    pub(crate) config: ClusterConfig,
    pub(crate) session: Session,
    /// The address at which other nodes reach this one.
    pub(crate) address: HostPort,
    pub(crate) metadata: Arc<MetadataStore>,
    state: Arc<Mutex<ReplicatedImage>>,
    cluster_id: OnceLock<String>,
    quorum: OnceLock<Arc<RaftQuorum>>,
    controller: OnceLock<Arc<dyn ControllerCalls>>,
    edge: OnceLock<Arc<dyn EdgeCalls>>,
    peers: Arc<Peers>,
    /// The processes of the other nodes.
    pub(crate) processes: watch::Sender<Processes>,
    /// Why the node cannot go on.
    fatal: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Makes a node that has no quorum yet.
    pub(crate) fn new(node_id: NodeId, config: ClusterConfig, address: HostPort) -> Arc<Self> {
        let incarnation = Uuid::new_v4();
        Arc::new(Self {
            node_id,
            incarnation,
            session: Session::new(config.session_timeout),
            config,
            address,
            metadata: Arc::new(MetadataStore::replicated()),
            state: Arc::default(),
            cluster_id: OnceLock::new(),
            quorum: OnceLock::new(),
            controller: OnceLock::new(),
            edge: OnceLock::new(),
            peers: Arc::new(Peers::new(node_id, incarnation)),
            processes: watch::Sender::default(),
            fatal: watch::Sender::default(),
        })
    }

    /// Returns whether a data folder has the log of a quorum.
    pub(crate) fn is_in(data_dir: &Path) -> bool {
        Self::folder(data_dir).is_dir()
    }

    /// Returns the folder of the quorum's log in a data folder.
    pub(crate) fn folder(data_dir: &Path) -> PathBuf {
        data_dir.join(FOLDER)
    }

    /// Opens the quorum's log in the data folder.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) async fn open(&self, data_dir: &Path, cluster_id: &str) -> Result<(), FormError> {
        let disk = FileDisk::open(&Self::folder(data_dir)).map_err(|error| FormError::Quorum(error.to_string()))?;
        self.peers.set_cluster_id(cluster_id);
        let _ = self.cluster_id.set(cluster_id.to_owned());
        let machine = ImageMachine::new(Arc::clone(&self.state), Arc::clone(&self.metadata), self.fatal.clone());
        let config = QuorumConfig {
            election_timeout: ELECTION_TIMEOUT,
            heartbeat_interval: QUORUM_HEARTBEAT,
            ..QuorumConfig::new(self.node_id)
        };
        let quorum = RaftQuorum::open(config, Arc::new(disk), machine, Arc::clone(&self.peers)).await;
        let quorum = quorum.map_err(|error| FormError::Quorum(error.to_string()))?;
        self.peers.set_own(self.own_peer(&quorum));
        let (failed, fatal) = (quorum.failed(), self.fatal.clone());
        let _ = self.quorum.set(Arc::new(quorum));
        tokio::spawn(async move {
            let reason = failed.await;
            fail(&fatal, format!("the metadata cannot be stored: {reason}; start the node again once its disk works"));
        });
        Ok(())
    }

    /// Lets the controller process the calls of other nodes.
    pub(crate) fn set_controller(&self, controller: Arc<dyn ControllerCalls>) {
        let _ = self.controller.set(controller);
    }

    /// Lets the edge of this broker process the calls of other brokers.
    pub(crate) fn set_edge(&self, edge: Arc<dyn EdgeCalls>) {
        let _ = self.edge.set(edge);
    }

    /// Returns the quorum, once its log is open.
    pub(crate) fn quorum(&self) -> Option<&Arc<RaftQuorum>> {
        self.quorum.get()
    }

    /// Returns the id of the cluster; empty before this node is in one.
    pub(crate) fn id(&self) -> &str {
        self.cluster_id.get().map_or("", String::as_str)
    }

    /// Returns this node as a member of the quorum.
    fn own_peer(&self, quorum: &RaftQuorum) -> Peer {
        Peer { directory_id: quorum.directory_id(), address: self.address.to_string() }
    }

    /// Returns the term and the leader of the quorum.
    pub(crate) fn leadership(&self) -> Leadership {
        self.quorum().map_or_else(Leadership::default, |quorum| *quorum.leadership().borrow())
    }

    /// Returns whether this node is the controller.
    pub(crate) fn is_controller(&self) -> bool {
        self.leadership().leader == Some(self.node_id)
    }

    /// Confirms with a majority of the voters that this node is the controller.
    ///
    /// # Errors
    /// It is not, or no majority responds.
    pub(crate) async fn confirm_controller(&self) -> Result<(), CommitError> {
        let quorum = self.quorum().ok_or(CommitError::NotController)?;
        quorum.confirm_leadership().await.map_err(commit_error)
    }

    /// Returns the changes of the leadership.
    pub(crate) fn leaderships(&self) -> watch::Receiver<Leadership> {
        match self.quorum() {
            Some(quorum) => quorum.leadership(),
            None => watch::channel(Leadership::default()).1,
        }
    }

    /// Returns a signal that changes after entries were applied.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        match self.quorum() {
            Some(quorum) => quorum.applied_end(),
            None => watch::channel(0).1,
        }
    }

    /// Returns the reason why the node cannot go on, once there is one.
    pub(crate) fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// Notes that the node cannot go on.
    pub(crate) fn fail(&self, reason: String) {
        fail(&self.fatal, reason);
    }

    /// Commits the changes of a draft that was begun on the image of this version. Returns the new version.
    pub(crate) async fn commit(&self, version: u64, draft: &Draft) -> Result<u64, CommitError> {
        let quorum = self.quorum().ok_or(CommitError::NotController)?;
        let index = quorum.propose(changes(version, draft)).await.map_err(commit_error)?;
        if self.state.lock().was_skipped(index) { Err(CommitError::Overtaken) } else { Ok(index + 1) }
    }

    /// Returns the voters of the quorum with their addresses.
    pub(crate) fn voters(&self) -> Vec<(NodeId, HostPort)> {
        let voters = self.quorum().map_or_else(Vec::new, |quorum| quorum.describe().voters);
        let voter = |voter: Replica| Some((voter.node_id, self.peers.address(&voter.peer).parse().ok()?));
        voters.into_iter().filter_map(voter).collect()
    }

    /// Returns where the controller is, if it is known and another node.
    pub(crate) fn controller_address(&self) -> Option<String> {
        let leader = self.leadership().leader.filter(|leader| *leader != self.node_id)?;
        self.address_of(leader)
    }

    /// Returns where a node listens for other nodes, if it is a member of the quorum.
    fn address_of(&self, node_id: NodeId) -> Option<String> {
        let description = self.quorum()?.describe();
        let mut members = description.voters.iter().chain(&description.observers);
        members.find(|member| member.node_id == node_id).map(|member| self.peers.address(&member.peer))
    }

    /// Sends a call, and the bytes that it needs, to the edge of another broker.
    ///
    /// # Errors
    /// The broker is not reached or does not reply within `limit`, or the call fails there.
    pub(crate) async fn call_edge(
        &self,
        broker: NodeId,
        call: EdgeCall,
        bytes: &[u8],
        limit: Duration,
    ) -> Result<EdgeReply, ApiError> {
        let failed = |error: PeerError| match error {
            PeerError::Rejected { error, .. } => error,
            error => ApiError::new(ErrorCode::REQUEST_TIMED_OUT, error.to_string()),
        };
        let unknown = || ApiError::new(ErrorCode::LEADER_NOT_AVAILABLE, format!("node {broker} has no known address"));
        let address = self.address_of(broker).ok_or_else(unknown)?;
        match self.peers.call_with(&address, &Call::Edge(call), bytes, limit).await.map_err(failed)? {
            Reply::Edge(reply) => Ok(reply?),
            _ => Err(ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, format!("node {broker} sends another reply"))),
        }
    }

    /// Sends a call to the controller on another node.
    ///
    /// # Errors
    /// The controller is not known, or not reached, or another node is the controller now.
    pub(crate) async fn call_controller(&self, call: &Call, limit: Duration) -> Result<Reply, PeerError> {
        let address = self.controller_address().ok_or(PeerError::NoController)?;
        match self.peers.call(&address, call, limit).await? {
            Reply::NotController { .. } => Err(PeerError::NoController),
            reply => Ok(reply),
        }
    }

    /// Sends a call to the leader of the quorum, which may be this node.
    ///
    /// # Errors
    /// The leader is not known, or not reached, or rejects the call.
    pub(crate) async fn ask_leader(&self, call: Call) -> Result<Reply, PeerError> {
        if !self.is_controller() {
            return self.call_controller(&call, LEADER_TIMEOUT).await;
        }
        match self.reply(call).await {
            Reply::NotController { .. } => Err(PeerError::NoController),
            Reply::Rejected(error) => {
                Err(PeerError::Rejected { address: self.address.to_string(), error: error.into() })
            }
            reply => Ok(reply),
        }
    }

    /// Hands the leadership of the quorum to another voter.
    pub(crate) async fn resign(&self) {
        let Some(quorum) = self.quorum() else { return };
        if let Err(error) = quorum.resign().await {
            tracing::debug!(%error, "the leadership of the quorum is not handed over");
        }
    }

    /// Stops the quorum.
    pub(crate) async fn stop(&self) {
        if let Some(quorum) = self.quorum() {
            quorum.stop().await;
        }
    }
}
