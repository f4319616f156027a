//! The batches of one partition, in the order of sending.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_record::{BatchBuilder, Codec, Header, TimestampType};

use super::ChunkRow;
use crate::error::Error;
use crate::producer::delivery::{ChunkResults, Stored};
use crate::producer::sequence::{Identity, Sequence, Sequences};

/// The size of a batch's header, in bytes.
const BATCH_OVERHEAD: usize = millstream_record::HEADER_LEN;

/// The batches of one partition in the order of sending. The last one may still take records.
pub(crate) struct PartitionQueue {
    pub(crate) batches: VecDeque<Batch>,
    pub(crate) in_flight: usize,
    pub(crate) sequences: Sequences,
    next_number: u64,
}

impl PartitionQueue {
    pub(crate) fn new() -> Self {
        Self { batches: VecDeque::new(), in_flight: 0, sequences: Sequences::new(), next_number: 0 }
    }

    /// Returns the size of all waiting batches, in bytes.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.size() as u64).sum()
    }

    /// Returns the batch for a record of at most `size` bytes: the last one if it has room, otherwise a new one.
    pub(crate) fn open(&mut self, size: usize, settings: &BatchSettings, created: Instant) -> &mut Batch {
        let fits = self.batches.back().is_some_and(|batch| batch.takes(size, settings.batch_size));
        if !fits {
            self.batches.push_back(Batch::new(self.next_number, settings, created));
            self.next_number += 1;
        }
        self.batches.back_mut().expect("one was pushed if there was none")
    }

    /// Puts a batch back for a retry, in front of all batches that were created after it.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        let at = self.batches.partition_point(|other| other.number < batch.number);
        self.batches.insert(at, batch);
    }

    /// Checks whether the first batch may be sent. The error is the time to check again, if only time is missing.
    pub(crate) fn ready(&self, rules: &SendRules, now: Instant) -> Result<(), Option<Instant>> {
        let Some(first) = self.batches.front() else { return Err(None) };
        if self.in_flight >= rules.in_flight_max {
            return Err(None);
        }
        if first.not_before > now {
            return Err(Some(first.not_before));
        }
        let full = self.batches.len() > 1 || first.size() >= rules.batch_size || first.built.is_some();
        let due = first.created + rules.linger;
        if !full && !rules.hurry && due > now {
            return Err(Some(due));
        }
        match rules.idempotent && !self.sequences.may_send(first.number) {
            true => Err(None),
            false => Ok(()),
        }
    }

    /// Lets a batch that failed at another leader be sent at once.
    pub(crate) fn set_leader(&mut self, leader: (i32, i32)) {
        if let Some(first) = self.batches.front_mut()
            && first.failed_at.is_some_and(|failed_at| failed_at != leader)
        {
            first.not_before = first.created;
        }
    }

    /// Removes the first batch for sending and assigns its sequence.
    pub(crate) fn take(&mut self, idempotent: bool) -> Option<Batch> {
        let mut batch = self.batches.pop_front()?;
        self.in_flight += 1;
        batch.sequence = match idempotent {
            true => self.sequences.assign(batch.number, batch.count()),
            false => Sequence::NONE,
        };
        Some(batch)
    }
}

/// How batches are built.
#[derive(Debug, Clone)]
pub(crate) struct BatchSettings {
    pub(crate) batch_size: usize,
    pub(crate) codec: Codec,
    pub(crate) level: Option<i32>,
    pub(crate) transactional: bool,
}

/// When batches are sent.
#[derive(Debug, Clone)]
pub(crate) struct SendRules {
    pub(crate) batch_size: usize,
    pub(crate) linger: Duration,
    pub(crate) hurry: bool,
    pub(crate) idempotent: bool,
    /// The limit for one partition. The limit of the connection is checked elsewhere; a limit of 1 also holds for each
    /// partition, because it promises order across a change of the leader.
    pub(crate) in_flight_max: usize,
}

/// One record: where its result goes, and its timestamp.
#[derive(Debug, Clone, Copy)]
struct BatchRow {
    chunk: u32,
    row: u32,
    timestamp: i64,
}

