//! An internal topic in memory, for the tests of coordinators.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millstream_partition::{InternalAppend, InternalTopic, PartitionError, Verification, VerificationGuard};
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
}

impl Memory {
    pub(crate) fn new() -> Self {
        let (flushed, reads) = (watch::Sender::new(true), watch::Sender::new(Reads::Work));
        let batch_bytes_max = Arc::new(Mutex::new(usize::MAX));
        let (logs, created, epochs) = (Arc::default(), Arc::new(Mutex::new(true)), Arc::default());
        let (replays, held, suspended) = (Arc::default(), watch::Sender::new(None), watch::Sender::new(false));
        Self { logs, created, flushed, reads, replays, epochs, batch_bytes_max, held, suspended }
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

    fn is_empty(&self, partition: i32) -> bool {
        self.logs.lock().get(&partition).is_none_or(Vec::is_empty)
    }

    fn append(&self, partition: i32, leader_epoch: i32, batch: &[u8]) -> Result<InternalAppend, PartitionError> {
        if batch.len() > *self.batch_bytes_max.lock() {
            return Err(PartitionError::Frozen);
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
        let settles = move || {
            let memory = memory.clone();
            let (mut flushed, mut held) = (memory.flushed.subscribe(), memory.held.subscribe());
            async move {
                flushed.wait_for(|flushed| *flushed).await.map(drop).map_err(|_| PartitionError::ShuttingDown)?;
                let is_free = |held: &Option<i64>| *held != Some(base_offset);
                held.wait_for(is_free).await.map(drop).map_err(|_| PartitionError::ShuttingDown)?;
                let current = memory.epoch(partition).load(Ordering::Acquire);
                if current == appended { Ok(()) } else { Err(PartitionError::LeaderEpochChanged { appended, current }) }
            }
        };
        let (settled, mut suspended) = (Box::pin(settles()), self.suspended.subscribe());
        let committed = Box::pin(async move {
            tokio::select! {
                settled = settles() => settled,
                _ = suspended.wait_for(|suspended| *suspended) => Err(PartitionError::Suspended),
            }
        });
        Ok(InternalAppend { base_offset, committed, settled })
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
        self.append(partition, leader_epoch, batch)
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

/// Waits until a condition holds.
pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let polled = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(WAIT_MAX, polled).await.is_ok(), "timed out: {what}");
}
