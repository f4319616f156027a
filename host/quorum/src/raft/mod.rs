//! The quorum on openraft.

mod change;
mod election;
mod network;
mod recover;
mod state_machine;
mod store;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{Raft, Snapshot};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

pub use network::{Request, RequestError, Response, Transport, TransportError};
pub use recover::LastMember;

use crate::config::{ConfigError, QuorumConfig};
use crate::quorum::{
    ChangeError, Description, Leadership, Machine, NodeId, Peer, ProposeError, Quorum, Replica, RestoreError,
};
use crate::storage::{Disk, PROPOSAL_BYTES_MAX, StorageError};
use election::Elections;
use network::{Network, RequestBody, ResponseBody};
use state_machine::StateMachine;
use store::{LogStore, Store};
use types::Types;

/// Why a quorum cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The config cannot act.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The storage cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The state rejects the snapshot.
    #[error("the snapshot of the metadata cannot be restored: {0}")]
    Restore(RestoreError),
    /// The log cannot be used.
    #[error("the quorum cannot be started: {0}")]
    Start(String),
}

/// A node of a quorum.
pub struct RaftQuorum {
    raft: Raft<Types>,
    config: Arc<QuorumConfig>,
    directory_id: Uuid,
    elections: Elections,
    /// Orders changes of the voters.
    changes: Arc<tokio::sync::Mutex<()>>,
    applied_end: watch::Sender<u64>,
    tasks: [JoinHandle<()>; 2],
}

impl RaftQuorum {
    /// Opens the storage and starts the node. A new node waits until it is bootstrapped, or added by a leader.
    pub async fn open(
        config: QuorumConfig,
        disk: Arc<dyn Disk>,
        machine: impl Machine,
        transport: Arc<impl Transport>,
    ) -> Result<Self, OpenError> {
        let raft_config = Arc::new(config.to_openraft()?);
        let config = Arc::new(config);
        let segment_bytes = config.segment_bytes;
        let (store, snapshot) = if disk.blocks() {
            let opened = tokio::task::spawn_blocking(move || Store::open(disk, segment_bytes)).await;
            opened.map_err(|error| OpenError::Start(error.to_string()))??
        } else {
            Store::open(disk, segment_bytes)?
        };
        let store = Arc::new(store);
        let directory_id = store.wal.lock().directory_id();
        let applied_end = watch::Sender::new(0);
        let state = StateMachine::open(machine, Arc::clone(&store), snapshot, applied_end.clone())?;
        let farewell = network::farewell(Arc::clone(&transport), config.node_id);
        let network = Network { transport, config: Arc::clone(&config) };
        let raft = Raft::new(config.node_id, raft_config, network, LogStore(store), state).await;
        let raft = raft.map_err(|error| OpenError::Start(error.to_string()))?;
        let elections = Elections::new(raft.clone(), Arc::clone(&config), farewell);
        let changes = Arc::default();
        let tasks = [
            tokio::spawn(elections.clone().run()),
            tokio::spawn(change::finish_changes(raft.clone(), Arc::clone(&changes))),
        ];
        Ok(Self { raft, config, directory_id, elections, changes, applied_end, tasks })
    }

    /// Returns the id of the folder with the node's log.
    pub fn directory_id(&self) -> Uuid {
        self.directory_id
    }