/// Records that are sent together.
pub(crate) struct Batch {
    /// Increases by one with each batch of the partition.
    pub(crate) number: u64,
    /// When the caller sent its first record.
    pub(crate) created: Instant,
    /// The earliest time of the next attempt.
    pub(crate) not_before: Instant,
    /// The number of attempts so far.
    pub(crate) attempts: u32,
    /// An attempt ended without a response, so the broker may have stored it.
    pub(crate) maybe_stored: bool,
    /// Why the last attempt failed.
    pub(crate) last_error: Option<Error>,
    /// The leader that was known when the last attempt failed, and its epoch. Another one is tried at once.
    pub(crate) failed_at: Option<(i32, i32)>,
    /// The sequence to send it with.
    pub(crate) sequence: Sequence,
    /// The bytes of `buffer.memory` that it holds.
    pub(crate) memory: usize,
    pub(crate) builder: Option<BatchBuilder>,
    /// The encoded batch, and the sequence written in it.
    pub(crate) built: Option<(Bytes, Sequence)>,
    results: Vec<Arc<ChunkResults>>,
    rows: Vec<BatchRow>,
}

impl Batch {
    fn new(number: u64, settings: &BatchSettings, created: Instant) -> Self {
        let mut builder = BatchBuilder::new(settings.codec, TimestampType::CreateTime);
        builder.level(settings.level).transactional(settings.transactional);
        Self {
            number,
            created,
            not_before: created,
            attempts: 0,
            maybe_stored: false,
            last_error: None,
            failed_at: None,
            sequence: Sequence::NONE,
            memory: 0,
            builder: Some(builder),
            built: None,
            results: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Returns its encoded size, or the upper bound before it is encoded, in bytes.
    pub(crate) fn size(&self) -> usize {
        match (&self.built, &self.builder) {
            (Some((bytes, _)), _) => bytes.len(),
            (None, Some(builder)) => builder.size(),
            (None, None) => 0,
        }
    }

    pub(crate) fn count(&self) -> i32 {
        self.rows.len() as i32
    }

    fn takes(&self, size: usize, batch_size: usize) -> bool {
        self.attempts == 0
            && self.built.is_none()
            && self.builder.as_ref().is_some_and(|builder| builder.is_empty() || builder.size() + size <= batch_size)
    }

    /// Appends a record.
    pub(crate) fn append<'h>(
        &mut self,
        results: &Arc<ChunkResults>,
        row: ChunkRow,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = Header<'h>> + Clone,
    ) -> Result<(), Error> {
        let Some(builder) = &mut self.builder else { return Err(Error::State("the batch is already encoded")) };
        builder.append(timestamp, key, value, headers).map_err(Error::Build)?;
        if self.results.last().is_none_or(|last| !Arc::ptr_eq(last, results)) {
            self.results.push(results.clone());
        }
        let position = BatchRow { chunk: (self.results.len() - 1) as u32, row: row.index, timestamp };
        self.rows.push(position);
        self.memory += row.memory as usize;
        Ok(())
    }

    /// Sets the result of every record to what `result` returns for its index and timestamp. Returns the numbers
    /// of the chunks that are complete now.
    pub(crate) fn finish(&self, mut result: impl FnMut(usize, i64) -> Result<Stored, Error>) -> Vec<u64> {
        let mut complete = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let results = &self.results[row.chunk as usize];
            if results.finish(row.row, result(index, row.timestamp)) {
                complete.push(results.number);
            }
        }
        complete
    }
}

/// Returns the size of a batch with a single record of this size.
pub(crate) fn batch_size_of(record_size: usize) -> usize {
    BATCH_OVERHEAD + record_size
}

