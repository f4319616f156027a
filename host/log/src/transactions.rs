//! Transactions in a log: which are open, where readers of committed records stop, and the markers that end them
//! (KIP-98, KIP-890).

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use millstream_record::{BatchView, CheckedBatch, EndMarker};

use crate::append::{AppendedBatch, Appending};
use crate::batch_walk::{BatchHeader, Located};
use crate::error::{AppendError, LogError, ReadError};
use crate::log::{Log, LogReader};
use crate::producer_state::ProducerEntry;
use crate::read::LogSlice;
use crate::seeded_bug::{self, Bug};
use crate::segment::Segment;
use crate::transaction_index::AbortedTransaction;
use crate::verification::VerificationGuard;

/// The `transaction.version` from which on a marker has a higher epoch than the records before it.
const RAISES_EPOCH_SINCE: i8 = 2;

/// The end of a transaction, as its coordinator decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEnd {
    /// The producer.
    pub producer_id: i64,
    /// The epoch of the marker.
    pub producer_epoch: i16,
    /// Commit or abort, and the epoch of the coordinator.
    pub marker: EndMarker,
    /// The `transaction.version` of the transaction: from 2 on, the epoch must be above that of the records.
    pub transaction_version: i8,
}

/// A transaction that a marker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletedTransaction {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// The offset of the marker.
    pub(crate) last_offset: i64,
    pub(crate) is_aborted: bool,
}

/// The transactions that keep readers of committed records from going on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transactions {
    /// The producers of open transactions, by first offset.
    open: BTreeMap<i64, i64>,
    /// Ended transactions whose markers may be at or above the high watermark: first offset and offset of the marker.
    /// A reader that saw their records would not know yet whether they count.
    uncommitted: BTreeMap<i64, i64>,
}

impl Transactions {
    pub(crate) fn begin(&mut self, producer_id: i64, first_offset: i64) {
        self.open.insert(first_offset, producer_id);
    }

    pub(crate) fn complete(&mut self, completed: &CompletedTransaction) {
        self.open.remove(&completed.first_offset);
        self.uncommitted.insert(completed.first_offset, completed.last_offset);
    }

    /// Returns the first offset of the open transactions.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.first_key_value().map(|(first, _)| *first)
    }

    /// Returns the first offset that is not decided, or whose decision may be lost.
    fn first_unstable(&self) -> Option<i64> {
        let uncommitted = self.uncommitted.first_key_value().map(|(first, _)| *first);
        self.first_open().into_iter().chain(uncommitted).min()
    }

    /// Returns where the open transactions stop readers, once a transaction is completed.
    pub(crate) fn stable_after(&self, completed: &CompletedTransaction) -> i64 {
        let mut others = self.open.iter().filter(|(_, producer)| **producer != completed.producer_id);
        others.next().map_or(completed.last_offset + 1, |(first, _)| *first)
    }

    /// Removes the ended transactions whose markers are below the high watermark.
    fn commit(&mut self, high_watermark: i64) {
        if !self.uncommitted.is_empty() {
            self.uncommitted.retain(|_, last| *last >= high_watermark);
        }
    }

    /// Adds the ended transactions of an earlier state whose markers are below `end`.
    pub(crate) fn keep_uncommitted(&mut self, earlier: &Self, end: i64) {
        self.uncommitted.extend(earlier.uncommitted.iter().filter(|(_, last)| **last < end));
    }
}

/// Returns the marker of a batch whose bytes are at hand, if it has an effect.
pub(crate) fn marker_of(header: &BatchHeader, batch: &BatchView<'_>) -> Option<EndMarker> {
    (header.is_control() && header.producer_id >= 0).then(|| EndMarker::of(batch)).flatten()
}

