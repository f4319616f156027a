//! One connection: reads frames into one reused buffer, starts each request, sends the answers in the order of the requests.
//!
//! All of it is one task. A request that can be answered at once is answered within it, without a hand-over; one that has to
//! wait (a fetch without data, a produce that waits for its fsync) is a future that the task polls while it goes on reading.
//! Requests of a connection run one after the other, as in Kafka, with one exception: a produce may start while earlier
//! ones wait for stable storage. They were appended in their order, and it is what lets one fsync serve many of them.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use millstream_wire::frame::check_frame_length;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use crate::api::{self, Started};
use crate::broker::Broker;
use crate::outgoing::{Outgoing, SendQueue};

/// The size of the length before each frame.
const PREFIX: usize = size_of::<i32>();

/// The read buffer of a connection without large requests.
const READ_BUFFER: usize = 16 << 10;

/// Less room than this is not worth a read.
const READ_MIN: usize = 4 << 10;

/// A frame above this is read into a buffer that grows as its bytes arrive: who only says that much takes no memory.
const TRUSTED_FRAME: usize = 1 << 20;

/// The least bytes of a request that are its header; until they are there, the client is on the short deadline.
const HEADER_MIN: usize = PREFIX + 8;

/// How long the header of a request may take from its first byte.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);

/// How long a request may take from its first byte, beside the time that its length deserves.
const FRAME_DEADLINE: Duration = Duration::from_secs(30);

/// The slowest client that is waited for.
const BYTES_PER_SECOND_MIN: usize = 16 << 10;

/// Requests of one connection that are under way. A client with more has to read answers before it is read again.
const IN_FLIGHT_MAX: usize = 64;

/// Parts of answers that may wait to be sent before they are sent.
const SENDING_MAX: usize = 256;

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
    /// The broker stops.
    #[error("the broker stops")]
    Shutdown,
    /// The network failed, or the client did not read the answer to its end.
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

struct Pending {
    answer: Answer,
    /// Whether a produce may start while this one waits.
    overlaps: bool,
}

/// A frame of which the first bytes are there.
struct Partial {
    /// The length with the prefix, once the prefix is there.
    total: Option<usize>,
    since: Instant,
    /// The share of the memory for requests in flight.
    budget: Option<OwnedSemaphorePermit>,
}

pub(crate) struct Connection {
    broker: Arc<Broker>,
    info: Arc<ConnectionInfo>,
    stream: TcpStream,
    shutdown: watch::Receiver<bool>,
    buffer: BytesMut,
    partial: Option<Partial>,
    pending: VecDeque<Pending>,
    sending: SendQueue,
    last_activity: Instant,
}