impl PartitionQueue {
    /// Switches the partition to the producer's current identity where that is possible. Raises the epoch through
    /// `raise` if the partition needs a new one. Returns false if there is none yet.
    pub(crate) fn identify(&mut self, identity: Identity, raise: impl FnOnce(Identity) -> Option<Identity>) -> bool {
        let mut identity = identity;
        if self.sequences.needs_new_epoch(self.in_flight) && self.sequences.identity() == identity {
            match raise(identity) {
                Some(raised) => identity = raised,
                None => return false,
            }
        }
        self.sequences.adopt(identity, self.in_flight);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::delivery::Row;

    fn settings() -> BatchSettings {
        BatchSettings { batch_size: 200, codec: Codec::None, level: None, transactional: false }
    }

    fn rules() -> SendRules {
        SendRules {
            batch_size: 200,
            linger: Duration::from_millis(5),
            hurry: false,
            idempotent: false,
            in_flight_max: 5,
        }
    }

    fn append(queue: &mut PartitionQueue, results: &Arc<ChunkResults>, bytes: usize, now: Instant) {
        let row = ChunkRow { index: results.push(Row::Ignored), partition: -1, memory: 10 };
        let value = vec![b'x'; bytes];
        let size = BatchBuilder::record_size_max(None, Some(&value), []);
        let batch = queue.open(size, &settings(), now);
        batch.append(results, row, 1, None, Some(&value), std::iter::empty()).unwrap();
    }

    #[test]
    fn batches_close_at_their_size_and_are_ready_when_full_or_lingered() {
        let (now, results) = (Instant::now(), Arc::new(ChunkResults::new(0, "t".into())));
        let mut queue = PartitionQueue::new();
        assert_eq!(queue.ready(&rules(), now), Err(None));
        append(&mut queue, &results, 80, now);
        assert_eq!(queue.ready(&rules(), now), Err(Some(now + rules().linger)));
        assert_eq!(queue.ready(&SendRules { hurry: true, ..rules() }, now), Ok(()));
        assert_eq!(queue.ready(&rules(), now + rules().linger), Ok(()));
        append(&mut queue, &results, 80, now);
        // Larger than batch.size: gets a batch of its own.
        append(&mut queue, &results, 500, now);
        append(&mut queue, &results, 1, now);
        let counts: Vec<i32> = queue.batches.iter().map(Batch::count).collect();
        assert_eq!(counts, [1, 1, 1, 1]);
        assert_eq!(queue.ready(&rules(), now), Ok(()));
        assert_eq!(queue.batches[0].memory, 10);
    }

    #[test]
    fn a_retried_batch_returns_to_its_position() {
        let (now, results) = (Instant::now(), Arc::new(ChunkResults::new(0, "t".into())));
        let mut queue = PartitionQueue::new();
        (0..4).for_each(|_| append(&mut queue, &results, 180, now));
        let taken: Vec<Batch> = (0..3).map(|_| queue.take(false).unwrap()).collect();
        assert_eq!(queue.in_flight, 3);
        taken.into_iter().rev().for_each(|batch| queue.put_back(batch));
        assert_eq!(queue.batches.iter().map(|batch| batch.number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_retry_does_not_wait_for_a_new_leader() {
        let (now, results) = (Instant::now(), Arc::new(ChunkResults::new(0, "t".into())));
        let mut queue = PartitionQueue::new();
        append(&mut queue, &results, 180, now);
        let mut batch = queue.take(false).unwrap();
        (batch.not_before, batch.failed_at) = (now + Duration::from_secs(9), Some((1, 7)));
        queue.put_back(batch);
        let hurry = SendRules { hurry: true, ..rules() };
        queue.set_leader((1, 7));
        assert!(queue.ready(&hurry, now).is_err());
        queue.set_leader((1, 8));
        assert_eq!(queue.ready(&hurry, now), Ok(()));
    }

    #[test]
    fn every_row_gets_its_own_result() {
        let (now, results) = (Instant::now(), Arc::new(ChunkResults::new(7, "t".into())));
        let mut queue = PartitionQueue::new();
        (0..2).for_each(|_| append(&mut queue, &results, 1, now));
        let batch = queue.take(false).unwrap();
        let mut seen = Vec::new();
        let complete = batch.finish(|index, timestamp| {
            seen.push((index, timestamp));
            Err(Error::Closed)
        });
        assert_eq!((complete, seen), (vec![7], vec![(0, 1), (1, 1)]));
    }
}