impl Log {
    /// Returns the last stable offset: readers of committed records see what is below it.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        match self.producers.transactions.first_unstable() {
            None => high_watermark,
            Some(_) if seeded_bug::is(Bug::StableIsHighWatermark) => high_watermark,
            // Records of an open transaction may have been deleted.
            Some(first) => first.max(self.log_start_offset()).min(high_watermark),
        }
    }

    /// Notes that the markers below the high watermark are committed.
    pub fn note_high_watermark(&mut self, high_watermark: i64) {
        self.producers.transactions.commit(high_watermark);
    }

    /// Returns whether a batch needs the confirmation of its transaction's coordinator before it is appended, and then
    /// begins that verification. It needs none if its transaction is open in this log.
    ///
    /// `is_new_epoch`: the producer gets a new epoch with each transaction (Produce v12).
    ///
    /// # Errors
    /// The batch cannot be appended at the end of the log.
    pub fn begin_verification(
        &mut self,
        batch: &millstream_record::BatchHeader<'_>,
        is_new_epoch: bool,
        now_ms: i64,
    ) -> Result<Option<VerificationGuard>, AppendError> {
        let header = BatchHeader::at(batch, self.log_end_offset(), 0).map_err(AppendError::Corrupt)?;
        if !header.is_transactional() || self.producers.has_open_transaction(&header) {
            return Ok(None);
        }
        Ok(Some(self.verifications.begin(&header, is_new_epoch, now_ms)))
    }

    /// Appends the marker that ends a transaction, as the leader. Without an open transaction it has no effect but the
    /// epochs, as in Kafka: the coordinator may repeat it.
    ///
    /// # Errors
    /// The producer's epoch or that of the coordinator is older than the log's. The log is unchanged.
    pub fn append_marker(
        &mut self,
        end: &TransactionEnd,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<AppendedBatch, AppendError> {
        self.check_not_poisoned()?;
        if let Some(entry) = self.producers.by_id.get(&end.producer_id) {
            check_end(entry, end)?;
        }
        let bytes = end.marker.batch(end.producer_id, end.producer_epoch, now_ms);
        let batch = CheckedBatch::of_own(&bytes).map_err(|error| AppendError::Corrupt(error.to_string()))?;
        let (head, header) = self.leader_header(&batch, leader_epoch, now_ms)?;
        self.append_one(header, Some(end.marker), &mut [IoSlice::new(&head), IoSlice::new(batch.payload())])
            .inspect_err(|error| self.note_fault(error))?;
        let log_append_time = if header.is_log_append_time() { now_ms } else { -1 };
        Ok(self.appended(header.base_offset, header.last_offset(), log_append_time, leader_epoch))
    }

    /// Updates the producers with a batch that was written to the active segment, and the index of aborted
    /// transactions. Room for the entry was reserved.
    pub(crate) fn note_producer(&mut self, batch: &Appending) -> Result<(), LogError> {
        let header = &batch.located.header;
        if header.is_transactional() {
            self.verifications.end(header.producer_id);
        }
        let Some(aborted) = self.producers.update(header, batch.marker) else { return Ok(()) };
        let active = self.active();
        let index = active.transactions();
        index.append(&aborted).map_err(LogError::io("cannot append to", &index.path()))?;
        self.unsynced.note_transactions(&active);
        Ok(())
    }

    /// Visits each batch that starts at or after `from`, with the marker that it may hold.
    pub(crate) fn for_each_with_marker(
        &self,
        from: i64,
        mut visit: impl FnMut(&Located, Option<EndMarker>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let segments = {
            let list = self.shared().list.read();
            list.segments[list.segment_of(from)..].to_vec()
        };
        for segment in segments {
            segment.for_each_in(from..i64::MAX, |batch| {
                let header = &batch.header;
                let marker = match header.is_control() && header.producer_id >= 0 {
                    true => {
                        let bytes = segment.read_batch(batch)?;
                        BatchView::parse(&bytes).ok().and_then(|batch| EndMarker::of(&batch))
                    }
                    false => None,
                };
                visit(batch, marker)
            })?;
        }
        Ok(())
    }
}

/// Checks the epochs of a marker against a producer's state.
fn check_end(entry: &ProducerEntry, end: &TransactionEnd) -> Result<(), AppendError> {
    let (found, current) = (end.producer_epoch, entry.epoch);
    let is_repeated = found == current && entry.transaction_start.is_none();
    let is_late = match end.transaction_version >= RAISES_EPOCH_SINCE {
        true => found <= current && !is_repeated,
        false => found < current,
    };
    let producer_id = end.producer_id;
    if is_late {
        return Err(AppendError::InvalidProducerEpoch { producer_id, found, current });
    }
    let (found, current) = (end.marker.coordinator_epoch, entry.coordinator_epoch);
    if found < current {
        return Err(AppendError::CoordinatorFenced { producer_id, found, current });
    }
    Ok(())
}

impl LogReader {
    /// Returns the aborted transactions that have records in a slice, which a reader of committed records leaves out.
    /// In the order of their first offsets: some clients read the list that way, and the others read any order.
    ///
    /// # Errors
    /// The disk failed, or the records were deleted.
    pub fn aborted_transactions(&self, slice: &LogSlice) -> Result<Vec<AbortedTransaction>, ReadError> {
        self.aborted_between(slice.offsets())
    }

    /// Returns the aborted transactions that have records in a range of offsets, in the order of their first offsets.
    pub(crate) fn aborted_between(&self, offsets: Range<i64>) -> Result<Vec<AbortedTransaction>, ReadError> {
        loop {
            // Most logs have no such transactions, and then there is nothing to read.
            let segments: Vec<_> = {
                let list = self.shared.list.read();
                let later = list.segments[list.segment_of(offsets.start)..].iter();
                later.filter(|segment| segment.transactions().entries() > 0).cloned().collect()
            };
            match collect(&segments, &offsets) {
                Ok(found) => return Ok(found),
                // A compacted segment has taken the place of one of them: its index has another content.
                Err((segment, _)) if self.is_replaced(&segment) => {}
                Err((segment, error)) => {
                    let error = LogError::io("cannot read", &segment.transactions().path())(error);
                    return self.unless_deleted(offsets.start, error);
                }
            }
        }
    }

    /// Returns whether a segment left the list and was not deleted.
    fn is_replaced(&self, segment: &Arc<Segment>) -> bool {
        let list = self.shared.list.read();
        !list.holds(segment) && list.segments[0].base_offset() <= segment.base_offset()
    }
}

/// Collects the aborted transactions of segments that have records in a range. An error names its segment.
fn collect(
    segments: &[Arc<Segment>],
    offsets: &Range<i64>,
) -> Result<Vec<AbortedTransaction>, (Arc<Segment>, io::Error)> {
    let mut found = Vec::new();
    for segment in segments {
        let collected = segment.transactions().collect(offsets.start, offsets.end, &mut found);
        if collected.map_err(|error| (Arc::clone(segment), error))? {
            break;
        }
    }
    found.sort_unstable_by_key(|aborted| aborted.first_offset);
    Ok(found)
}
