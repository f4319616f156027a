//! One connection to one broker. Requests leave in the order in which they were given, without
//! waiting for each other's answers; answers come in the same order (Kafka promises it), so the next
//! answer is always that of the oldest request.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use millstream_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use millstream_wire::{ErrorCode, Piece, Request, RequestHeader, Str, WireError, frame};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::ClientConfig;
use crate::error::Error;

/// How much is asked of the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// A request on its way to the writer.
struct Outgoing {
    pieces: Vec<Piece>,
    /// `None` for a request that the broker does not answer: it is done when it was written.
    correlation_id: Option<i32>,
    done: oneshot::Sender<Bytes>,
}

/// A request that was written and waits for its answer.
struct Waiting {
    correlation_id: i32,
    done: oneshot::Sender<Bytes>,
}

/// What the task and the handle share.
struct Shared {
    address: Arc<str>,
    waiting: Mutex<VecDeque<Waiting>>,
    /// Why the connection ended; set once.
    ended: Mutex<Option<Arc<str>>>,
    stop: Notify,
}

impl Shared {
    fn end(&self, reason: &str) {
        self.ended.lock().get_or_insert_with(|| reason.into());
        self.stop.notify_one();
    }

    fn lost(&self) -> Error {
        let reason = self.ended.lock().clone().unwrap_or_else(|| "it was closed".into());
        Error::Disconnected { address: self.address.clone(), reason }
    }
}

/// The handle: cheap to share, every method takes `&self`.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    next_correlation_id: AtomicI32,
    client_id: Str,
    /// Key, first and last version of what the broker supports.
    versions: Vec<(i16, i16, i16)>,
}

impl Connection {
    /// Dials and learns which versions the broker supports.
    pub(crate) async fn open(address: &str, config: &ClientConfig) -> Result<Connection, Error> {
        let address: Arc<str> = address.into();
        let failed = |source| Error::Connect { address: address.clone(), source: Arc::new(source) };
        let dial = TcpStream::connect(&*address);
        let stream = tokio::time::timeout(config.connection_setup_timeout, dial)
            .await
            .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let shared = Arc::new(Shared {
            address: address.clone(),
            waiting: Mutex::default(),
            ended: Mutex::default(),
            stop: Notify::new(),
        });
        let (outgoing, receiver) = mpsc::unbounded_channel();
        tokio::spawn(run(stream, receiver, shared.clone(), config.receive_message_max_bytes));
        let mut connection = Connection {
            shared,
            outgoing,
            next_correlation_id: AtomicI32::new(0),
            client_id: Str::from(config.client_id.as_str()),
            versions: Vec::new(),
        };
        connection.versions = connection.ask_versions(config.request_timeout).await?;
        Ok(connection)
    }

