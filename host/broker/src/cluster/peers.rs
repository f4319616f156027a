//! Connections to other nodes: calls, and the transport of the quorum.

use std::collections::HashMap;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use millstream_metadata::FeatureLevel;
use millstream_quorum::{NodeId, Peer, Request, Response, Transport, TransportError};
use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::call::{Call, Reply};
use super::frame::{self, Greeting, Kind, PREFACE, Welcome};
use crate::error::ApiError;

/// The time for connecting to a node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The most idle connections to one node.
const IDLE_MAX: usize = 8;

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// No node is known as the controller.
    #[error("the controller of the cluster is not known")]
    NoController,
    /// The call was not sent.
    #[error("cannot connect to the node at {address}: {error}")]
    NotSent {
        /// The address.
        address: String,
        /// The cause.
        error: io::Error,
    },
    /// The call was sent, and may be processed.
    #[error("no response from the node at {address}: {error}")]
    NoResponse {
        /// The address.
        address: String,
        /// The cause.
        error: io::Error,
    },
    /// The node rejects the connection or the call.
    #[error("the node at {address} responds: {error}")]
    Rejected {
        /// The address.
        address: String,
        /// The reason.
        error: ApiError,
    },
}

/// A connection to a node.
#[derive(Debug)]
pub(super) struct NodeConnection {
    stream: TcpStream,
    /// Which process is at the other end.
    pub(super) welcome: Welcome,
}

