//! A relay between a client and the broker that records what every fetch asks for and how long it takes.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_wire::messages::FetchRequest;
use millstream_wire::{ApiKey, Message, Reader, RequestHeader};

/// A fetch that got its response.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    /// The fetch offset of its first partition.
    pub(crate) offset: i64,
    pub(crate) min_bytes: i32,
    pub(crate) max_wait_ms: i32,
    pub(crate) took: Duration,
}

type Fetches = Arc<Mutex<Vec<Fetch>>>;

/// The relay. Its threads end with their connections.
pub(crate) struct Watch {
    address: SocketAddr,
    broker: Arc<OnceLock<SocketAddr>>,
    fetches: Fetches,
}

impl Watch {
    /// Listens. Connections wait until [`Self::lead_to`] names a broker.
    pub(crate) fn listen() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (broker, fetches) = (Arc::new(OnceLock::<SocketAddr>::new()), Fetches::default());
        let (to, seen) = (Arc::clone(&broker), Arc::clone(&fetches));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // If a connection fails, only that connection ends, as it would without the relay.
                let _ = TcpStream::connect(to.wait()).and_then(|broker| relay(&client, &broker, &seen));
            }
        });
        Self { address, broker, fetches }
    }

    /// Returns the address for clients.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the broker that connections lead to.
    pub(crate) fn lead_to(&self, broker: SocketAddr) {
        self.broker.set(broker).expect("it is set once");
    }

    /// Returns the fetches that got a response so far.
    pub(crate) fn fetches(&self) -> Vec<Fetch> {
        self.fetches.lock().expect("no panic").clone()
    }
}

fn relay(client: &TcpStream, broker: &TcpStream, fetches: &Fetches) -> io::Result<()> {
    let asked = Arc::new(Mutex::new(HashMap::new()));
    let (mut from_client, mut to_broker) = (client.try_clone()?, broker.try_clone()?);
    let (mut from_broker, mut to_client) = (broker.try_clone()?, client.try_clone()?);
    for stream in [client, broker] {
        stream.set_nodelay(true)?;
    }
    let waiting = Arc::clone(&asked);
    thread::spawn(move || {
        while let Ok(frame) = pass(&mut from_client, &mut to_broker, |frame| {
            if let Some((correlation, fetch)) = fetch_of(frame) {
                waiting.lock().expect("no panic").insert(correlation, (Instant::now(), fetch));
            }
        }) {
            drop(frame);
        }
        let _ = to_broker.shutdown(Shutdown::Both);
    });
    let fetches = Arc::clone(fetches);
    thread::spawn(move || {
        while let Ok(frame) = pass(&mut from_broker, &mut to_client, |_| {}) {
            let correlation = frame.first_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes));
            if let Some((sent, fetch)) = asked.lock().expect("no panic").remove(&correlation) {
                fetches.lock().expect("no panic").push(Fetch { took: sent.elapsed(), ..fetch });
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Passes one frame on, after showing it to `look`.
fn pass(from: &mut TcpStream, to: &mut TcpStream, look: impl FnOnce(&Bytes)) -> io::Result<Bytes> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix)?;
    let length = usize::try_from(i32::from_be_bytes(prefix)).map_err(io::Error::other)?;
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    let frame = Bytes::from(frame);
    look(&frame);
    to.write_all(&prefix)?;
    to.write_all(&frame)?;
    Ok(frame)
}

/// Returns the correlation id and parameters of a fetch request; `None` for other requests.
fn fetch_of(frame: &Bytes) -> Option<(i32, Fetch)> {
    let mut reader = Reader::new(frame.clone());
    let header = RequestHeader::decode(&mut reader).ok()?;
    if header.api_key != ApiKey::Fetch as i16 {
        return None;
    }
    let request = FetchRequest::decode(&mut reader, header.api_version).ok()?;
    let partition = request.topics.first()?.partitions.first()?;
    let fetch = Fetch {
        offset: partition.fetch_offset,
        min_bytes: request.min_bytes,
        max_wait_ms: request.max_wait_ms,
        took: Duration::ZERO,
    };
    Some((header.correlation_id, fetch))
}
