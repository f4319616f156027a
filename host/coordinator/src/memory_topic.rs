//! An internal topic in memory, for the tests of coordinators.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millstream_partition::{
    CommittedAtEpoch, InternalAppend, InternalTopic, PartitionError, Verification, VerificationGuard,
};
use millstream_record::{BatchView, patch};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::partition_of::partition_of;

pub(crate) const PARTITIONS: i32 = 4;

/// The longest wait for something that must happen.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a replay of the log does.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Reads {
    Wait,
    Work,
    Fail,
}

/// Partitions in memory. An append is committed when `flushed` says so, if the leader epoch is still the same.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) logs: Arc<Mutex<BTreeMap<i32, Vec<Bytes>>>>,
    pub(crate) created: Arc<Mutex<bool>>,
    pub(crate) flushed: watch::Sender<bool>,
    pub(crate) reads: watch::Sender<Reads>,
    /// The replays that have started and not ended.
    replays: Arc<AtomicUsize>,
    /// The leader epoch in which this broker leads each partition; -1 for none.
    epochs: Arc<[AtomicI32; PARTITIONS as usize]>,
    /// The largest accepted batch in bytes.
    pub(crate) batch_bytes_max: Arc<Mutex<usize>>,
    /// The batch at this offset is not committed before the others.
    pub(crate) held: watch::Sender<Option<i64>>,
    /// It is not known whether this broker still leads.
    pub(crate) suspended: watch::Sender<bool>,
    /// The appends that were rejected for that.
    pub(crate) rejected: Arc<AtomicUsize>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let (flushed, reads) = (watch::Sender::new(true), watch::Sender::new(Reads::Work));
        let batch_bytes_max = Arc::new(Mutex::new(usize::MAX));
        let (logs, created, epochs) = (Arc::default(), Arc::new(Mutex::new(true)), Arc::default());
        let (replays, held, suspended) = (Arc::default(), watch::Sender::new(None), watch::Sender::new(false));
        let rejected = Arc::default();
        Self { logs, created, flushed, reads, replays, epochs, batch_bytes_max, held, suspended, rejected }
    }

    pub(crate) fn batches(&self) -> usize {
        self.logs.lock().values().map(Vec::len).sum()
    }

    pub(crate) fn waiting_reads(&self) -> usize {
        self.replays.load(Ordering::Acquire)
    }

    fn epoch(&self, partition: i32) -> &AtomicI32 {
        &self.epochs[usize::try_from(partition).unwrap()]
    }

    /// Changes the leader of the partition of a key: this broker in an epoch, or another one.
    pub(crate) fn lead(&self, key: &str, epoch: Option<i32>) {
        self.epoch(partition_of(key, PARTITIONS)).store(epoch.unwrap_or(-1), Ordering::Release);
    }
}

fn next_offset(log: &[Bytes]) -> i64 {
    log.last().map_or(0, |batch| BatchView::parse(batch).unwrap().next_offset())
}

impl InternalTopic for Memory {
    fn partitions(&self) -> i32 {
        if *self.created.lock() { PARTITIONS } else { 0 }
    }

    fn led_epoch(&self, partition: i32) -> Option<i32> {
        Some(self.epoch(partition).load(Ordering::Acquire)).filter(|epoch| *epoch >= 0 && *self.created.lock())
    }

    fn may_have_moved(&self, _: i32) -> bool {
        *self.suspended.borrow()
    }

    fn is_empty(&self, partition: i32) -> bool {
        self.logs.lock().get(&partition).is_none_or(Vec::is_empty)
    }

    fn begin_verification(&self, _: i32, _: i32, _: &[u8]) -> Result<Option<VerificationGuard>, PartitionError> {
        Ok(None)
    }

    fn append_in_transaction(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: &[u8],
        _: Verification,
    ) -> Result<InternalAppend, PartitionError> {
        if batch.len() > *self.batch_bytes_max.lock() {
            return Err(PartitionError::Frozen);
        }
        if *self.suspended.borrow() {
            self.rejected.fetch_add(1, Ordering::AcqRel);
            return Err(PartitionError::Suspended);
        }
        match self.led_epoch(partition) {
            Some(current) if current == leader_epoch => {}
            Some(current) => return Err(PartitionError::LeaderEpochChanged { appended: leader_epoch, current }),
            None => return Err(PartitionError::NotLeader { leader: 9 }),
        }
        let mut logs = self.logs.lock();
        let log = logs.entry(partition).or_default();
        let base_offset = next_offset(log);
        let mut batch = BytesMut::from(batch);
        patch::set_base_offset(&mut batch, base_offset);
        log.push(batch.freeze());
        let (memory, appended) = (self.clone(), leader_epoch);
        let (mut flushed, mut held) = (self.flushed.subscribe(), self.held.subscribe());
        let mut suspended = self.suspended.subscribe();
        let settled = async move {
            flushed.wait_for(|flushed| *flushed).await.map(drop).map_err(|_| PartitionError::ShuttingDown)?;
            let is_free = |held: &Option<i64>| *held != Some(base_offset);
            held.wait_for(is_free).await.map(drop).map_err(|_| PartitionError::ShuttingDown)?;
            let current = memory.epoch(partition).load(Ordering::Acquire);
            if current == appended { Ok(()) } else { Err(PartitionError::LeaderEpochChanged { appended, current }) }
        };
        let suspended = async move { _ = suspended.wait_for(|suspended| *suspended).await };
        Ok(InternalAppend { base_offset, committed: interrupted(settled, suspended) })
    }

    fn replay(
        &self,
        partition: i32,
        visit: &mut dyn FnMut(&BatchView<'_>) -> ControlFlow<()>,
    ) -> Result<(), PartitionError> {
        self.replays.fetch_add(1, Ordering::AcqRel);
        let mut reads = self.reads.subscribe();
        let gate = async { *reads.wait_for(|reads| *reads != Reads::Wait).await.unwrap() };
        let reads = tokio::runtime::Handle::current().block_on(gate);
        self.replays.fetch_sub(1, Ordering::AcqRel);
        if reads == Reads::Fail {
            return Err(PartitionError::Offline(Arc::from("unreadable")));
        }
        let log = self.logs.lock().get(&partition).cloned().unwrap_or_default();
        for batch in &log {
            if visit(&BatchView::parse(batch).unwrap()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Returns a commit that settles as `settled` does, and is interrupted once.
pub(crate) fn interrupted(
    settled: impl Future<Output = Result<(), PartitionError>> + Send + 'static,
    suspended: impl Future<Output = ()> + Send + 'static,
) -> CommittedAtEpoch {
    let (mut settled, mut suspended) = (Box::pin(settled), Some(Box::pin(suspended)));
    Box::pin(poll_fn(move |context| {
        if let Poll::Ready(outcome) = settled.as_mut().poll(context) {
            return Poll::Ready(outcome);
        }
        if suspended.as_mut().is_some_and(|suspended| suspended.as_mut().poll(context).is_ready()) {
            suspended = None;
            return Poll::Ready(Err(PartitionError::Suspended));
        }
        Poll::Pending
    }))
}

/// Waits until a condition holds.
pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let polled = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(WAIT_MAX, polled).await.is_ok(), "timed out: {what}");
}
