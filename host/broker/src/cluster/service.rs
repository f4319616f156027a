//! The end of a connection that another node has opened.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_metadata::controller::{BrokerState, Heartbeat, Request as Change};
use millstream_quorum::{ChangeError, Peer, Quorum, Replica, Request};
use millstream_record::KafkaUuid;
use millstream_wire::ErrorCode;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::Cluster;
use super::call::{Call, CallError, Changed, EdgeCall, EdgeReply, Member, QuorumState, Reply};
use super::frame::{self, Greeting, Kind, PREFACE};
use crate::error::ApiError;

/// The first byte of a connection of a node.
pub(crate) const FIRST_BYTE: u8 = PREFACE[0];

/// The time for the greeting of a node.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

type CallFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The calls that the controller processes.
pub(crate) trait ControllerCalls: Send + Sync {
    /// Makes changes of the metadata. `None` if another node is the controller.
    fn change(&self, requests: Vec<Change>, validate_only: bool) -> CallFuture<'_, Option<Changed>>;

    /// Notes that a broker is alive. `None` if another node is the controller.
    fn heartbeat(&self, heartbeat: Heartbeat) -> CallFuture<'_, Option<Result<BrokerState, ApiError>>>;

    /// Returns whether a broker is neither fenced nor known to have ended.
    fn is_alive(&self, broker: i32) -> bool;
}

/// The calls that the edge of a broker processes.
pub(crate) trait EdgeCalls: Send + Sync {
    /// Processes a call and the bytes that come with it.
    fn process(&self, call: EdgeCall, bytes: Bytes) -> CallFuture<'_, Result<EdgeReply, ApiError>>;
}

