//! One connection: starts each request once it is complete, and sends the responses in the order of the requests.
//!
//! All of it is one task. A request whose response is ready at once is handled within the task. A fetch without data,
//! or a produce that waits for its fsync, is a future. The task polls it while it reads on. As in Kafka, requests of a
//! connection run one after the other. There is one exception: a produce may start while earlier ones wait for stable
//! storage. They were appended in order, and one fsync can then serve many of them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::frame_buffer::{FrameBuffer, RequestFrame};
use super::send_queue::{Outgoing, SendQueue};
use super::types::{Answer, Close, ConnectionInfo, Work};
use crate::api::{self, Started};
use crate::broker::Broker;

/// The most requests of one connection that are in flight. A client with more has to read responses before the broker
/// reads on.
const IN_FLIGHT_MAX: usize = 64;

/// The most parts of responses that wait before they are sent.
const SENDING_MAX: usize = 256;

/// After this time without a request a connection frees the memory that large requests needed.
const ROOM_KEPT: Duration = Duration::from_secs(10);

/// A request in flight.
enum Pending {
    /// No other request may start while the work runs, so it is always the newest.
    Alone(Work),
    Answer {
        answer: Answer,
        /// Whether a produce may start while this one waits.
        overlaps: bool,
    },
}

/// A change of the requests in flight.
enum Progress {
    /// The work of the newest is done, so another may start.
    Done,
    /// The response of the oldest is ready.
    Answered(Option<Outgoing>),
}

pub(crate) struct Connection {
    broker: Arc<Broker>,
    info: Arc<ConnectionInfo>,
    stream: TcpStream,
    frames: FrameBuffer,
    pending: VecDeque<Pending>,
    sending: SendQueue,
    last_activity: Instant,
    /// When the socket was last read. One read may hold many requests.
    last_read: Instant,
    timer: Timer,
}

impl Connection {
    pub(crate) fn new(broker: Arc<Broker>, info: ConnectionInfo, stream: TcpStream) -> Self {
        let frames = FrameBuffer::new(broker.config.request_max_bytes);
        let now = Instant::now();
        Self {
            broker,
            info: Arc::new(info),
            stream,
            frames,
            pending: VecDeque::new(),
            sending: SendQueue::default(),
            last_activity: now,
            last_read: now,
            timer: Timer::default(),
        }
    }

    /// Serves the connection until it ends.
    pub(crate) async fn serve(mut self) {
        let close = loop {
            if let Err(close) = self.turn().await {
                break close;
            }
        };
        let ConnectionInfo { id, peer, .. } = *self.info;
        match close {
            Close::Protocol(reason) => tracing::info!(%peer, connection = id, "closing: {reason}"),
            other => tracing::debug!(%peer, connection = id, "closing: {other}"),
        }
    }

    /// Starts every request that can start, sends what is ready, then waits for the next event.
    async fn turn(&mut self) -> Result<(), Close> {
        self.start_requests().await?;
        while !self.sending.is_empty() {
            self.send().await?;
        }
        match self.frames.peek()? {
            Some(frame) if self.may_start(frame) => Ok(()),
            // While a complete request cannot start yet, the client's further bytes stay in its own socket.
            Some(_) => self.wait(false).await,
            None => self.wait(true).await,
        }
    }

    /// Returns whether a request may start beside those in flight.
    fn may_start(&self, frame: &[u8]) -> bool {
        self.pending.is_empty()
            || self.pending.len() < IN_FLIGHT_MAX
                && api::is_produce(frame)
                && self.pending.iter().all(|pending| matches!(pending, Pending::Answer { overlaps: true, .. }))
    }

    async fn start_requests(&mut self) -> Result<(), Close> {
        while self.sending.len() < SENDING_MAX {
            let may_start = self.frames.peek()?.is_some_and(|frame| self.may_start(frame));
            let Some(frame) = (if may_start { self.frames.take()? } else { None }) else { break };
            self.start(frame).await?;
        }
        Ok(())
    }

    async fn start(&mut self, frame: RequestFrame) -> Result<(), Close> {
        let RequestFrame { bytes, share } = frame;
        let overlaps = api::is_produce(&bytes);
        match api::start(&self.broker, &self.info, bytes, self.last_read.into_std())? {
            Started::Silent => {}
            // A response may not overtake earlier ones.
            Started::Ready(outgoing) if self.pending.is_empty() => self.sending.push(outgoing),
            Started::Ready(outgoing) => {
                let answer = Box::pin(std::future::ready(Ok(Some(outgoing))));
                self.pending.push_back(Pending::Answer { answer, overlaps });
            }
            Started::Later(answer) => {
                self.pending.push_back(Pending::Answer { answer, overlaps });
                self.take_ready().await?;
            }
            Started::Alone(work) => {
                self.pending.push_back(Pending::Alone(work));
                self.take_ready().await?;
            }
        }
        // A started request keeps only small parts of its frame.
        drop(share);
        Ok(())
    }

