//! A connection to a broker. Requests are sent in the order of the calls and without waiting for earlier responses.
//! Kafka guarantees that responses arrive in the same order, so the next response belongs to the oldest request.

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

/// The size of one read from the socket.
const READ_BYTES: usize = 64 * 1024;

/// The time after which a response is late: another broker may lead or respond by now.
pub(crate) const LATE_AFTER: Duration = Duration::from_secs(1);

/// The feature whose level decides how transactions work (KIP-890).
const TRANSACTION_VERSION: &str = "transaction.version";

/// A request that waits to be written.
struct Outgoing {
    pieces: Vec<Piece>,
    /// `None` for a request without a response: it is done once it is written.
    correlation_id: Option<i32>,
    done: oneshot::Sender<Bytes>,
}

/// A request that was written and has no response yet.
struct Waiting {
    correlation_id: i32,
    since: Instant,
    done: oneshot::Sender<Bytes>,
}

/// The state that the task and the handle share.
struct Shared {
    address: Arc<str>,
    waiting: Mutex<VecDeque<Waiting>>,
    /// Why the connection was closed; set once.
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

/// The handle of a connection. Cheap to share; every method takes `&self`.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    next_correlation_id: AtomicI32,
    client_id: Str,
    /// The APIs that the broker supports: key, first and last version.
    versions: Vec<(i16, i16, i16)>,
    /// The level of `transaction.version` that the cluster uses; 0 if the broker names none.
    transaction_version: i16,
}

impl Connection {
    /// Connects, and requests the versions that the broker supports.
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
            transaction_version: 0,
        };
        let response = connection.ask_versions(config.request_timeout).await?;
        let apis = response.api_keys.iter();
        connection.versions = apis.map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        let feature = response.finalized_features.iter().find(|feature| &*feature.name == TRANSACTION_VERSION);
        connection.transaction_version = feature.map_or(0, |feature| feature.max_version_level);
        Ok(connection)
    }

    /// Requests the supported versions, in the newest version of ApiVersions. A broker that does not support it names
    /// its versions in a body of version 0.
    async fn ask_versions(&self, timeout: Duration) -> Result<ApiVersionsResponse, Error> {
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
            // After the correlation id every version of the body starts with the error code.
            let rejected = body.get(4..6) == Some(&ErrorCode::UNSUPPORTED_VERSION.0.to_be_bytes());
            let response = self.decode::<ApiVersionsRequest>(body, if rejected { 0 } else { version })?;
            if !rejected {
                Error::check(|| format!("ask {} for its versions", self.address()), response.error_code, None)?;
                return Ok(response);
            }
            version = match known(&response) {
                Some(last) if last < version && last >= 0 => last,
                _ if version > 0 => 0,
                _ => return Err(self.unsupported::<ApiVersionsRequest>("none")),
            };
        }
    }

    /// Returns `host:port`.
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.shared.address
    }

    /// Returns the level of `transaction.version` that the cluster used when the connection was opened.
    pub(crate) fn transaction_version(&self) -> i16 {
        self.transaction_version
    }

    /// Returns whether the connection is open.
    pub(crate) fn alive(&self) -> bool {
        self.shared.ended.lock().is_none()
    }

    /// Returns whether the broker has not responded for long. Another one may respond at once.
    pub(crate) fn hangs(&self) -> bool {
        self.shared.waiting.lock().front().is_some_and(|oldest| oldest.since.elapsed() >= LATE_AFTER)
    }

    /// Closes the connection. Requests without a response fail with `reason`.
    pub(crate) fn close(&self, reason: &str) {
        self.shared.end(reason);
    }

    /// Returns the newest version of `R` that both sides support.
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

    /// Queues a request in the newest version that both sides support. Requests are sent in the order of the calls.
    pub(crate) fn send<R: Request>(self: &Arc<Self>, request: &R) -> Result<Reply<R>, Error> {
        self.send_up_to(request, i16::MAX)
    }

    /// Queues a request as [`Connection::send`] does, in a version of at most `last`.
    pub(crate) fn send_up_to<R: Request>(self: &Arc<Self>, request: &R, last: i16) -> Result<Reply<R>, Error> {
        let version = self.version::<R>()?.min(last);
        let mut reply = self.queue(request, version, true)?;
        // Keeps the task running until the response arrives, even if the cluster drops the connection.
        reply.connection = Some(self.clone());
        Ok(reply)
    }

    /// Queues a request without a response (Produce with `acks=0`). The reply resolves once it is written, and has no
    /// bytes.
    pub(crate) fn send_one_way<R: Request>(self: &Arc<Self>, request: &R, last: i16) -> Result<Reply<R>, Error> {
        let version = self.version::<R>()?.min(last);
        let mut reply = self.queue(request, version, false)?;
        reply.connection = Some(self.clone());
        Ok(reply)
    }

    fn queue<R: Request>(&self, request: &R, version: i16, has_response: bool) -> Result<Reply<R>, Error> {
        let correlation_id = self.next_correlation_id.fetch_add(1, Ordering::Relaxed);
        let header = RequestHeader {
            api_key: R::KEY as i16,
            api_version: version,
            correlation_id,
            client_id: Some(self.client_id.clone()),
        };
        let frame = frame::encode_request(&header, request).map_err(|source| self.wire(source))?;
        let (done, response) = oneshot::channel();
        let correlation_id = has_response.then_some(correlation_id);
        // If the task has ended, this drops `done`, and the reply returns the reason.
        let _ = self.outgoing.send(Outgoing { pieces: frame.pieces, correlation_id, done });
        let shared = self.shared.clone();
        Ok(Reply { response, version, sent: Instant::now(), shared, connection: None, request: PhantomData })
    }

    fn wire(&self, source: WireError) -> Error {
        Error::Wire { address: self.address().clone(), source }
    }

    fn decode<R: Request>(&self, body: Bytes, version: i16) -> Result<R::Response, Error> {
        let (_, response) = frame::decode_response::<R>(body, version).map_err(|source| self.wire(source))?;
        Ok(response)
    }
}