/// Serves the connection of another node until it ends or `stop` says so.
pub(crate) async fn serve(cluster: Arc<Cluster>, mut stream: TcpStream, mut stop: watch::Receiver<bool>) {
    let served = tokio::select! {
        served = cluster.serve(&mut stream) => served,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    if let Err(error) = served {
        tracing::debug!("the connection of a node ends: {error}");
    }
}

impl Cluster {
    async fn serve(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let greeting = timeout(GREETING_TIMEOUT, greeting(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if let Err(reason) = self.peers.greet(&greeting) {
            tracing::warn!("rejected: {reason}");
            return frame::write(stream, Kind::Error, reason.as_bytes()).await;
        }
        frame::write_json(stream, Kind::Hello, &self.peers.welcome()).await?;
        while let Some((kind, body)) = frame::read(stream).await? {
            match kind {
                Kind::Quorum => match self.quorum_request(&body).await {
                    Ok(response) => frame::write(stream, Kind::Quorum, &response).await?,
                    Err(reason) => frame::write(stream, Kind::Error, reason.as_bytes()).await?,
                },
                Kind::Call => {
                    let reply = self.reply(frame::json(&body)?).await;
                    frame::write_json(stream, Kind::Call, &reply).await?;
                }
                Kind::CallWithBytes => {
                    let (call, bytes) = frame::split_bytes(body)?;
                    let reply = self.reply_with(call, bytes).await;
                    frame::write_json(stream, Kind::Call, &reply).await?;
                }
                Kind::Hello | Kind::Error => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }

    async fn quorum_request(&self, body: &[u8]) -> Result<Bytes, String> {
        let quorum = self.quorum().ok_or("the node has no quorum yet")?;
        let request = Request::decode(body).map_err(|error| error.to_string())?;
        Ok(quorum.handle(request).await.encode())
    }

    fn quorum_state(&self) -> Option<QuorumState> {
        let quorum = self.quorum().filter(|_| self.is_controller())?;
        let description = quorum.describe();
        let members = |replicas: Vec<Replica>| replicas.into_iter().map(Member::from).collect();
        Some(QuorumState {
            leader: self.node_id,
            term: description.leadership.term,
            committed_end: description.applied_end,
            voters: members(description.voters),
            observers: members(description.observers),
        })
    }

    /// Returns the reply of this node to a call.
    pub(super) async fn reply(&self, call: Call) -> Reply {
        self.reply_with(call, Bytes::new()).await
    }

    /// Returns the reply of this node to a call and the bytes that come with it.
    async fn reply_with(&self, call: Call, bytes: Bytes) -> Reply {
        match call {
            Call::Describe => {
                let is_member = self.quorum().is_some_and(|quorum| !quorum.describe().voters.is_empty());
                let cluster_id = self.cluster_id.get().filter(|_| is_member).cloned();
                Reply::Described { cluster_id, leader: self.leader_address() }
            }
            Call::Join { node_id, directory_id, address, votes, incarnation } => {
                self.join(node_id, Peer { directory_id, address }, votes, incarnation).await
            }
            Call::Confirm { node_id, directory_id, address } => {
                self.confirm(node_id, Peer { directory_id, address }).await
            }
            Call::Leave { node_id, directory_id } => self.leave(node_id, directory_id).await,
            Call::DescribeQuorum => self.quorum_state().map_or_else(|| self.not_controller(), Reply::Quorum),
            Call::Change { requests, validate_only } => match self.controller.get() {
                None => self.not_controller(),
                Some(controller) => {
                    let changed = controller.change(requests, validate_only).await;
                    changed.map_or_else(|| self.not_controller(), Reply::Changed)
                }
            },
            Call::Heartbeat(heartbeat) => match self.controller.get() {
                None => self.not_controller(),
                Some(controller) => {
                    let state = controller.heartbeat(heartbeat).await;
                    state.map_or_else(|| self.not_controller(), |state| Reply::State(state.map_err(CallError::from)))
                }
            },
            Call::Edge(call) => Reply::Edge(self.process(call, bytes).await.map_err(CallError::from)),
        }
    }

    async fn process(&self, call: EdgeCall, bytes: Bytes) -> Result<EdgeReply, ApiError> {
        match self.edge.get() {
            Some(edge) => edge.process(call, bytes).await,
            None => Err(ApiError::new(ErrorCode::LEADER_NOT_AVAILABLE, "the broker is starting")),
        }
    }

    fn not_controller(&self) -> Reply {
        Reply::NotController { leader: self.leader_address() }
    }

    fn leader_address(&self) -> Option<String> {
        if self.is_controller() { Some(self.address.to_string()) } else { self.controller_address() }
    }

    /// Adds a member. One with the id of a member whose process has ended replaces that one: its log was lost.
    async fn join(&self, node_id: i32, peer: Peer, votes: bool, incarnation: Uuid) -> Reply {
        let Some(quorum) = self.quorum() else { return self.not_controller() };
        let add = async |peer: Peer| match votes {
            true => quorum.add_voter(node_id, peer).await,
            false => quorum.add_observer(node_id, peer).await,
        };
        let mut added = add(peer.clone()).await;
        if let Err(ChangeError::InUse { directory_id, .. }) = added {
            if self.is_alive(node_id, incarnation).await {
                let message = format!(
                    "node id {node_id} is in use: the node with directory id {} is alive; choose another --node-id, or \
                     stop that node",
                    KafkaUuid(directory_id)
                );
                return Reply::Rejected(ApiError::new(ErrorCode::DUPLICATE_VOTER, message).into());
            }
            tracing::warn!(node_id, lost = %directory_id, "the node comes back without its log, and is a new member");
            added = match quorum.remove(node_id).await {
                Ok(()) => add(peer).await,
                Err(error) => Err(error),
            };
        }
        self.membership_reply(added)
    }

    /// Confirms that a node is a member, and notes its address if that has changed.
    async fn confirm(&self, node_id: i32, peer: Peer) -> Reply {
        let Some(quorum) = self.quorum().filter(|_| self.is_controller()) else { return self.not_controller() };
        // What a deposed leader knows of the members may be old.
        if let Err(error) = quorum.confirm_leadership().await {
            tracing::debug!("a member is not confirmed: {error}");
            return self.not_controller();
        }
        match self.member(node_id) {
            Some(member) if member == peer => Reply::Done,
            Some(member) if member.directory_id == peer.directory_id => {
                tracing::info!(node_id, before = member.address, now = peer.address, "a node has another address");
                self.membership_reply(quorum.change_address(node_id, peer).await)
            }
            _ => self.membership_reply(Err(ChangeError::Unknown(node_id))),
        }
    }

    /// Returns a member of the quorum.
    fn member(&self, node_id: i32) -> Option<Peer> {
        let description = self.quorum()?.describe();
        let mut members = description.voters.into_iter().chain(description.observers);
        members.find(|member| member.node_id == node_id).map(|member| member.peer)
    }

    /// Returns whether a process of a member runs, apart from the process `but`. A connection shows whether a
    /// member runs that is not a broker.
    async fn is_alive(&self, node_id: i32, but: Uuid) -> bool {
        if self.controller.get().is_none_or(|controller| controller.is_alive(node_id)) {
            return true;
        }
        let Some(member) = self.member(node_id) else { return false };
        match self.peers.connect(&self.peers.address(&member)).await {
            Ok(connection) => connection.welcome.node_id == node_id && connection.welcome.incarnation != but,
            Err(_) => false,
        }
    }

    /// Removes a member. A voter whose broker is alive becomes an observer, so that it follows the metadata as before.
    async fn leave(&self, node_id: i32, directory_id: Uuid) -> Reply {
        let Some(quorum) = self.quorum() else { return self.not_controller() };
        let is_alive = self.is_alive(node_id, Uuid::nil()).await;
        let description = quorum.describe();
        let observers = description.observers.into_iter().filter(|_| !is_alive);
        let mut members = description.voters.into_iter().chain(observers);
        let member = members.find(|one| one.node_id == node_id && one.peer.directory_id == directory_id);
        let Some(member) = member else { return self.membership_reply(Err(ChangeError::Unknown(node_id))) };
        let mut removed = quorum.remove(node_id).await;
        if removed.is_ok() && is_alive {
            removed = quorum.add_observer(node_id, member.peer).await;
        }
        self.membership_reply(removed)
    }

    fn membership_reply(&self, changed: Result<(), ChangeError>) -> Reply {
        let rejected = |code, error: &ChangeError| Reply::Rejected(ApiError::new(code, error.to_string()).into());
        match changed {
            Ok(()) => Reply::Done,
            Err(ChangeError::NotLeader { .. } | ChangeError::Stopped(_)) => self.not_controller(),
            Err(error @ ChangeError::Unknown(_)) => rejected(ErrorCode::VOTER_NOT_FOUND, &error),
            Err(error @ (ChangeError::TimedOut | ChangeError::NoResponse(_) | ChangeError::InProgress(_))) => {
                rejected(ErrorCode::REQUEST_TIMED_OUT, &error)
            }
            Err(error) => rejected(ErrorCode::INVALID_REQUEST, &error),
        }
    }
}

async fn greeting(stream: &mut TcpStream) -> io::Result<Greeting> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    if preface != PREFACE {
        let message = format!("the preface {preface:?} is not that of a node of this version");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    match frame::read(stream).await? {
        Some((Kind::Hello, body)) => frame::json(&body),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
