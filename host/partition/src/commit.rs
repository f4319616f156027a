//! When a write is committed: the wait that its response makes.
//!
//! [`Partition::committed`] is the only place that decides how safe a write has to be before its response leaves.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::PartitionError;
use crate::partition::Partition;

/// What acks=all waits for on each replica (`flush.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// Stable storage: one fsync for all writes that wait.
    Fsync,
    /// The operating system's page cache, which is Kafka's default.
    PageCache,
}

/// The acknowledgements that a producer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// No response at all (acks=0).
    None,
    /// The leader has appended the records (acks=1).
    Leader,
    /// All in-sync replicas have the records, as safe as `flush.mode` says (acks=all).
    All,
}

impl Acks {
    /// Converts the field of a Produce request; `None` for a value that the protocol does not have.
    #[must_use]
    pub fn from_wire(acks: i16) -> Option<Self> {
        match acks {
            0 => Some(Self::None),
            1 => Some(Self::Leader),
            -1 => Some(Self::All),
            _ => None,
        }
    }
}

/// The wait for the commit of a write. Await it: no thread has to block.
#[derive(Debug)]
#[must_use = "a response must not leave before the write is committed"]
pub struct Committed(State);

#[derive(Debug)]
enum State {
    Now,
    Waiting(oneshot::Receiver<Result<(), PartitionError>>),
}

impl Committed {
    /// Nothing to wait for.
    pub const NOW: Self = Self(State::Now);

    /// Returns a commit that the sender reports.
    pub fn when(reported: oneshot::Receiver<Result<(), PartitionError>>) -> Self {
        Self(State::Waiting(reported))
    }

    /// Returns whether there is nothing to wait for.
    #[must_use]
    pub fn is_now(&self) -> bool {
        matches!(self.0, State::Now)
    }

    /// Blocks until the write is committed.
    #[cfg(test)]
    pub(crate) fn wait_blocking(self) -> Result<(), PartitionError> {
        match self.0 {
            State::Now => Ok(()),
            State::Waiting(reported) => reported.blocking_recv().unwrap_or(Err(PartitionError::ShuttingDown)),
        }
    }
}

impl Future for Committed {
    type Output = Result<(), PartitionError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Now => Poll::Ready(Ok(())),
            // The queue drops its waiters when it stops.
            State::Waiting(reported) => {
                Pin::new(reported).poll(context).map(|done| done.unwrap_or(Err(PartitionError::ShuttingDown)))
            }
        }
    }
}

impl Partition {
    /// Returns the wait that the response to a write makes: until all offsets below `end` are as safe as `acks` asks
    /// for.
    ///
    /// With acks=all and `flush.mode=fsync` that is stable storage. A topic with `flush.messages` waits for stable
    /// storage whatever the acks are, each time that many records are not synced yet.
    pub fn committed(self: &Arc<Self>, end: i64, acks: Acks) -> Committed {
        let fsync = acks == Acks::All && self.fsync_queue().flush_mode() == FlushMode::Fsync;
        if fsync || self.flush_messages_reached() { self.fsync_queue().wait(self, end) } else { Committed::NOW }
    }
}