    /// Writes the first voters into an empty log. Returns false if the log is not empty. All voters must be given the
    /// same list, or only one must be bootstrapped.
    pub async fn bootstrap(&self, voters: BTreeMap<NodeId, Peer>) -> Result<bool, ChangeError> {
        match self.raft.initialize(voters).await {
            Ok(()) => Ok(true),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(false),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                Err(ChangeError::Unknown(self.config.node_id))
            }
            Err(RaftError::Fatal(error)) => Err(ChangeError::Stopped(error.to_string())),
        }
    }

    /// Confirms with a majority of the voters that this node leads. It led at a moment after the call.
    pub async fn confirm_leadership(&self) -> Result<(), ProposeError> {
        match timeout(self.config.propose_timeout, self.raft.ensure_linearizable()).await {
            Err(_) => Err(ProposeError::TimedOut),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_id.zip(forward.leader_node) })
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => Err(ProposeError::TimedOut),
            Ok(Err(RaftError::Fatal(error))) => Err(ProposeError::Stopped(error.to_string())),
        }
    }

    /// Returns the members that the log names, each with whether it votes; none for an empty log. Right after the
    /// start, a description of the quorum may not have them yet.
    pub async fn members(&self) -> Result<BTreeMap<NodeId, (Peer, bool)>, ChangeError> {
        let members = |state: &openraft::RaftState<NodeId, Peer, _>| {
            let effective = state.membership_state.effective();
            let voters: Vec<NodeId> = effective.voter_ids().collect();
            let nodes = effective.membership().nodes();
            nodes.map(|(id, peer)| (*id, (peer.clone(), voters.contains(id)))).collect()
        };
        let members = self.raft.with_raft_state(members).await;
        members.map_err(|error| ChangeError::Stopped(error.to_string()))
    }

    /// Processes a request of another member.
    pub async fn handle(&self, request: Request) -> Response {
        if request.directory_id != self.directory_id {
            return Response(ResponseBody::WrongDirectory(self.directory_id));
        }
        let body = match request.body {
            RequestBody::Append(append) => match self.raft.append_entries(append).await {
                Ok(response) => {
                    if !matches!(response, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
                        self.elections.hear();
                    }
                    ResponseBody::Append(response.into())
                }
                Err(error) => ResponseBody::Failed(error.to_string()),
            },
            RequestBody::Vote(vote) => match self.raft.vote(vote.clone()).await {
                Ok(response) => {
                    if response.vote_granted {
                        self.elections.hear();
                    } else {
                        self.elections.overtake(&vote, &response).await;
                    }
                    ResponseBody::Vote(response)
                }
                Err(error) => ResponseBody::Failed(error.to_string()),
            },
            RequestBody::Resign { leader, term } => {
                let elections = self.elections.clone();
                tokio::spawn(async move { elections.succeed(leader, term).await });
                ResponseBody::Resign
            }
            RequestBody::Snapshot { vote, description, state } => {
                let snapshot = Snapshot { meta: description.into(), snapshot: Box::new(state) };
                match self.raft.install_full_snapshot(vote, snapshot).await {
                    Ok(response) => {
                        self.elections.hear();
                        ResponseBody::Snapshot(response.vote)
                    }
                    Err(error) => ResponseBody::Failed(error.to_string()),
                }
            }
        };
        Response(body)
    }

    /// Stops the node. What it has written stays.
    pub async fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the quorum did not stop cleanly");
        }
    }

    /// Waits until this node cannot take part any more, and returns why: its storage has failed.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut metrics = self.raft.metrics();
        async move {
            loop {
                match &metrics.borrow_and_update().running_state {
                    Ok(()) | Err(Fatal::Stopped) => {}
                    Err(error) => return error.to_string(),
                }
                if metrics.changed().await.is_err() {
                    // It was stopped.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    fn replicas(&self) -> (Vec<Replica>, Vec<Replica>) {
        let metrics = self.raft.metrics();
        let latest = metrics.borrow();
        let own_end = latest.last_log_index.map_or(0, |index| index + 1);
        let members = latest.membership_config.membership();
        let replica = |node_id: NodeId, peer: &Peer| {
            let matched = latest.replication.as_ref().and_then(|all| all.get(&node_id));
            let log_end = match matched {
                _ if node_id == latest.id => Some(own_end),
                Some(matched) => Some(matched.map_or(0, |id| id.index + 1)),
                None => None,
            };
            let is_leader = latest.replication.is_some();
            let lag = log_end.filter(|_| is_leader).map(|end| own_end.saturating_sub(end));
            Replica { node_id, peer: peer.clone(), log_end, lag }
        };
        let voters: Vec<NodeId> = members.voter_ids().collect();
        let all = members.nodes().map(|(id, peer)| replica(*id, peer));
        all.partition(|replica| voters.contains(&replica.node_id))
    }
}

impl Drop for RaftQuorum {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Quorum for RaftQuorum {
    async fn propose(&self, bytes: Bytes) -> Result<u64, ProposeError> {
        if bytes.len() > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge(bytes.len(), PROPOSAL_BYTES_MAX));
        }
        if self.elections.is_resigning() {
            return Err(ProposeError::NotLeader { leader: None });
        }
        match timeout(self.config.propose_timeout, self.raft.client_write(bytes)).await {
            Err(_) => Err(ProposeError::TimedOut),
            Ok(Ok(written)) => Ok(written.log_id.index),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(ProposeError::NotLeader { leader: forward.leader_id.zip(forward.leader_node) })
            }
            Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
        }
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.elections.leadership.subscribe()
    }

    fn applied_end(&self) -> watch::Receiver<u64> {
        self.applied_end.subscribe()
    }

    fn describe(&self) -> Description {
        let (voters, observers) = self.replicas();
        let (leadership, applied_end) = (*self.elections.leadership.borrow(), *self.applied_end.borrow());
        let is_changing = change::is_joint(&self.raft.metrics().borrow());
        Description { leadership, applied_end, is_changing, voters, observers }
    }

    async fn add_observer(&self, node_id: NodeId, peer: Peer) -> Result<(), ChangeError> {
        self.within(self.change_add(node_id, peer)).await
    }

    async fn add_voter(&self, node_id: NodeId, peer: Peer) -> Result<(), ChangeError> {
        self.within(self.change_vote(node_id, peer)).await
    }

    async fn change_address(&self, node_id: NodeId, peer: Peer) -> Result<(), ChangeError> {
        self.within(self.change_peer(node_id, peer)).await
    }

    async fn remove(&self, node_id: NodeId) -> Result<(), ChangeError> {
        self.within(self.change_remove(node_id)).await
    }

    async fn declare_dead(&self, node_id: NodeId) {
        self.elections.replace(node_id).await;
    }

    async fn resign(&self) -> Result<(), ChangeError> {
        self.elections.resign().await
    }

    async fn write_snapshot(&self) {
        if let Err(error) = self.raft.trigger().snapshot().await {
            tracing::debug!(%error, "no snapshot: the quorum has stopped on this node");
        }
    }
}

impl RaftQuorum {
    async fn within(&self, change: impl Future<Output = Result<(), ChangeError>>) -> Result<(), ChangeError> {
        timeout(self.config.change_timeout, change).await.unwrap_or(Err(ChangeError::TimedOut))
    }
}
