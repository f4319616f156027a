//! The types that the network and the handlers share.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::message_memory::Share;
use super::send_queue::Outgoing;
use crate::metrics::requests::RequestMetrics;

/// The connection of a request.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// Identifies the connection in the log.
    pub(crate) id: u64,
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// The address that the client connected to.
    pub(crate) local: SocketAddr,
    /// The index of the listener in the configuration.
    pub(crate) listener: usize,
    /// The counters for its requests.
    pub(crate) metrics: Arc<RequestMetrics>,
}

/// A whole request, without its prefix.
pub(crate) struct RequestFrame {
    pub(crate) bytes: Bytes,
    /// Its share of the memory; empty if the request is too small to count.
    pub(crate) share: Share,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Close {
    /// The client closed it.
    #[error("closed by the client")]
    ByClient,
    /// The network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing went over it for `connections.max.idle.ms`.
    #[error("idle for too long")]
    Idle,
    /// The client broke the protocol.
    #[error("{0}")]
    Protocol(String),
}

/// The response of a request, once it is ready.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Option<Outgoing>, Close>> + Send>>;

/// Work of a request that must end before the next one may start. The response may come later.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<Answer, Close>> + Send>>;