/// Returns the last version of ApiVersions that the broker supports.
fn known(response: &ApiVersionsResponse) -> Option<i16> {
    let key = ApiVersionsRequest::KEY as i16;
    response.api_keys.iter().find(|api| api.api_key == key).map(|api| api.max_version)
}

/// The response of a request, to be awaited.
pub(crate) struct Reply<R> {
    response: oneshot::Receiver<Bytes>,
    version: i16,
    /// The start of the timeout.
    sent: Instant,
    shared: Arc<Shared>,
    connection: Option<Arc<Connection>>,
    request: PhantomData<fn() -> R>,
}

impl<R: Request> Reply<R> {
    /// Waits for the response and decodes it. After `timeout` the connection is closed, because every later response
    /// would wait behind this one.
    pub(crate) async fn wait(self, timeout: Duration) -> Result<R::Response, Error> {
        let (version, shared) = (self.version, self.shared.clone());
        let body = self.bytes(timeout).await?;
        let decoded = frame::decode_response::<R>(body, version);
        decoded.map(|(_, response)| response).map_err(|source| {
            // The position in the stream may be wrong, so later responses cannot be trusted.
            shared.end("a response could not be decoded");
            Error::Wire { address: shared.address.clone(), source }
        })
    }

    /// Waits until a request without a response is written.
    pub(crate) async fn written(self, timeout: Duration) -> Result<(), Error> {
        self.bytes(timeout).await.map(drop)
    }

    async fn bytes(self, timeout: Duration) -> Result<Bytes, Error> {
        let Reply { response, sent, shared, connection: _alive, .. } = self;
        match tokio::time::timeout_at((sent + timeout).into(), response).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) => Err(shared.lost()),
            Err(_) => {
                let what = format!("{} by {}", R::KEY.info().name, shared.address);
                shared.end(&format!("no response to {what} within {} ms", timeout.as_millis()));
                Err(Error::timeout(what, timeout))
            }
        }
    }
}

/// Runs both directions. When one ends, so does the other, and all waiting requests fail.
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
    // Dropping the senders fails the waiting requests; `ended` was set before.
    shared.waiting.lock().clear();
}

/// Bytes for one vectored write to the socket.
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
    let mut one_way = Vec::new();
    while let Some(first) = receiver.recv().await {
        let mut next = Some(first);
        while let Some(Outgoing { pieces, correlation_id, done }) = next {
            for piece in pieces {
                match piece {
                    Piece::Bytes(bytes) => gather.push(bytes),
                    Piece::External(_) => return Err(std::io::Error::other("a request refers to a file")),
                }
            }
            // Before it is written, because the response may arrive at once.
            match correlation_id {
                Some(correlation_id) => {
                    shared.waiting.lock().push_back(Waiting { correlation_id, since: Instant::now(), done })
                }
                None => one_way.push(done),
            }
            next = receiver.try_recv().ok();
        }
        socket.write_all_buf(&mut gather).await?;
        for done in one_way.drain(..) {
            // The receiver may be gone.
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
                return Err(std::io::Error::other("the broker sent a response without a request"));
            };
            if body.get(..4) != Some(&waiting.correlation_id.to_be_bytes()) {
                return Err(std::io::Error::other("the broker sent responses out of order"));
            }
            // The receiver may be gone.
            let _ = waiting.done.send(body);
        }
        if socket.read_buf(&mut buffer).await? == 0 {
            return Err(std::io::Error::other("the broker closed it"));
        }
    }
}

/// Removes a complete frame and returns it without its length. For an incomplete frame it reserves at most as many
/// bytes as have arrived already, so that a length alone does not allocate memory.
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
