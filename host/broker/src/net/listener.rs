//! Accepts connections and bounds their number. An error of accept never ends a listener.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::config::{BrokerConfig, HostPort};
use crate::net::connection::Connection;
use crate::net::types::ConnectionInfo;

/// How long a listener rests after an error such as "no file descriptors left": somebody has to close one first.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Opens the socket of a listener.
pub(crate) async fn bind(address: &HostPort, config: &BrokerConfig) -> io::Result<TcpListener> {
    let host = if address.host.is_empty() { "0.0.0.0" } else { &address.host };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in lookup_host((host, address.port)).await? {
        match listen(resolved, config) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen(address: SocketAddr, config: &BrokerConfig) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit both. A fixed size turns the kernel's own tuning off.
    if let Some(bytes) = config.socket_send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = config.socket_receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(address)?;
    socket.listen(config.listen_backlog)
}

/// The connections that are open, over all listeners.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next_id: AtomicU64,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
struct Permit {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Connections {
    fn admit(self: &Arc<Self>, address: IpAddr, config: &BrokerConfig) -> Result<Permit, &'static str> {
        let mut open = self.open.lock();
        if open.values().sum::<usize>() >= config.max_connections {
            return Err("max.connections is reached");
        }
        let here = open.entry(address).or_default();
        if *here >= config.max_connections_per_ip {
            return Err("max.connections.per.ip is reached");
        }
        *here += 1;
        Ok(Permit { connections: Arc::clone(self), address })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        if let Some(here) = open.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Serves one listener until the broker stops, then ends its connections: a client that waits for data would wait on.
pub(crate) async fn serve(
    broker: Arc<Broker>,
    connections: Arc<Connections>,
    listener: TcpListener,
    index: usize,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Ended connections are taken out as they end, so that the set holds those that live.
            Some(_) = tasks.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(connection) = open(&broker, &connections, stream, peer, index) {
                    tasks.spawn(connection);
                }
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    tasks.shutdown().await;
}

fn open(
    broker: &Arc<Broker>,
    connections: &Arc<Connections>,
    stream: TcpStream,
    peer: SocketAddr,
    listener: usize,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    let permit = match connections.admit(peer.ip(), &broker.config) {
        Ok(permit) => permit,
        Err(reason) => {
            tracing::warn!(%peer, "connection refused: {reason}");
            return None;
        }
    };
    let local = stream.set_nodelay(true).and_then(|()| stream.local_addr());
    let local = local.inspect_err(|error| tracing::debug!(%peer, "connection lost at once: {error}")).ok()?;
    let id = connections.next_id.fetch_add(1, Ordering::Relaxed);
    let metrics = Arc::clone(&broker.request_metrics);
    let info = ConnectionInfo { id, peer, local, listener, metrics };
    let connection = Connection::new(Arc::clone(broker), info, stream);
    Some(async move {
        connection.serve().await;
        drop(permit);
    })
}
