//! Idempotent producers (KIP-98, KIP-360): tracks the last batches that each producer wrote to this partition.

use std::collections::HashMap;

use millstream_record::EndMarker;

use crate::batch_walk::{BatchHeader, add_sequence};
use crate::error::AppendError;
use crate::transaction_index::AbortedTransaction;
use crate::transactions::{CompletedTransaction, Transactions};

/// The number of a producer's last batches that are kept, which is the number that it may have in flight.
const WINDOW: usize = 5;

/// One batch of a producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchMetadata {
    pub(crate) last_sequence: i32,
    pub(crate) last_offset: i64,
    pub(crate) offset_delta: i32,
    pub(crate) timestamp: i64,
}

impl BatchMetadata {
    fn of(header: &BatchHeader) -> Self {
        Self {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        }
    }

    fn first_sequence(&self) -> i32 {
        add_sequence(self.last_sequence, -self.offset_delta)
    }

    pub(crate) fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// The state of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) last_timestamp: i64,
    /// The start offset of its open transaction.
    pub(crate) transaction_start: Option<i64>,
    /// The last batches of `epoch`, oldest first.
    window: [BatchMetadata; WINDOW],
    len: u8,
    /// The entry comes from a snapshot, which has only the last batch. The others are in the log.
    partial: bool,
}

impl ProducerEntry {
    pub(crate) fn new(epoch: i16) -> Self {
        Self {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            transaction_start: None,
            window: Default::default(),
            len: 0,
            partial: false,
        }
    }

    /// Returns the entry for a producer in a snapshot.
    pub(crate) fn of_snapshot(epoch: i16, last: Option<BatchMetadata>) -> Self {
        let mut entry = Self::new(epoch);
        if let Some(last) = last {
            entry.note(last);
            entry.partial = true;
        }
        entry
    }

    fn batches(&self) -> &[BatchMetadata] {
        &self.window[..usize::from(self.len)]
    }

    pub(crate) fn last_batch(&self) -> Option<BatchMetadata> {
        self.batches().last().copied()
    }

    /// Notes a batch. Brokers write batches without sequences for a producer. They do not take the place of those that
    /// it has sent itself, since its next one follows these.
    pub(crate) fn note(&mut self, batch: BatchMetadata) {
        self.last_timestamp = batch.timestamp;
        let last_sequence = self.last_batch().map(|last| last.last_sequence);
        if batch.last_sequence < 0 && last_sequence.is_some_and(|last| last >= 0) {
            return;
        }
        if last_sequence.is_some_and(|last| last < 0) {
            self.len = 0;
        }
        if usize::from(self.len) == WINDOW {
            self.window.rotate_left(1);
        } else {
            self.len += 1;
        }
        self.window[usize::from(self.len) - 1] = batch;
    }

    fn duplicate(&self, header: &BatchHeader) -> Option<BatchMetadata> {
        let last = header.last_sequence();
        let same = |b: &&BatchMetadata| b.first_sequence() == header.base_sequence && b.last_sequence == last;
        self.batches().iter().find(same).filter(|_| header.base_sequence >= 0).copied()
    }
}

/// The state of one producer, for DescribeProducers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The producer's id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The sequence of its last record; -1 if the log has none of this epoch.
    pub last_sequence: i32,
    /// The timestamp of its last batch, in milliseconds since 1970; -1 if there is none.
    pub last_timestamp: i64,
    /// The epoch of its transaction coordinator; -1 without transactions.
    pub coordinator_epoch: i32,
    /// The start offset of its open transaction, if it has one.
    pub transaction_start: Option<i64>,
}

impl ProducerState {
    pub(crate) fn of(producer_id: i64, entry: &ProducerEntry) -> Self {
        Self {
            producer_id,
            epoch: entry.epoch,
            last_sequence: entry.last_batch().map_or(-1, |batch| batch.last_sequence),
            last_timestamp: entry.last_timestamp,
            coordinator_epoch: entry.coordinator_epoch,
            transaction_start: entry.transaction_start,
        }
    }
}

/// All producers of a partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers {
    pub(crate) by_id: HashMap<i64, ProducerEntry>,
    pub(crate) transactions: Transactions,
}

impl Producers {
    /// Returns the state of producers with these entries, such as those of a snapshot.
    pub(crate) fn of(by_id: HashMap<i64, ProducerEntry>) -> Self {
        let mut transactions = Transactions::default();
        for (id, entry) in &by_id {
            if let Some(start) = entry.transaction_start {
                transactions.begin(*id, start);
            }
        }
        Self { by_id, transactions }
    }

    /// Returns whether the transaction of a batch is open in the log.
    pub(crate) fn has_open_transaction(&self, header: &BatchHeader) -> bool {
        let entry = self.by_id.get(&header.producer_id);
        entry.is_some_and(|entry| entry.transaction_start.is_some() && entry.epoch == header.producer_epoch)
    }

    /// Returns the stored batch that a batch repeats, if any.
    pub(crate) fn duplicate(&self, header: &BatchHeader) -> Option<BatchMetadata> {
        let entry = self.by_id.get(&header.producer_id)?;
        if entry.epoch == header.producer_epoch { entry.duplicate(header) } else { None }
    }

