//! Batches that wait, per partition.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_record::{BatchBuilder, Codec, Header, TimestampType};
use millstream_wire::Str;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::intake::{ChunkRow, Intake};
use super::receipt::{Receipt, Stored};
use super::sequence::{Identity, Sequence, Sequences};
use crate::error::Error;

/// The bytes of a batch's header.
const BATCH_OVERHEAD: usize = millstream_record::HEADER_LEN;

/// Everything that waits for one topic.
pub(crate) struct TopicQueue {
    pub(crate) name: Arc<str>,
    pub(crate) wire_name: Str,
    pub(crate) intake: Mutex<Intake>,
    /// Wakes the topic's worker.
    pub(crate) arrived: Notify,
    pub(crate) partitions: Mutex<Vec<PartitionQueue>>,
}

impl TopicQueue {
    pub(crate) fn new(name: Arc<str>) -> Self {
        let wire_name = Str::from(&*name);
        Self { name, wire_name, intake: Mutex::default(), arrived: Notify::new(), partitions: Mutex::default() }
    }
}

/// One partition's batches in the order of sending, the last one perhaps still open.
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

    /// The bytes that wait here.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.size() as u64).sum()
    }

    /// The batch that takes a record of at most `size` bytes: the last one, or a new one.
    pub(crate) fn open(&mut self, size: usize, settings: &BatchSettings, created: Instant) -> &mut Batch {
        let fits = self.batches.back().is_some_and(|batch| batch.takes(size, settings.batch_size));
        if !fits {
            self.batches.push_back(Batch::new(self.next_number, settings, created));
            self.next_number += 1;
        }
        self.batches.back_mut().expect("one was pushed if there was none")
    }

    /// Puts a batch back for another try, before all that were made after it.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        let at = self.batches.partition_point(|other| other.number < batch.number);
        self.batches.insert(at, batch);
    }

    /// Whether the first batch may leave; if not, when to look again, where time alone decides.
    pub(crate) fn ready(&self, rules: &Rules, now: Instant) -> Result<(), Option<Instant>> {
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

    /// Takes the first batch, numbered.
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

/// How batches are made.
#[derive(Debug, Clone)]
pub(crate) struct BatchSettings {
    pub(crate) batch_size: usize,
    pub(crate) codec: Codec,
    pub(crate) level: Option<i32>,
}

/// When batches leave.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) batch_size: usize,
    pub(crate) linger: Duration,
    pub(crate) hurry: bool,
    pub(crate) idempotent: bool,
    /// Of one partition: what is limited is a connection, but for 1, which promises order over a change of the leader.
    pub(crate) in_flight_max: usize,
}

/// One record's place on its receipt.
#[derive(Debug, Clone, Copy)]
struct BatchRow {
    receipt: u32,
    row: u32,
    timestamp: i64,
}

/// The records that travel together.
pub(crate) struct Batch {
    /// Rises within the partition.
    pub(crate) number: u64,
    /// When its first record was sent by the caller.
    pub(crate) created: Instant,
    /// A try that failed is not repeated before.
    pub(crate) not_before: Instant,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// A try ended without a verdict: the broker may have it.
    pub(crate) maybe_stored: bool,
    /// Why the last try failed.
    pub(crate) last_error: Option<Error>,
    /// What it is to be sent with now.
    pub(crate) sequence: Sequence,
    /// What it holds of `buffer.memory`, in bytes.
    pub(crate) memory: usize,
    pub(crate) builder: Option<BatchBuilder>,
    /// As it goes to the broker, and the sequence that is written in it.
    pub(crate) built: Option<(Bytes, Sequence)>,
    receipts: Vec<Arc<Receipt>>,
    rows: Vec<BatchRow>,
}