    /// Takes the responses that are ready, without waiting for any.
    async fn take_ready(&mut self) -> Result<(), Close> {
        loop {
            let polled = poll_fn(|context| match poll_progress(&mut self.pending, context) {
                Poll::Ready(progress) => Poll::Ready(Some(progress)),
                Poll::Pending => Poll::Ready(None),
            });
            let Some(progress) = polled.await else { return Ok(()) };
            self.take(progress?);
        }
    }

    fn take(&mut self, progress: Progress) {
        if let Progress::Answered(outgoing) = progress {
            self.pending.pop_front();
            if let Some(outgoing) = outgoing {
                self.sending.push(outgoing);
            }
        }
    }

    async fn send(&mut self) -> Result<(), Close> {
        match self.sending.send_some(&self.stream).await {
            Ok(()) => self.last_activity = Instant::now(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let deadline = self.idle_deadline();
                tokio::select! {
                    ready = self.stream.writable() => ready?,
                    () = self.timer.reached(deadline) => {
                        return Err(Close::Protocol("the client does not read its responses".to_owned()));
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Waits for the next response or, if `reads`, for more bytes.
    async fn wait(&mut self, reads: bool) -> Result<(), Close> {
        let deadline = if reads { self.deadline() } else { None };
        tokio::select! {
            biased;
            progress = poll_fn(|context| poll_progress(&mut self.pending, context)) => {
                self.take(progress?);
                self.take_ready().await?;
            }
            ready = self.stream.readable(), if reads => {
                ready?;
                self.frames.read(&self.stream, &self.broker.request_memory).await?;
                self.last_read = Instant::now();
                self.last_activity = self.last_read;
            }
            () = self.timer.reached(deadline) => return self.overdue(),
        }
        Ok(())
    }

    /// Returns when to give up a client that sends nothing more: soon within a request, late between two, never while
    /// it waits for a response.
    fn deadline(&self) -> Option<Instant> {
        let between = || self.idle_deadline().filter(|_| self.pending.is_empty());
        let roomy = || self.frames.is_roomy().then(|| self.last_activity + ROOM_KEPT);
        self.frames.deadline().or_else(|| roomy().into_iter().chain(between()).min())
    }

    fn idle_deadline(&self) -> Option<Instant> {
        self.broker.config.connections_max_idle.map(|idle| self.last_activity + idle)
    }

    /// Handles a deadline: closes the connection, unless only its memory was due.
    fn overdue(&mut self) -> Result<(), Close> {
        let bytes = self.frames.len();
        if bytes > 0 {
            let message = format!("a request of which {bytes} bytes are there did not arrive in time");
            return Err(Close::Protocol(message));
        }
        let idle = self.pending.is_empty() && self.idle_deadline().is_some_and(|deadline| Instant::now() >= deadline);
        if idle {
            return Err(Close::Idle);
        }
        self.frames.shrink();
        Ok(())
    }
}

/// Polls for the end of the newest request's work or the response of the oldest. It stays pending if no request is in
/// flight.
fn poll_progress(pending: &mut VecDeque<Pending>, context: &mut Context<'_>) -> Poll<Result<Progress, Close>> {
    if let Some(newest) = pending.back_mut()
        && let Pending::Alone(work) = newest
        && let Poll::Ready(answer) = work.as_mut().poll(context)
    {
        return Poll::Ready(answer.map(|answer| {
            *newest = Pending::Answer { answer, overlaps: true };
            Progress::Done
        }));
    }
    match pending.front_mut() {
        Some(Pending::Answer { answer, .. }) => answer.as_mut().poll(context).map_ok(Progress::Answered),
        Some(Pending::Alone(_)) | None => Poll::Pending,
    }
}

/// One timer for all deadlines of a connection. Deadlines move with every request and are hardly ever reached. The
/// timer is moved only if it would fire too late; if it fires too early, it is set again.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    async fn reached(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return std::future::pending().await };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline || sleep.is_elapsed() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            sleep.as_mut().await;
            if Instant::now() >= deadline {
                return;
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
