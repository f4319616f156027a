//! When a write is committed: the wait that its response makes.
//!
//! [`Partition::committed`] is the only place that decides how safe a write has to be before its response leaves.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use millstream_log::AppendedBatch;
use millstream_log::seeded_bug::{self, Bug};
use parking_lot::Mutex;

use crate::error::PartitionError;
use crate::offset_waiters::{OffsetWaiters, Reported, rejected};
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
    /// All replicas in sync have the records, as safe as `flush.mode` says (acks=all).
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

/// The end of a write whose commit is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteEnd {
    /// The offset after the last record.
    pub offset: i64,
    /// The epoch of the leader that appended the records. In another epoch other records may have their offsets.
    pub leader_epoch: i32,
}

impl WriteEnd {
    /// Returns the end of a batch.
    #[must_use]
    pub fn of(batch: &AppendedBatch) -> Self {
        Self { offset: batch.last_offset + 1, leader_epoch: batch.leader_epoch }
    }

    /// Returns the end of this write and of one before it. They are committed together only within one epoch.
    #[must_use]
    pub fn after(self, before: Option<Self>) -> Self {
        Self { leader_epoch: before.map_or(self.leader_epoch, |before| before.leader_epoch), ..self }
    }
}

/// The wait for the commit of a write. Await it: no thread has to block.
#[derive(Debug)]
#[must_use = "a response must not leave before the write is committed"]
pub struct Committed {
    synced: Option<Reported>,
    replicated: Option<Reported>,
}

impl Committed {
    /// Nothing to wait for.
    pub const NOW: Self = Self { synced: None, replicated: None };

    /// Returns a commit that the sender reports.
    pub(crate) fn when(reported: Reported) -> Self {
        Self { synced: Some(reported), replicated: None }
    }

    /// Returns whether there is nothing to wait for.
    #[must_use]
    pub fn is_now(&self) -> bool {
        self.synced.is_none() && self.replicated.is_none()
    }

    /// Blocks until the write is committed.
    #[cfg(test)]
    pub(crate) fn wait_blocking(self) -> Result<(), PartitionError> {
        let mut reported = self.synced.into_iter().chain(self.replicated);
        reported.try_for_each(|reported| reported.blocking_recv().unwrap_or(Err(PartitionError::ShuttingDown)))
    }
}

impl Future for Committed {
    type Output = Result<(), PartitionError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { synced, replicated } = &mut *self;
        for waits in [synced, replicated] {
            let Some(reported) = waits else { continue };
            // The queue drops its waiters when it stops.
            let outcome = ready!(Pin::new(reported).poll(context)).unwrap_or(Err(PartitionError::ShuttingDown));
            *waits = None;
            outcome?;
        }
        Poll::Ready(Ok(()))
    }
}

/// The writes of a leader that wait until all replicas in sync have them.
#[derive(Debug, Default)]
pub(crate) struct CommitWaiters {
    inner: Mutex<CommitInner>,
}

#[derive(Debug, Default)]
struct CommitInner {
    /// The epoch in which this broker leads.
    leader_epoch: i32,
    /// Why nothing is committed here: another broker leads, or the partition is closed.
    ended: Option<PartitionError>,
    /// Offsets below this are committed.
    committed: i64,
    waiting: OffsetWaiters,
}

impl CommitWaiters {
    /// Returns the wait until a write is committed; `None` if it is.
    fn wait(&self, end: WriteEnd) -> Option<Reported> {
        let mut inner = self.inner.lock();
        match inner.why_never(end) {
            Some(error) => Some(rejected(error)),
            None if end.offset <= inner.committed => None,
            None => Some(inner.waiting.add(end.offset)),
        }
    }

    /// Begins an epoch in which this broker leads. A leader that stays keeps its log, and the writes that wait.
    pub(crate) fn begin(&self, leader_epoch: i32) {
        let mut inner = self.inner.lock();
        inner.leader_epoch = leader_epoch;
        inner.ended = None;
    }

    /// Ends every wait with an error, and all that come until [`Self::begin`].
    pub(crate) fn end(&self, error: &PartitionError) {
        self.inner.lock().ended = Some(error.clone());
        self.fail_all(error);
    }

    /// Notes that all offsets below `committed` are. Returns whether a write may wait for that, which
    /// [`Self::complete`] then ends. The caller holds the partition's lock.
    pub(crate) fn note_committed(&self, committed: i64) -> bool {
        let mut inner = self.inner.lock();
        let has_moved = committed > inner.committed;
        inner.committed = inner.committed.max(committed);
        has_moved && !inner.waiting.is_empty()
    }

    /// Ends the waits for what is committed.
    pub(crate) fn complete(&self) {
        let mut inner = self.inner.lock();
        let committed = inner.committed;
        let over = inner.waiting.take_up_to(committed);
        drop(inner);
        over.report(&Ok(()));
    }

    /// Ends every wait with an error.
    pub(crate) fn fail_all(&self, error: &PartitionError) {
        let over = self.inner.lock().waiting.take_all();
        over.report(&Err(error.clone()));
    }

    /// Lowers what is committed to the new end of a truncated log: an unclean election lost committed records. The
    /// caller holds the partition's lock.
    pub(crate) fn truncated(&self, end: i64) {
        let mut inner = self.inner.lock();
        inner.committed = inner.committed.min(end);
    }
}

impl CommitInner {
    /// Returns why a write cannot be committed here any more.
    fn why_never(&self, end: WriteEnd) -> Option<PartitionError> {
        let changed = || PartitionError::LeaderEpochChanged { appended: end.leader_epoch, current: self.leader_epoch };
        self.ended.clone().or_else(|| (end.leader_epoch != self.leader_epoch).then(changed))
    }
}

impl Partition {
    /// Returns the wait that the response to a write makes: until its records are as safe as `acks` asks for.
    ///
    /// With acks=all that is all replicas in sync, and with `flush.mode=fsync` their stable storage. A topic with
    /// `flush.messages` waits for stable storage of this broker whatever the acks are, each time that many records are
    /// not synced yet.
    pub fn committed(self: &Arc<Self>, end: WriteEnd, acks: Acks) -> Committed {
        let queue = self.fsync_queue();
        let flushes = self.flush_messages_reached();
        if acks != Acks::All {
            return if flushes { queue.wait(self, end.offset) } else { Committed::NOW };
        }
        if seeded_bug::is(Bug::AcknowledgeBeforeReplicating) {
            return queue.wait(self, end.offset);
        }
        let replicated = self.commit_waiters().wait(end);
        match queue.flush_mode() {
            // The sync reports to the replicas' state, which ends the wait.
            FlushMode::Fsync if replicated.is_some() => {
                queue.request(self, end.offset);
                Committed { synced: None, replicated }
            }
            FlushMode::PageCache if flushes => Committed { replicated, ..queue.wait(self, end.offset) },
            _ => Committed { synced: None, replicated },
        }
    }

    /// Returns the wait until this broker has synced all offsets below `end`, whatever other replicas have.
    pub fn synced(self: &Arc<Self>, end: i64) -> Committed {
        match self.fsync_queue().flush_mode() {
            FlushMode::Fsync => self.fsync_queue().wait(self, end),
            FlushMode::PageCache => Committed::NOW,
        }
    }
}
