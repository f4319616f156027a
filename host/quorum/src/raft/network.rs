//! Requests between members.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{LogId, OptionalSend, Snapshot, Vote};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::types::{SnapshotDescription, Types, decode, encode};
use crate::config::QuorumConfig;
use crate::quorum::{NodeId, Peer};

/// The version of the format of requests and responses.
const VERSION: u8 = 1;
/// Entries of this size or more are sent once, even if the response takes longer than a heartbeat.
const LARGE_BYTES: usize = 64 << 10;

/// A request to another member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The folder of the member that the request is for.
    pub(super) directory_id: Uuid,
    pub(super) body: RequestBody,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum RequestBody {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<NodeId>),
    Snapshot {
        vote: Vote<NodeId>,
        description: SnapshotDescription,
        state: Bytes,
    },
    /// The leader of a term stops, and asks for another one.
    Resign {
        leader: NodeId,
        term: u64,
    },
}

/// The response to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Response(pub(super) ResponseBody);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ResponseBody {
    Append(Append),
    Vote(VoteResponse<NodeId>),
    Snapshot(Vote<NodeId>),
    /// The node has another log than the request is for.
    WrongDirectory(Uuid),
    /// The node cannot respond.
    Failed(String),
    /// The node elects another leader.
    Resign,
}

/// The response of the library, which cannot be cloned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Append {
    Success,
    PartialSuccess(Option<LogId<NodeId>>),
    Conflict,
    HigherVote(Vote<NodeId>),
}

impl From<AppendEntriesResponse<NodeId>> for Append {
    fn from(response: AppendEntriesResponse<NodeId>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(matching) => Self::PartialSuccess(matching),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote),
        }
    }
}

impl From<Append> for AppendEntriesResponse<NodeId> {
    fn from(response: Append) -> Self {
        match response {
            Append::Success => Self::Success,
            Append::PartialSuccess(matching) => Self::PartialSuccess(matching),
            Append::Conflict => Self::Conflict,
            Append::HigherVote(vote) => Self::HigherVote(vote),
        }
    }
}

/// Why the bytes of a request or response cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Another version of the program wrote them.
    #[error("requests between voters have version {0}, this program knows version {VERSION}")]
    Version(u8),
    /// They are damaged.
    #[error("a request between voters cannot be read: {0}")]
    Damaged(#[from] postcard::Error),
    /// There are none.
    #[error("a request between voters is empty")]
    Empty,
}

fn to_bytes(value: &impl Serialize) -> Bytes {
    [&[VERSION], &encode(value)[..]].concat().into()
}

fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RequestError> {
    match bytes.split_first() {
        None => Err(RequestError::Empty),
        Some((&VERSION, rest)) => Ok(decode(rest)?),
        Some((version, _)) => Err(RequestError::Version(*version)),
    }
}

impl Request {
    /// Returns the bytes of the request.
    pub fn encode(&self) -> Bytes {
        to_bytes(self)
    }

    /// Returns the request of its bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, RequestError> {
        from_bytes(bytes)
    }
}

impl Response {
    /// Returns the bytes of the response.
    pub fn encode(&self) -> Bytes {
        to_bytes(self)
    }

    /// Returns the response of its bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, RequestError> {
        from_bytes(bytes)
    }
}

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The node cannot be reached.
    #[error("node {node_id} cannot be reached: {reason}")]
    Unreachable {
        /// The node.
        node_id: NodeId,
        /// What the connection reports.
        reason: String,
    },
    /// The node has another log than the member has.
    #[error("node {node_id} has directory id {found}, the member has {expected}: remove the member and add the node")]
    WrongDirectory {
        /// The node.
        node_id: NodeId,
        /// The folder of the member.
        expected: Uuid,
        /// The folder of the node.
        found: Uuid,
    },
    /// The node cannot process the request.
    #[error("node {node_id} cannot process the request: {reason}")]
    Failed {
        /// The node.
        node_id: NodeId,
        /// What the node reports.
        reason: String,
    },
}

/// The way of requests to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and returns the response. A connection that breaks is an error at once.
    fn send(
        &self,
        node_id: NodeId,
        peer: &Peer,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send;
}

/// Tells a voter that the leader of a term stops.
pub(super) type Farewell = Arc<dyn Fn(NodeId, Peer, u64) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Returns how the node `own_id` tells voters that it stops to lead.
pub(super) fn farewell(transport: Arc<impl Transport>, own_id: NodeId) -> Farewell {
    Arc::new(move |node_id, peer, term| {
        let transport = Arc::clone(&transport);
        Box::pin(async move {
            let body = RequestBody::Resign { leader: own_id, term };
            let request = Request { directory_id: peer.directory_id, body };
            if let Err(error) = transport.send(node_id, &peer, request).await {
                tracing::debug!("a voter does not know that its leader stops: {error}");
            }
        })
    })
}

/// The library's view of a transport.
pub(super) struct Network<T> {
    pub(super) transport: Arc<T>,
    pub(super) config: Arc<QuorumConfig>,
}