    /// Asks in the newest version; a broker that does not know it says in a body of version 0 which it knows.
    async fn ask_versions(&self, timeout: Duration) -> Result<Vec<(i16, i16, i16)>, Error> {
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("millstream"),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
            // A bootstrap address may be any node of any cluster.
            ..Default::default()
        };
        let mut version = *ApiVersionsRequest::VERSIONS.end();
        loop {
            let reply = self.queue(&request, version, true)?;
            let body = reply.bytes(timeout).await?;
            // Correlation id, then in every version of the body first the error code.
            let refused = body.get(4..6) == Some(&ErrorCode::UNSUPPORTED_VERSION.0.to_be_bytes());
            let answer = self.decode::<ApiVersionsRequest>(body, if refused { 0 } else { version })?;
            if !refused {
                Error::check(|| format!("ask {} for its versions", self.address()), answer.error_code, None)?;
                return Ok(answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect());
            }
            version = match known(&answer) {
                Some(last) if last < version && last >= 0 => last,
                _ if version > 0 => 0,
                _ => return Err(self.unsupported::<ApiVersionsRequest>("none")),
            };
        }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.shared.address
    }

    /// Whether requests may still be answered.
    pub(crate) fn alive(&self) -> bool {
        self.shared.ended.lock().is_none()
    }

    /// Ends the connection: whatever waits fails with `reason`.
    pub(crate) fn close(&self, reason: &str) {
        self.shared.end(reason);
    }

    /// The newest version of `R` that both sides know.
    pub(crate) fn version<R: Request>(&self) -> Result<i16, Error> {
        let Some((_, first, last)) = self.versions.iter().find(|(key, ..)| *key == R::KEY as i16) else {
            return Err(self.unsupported::<R>("none"));
        };
        let version = *R::VERSIONS.end().min(last);
        if version < *R::VERSIONS.start().max(first) {
            return Err(self.unsupported::<R>(&format!("{first} to {last}")));
        }
        Ok(version)
    }

    fn unsupported<R: Request>(&self, theirs: &str) -> Error {
        Error::UnsupportedVersion {
            address: self.address().clone(),
            api: R::KEY.info().name,
            theirs: theirs.into(),
            ours: format!("{} to {}", R::VERSIONS.start(), R::VERSIONS.end()).into(),
        }
    }

    /// Queues a request in the newest version that both know. The order of the calls is the order on the wire.
    pub(crate) fn send<R: Request>(self: &Arc<Self>, request: &R) -> Result<Reply<R>, Error> {
        self.send_up_to(request, i16::MAX)
    }

    /// As [`Connection::send`], in a version of at most `last`.
    pub(crate) fn send_up_to<R: Request>(self: &Arc<Self>, request: &R, last: i16) -> Result<Reply<R>, Error> {
        let version = self.version::<R>()?.min(last);
        let mut reply = self.queue(request, version, true)?;
        // Keeps the task running until the answer is there, even if the cluster forgets the connection.
        reply.connection = Some(self.clone());
        Ok(reply)
    }

    /// Queues a request that the broker will not answer (Produce with `acks=0`): the reply is there
    /// when it was written, and has no bytes.
    pub(crate) fn send_unanswered<R: Request>(self: &Arc<Self>, request: &R, last: i16) -> Result<Reply<R>, Error> {
        let version = self.version::<R>()?.min(last);
        let mut reply = self.queue(request, version, false)?;
        reply.connection = Some(self.clone());
        Ok(reply)
    }

    fn queue<R: Request>(&self, request: &R, version: i16, answered: bool) -> Result<Reply<R>, Error> {
        let correlation_id = self.next_correlation_id.fetch_add(1, Ordering::Relaxed);
        let header = RequestHeader {
            api_key: R::KEY as i16,
            api_version: version,
            correlation_id,
            client_id: Some(self.client_id.clone()),
        };
        let frame = frame::encode_request(&header, request).map_err(|source| self.wire(source))?;
        let (done, answer) = oneshot::channel();
        let correlation_id = answered.then_some(correlation_id);
        // A send to a task that has ended drops `done`: the reply then says why.
        let _ = self.outgoing.send(Outgoing { pieces: frame.pieces, correlation_id, done });
        let shared = self.shared.clone();
        Ok(Reply { answer, version, sent: Instant::now(), shared, connection: None, request: PhantomData })
    }

    fn wire(&self, source: WireError) -> Error {
        Error::Wire { address: self.address().clone(), source }
    }

    fn decode<R: Request>(&self, body: Bytes, version: i16) -> Result<R::Response, Error> {
        let (_, response) = frame::decode_response::<R>(body, version).map_err(|source| self.wire(source))?;
        Ok(response)
    }
}

/// The last version of ApiVersions that the broker says it knows.
fn known(answer: &ApiVersionsResponse) -> Option<i16> {
    let key = ApiVersionsRequest::KEY as i16;
    answer.api_keys.iter().find(|api| api.api_key == key).map(|api| api.max_version)
}

/// An answer to be waited for.
pub(crate) struct Reply<R> {
    answer: oneshot::Receiver<Bytes>,
    version: i16,
    /// The time-out counts from here, whenever the answer is waited for.
    sent: Instant,
    shared: Arc<Shared>,
    connection: Option<Arc<Connection>>,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Reply<R> {
    /// The decoded answer. When it takes longer than `timeout` the connection is given up, since
    /// every later answer waits behind it.
    pub(crate) async fn wait(self, timeout: Duration) -> Result<R::Response, Error> {
        let (version, shared) = (self.version, self.shared.clone());
        let body = self.bytes(timeout).await?;
        let decoded = frame::decode_response::<R>(body, version);
        decoded.map(|(_, response)| response).map_err(|source| {
            // Whatever follows on this connection is no more to be trusted.
            shared.end("an answer could not be read");
            Error::Wire { address: shared.address.clone(), source }
        })
    }

    /// Waits until a request without an answer was written.
    pub(crate) async fn written(self, timeout: Duration) -> Result<(), Error> {
        self.bytes(timeout).await.map(drop)
    }

    async fn bytes(self, timeout: Duration) -> Result<Bytes, Error> {
        let Reply { answer, sent, shared, connection: _alive, .. } = self;
        match tokio::time::timeout_at((sent + timeout).into(), answer).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) => Err(shared.lost()),
            Err(_) => {
                let what = format!("{} by {}", R::KEY.info().name, shared.address);
                shared.end(&format!("{what} was not answered within {} ms", timeout.as_millis()));
                Err(Error::timeout(what, timeout))
            }
        }
    }
}