impl Connection {
    pub(crate) fn new(
        broker: Arc<Broker>,
        info: ConnectionInfo,
        stream: TcpStream,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            broker,
            info: Arc::new(info),
            stream,
            shutdown,
            buffer: BytesMut::new(),
            partial: None,
            pending: VecDeque::new(),
            sending: SendQueue::default(),
            last_activity: Instant::now(),
        }
    }

    /// Serves the connection until it ends; the reason is always an error.
    pub(crate) async fn serve(mut self) -> Close {
        let info = Arc::clone(&self.info);
        let close = loop {
            if let Err(close) = self.turn().await {
                break close;
            }
        };
        match &close {
            Close::Protocol(reason) => tracing::info!(peer = %info.peer, connection = info.id, "closing: {reason}"),
            other => tracing::debug!(peer = %info.peer, connection = info.id, "closing: {other}"),
        }
        close
    }

    /// Starts what can start, sends what is ready, then waits for what comes first.
    async fn turn(&mut self) -> Result<(), Close> {
        self.start_requests().await?;
        while !self.sending.is_empty() {
            self.send().await?;
        }
        if self.has_startable_frame()? {
            return Ok(());
        }
        self.wait().await
    }

    /// The length with prefix of the frame at the front of the buffer, once it is whole.
    fn whole_frame(&self) -> Result<Option<usize>, Close> {
        Ok(self.frame_length()?.filter(|&total| self.buffer.len() >= total))
    }

    fn frame_length(&self) -> Result<Option<usize>, Close> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        let checked = check_frame_length(length, self.broker.config.request_max_bytes);
        let checked = checked.map_err(|error| Close::Protocol(format!("{error}{}", guess(prefix))))?;
        Ok(Some(PREFIX + checked))
    }

    fn has_startable_frame(&self) -> Result<bool, Close> {
        Ok(self.whole_frame()?.is_some_and(|total| self.may_start(total)))
    }

    /// Whether the frame at the front may start beside what is under way.
    fn may_start(&self, total: usize) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        self.pending.len() < IN_FLIGHT_MAX
            && api::is_produce(&self.buffer[PREFIX..total])
            && self.pending.iter().all(|pending| pending.overlaps)
    }

    async fn start_requests(&mut self) -> Result<(), Close> {
        while let Some(total) = self.whole_frame()? {
            if !self.may_start(total) {
                break;
            }
            let mut frame = self.buffer.split_to(total);
            frame.advance(PREFIX);
            let overlaps = api::is_produce(&frame);
            // The share of memory is given back when the request is started: what it still holds then is small.
            let budget = self.partial.take().and_then(|partial| partial.budget);
            match api::start(&self.broker, &self.info, frame.freeze())? {
                Started::Silent => {}
                // An answer may not pass those before it.
                Started::Ready(outgoing) if self.pending.is_empty() => self.sending.push(outgoing),
                Started::Ready(outgoing) => {
                    let answer = Box::pin(std::future::ready(Ok(Some(outgoing))));
                    self.pending.push_back(Pending { answer, overlaps });
                }
                Started::Later(answer) => {
                    self.pending.push_back(Pending { answer, overlaps });
                    self.poll_front().await?;
                }
            }
            drop(budget);
            if self.sending.len() >= SENDING_MAX {
                break;
            }
        }
        if !self.buffer.is_empty() && self.partial.is_none() {
            // The clock of the next frame starts with its first byte, also when that came with the last of another.
            let total = self.frame_length()?;
            self.partial = Some(Partial { total, since: Instant::now(), budget: None });
        }
        Ok(())
    }

    /// Takes the answers that are ready without waiting for one.
    async fn poll_front(&mut self) -> Result<(), Close> {
        while let Some(front) = self.pending.front_mut() {
            let polled = poll_fn(|context| match front.answer.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => Poll::Ready(None),
            });
            let Some(answer) = polled.await else { return Ok(()) };
            self.pending.pop_front();
            if let Some(outgoing) = answer? {
                self.sending.push(outgoing);
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Close> {
        let deadline = self.broker.config.connections_max_idle.map(|idle| Instant::now() + idle);
        tokio::select! {
            sent = self.sending.send_some(&self.stream) => sent?,
            () = sleep_until(deadline) => {
                return Err(Close::Protocol("the client does not read its answers".to_owned()));
            }
            () = stopped(&mut self.shutdown) => return Err(Close::Shutdown),
        }
        self.last_activity = Instant::now();
        Ok(())
    }

    /// Waits for the next answer or for more bytes. A frame that is whole and may not start yet keeps the rest of the
    /// client's bytes in its own socket.
    async fn wait(&mut self) -> Result<(), Close> {
        let reads = self.whole_frame()?.is_none();
        let deadline = if reads { self.deadline() } else { None };
        tokio::select! {
            biased;
            answer = first(&mut self.pending) => {
                self.pending.pop_front();
                if let Some(outgoing) = answer? {
                    self.sending.push(outgoing);
                }
                self.poll_front().await?;
            }
            ready = self.stream.readable(), if reads => {
                ready?;
                self.read().await?;
            }
            () = stopped(&mut self.shutdown) => return Err(Close::Shutdown),
            () = sleep_until(deadline) => return Err(self.overdue()),
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.partial {
            Some(partial) => Some(partial.since + partial.allowance(self.buffer.len())),
            None if self.pending.is_empty() => {
                self.broker.config.connections_max_idle.map(|idle| self.last_activity + idle)
            }
            None => None,
        }
    }

    fn overdue(&self) -> Close {
        match &self.partial {
            Some(_) => Close::Protocol(format!(
                "a request of which {} bytes are there did not arrive in time",
                self.buffer.len()
            )),
            None => Close::Idle,
        }
    }

    /// Reads what is there. The length of a frame is checked, and its share of memory taken, before room is made for it.
    async fn read(&mut self) -> Result<(), Close> {
        self.make_room().await?;
        match self.stream.try_read_buf(&mut self.buffer) {
            Ok(0) => return Err(Close::ByClient),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.last_activity = Instant::now();
        let total = self.frame_length()?;
        let now = self.last_activity;
        let partial = self.partial.get_or_insert(Partial { total: None, since: now, budget: None });
        partial.total = total;
        Ok(())
    }

    async fn make_room(&mut self) -> Result<(), Close> {
        let total = self.partial.as_ref().and_then(|partial| partial.total);
        let missing = total.map_or(0, |total| total.saturating_sub(self.buffer.len()));
        let spare = self.buffer.capacity() - self.buffer.len();
        if missing <= READ_BUFFER {
            if spare < missing.max(READ_MIN) {
                self.buffer.reserve(READ_BUFFER);
            }
            return Ok(());
        }
        if let Some(partial) = self.partial.as_mut().filter(|partial| partial.budget.is_none()) {
            let permit = self.broker.request_memory.take(missing);
            partial.budget = Some(tokio::select! {
                permit = permit => permit,
                () = stopped(&mut self.shutdown) => return Err(Close::Shutdown),
            });
        }
        if spare == 0 || missing <= TRUSTED_FRAME {
            self.buffer.reserve(missing.min(self.buffer.len().max(TRUSTED_FRAME)));
        }
        Ok(())
    }
}

impl Partial {
    /// How long the frame may take as far as it is known.
    fn allowance(&self, arrived: usize) -> Duration {
        if arrived < HEADER_MIN {
            return HEADER_DEADLINE;
        }
        let seconds = self.total.unwrap_or_default() / BYTES_PER_SECOND_MIN;
        FRAME_DEADLINE + Duration::from_secs(seconds as u64)
    }
}

/// The oldest answer, once it is ready; never, if none is awaited.
async fn first(pending: &mut VecDeque<Pending>) -> Result<Option<Outgoing>, Close> {
    match pending.front_mut() {
        Some(front) => front.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, and with it the broker.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a client probably speaks whose first four bytes are no length.
fn guess(prefix: &[u8; PREFIX]) -> &'static str {
    match prefix {
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"DELE" | b"OPTI" | b"PRI " => " (the client seems to speak HTTP)",
        [0x16, 3, ..] => " (the client seems to speak TLS to a plaintext listener)",
        b"SSH-" => " (the client seems to speak SSH)",
        _ => "",
    }
}