impl Batch {
    fn new(number: u64, settings: &BatchSettings, created: Instant) -> Self {
        let mut builder = BatchBuilder::new(settings.codec, TimestampType::CreateTime);
        builder.level(settings.level);
        Self {
            number,
            created,
            not_before: created,
            attempts: 0,
            maybe_stored: false,
            last_error: None,
            sequence: Sequence::NONE,
            memory: 0,
            builder: Some(builder),
            built: None,
            receipts: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// The bytes that it has or will have at most.
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

    /// Adds a record.
    pub(crate) fn append<'h>(
        &mut self,
        receipt: &Arc<Receipt>,
        row: ChunkRow,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = Header<'h>> + Clone,
    ) -> Result<(), Error> {
        let Some(builder) = &mut self.builder else { return Err(Error::State("the batch was built already")) };
        builder.append(timestamp, key, value, headers).map_err(Error::Build)?;
        if self.receipts.last().is_none_or(|last| !Arc::ptr_eq(last, receipt)) {
            self.receipts.push(receipt.clone());
        }
        let place = BatchRow { receipt: (self.receipts.len() - 1) as u32, row: row.receipt_row, timestamp };
        self.rows.push(place);
        self.memory += row.memory as usize;
        Ok(())
    }

    /// Gives every record its verdict: `verdict` gets its index. The numbers of the receipts that
    /// are complete by it are the answer.
    pub(crate) fn finish(&self, mut verdict: impl FnMut(usize, i64) -> Result<Stored, Error>) -> Vec<u64> {
        let mut complete = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let receipt = &self.receipts[row.receipt as usize];
            if receipt.finish(row.row, verdict(index, row.timestamp)) {
                complete.push(receipt.number);
            }
        }
        complete
    }
}

/// The size of the smallest batch that holds a record of this size.
pub(crate) fn batch_size_of(record_size: usize) -> usize {
    BATCH_OVERHEAD + record_size
}

impl PartitionQueue {
    /// Brings the partition under the producer's identity where that is possible, and raises its
    /// epoch through `raise` where the partition needs it.
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
    use crate::producer::receipt::Row;

    fn settings() -> BatchSettings {
        BatchSettings { batch_size: 200, codec: Codec::None, level: None }
    }

    fn rules() -> Rules {
        Rules { batch_size: 200, linger: Duration::from_millis(5), hurry: false, idempotent: false, in_flight_max: 5 }
    }

    fn append(queue: &mut PartitionQueue, receipt: &Arc<Receipt>, bytes: usize, now: Instant) {
        let row = ChunkRow { receipt_row: receipt.push(Row::Ignored), partition: -1, memory: 10 };
        let value = vec![b'x'; bytes];
        let size = BatchBuilder::record_size_max(None, Some(&value), []);
        let batch = queue.open(size, &settings(), now);
        batch.append(receipt, row, 1, None, Some(&value), std::iter::empty()).unwrap();
    }

    #[test]
    fn batches_close_at_their_size_and_leave_full_or_lingered() {
        let (now, receipt) = (Instant::now(), Arc::new(Receipt::new(0, "t".into())));
        let mut queue = PartitionQueue::new();
        assert_eq!(queue.ready(&rules(), now), Err(None));
        append(&mut queue, &receipt, 80, now);
        assert_eq!(queue.ready(&rules(), now), Err(Some(now + rules().linger)));
        assert_eq!(queue.ready(&Rules { hurry: true, ..rules() }, now), Ok(()));
        assert_eq!(queue.ready(&rules(), now + rules().linger), Ok(()));
        append(&mut queue, &receipt, 80, now);
        // Larger than batch.size: alone.
        append(&mut queue, &receipt, 500, now);
        append(&mut queue, &receipt, 1, now);
        let counts: Vec<i32> = queue.batches.iter().map(Batch::count).collect();
        assert_eq!(counts, [1, 1, 1, 1]);
        assert_eq!(queue.ready(&rules(), now), Ok(()));
        assert_eq!(queue.batches[0].memory, 10);
    }

    #[test]
    fn a_batch_goes_back_to_its_place() {
        let (now, receipt) = (Instant::now(), Arc::new(Receipt::new(0, "t".into())));
        let mut queue = PartitionQueue::new();
        (0..4).for_each(|_| append(&mut queue, &receipt, 180, now));
        let taken: Vec<Batch> = (0..3).map(|_| queue.take(false).unwrap()).collect();
        assert_eq!(queue.in_flight, 3);
        taken.into_iter().rev().for_each(|batch| queue.put_back(batch));
        assert_eq!(queue.batches.iter().map(|batch| batch.number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn every_row_gets_its_own_verdict() {
        let (now, receipt) = (Instant::now(), Arc::new(Receipt::new(7, "t".into())));
        let mut queue = PartitionQueue::new();
        (0..2).for_each(|_| append(&mut queue, &receipt, 1, now));
        let batch = queue.take(false).unwrap();
        let mut seen = Vec::new();
        let complete = batch.finish(|index, timestamp| {
            seen.push((index, timestamp));
            Err(Error::Closed)
        });
        assert_eq!((complete, seen), (vec![7], vec![(0, 1), (1, 1)]));
    }
}