/// Both directions in one task: when one ends, so does the other, and all who wait learn of it.
async fn run(stream: TcpStream, receiver: mpsc::UnboundedReceiver<Outgoing>, shared: Arc<Shared>, max_bytes: usize) {
    let (read_half, write_half) = stream.into_split();
    let outcome = tokio::select! {
        outcome = write_all(write_half, receiver, &shared) => outcome,
        outcome = read_all(read_half, &shared, max_bytes) => outcome,
        () = shared.stop.notified() => Ok(()),
    };
    let reason = match &outcome {
        Ok(()) => "it was closed".to_owned(),
        Err(error) => error.to_string(),
    };
    shared.end(&reason);
    // Dropping the senders tells whoever waits; `ended` was set before.
    shared.waiting.lock().clear();
}

/// Bytes that go to the socket in one vectored write where they can.
#[derive(Default)]
struct Gather {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl Gather {
    fn push(&mut self, piece: Bytes) {
        self.remaining += piece.len();
        self.pieces.push_back(piece);
    }
}

impl Buf for Gather {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        self.remaining -= count;
        while let Some(front) = self.pieces.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        slices.iter_mut().zip(&self.pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }
}

async fn write_all(
    mut socket: OwnedWriteHalf,
    mut receiver: mpsc::UnboundedReceiver<Outgoing>,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut gather = Gather::default();
    let mut unanswered = Vec::new();
    while let Some(first) = receiver.recv().await {
        let mut next = Some(first);
        while let Some(Outgoing { pieces, correlation_id, done }) = next {
            for piece in pieces {
                match piece {
                    Piece::Bytes(bytes) => gather.push(bytes),
                    Piece::External(_) => return Err(std::io::Error::other("a request refers to a file")),
                }
            }
            // Before it is written: the answer may come at once.
            match correlation_id {
                Some(correlation_id) => shared.waiting.lock().push_back(Waiting { correlation_id, done }),
                None => unanswered.push(done),
            }
            next = receiver.try_recv().ok();
        }
        socket.write_all_buf(&mut gather).await?;
        for done in unanswered.drain(..) {
            // Nobody may wait for it.
            let _ = done.send(Bytes::new());
        }
    }
    Ok(())
}

async fn read_all(mut socket: OwnedReadHalf, shared: &Shared, max_bytes: usize) -> std::io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        while let Some(body) = next_frame(&mut buffer, max_bytes)? {
            let Some(waiting) = shared.waiting.lock().pop_front() else {
                return Err(std::io::Error::other("the broker sent an answer that nobody asked for"));
            };
            if body.get(..4) != Some(&waiting.correlation_id.to_be_bytes()) {
                return Err(std::io::Error::other("the broker answered out of order"));
            }
            // Nobody may wait for it.
            let _ = waiting.done.send(body);
        }
        if socket.read_buf(&mut buffer).await? == 0 {
            return Err(std::io::Error::other("the broker closed it"));
        }
    }
}

/// Takes a whole frame, without its length. Makes room for the rest of one that is not whole: at
/// most as much again as has come already, so that a length alone allocates nothing.
fn next_frame(buffer: &mut BytesMut, max_bytes: usize) -> std::io::Result<Option<Bytes>> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        buffer.reserve(READ_BYTES);
        return Ok(None);
    };
    let length = frame::check_frame_length(i32::from_be_bytes(*prefix), max_bytes).map_err(std::io::Error::other)?;
    if buffer.len() < 4 + length {
        let missing = 4 + length - buffer.len();
        buffer.reserve(missing.min(buffer.len().max(READ_BYTES)));
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}
