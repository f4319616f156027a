//! Accepts connections and bounds their number. An error of accept never ends a listener.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::broker::Broker;
use crate::config::{BrokerConfig, HostPort};
use crate::net::connection::Connection;
use crate::net::descriptors::Descriptors;
use crate::net::types::ConnectionInfo;

/// The pause of a listener after an error of accept; a descriptor may become free meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The time between two log lines about rejected connections.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(10);

/// Opens the socket of a listener. An empty host means every address, of IPv6 and of IPv4.
pub(crate) async fn bind(address: &HostPort, config: &BrokerConfig) -> io::Result<TcpListener> {
    if address.host.is_empty() {
        return listen_everywhere(address.port, config);
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in lookup_host((&*address.host, address.port)).await? {
        match listen(resolved, config) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Listens on every address of both families, or of IPv4 on a machine without IPv6.
fn listen_everywhere(port: u16, config: &BrokerConfig) -> io::Result<TcpListener> {
    match listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), config) {
        Err(error) if lacks_ipv6(&error) => listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), config),
        listener => listener,
    }
}

/// Returns whether an error says that the machine has no IPv6.
fn lacks_ipv6(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT | Errno::PROTOTYPE))
}

fn listen(address: SocketAddr, config: &BrokerConfig) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // By the system's default `::` may mean IPv6 only.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Accepted sockets inherit both. They are set only if configured: a fixed size turns off the kernel's own tuning.
    if let Some(bytes) = config.socket_send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = config.socket_receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(address)?;
    socket.listen(config.listen_backlog)
}

/// The open connections of all listeners.
#[derive(Debug)]
pub(crate) struct Connections {
    next_id: AtomicU64,
    open: Mutex<HashMap<IpAddr, usize>>,
    descriptors: Descriptors,
    refusals: Mutex<Refusals>,
}

/// The rejected connections that no log line has counted yet.
#[derive(Debug, Default)]
struct Refusals {
    count: u64,
    logged: Option<Instant>,
}

/// Why a connection is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("max.connections is reached")]
    Connections,
    #[error("max.connections.per.ip is reached")]
    ConnectionsPerIp,
    #[error("the limit of open files (ulimit -n) is reached: raise it, or lower max.connections")]
    Descriptors,
}

/// The permit of one open connection.
#[derive(Debug)]
struct Permit {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Connections {
    /// Returns a state without connections.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn new() -> io::Result<Self> {
        let descriptors = Descriptors::new()?;
        Ok(Self { next_id: AtomicU64::default(), open: Mutex::default(), descriptors, refusals: Mutex::default() })
    }

    fn admit(self: &Arc<Self>, address: IpAddr, config: &BrokerConfig) -> Result<Permit, Refusal> {
        let mut open = self.open.lock();
        if open.values().sum::<usize>() >= config.max_connections {
            return Err(Refusal::Connections);
        }
        let here = open.entry(address).or_default();
        if *here >= config.max_connections_per_ip {
            return Err(Refusal::ConnectionsPerIp);
        }
        *here += 1;
        Ok(Permit { connections: Arc::clone(self), address })
    }

    /// Counts a rejected connection. The first one is logged at once, later ones in one line per interval.
    fn note_refusal(&self, reason: Refusal, peer: Option<SocketAddr>) {
        let mut refusals = self.refusals.lock();
        refusals.count += 1;
        if refusals.logged.is_some_and(|logged| logged.elapsed() < REFUSALS_LOGGED_EVERY) {
            return;
        }
        let refused = refusals.count;
        *refusals = Refusals { count: 0, logged: Some(Instant::now()) };
        drop(refusals);
        tracing::warn!(refused, last_peer = peer.map(tracing::field::display), "connections rejected: {reason}");
    }

    /// Handles an error of accept. Returns whether the listener has to pause.
    fn accept_failed(&self, listener: &TcpListener, error: &io::Error) -> bool {
        if !Descriptors::are_exhausted(error) {
            tracing::warn!("cannot accept a connection: {error}");
            return true;
        }
        let mut context = Context::from_waker(Waker::noop());
        let refused = self.descriptors.refuse_one(|| matches!(listener.poll_accept(&mut context), Poll::Ready(Ok(_))));
        if refused {
            self.note_refusal(Refusal::Descriptors, None);
        }
        !refused
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

/// Serves one listener until the broker stops, then ends its connections, since a client that waits for data would wait
/// on.
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
            // Ended connections leave the set, so that it holds only live ones.
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
                if connections.accept_failed(&listener, &error) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    tasks.shutdown().await;
}

pub(super) fn open(
    broker: &Arc<Broker>,
    connections: &Arc<Connections>,
    stream: TcpStream,
    peer: SocketAddr,
    listener: usize,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    let peer = canonical(peer);
    let admitted = match connections.descriptors.has_room(&stream) {
        true => connections.admit(peer.ip(), &broker.config),
        false => Err(Refusal::Descriptors),
    };
    let permit = admitted.inspect_err(|reason| connections.note_refusal(*reason, Some(peer))).ok()?;
    let local = stream.set_nodelay(true).and_then(|()| stream.local_addr());
    let local = local.inspect_err(|error| tracing::debug!(%peer, "connection lost at once: {error}")).ok()?;
    let local = canonical(local);
    let id = connections.next_id.fetch_add(1, Ordering::Relaxed);
    let metrics = Arc::clone(&broker.request_metrics);
    let info = ConnectionInfo { id, peer, local, listener, metrics };
    let connection = Connection::new(Arc::clone(broker), info, stream);
    let span = tracing::info_span!("connection", id, %peer);
    let serve = async move {
        connection.serve().await;
        drop(permit);
    };
    Some(serve.instrument(span))
}

/// Returns an IPv4 address in its own form. A socket of both families shows it as an IPv6 address, which other machines
/// may not be able to connect to.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
