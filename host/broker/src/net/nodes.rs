//! The listener for other nodes: their calls and the fetches of their replicas, on one port.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::listener::{Connections, open};
use crate::broker::Broker;
use crate::cluster::{self, Cluster};

/// The time for the first byte of a connection.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The most connections of nodes. A node needs a few for each other node.
const CONNECTIONS_MAX: usize = 1024;

/// The listener for other nodes.
pub(crate) struct NodeListener {
    pub(crate) cluster: Arc<Cluster>,
    /// Set once the broker can serve requests of Kafka's protocol.
    pub(crate) broker: Arc<OnceLock<Arc<Broker>>>,
    pub(crate) connections: Arc<Connections>,
    /// The index of the listener in the configuration.
    pub(crate) index: usize,
}

impl NodeListener {
    /// Serves connections until `stop` says so.
    pub(crate) async fn serve(self, socket: TcpListener, mut stop: watch::Receiver<bool>) {
        let (this, permits) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                Some(_) = tasks.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match (accepted, Arc::clone(&permits).try_acquire_owned()) {
                (Ok((stream, peer)), Ok(permit)) => {
                    let (this, stop) = (Arc::clone(&this), stop.clone());
                    tasks.spawn(async move {
                        this.connection(stream, peer, stop).await;
                        drop(permit);
                    });
                }
                (Ok((_, peer)), Err(_)) => tracing::debug!(%peer, "rejected: too many connections of nodes"),
                (Err(error), _) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(socket);
        tasks.shutdown().await;
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, stop: watch::Receiver<bool>) {
        let first = timeout(FIRST_BYTE_TIMEOUT, first_byte(&stream)).await;
        match (first, self.broker.get()) {
            (Ok(Ok(cluster::FIRST_BYTE)), _) => cluster::serve(Arc::clone(&self.cluster), stream, stop).await,
            (Ok(Ok(_)), Some(broker)) => {
                if let Some(connection) = open(broker, &self.connections, stream, peer, self.index) {
                    connection.await;
                }
            }
            // It is closed, says nothing, or comes before the broker is ready.
            _ => {}
        }
    }
}

/// Returns the first byte of a connection, which stays to be read.
async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    match stream.peek(&mut byte).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(byte[0]),
    }
}
