//! The two traits of handlers, one of which each API implements, and the context of a request.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_wire::frame::encode_response;
use millstream_wire::{ApiKey, Message, Reader, Request, Str, WireError};
use tracing::{Instrument, Span};

use crate::broker::Broker;
use crate::net::message_memory::{MessageMemory, Share, UNCOUNTED_MAX};
use crate::net::send_queue::Outgoing;
use crate::net::types::{Answer, Close, ConnectionInfo, Work};
use crate::security::Permission;

/// The time for which a request waits until the broker has caught up with the metadata.
const CATCH_UP_WAIT: Duration = Duration::from_secs(10);

/// About the memory for one partition, topic or config of a response while it is built and encoded.
pub(super) const ENTRY_BYTES: usize = 256;

/// The memory for a response whose size is not known before it is built. What it needs beyond this is taken then.
pub(super) const UNKNOWN_BYTES: usize = 1 << 20;

/// The memory for a response, for each byte of the request that names all of its entries.
const RESPONSE_FACTOR: usize = 2;

/// Handles one API in one stage: the response is ready when the future completes. Errors are codes in the response.
pub(crate) trait Handler: 'static {
    /// The request; its type determines the response.
    type Request: Request<Response: Send> + Send;

    /// The versions that the broker serves. The wire crate can read and write all of them.
    const VERSIONS: RangeInclusive<i16>;

    /// The permission that an authorizer would check; `None` if every client may send the request.
    const PERMISSION: Option<Permission>;

    /// Whether the response needs all topics. In a cluster such a request waits until the broker has caught up with the
    /// metadata: it never misses a topic that exists.
    const NEEDS_TOPICS: bool = true;

    /// Returns about the memory for the response, if a small request can get a large one. A large response waits until
    /// its memory is free.
    fn response_bytes(_broker: &Broker, _context: &RequestContext, _request: &Self::Request) -> usize {
        0
    }

    /// Returns the response.
    fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: Self::Request,
    ) -> impl Future<Output = <Self::Request as Request>::Response> + Send;
}

/// Handles one API in two stages. The first runs at once on the task of the connection, and [`Started`] is what is left
/// to do.
pub(crate) trait TwoStageHandler: 'static {
    /// The request; its type determines the response.
    type Request: Request;

    /// The versions that the broker serves. The wire crate can read and write all of them.
    const VERSIONS: RangeInclusive<i16>;

    /// The permission that an authorizer would check; `None` if every client may send the request.
    const PERMISSION: Option<Permission>;

    /// Starts a request. `body` is the result of decoding it: a handler can also respond to a body that does not
    /// decode.
    ///
    /// # Errors
    /// The connection is to be closed.
    fn start(
        broker: &Arc<Broker>,
        context: RequestContext,
        body: Result<Self::Request, WireError>,
    ) -> Result<Started, Close>;
}

/// A request after its first stage.
pub(crate) enum Started {
    /// The response is ready.
    Ready(Outgoing),
    /// The client expects no response.
    Silent,
    /// The response comes later.
    Later(Answer),
    /// The response comes later, and no other request of the connection may start before the work is done.
    Alone(Work),
}

/// The header of a request, and its connection.
#[derive(Debug)]
pub(crate) struct RequestContext {
    pub(super) api: &'static ApiEntry,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// A slice of the request's frame: copy it to keep it. Two-stage handlers do not get it, since it would keep the
    /// whole buffer in use while they wait.
    pub(crate) client_id: Option<Str>,
    pub(crate) connection: Arc<ConnectionInfo>,
    /// When the socket was read for the last part of the request.
    pub(super) received: Instant,
    /// The request's share of the memory for large messages, and then the response's.
    pub(super) share: Share,
}

impl RequestContext {
    /// Adds the memory for a response to the share of the request, if the response is large. Waits until it is free.
    pub(super) async fn expect(&mut self, memory: &MessageMemory, bytes: usize) {
        if bytes > UNCOUNTED_MAX {
            memory.grow(&mut self.share, bytes).await;
        }
    }

    /// Works like [`expect`](Self::expect), but returns false instead of waiting.
    pub(super) fn try_expect(&mut self, memory: &MessageMemory, bytes: usize) -> bool {
        bytes <= UNCOUNTED_MAX || memory.try_grow(&mut self.share, bytes)
    }

    /// Releases the share of a request's frame, but for the memory of a response.
    pub(super) fn release_frame(&mut self, response: usize) {
        self.share.shrink(if response > UNCOUNTED_MAX { response } else { 0 });
    }

    /// Encodes the response. It takes over the share.
    pub(crate) fn respond(&mut self, response: &impl Message) -> Result<Outgoing, Close> {
        self.respond_with_files(response, Vec::new())
    }