impl<T: Transport> RaftNetworkFactory<Types> for Network<T> {
    type Network = Connection<T>;

    async fn new_client(&mut self, target: NodeId, node: &Peer) -> Connection<T> {
        Connection {
            transport: Arc::clone(&self.transport),
            config: Arc::clone(&self.config),
            node_id: target,
            peer: node.clone(),
            large: None,
        }
    }
}

/// A request that is on its way: the position before its entries, the last entry, and the response to come.
type Large = (Vote<NodeId>, Option<LogId<NodeId>>, LogId<NodeId>, Sent);
type Sent = JoinHandle<Result<ResponseBody, TransportError>>;

/// The requests to one member.
pub(super) struct Connection<T> {
    transport: Arc<T>,
    config: Arc<QuorumConfig>,
    node_id: NodeId,
    peer: Peer,
    large: Option<Large>,
}

type RpcError = RPCError<NodeId, Peer, RaftError<NodeId>>;

impl<T: Transport> Connection<T> {
    fn send(&self, body: RequestBody) -> impl Future<Output = Result<ResponseBody, TransportError>> + Send + use<T> {
        let (transport, node_id, peer) = (Arc::clone(&self.transport), self.node_id, self.peer.clone());
        async move {
            let expected = peer.directory_id;
            match transport.send(node_id, &peer, Request { directory_id: expected, body }).await?.0 {
                ResponseBody::WrongDirectory(found) => Err(TransportError::WrongDirectory { node_id, expected, found }),
                ResponseBody::Failed(reason) => Err(TransportError::Failed { node_id, reason }),
                body => Ok(body),
            }
        }
    }

    /// Sends entries that may take longer than the time that the library gives them, which is one heartbeat. It then
    /// sends the same entries again: that call waits for the response to the first.
    async fn send_large(&mut self, request: AppendEntriesRequest<Types>) -> Result<ResponseBody, TransportError> {
        let last = request.entries.last().map(|entry| entry.log_id).unwrap_or_default();
        let key = (request.vote, request.prev_log_id, last);
        if self.large.as_ref().is_none_or(|(vote, previous, sent, _)| (*vote, *previous, *sent) != key) {
            self.stop_large();
            let sending = self.send(RequestBody::Append(request));
            let limit = self.config.snapshot_timeout;
            let node_id = self.node_id;
            let sent = tokio::spawn(async move {
                let late = |error: tokio::time::error::Elapsed| {
                    Err(TransportError::Unreachable { node_id, reason: error.to_string() })
                };
                tokio::time::timeout(limit, sending).await.unwrap_or_else(late)
            });
            self.large = Some((key.0, key.1, key.2, sent));
        }
        let Some((.., sent)) = &mut self.large else { return Err(self.unexpected()) };
        let response = sent.await;
        self.large = None;
        response.unwrap_or_else(|error| {
            Err(TransportError::Unreachable { node_id: self.node_id, reason: error.to_string() })
        })
    }

    fn unexpected(&self) -> TransportError {
        TransportError::Failed { node_id: self.node_id, reason: "it responds to another request".to_owned() }
    }
}

impl<T> Connection<T> {
    fn stop_large(&mut self) {
        if let Some((.., sent)) = self.large.take() {
            sent.abort();
        }
    }
}

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        self.stop_large();
    }
}

fn rpc_error(error: TransportError) -> RpcError {
    // The library waits before it sends to an unreachable node again. After other errors it does not.
    RPCError::Unreachable(Unreachable::new(&error))
}

impl<T: Transport> RaftNetwork<Types> for Connection<T> {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RpcError> {
        let size: usize = request.entries.iter().map(size).sum();
        let sent = if size < LARGE_BYTES {
            self.send(RequestBody::Append(request)).await
        } else {
            self.send_large(request).await
        };
        match sent.map_err(rpc_error)? {
            ResponseBody::Append(response) => Ok(response.into()),
            _ => Err(rpc_error(self.unexpected())),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RpcError> {
        match self.send(RequestBody::Vote(request)).await.map_err(rpc_error)? {
            ResponseBody::Vote(response) => Ok(response),
            _ => Err(rpc_error(self.unexpected())),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<NodeId>,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<Types, Fatal<NodeId>>> {
        let description = SnapshotDescription::from(&snapshot.meta);
        let sending = self.send(RequestBody::Snapshot { vote, description, state: *snapshot.snapshot });
        let response = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            response = tokio::time::timeout(self.config.snapshot_timeout, sending) => response,
        };
        let unreachable = |error: &TransportError| StreamingError::Unreachable(Unreachable::new(error));
        match response {
            Ok(Ok(ResponseBody::Snapshot(vote))) => Ok(SnapshotResponse::new(vote)),
            Ok(Ok(_)) => Err(unreachable(&self.unexpected())),
            Ok(Err(error)) => Err(unreachable(&error)),
            Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.config.heartbeat_interval))
    }
}

fn size(entry: &openraft::Entry<Types>) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(bytes) => bytes.len(),
        _ => 0,
    }
}
