//! What the network and the handlers share: where a request came from, and how a connection ends.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use super::send_queue::Outgoing;

/// Whose requests these are.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// A number for the log.
    pub(crate) id: u64,
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// The address that the client came to.
    pub(crate) local: SocketAddr,
    /// The place of the listener in the configuration.
    pub(crate) listener: usize,
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

/// A request whose answer is awaited.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Option<Outgoing>, Close>> + Send>>;

/// Work of a request that has to be done before the next one may start; its answer may then take longer.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<Answer, Close>> + Send>>;