impl NodeConnection {
    /// Returns whether nothing came in since the last response. An end or stray bytes make a connection useless.
    fn is_idle(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits until the connection ends.
    pub(super) async fn closed(&mut self) {
        // Nothing comes without a request.
        let _ = frame::read(&mut self.stream).await;
    }

    async fn exchange(&mut self, kind: Kind, body: &[u8]) -> io::Result<(Kind, Bytes)> {
        frame::write(&mut self.stream, kind, body).await?;
        frame::read(&mut self.stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// The connections to other nodes, by address.
#[derive(Debug)]
pub(crate) struct Peers {
    node_id: NodeId,
    incarnation: Uuid,
    cluster_id: OnceLock<String>,
    /// This node as a member of the quorum.
    own: OnceLock<Peer>,
    /// Where members have said that they are, by directory. The quorum's log has an old address until it is changed.
    seen: Mutex<HashMap<Uuid, String>>,
    idle: Mutex<HashMap<String, Vec<NodeConnection>>>,
}

impl Peers {
    pub(super) fn new(node_id: NodeId, incarnation: Uuid) -> Self {
        let (cluster_id, own) = (OnceLock::new(), OnceLock::new());
        Self { node_id, incarnation, cluster_id, own, seen: Mutex::default(), idle: Mutex::default() }
    }

    /// Notes the cluster of this node.
    pub(super) fn set_cluster_id(&self, cluster_id: &str) {
        let _ = self.cluster_id.set(cluster_id.to_owned());
    }

    /// Notes which member this node is.
    pub(super) fn set_own(&self, peer: Peer) {
        let _ = self.own.set(peer);
    }

    /// Returns where a member is now.
    pub(super) fn address(&self, peer: &Peer) -> String {
        self.seen.lock().get(&peer.directory_id).unwrap_or(&peer.address).clone()
    }

    /// Returns what this node says to one that connects to it.
    pub(super) fn welcome(&self) -> Welcome {
        Welcome { node_id: self.node_id, incarnation: self.incarnation, level_max: FeatureLevel::NEWEST.number() }
    }

    /// Checks the cluster of a node that connects, and notes where the node is.
    pub(super) fn greet(&self, greeting: &Greeting) -> Result<(), String> {
        match (&greeting.cluster_id, self.cluster_id.get()) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(format!(
                "node {} belongs to cluster {theirs}, and node {} to cluster {ours}",
                greeting.node_id, self.node_id
            )),
            (Some(_), Some(_)) => {
                if let Some(peer) = &greeting.peer {
                    self.seen.lock().insert(peer.directory_id, peer.address.clone());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, address: &str) -> Result<NodeConnection, PeerError> {
        let not_sent = |error| PeerError::NotSent { address: address.to_owned(), error };
        let (cluster_id, peer) = (self.cluster_id.get().cloned(), self.own.get().cloned());
        let greeting = Greeting { node_id: self.node_id, cluster_id, peer };
        let open = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&PREFACE).await?;
            frame::write_json(&mut stream, Kind::Hello, &greeting).await?;
            let response = frame::read(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok::<_, io::Error>((stream, response))
        };
        let opened = timeout(CONNECT_TIMEOUT, open).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match opened.map_err(not_sent)? {
            (stream, (Kind::Hello, body)) => {
                Ok(NodeConnection { stream, welcome: frame::json(&body).map_err(not_sent)? })
            }
            // Nodes reject those of another cluster alone.
            (_, (_, reason)) => Err(rejected(address, ErrorCode::INCONSISTENT_CLUSTER_ID, &reason)),
        }
    }

    async fn exchange(&self, address: &str, kind: Kind, body: &[u8], limit: Duration) -> Result<Bytes, PeerError> {
        let idle = || self.idle.lock().get_mut(address).and_then(Vec::pop);
        let mut found = idle();
        while found.as_ref().is_some_and(|connection| !connection.is_idle()) {
            found = idle();
        }
        let mut connection = match found {
            Some(connection) => connection,
            None => self.connect(address).await?,
        };
        let exchanged = timeout(limit, connection.exchange(kind, body)).await;
        let exchanged = exchanged.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (found, response) =
            exchanged.map_err(|error| PeerError::NoResponse { address: address.to_owned(), error })?;
        let mut all = self.idle.lock();
        let idle = all.entry(address.to_owned()).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        drop(all);
        match found {
            Kind::Error => Err(rejected(address, ErrorCode::UNKNOWN_SERVER_ERROR, &response)),
            _ => Ok(response),
        }
    }

    /// Sends a call to a node and returns the reply.
    pub(super) async fn call(&self, address: &str, call: &Call, limit: Duration) -> Result<Reply, PeerError> {
        let body = serde_json::to_vec(call).map_err(|error| unreadable(address, &error))?;
        self.exchange_call(address, Kind::Call, &body, limit).await
    }

    /// Sends a call with bytes to a node and returns the reply.
    pub(super) async fn call_with(
        &self,
        address: &str,
        call: &Call,
        bytes: &[u8],
        limit: Duration,
    ) -> Result<Reply, PeerError> {
        let body = frame::with_bytes(call, bytes).map_err(|error| unreadable(address, &error))?;
        self.exchange_call(address, Kind::CallWithBytes, &body, limit).await
    }

    async fn exchange_call(&self, address: &str, kind: Kind, body: &[u8], limit: Duration) -> Result<Reply, PeerError> {
        let response = self.exchange(address, kind, body, limit).await?;
        match frame::json(&response).map_err(|error| unreadable(address, &error))? {
            Reply::Rejected(error) => Err(PeerError::Rejected { address: address.to_owned(), error: error.into() }),
            reply => Ok(reply),
        }
    }
}

fn unreadable(address: &str, error: &dyn std::fmt::Display) -> PeerError {
    rejected(address, ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string().as_bytes())
}

fn rejected(address: &str, code: ErrorCode, reason: &[u8]) -> PeerError {
    let error = ApiError::new(code, String::from_utf8_lossy(reason));
    PeerError::Rejected { address: address.to_owned(), error }
}

impl Transport for Peers {
    async fn send(&self, node_id: NodeId, peer: &Peer, request: Request) -> Result<Response, TransportError> {
        // The quorum has time limits of its own.
        let limit = Duration::from_secs(60);
        match self.exchange(&self.address(peer), Kind::Quorum, &request.encode(), limit).await {
            Ok(response) => Response::decode(&response)
                .map_err(|error| TransportError::Failed { node_id, reason: error.to_string() }),
            Err(error @ PeerError::Rejected { .. }) => {
                Err(TransportError::Failed { node_id, reason: error.to_string() })
            }
            Err(error) => Err(TransportError::Unreachable { node_id, reason: error.to_string() }),
        }
    }
}
