//! Transactions in a partition: verification before the first batch, markers, and reads of committed records.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use millstream_log::{Appended, Log, TransactionEnd, VerificationGuard};
use millstream_record::BatchHeader;

use crate::clock::now_ms;
use crate::commit::{Acks, Committed, WriteEnd};
use crate::error::PartitionError;
use crate::fsync_queue::SyncSource;
use crate::partition::{Partition, PartitionRead, Published};
use crate::replication::ANY_FETCH;

/// The size of the batch of a marker.
const MARKER_BYTES: usize = 78;

/// A marker that was appended and is not committed yet.
#[derive(Debug)]
pub struct MarkerAppend {
    /// The offset of the marker.
    pub offset: i64,
    /// Completes when the marker is committed.
    pub committed: Committed,
}

impl Published {
    /// Publishes the high watermark and the last stable offset. `visible` is the size of the records that the former
    /// shows. Returns that of the latter; it is not known exactly where transactions held it back.
    pub(crate) fn set_high_watermark(&self, log: &mut Log, high_watermark: i64, visible: usize) -> usize {
        log.note_high_watermark(high_watermark);
        let last_stable_offset = log.last_stable_offset(high_watermark);
        let high_watermark_before = self.high_watermark.swap(high_watermark, Ordering::AcqRel);
        let before = self.last_stable_offset.swap(last_stable_offset, Ordering::AcqRel);
        if last_stable_offset <= before {
            0
        } else if last_stable_offset == high_watermark && before == high_watermark_before {
            visible
        } else {
            ANY_FETCH
        }
    }
}

impl Partition {
    /// Returns the last stable offset: readers of committed records see those below it.
    #[must_use]
    pub fn last_stable_offset(&self) -> i64 {
        self.published.last_stable_offset.load(Ordering::Acquire)
    }

    /// Moves the start of the log up to `offset`, and wakes the fetches. Those below it are out of range now, and a
    /// transaction that began below it holds back fewer records. Returns the new start.
    ///
    /// # Errors
    /// The disk failed, or the partition is offline, frozen or deleted.
    pub fn delete_records(&self, offset: i64) -> Result<i64, PartitionError> {
        let mut state = self.state.lock();
        let start = state.log.writable()?.delete_records(offset)?;
        let progress = self.publish(&mut state);
        drop(state);
        self.wake(progress);
        self.waiters().wake_all();
        // The leader epochs are written with it: they say where the log starts if the checkpoint is lost. On a full
        // disk the checkpoint alone has to do.
        if let Err(error) = self.sync() {
            tracing::debug!(topic = self.topic(), partition = self.index(), "cannot sync the new start: {error}");
        }
        Ok(start)
    }

    /// Begins the verification of a batch's transaction, see [`Log::begin_verification`].
    ///
    /// # Errors
    /// This broker does not lead, or the partition is offline, frozen or deleted.
    pub fn begin_verification(
        &self,
        batch: &BatchHeader<'_>,
        is_new_epoch: bool,
    ) -> Result<Option<VerificationGuard>, PartitionError> {
        let mut state = self.state.lock();
        let (log, _) = state.leader_log()?;
        Ok(log.begin_verification(batch, is_new_epoch, now_ms())?)
    }

    /// Appends the marker that ends a transaction. With `leader_epoch`, only in that one. Returns its
    /// offset, and the wait until it is committed.
    ///
    /// # Errors
    /// The marker is fenced, too few replicas are in sync, this broker does not lead, or the partition is offline,
    /// frozen or deleted.
    pub fn append_marker(
        self: &Arc<Self>,
        end: &TransactionEnd,
        leader_epoch: Option<i32>,
    ) -> Result<MarkerAppend, PartitionError> {
        let mut state = self.state.lock();
        let (log, leader) = state.leader_log()?;
        let current = leader.epoch();
        if let Some(appended) = leader_epoch.filter(|epoch| *epoch != current) {
            return Err(PartitionError::LeaderEpochChanged { appended, current });
        }
        if leader.is_under_min_isr() {
            return Err(PartitionError::NotEnoughReplicas { in_sync: leader.isr().len() });
        }
        let marker = log.append_marker(end, leader.epoch(), now_ms())?;
        self.appended(state, Appended::New(marker), MARKER_BYTES);
        let committed = self.committed(WriteEnd::of(&marker), Acks::All);
        Ok(MarkerAppend { offset: marker.base_offset, committed })
    }

    /// Reads whole batches from `offset` up to the last stable offset, and the aborted transactions in them.
    ///
    /// # Errors
    /// The offset is outside of the log, the disk failed, or the partition is offline or deleted.
    pub fn read_committed(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<PartitionRead, PartitionError> {
        let reader = self.reader()?;
        let last_stable_offset = self.last_stable_offset();
        let high_watermark = self.high_watermark();
        let slice = reader.read(offset, max_bytes, last_stable_offset, at_least_one)?;
        let aborted = match &slice {
            Some(slice) => reader.aborted_transactions(slice)?,
            None => Vec::new(),
        };
        let log_start_offset = reader.log_start_offset();
        Ok(PartitionRead { slice, log_start_offset, high_watermark, last_stable_offset, aborted: Some(aborted) })
    }
}
