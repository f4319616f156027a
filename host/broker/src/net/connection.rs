//! One connection: starts each request once it is complete, and sends the responses in the order of the requests.
//!
//! All of it is one task. A request whose response is ready at once is handled within the task. A fetch without data,
//! or a produce that waits for its fsync, is a future. The task polls it while it reads on. As in Kafka, requests of a
//! connection run one after the other. There is one exception: a produce may start while earlier ones wait for stable
//! storage. They were appended in order, and one fsync can then serve many of them.
//!
//! A client that does not read its responses gets no more of them: the next request starts when little is left to send.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::frame_buffer::FrameBuffer;
use super::message_memory::UNCOUNTED_MAX;
use super::pace::Pace;
use super::send_queue::{Outgoing, SendQueue};
use super::types::{Answer, Close, ConnectionInfo, RequestFrame, Work};
use crate::api::{self, Started};
use crate::broker::Broker;

/// The most requests of one connection that are in flight. A client with more has to read responses before the broker
/// reads on.
const IN_FLIGHT_MAX: usize = 64;

/// The most parts of responses that wait before they are sent. One call sends as many.
const SENDING_MAX: usize = 64;

/// The time between two looks at whether others wait for the memory of a slow client.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    /// How the client takes what is sent, once it has to be waited for.
    taking: Option<Pace>,
    /// When the pace of the client was last looked at.
    looked: Instant,
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
            taking: None,
            looked: now,
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
        self.taking = None;
        match self.frames.peek()? {
            // Other connections get their turn before a client that sends many requests at once gets on.
            Some(frame) if self.may_start(frame) => {
                tokio::task::yield_now().await;
                Ok(())
            }
            // While a complete request cannot start yet, the client's further bytes stay in its own socket.
            Some(_) => self.wait(false).await,
            None if self.frames.counted().is_none_or(|frame| self.may_start(frame)) => self.wait(true).await,
            // So do those of a large one. It would hold memory that the request before it may have to wait for.
            None => {
                self.wait(false).await?;
                self.frames.restart();
                Ok(())
            }
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
        while self.may_send_more() {
            let may_start = self.frames.peek()?.is_some_and(|frame| self.may_start(frame));
            let Some(frame) = (if may_start { self.frames.take(&self.broker.message_memory)? } else { None }) else {
                break;
            };
            self.start(frame).await?;
        }
        Ok(())
    }

    /// Returns whether another response may be added to those that wait to be sent.
    fn may_send_more(&self) -> bool {
        self.sending.len() < SENDING_MAX && self.sending.memory() < UNCOUNTED_MAX
    }

    async fn start(&mut self, frame: RequestFrame) -> Result<(), Close> {
        let overlaps = api::is_produce(&frame.bytes);
        match api::start(&self.broker, &self.info, frame, self.last_read.into_std())? {
            Started::Silent => {}
            // A response may not overtake earlier ones.
            Started::Ready(outgoing) if self.pending.is_empty() => self.push(outgoing).await,
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
        Ok(())
    }

    /// Takes the responses that are ready and may be sent, without waiting for any.
    async fn take_ready(&mut self) -> Result<(), Close> {
        while self.may_send_more() {
            let polled = poll_fn(|context| match poll_progress(&mut self.pending, context) {
                Poll::Ready(progress) => Poll::Ready(Some(progress)),
                Poll::Pending => Poll::Ready(None),
            });
            let Some(progress) = polled.await else { break };
            self.take(progress?).await;
        }
        Ok(())
    }

    async fn take(&mut self, progress: Progress) {
        if let Progress::Answered(outgoing) = progress {
            self.pending.pop_front();
            if let Some(outgoing) = outgoing {
                self.push(outgoing).await;
            }
        }
    }

    /// Adds a response to those that wait to be sent.
    async fn push(&mut self, mut outgoing: Outgoing) {
        outgoing.copy_small_ranges();
        // Most large responses have their memory before they are built. The others get it here. None waits while this
        // connection has memory for a half received request: the memory that it waits for might be this one.
        let memory = &self.broker.message_memory;
        if !outgoing.try_cover(memory) && !self.frames.has_share() {
            outgoing.cover(memory).await;
        }
        self.sending.push(outgoing);
    }

    async fn send(&mut self) -> Result<(), Close> {
        match self.sending.send_some(&self.stream).await {
            Ok(sent) => {
                self.last_activity = Instant::now();
                if let Some(pace) = &mut self.taking {
                    pace.add(sent, self.last_activity);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A client that does not read needs no buffer for large requests.
                if self.frames.is_roomy() {
                    self.frames.shrink();
                }
                let pace = *self.taking.get_or_insert_with(Pace::new);
                let pace = (self.sending.has_share() || self.frames.has_share()).then_some(pace);
                let deadline = self.look_at(pace).into_iter().chain(self.idle_deadline()).min();
                tokio::select! {
                    ready = self.stream.writable() => ready?,
                    () = self.timer.reached(deadline) => {
                        if self.idle_deadline().is_some_and(|idle| Instant::now() >= idle) {
                            return Err(Close::Protocol("the client does not read its responses".to_owned()));
                        }
                        self.look(pace)?;
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
                self.take(progress?).await;
                self.take_ready().await?;
            }
            ready = self.stream.readable(), if reads => {
                ready?;
                self.frames.read(&mut self.stream, &self.broker.message_memory).await?;
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
        match self.frames.deadline() {
            Some(deadline) => self.look_at(self.frames.pace(self.last_read)).into_iter().chain([deadline]).min(),
            None => roomy().into_iter().chain(between()).min(),
        }
    }

    /// Returns when to look whether a client is too slow for others that wait for memory.
    fn look_at(&self, pace: Option<Pace>) -> Option<Instant> {
        Some(pace?.deadline().max(self.looked + LOOK_EVERY))
    }

    /// Looks whether a client is too slow for others that wait for memory.
    fn look(&mut self, pace: Option<Pace>) -> Result<(), Close> {
        self.looked = Instant::now();
        match pace.is_some_and(|pace| pace.deadline() <= self.looked) && self.broker.message_memory.is_wanted() {
            true => Err(Close::Protocol("the client is slow and holds memory that others wait for".to_owned())),
            false => Ok(()),
        }
    }

    fn idle_deadline(&self) -> Option<Instant> {
        self.broker.config.connections_max_idle.map(|idle| self.last_activity + idle)
    }

    /// Handles a deadline: closes the connection, unless only its memory was due.
    fn overdue(&mut self) -> Result<(), Close> {
        let bytes = self.frames.len();
        if bytes > 0 && self.frames.deadline().is_some_and(|deadline| Instant::now() < deadline) {
            return self.look(self.frames.pace(self.last_read));
        }
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