    /// Encodes the response, with the file ranges for its holes. It takes over the share.
    pub(crate) fn respond_with_files(
        &mut self,
        response: &impl Message,
        files: Vec<millstream_log::LogSlice>,
    ) -> Result<Outgoing, Close> {
        let header_version = self.api.key.info().response_header_version(self.version);
        let frame = encode_response(self.correlation_id, header_version, response, self.version);
        let frame = frame.map_err(|error| self.close(format!("cannot encode the response: {error}")))?;
        let took = self.received.elapsed();
        self.connection.metrics.responded(self.connection.id, self.api.index, took);
        Ok(Outgoing::new(frame, files).holding(std::mem::take(&mut self.share)))
    }

    /// Counts the request as failed, and returns the reason to close its connection.
    pub(crate) fn close(&self, reason: impl Into<String>) -> Close {
        self.connection.metrics.failed(self.connection.id, self.api.index);
        Close::Protocol(reason.into())
    }

    /// Closes like [`close`](Self::close), for a body that does not decode.
    pub(crate) fn undecodable(&self, error: WireError) -> Close {
        self.connection.metrics.failed(self.connection.id, self.api.index);
        undecodable(error)
    }

    fn span(&self) -> Span {
        tracing::debug_span!(
            "request",
            api = %self.api.key,
            version = self.version,
            correlation_id = self.correlation_id,
            permission = self.api.permission.map(tracing::field::display),
        )
    }
}

/// One API in the list of handlers.
#[derive(Debug)]
pub(crate) struct ApiEntry {
    pub(super) key: ApiKey,
    /// Its place in the list.
    pub(super) index: usize,
    pub(super) min_version: i16,
    pub(super) max_version: i16,
    pub(super) permission: Option<Permission>,
    pub(super) stages: Stages,
    start: fn(&Arc<Broker>, RequestContext, Reader) -> Result<Started, Close>,
}

/// How a handler works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stages {
    One,
    Two,
}

impl ApiEntry {
    /// Makes the entry of a [`Handler`].
    pub(super) const fn one_stage<H: Handler>(index: usize) -> Self {
        let served = (*H::VERSIONS.start(), *H::VERSIONS.end());
        Self::new::<H::Request>(index, served, H::PERMISSION, Stages::One, start_one_stage::<H>)
    }

    /// Makes the entry of a [`TwoStageHandler`].
    pub(super) const fn two_stage<H: TwoStageHandler>(index: usize) -> Self {
        let served = (*H::VERSIONS.start(), *H::VERSIONS.end());
        Self::new::<H::Request>(index, served, H::PERMISSION, Stages::Two, start_two_stage::<H>)
    }

    const fn new<R: Request>(
        index: usize,
        (min_version, max_version): (i16, i16),
        permission: Option<Permission>,
        stages: Stages,
        start: fn(&Arc<Broker>, RequestContext, Reader) -> Result<Started, Close>,
    ) -> Self {
        assert!(min_version <= max_version, "a handler serves at least one version");
        assert!(
            *R::VERSIONS.start() <= min_version && max_version <= *R::VERSIONS.end(),
            "a handler serves versions that the wire crate can read and write"
        );
        Self { key: R::KEY, index, min_version, max_version, permission, stages, start }
    }

    pub(super) fn serves(&self, version: i16) -> bool {
        (self.min_version..=self.max_version).contains(&version)
    }

    /// Decodes the request and starts it. Bytes after the end of a request are ignored, as Kafka ignores them.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(super) fn start(
        &self,
        broker: &Arc<Broker>,
        context: RequestContext,
        reader: Reader,
    ) -> Result<Started, Close> {
        (self.start)(broker, context, reader)
    }
}

fn start_one_stage<H: Handler>(
    broker: &Arc<Broker>,
    mut context: RequestContext,
    mut reader: Reader,
) -> Result<Started, Close> {
    let proportional = RESPONSE_FACTOR * reader.remaining();
    let request = H::Request::decode(&mut reader, context.version).map_err(|error| context.undecodable(error))?;
    let (broker, span) = (Arc::clone(broker), context.span());
    let handled = async move {
        if H::NEEDS_TOPICS && !broker.controller.has_opened(CATCH_UP_WAIT).await {
            return Err(context.close("the broker has not caught up with the metadata of its cluster"));
        }
        let memory = &broker.message_memory;
        context.expect(memory, proportional + H::response_bytes(&broker, &context, &request)).await;
        let response = H::handle(&broker, &context, request).await;
        let mut outgoing = context.respond(&response)?;
        drop(response);
        outgoing.cover(memory).await;
        Ok(Some(outgoing))
    };
    Ok(Started::Later(Box::pin(handled.instrument(span))))
}

fn start_two_stage<H: TwoStageHandler>(
    broker: &Arc<Broker>,
    context: RequestContext,
    mut reader: Reader,
) -> Result<Started, Close> {
    let _span = context.span().entered();
    let body = H::Request::decode(&mut reader, context.version);
    H::start(broker, context, body)
}

/// Returns the reason to close a connection whose bytes do not decode.
pub(super) fn undecodable(error: WireError) -> Close {
    Close::Protocol(format!("cannot decode a request: {error}"))
}