    /// Checks whether a producer's epoch and transaction allow a batch that is not a marker.
    pub(crate) fn check_epoch(&self, header: &BatchHeader) -> Result<(), AppendError> {
        // An unknown producer may start with any epoch.
        let Some(entry) = self.by_id.get(&header.producer_id) else { return Ok(()) };
        let producer_id = header.producer_id;
        if header.producer_epoch < entry.epoch {
            let (found, current) = (header.producer_epoch, entry.epoch);
            return Err(AppendError::InvalidProducerEpoch { producer_id, found, current });
        }
        if entry.transaction_start.is_some() && !header.is_transactional() {
            return Err(AppendError::OutsideTransaction { producer_id });
        }
        Ok(())
    }

    /// Checks whether the sequence of a client's batch follows those of the log. `first_max` is the highest one with
    /// which its transaction may begin, see [`crate::verification`].
    pub(crate) fn check_sequence(&self, header: &BatchHeader, first_max: Option<i32>) -> Result<(), AppendError> {
        let out_of_order = |last| AppendError::OutOfOrderSequence {
            producer_id: header.producer_id,
            found: header.base_sequence,
            last,
        };
        if first_max.is_some_and(|first_max| header.base_sequence > first_max) {
            return Err(out_of_order(-1));
        }
        // An unknown producer, or one whose state expired, may start with any sequence (KIP-360).
        let Some(entry) = self.by_id.get(&header.producer_id) else { return Ok(()) };
        let (last, expected) = match entry.last_batch().filter(|_| header.producer_epoch == entry.epoch) {
            Some(batch) => (batch.last_sequence, add_sequence(batch.last_sequence, 1)),
            // A producer begins each epoch with 0. The epoch may be known only from a marker.
            None => (-1, 0),
        };
        if header.base_sequence == expected { Ok(()) } else { Err(out_of_order(last)) }
    }

    /// Returns the offset below which the log may hold more batches of a producer's window, if any are missing.
    pub(crate) fn missing_below(&self, producer_id: i64) -> Option<i64> {
        let entry = self.by_id.get(&producer_id)?;
        let oldest = entry.batches().first()?;
        (entry.partial && usize::from(entry.len) < WINDOW).then(|| oldest.first_offset())
    }

    /// Completes a producer's window with batches from the log, given oldest first.
    pub(crate) fn complete(&mut self, producer_id: i64, older: &[BatchHeader]) {
        let Some(entry) = self.by_id.get_mut(&producer_id) else {
            return;
        };
        entry.partial = false;
        let epoch = entry.epoch;
        let known = *entry;
        entry.len = 0;
        let same = |header: &&BatchHeader| header.producer_id == producer_id && header.producer_epoch == epoch;
        for header in older.iter().filter(same) {
            entry.note(BatchMetadata::of(header));
        }
        for batch in known.batches() {
            entry.note(*batch);
        }
        entry.last_timestamp = known.last_timestamp;
    }

    /// Updates the state with a batch that is in the log, and with the marker that it holds. Returns the transaction
    /// that the marker has aborted.
    pub(crate) fn update(&mut self, header: &BatchHeader, marker: Option<EndMarker>) -> Option<AbortedTransaction> {
        // A control batch without a marker has lost it to compaction, or is of another kind.
        if header.producer_id < 0 || (header.is_control() && marker.is_none()) {
            return None;
        }
        let entry = self.by_id.entry(header.producer_id).or_insert_with(|| ProducerEntry::new(header.producer_epoch));
        if header.producer_epoch != entry.epoch {
            entry.epoch = header.producer_epoch;
            entry.len = 0;
            entry.partial = false;
        }
        if let Some(marker) = marker {
            // A marker is not part of the producer's sequence.
            entry.coordinator_epoch = marker.coordinator_epoch;
            entry.last_timestamp = header.max_timestamp;
            let first_offset = entry.transaction_start.take()?;
            let (producer_id, last_offset) = (header.producer_id, header.base_offset);
            let is_aborted = !marker.is_commit;
            return self.complete_transaction(CompletedTransaction {
                producer_id,
                first_offset,
                last_offset,
                is_aborted,
            });
        }
        entry.note(BatchMetadata::of(header));
        if header.is_transactional() && entry.transaction_start.is_none() {
            entry.transaction_start = Some(header.base_offset);
            self.transactions.begin(header.producer_id, header.base_offset);
        }
        None
    }

    fn complete_transaction(&mut self, completed: CompletedTransaction) -> Option<AbortedTransaction> {
        let last_stable_offset = self.transactions.stable_after(&completed);
        self.transactions.complete(&completed);
        let CompletedTransaction { producer_id, first_offset, last_offset, is_aborted } = completed;
        is_aborted.then_some(AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset })
    }

    /// Removes producers that have been idle for `expiration_ms` and have no open transaction. Returns their number.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.by_id.len();
        self.by_id.retain(|_, entry| {
            entry.transaction_start.is_some() || now_ms.saturating_sub(entry.last_timestamp) < expiration_ms
        });
        before - self.by_id.len()
    }
}
