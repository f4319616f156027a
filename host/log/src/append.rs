//! Appends batches: checks them, assigns offsets, writes once, publishes.

use std::io::{self, IoSlice};
use std::sync::Arc;

use millstream_record::{BatchView, CheckedBatch, EndMarker, TimestampType, patch};

use crate::batch_walk::{BatchHeader, HEADER_LEN, Located, Order};
use crate::error::{AppendError, LogError};
use crate::file_cache::OpenSegment;
use crate::fsutil::segment_file;
use crate::log::Log;
use crate::producer_snapshot::{self, SNAPSHOT_SUFFIX};
use crate::producer_state::BatchMetadata;
use crate::seeded_bug::{self, Bug};
use crate::segment::Segment;
use crate::transactions::marker_of;
use crate::verification::Verification;

/// The place where a batch is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedBatch {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The broker's time that `LogAppendTime` set in the batch, else -1, as in a ProduceResponse.
    pub log_append_time: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// The epoch of the leader that has the batch in its log. That of a duplicate is the leader's now.
    pub leader_epoch: i32,
}

/// What appends a batch as the leader, and what is known of the transaction that the batch is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A client. The sequences of an idempotent producer are checked.
    Client(Verification),
    /// A broker, on behalf of a producer: offsets of a group, or dead letters. Its batches have no sequences, and only
    /// the epoch and the transaction are checked.
    Broker(Verification),
}

/// A batch that is written, with the marker that it may hold.
#[derive(Clone, Copy)]
pub(crate) struct Appending {
    pub(crate) located: Located,
    pub(crate) marker: Option<EndMarker>,
}

/// The outcome of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The batch was written.
    New(AppendedBatch),
    /// The producer had sent the batch before and did not receive the response (KIP-98). Nothing was written.
    Duplicate(AppendedBatch),
}

impl Appended {
    /// Returns where the batch is stored. Both outcomes are a success for the producer.
    pub fn batch(&self) -> AppendedBatch {
        match *self {
            Self::New(batch) | Self::Duplicate(batch) => batch,
        }
    }
}

impl Log {
    /// Appends a batch as the leader. It gets the next offset and `leader_epoch`, and under `LogAppendTime` the time
    /// `now_ms` (milliseconds since 1970).
    ///
    /// The batch may hold fewer records than offsets, even none: records that the leader dropped leave gaps, as
    /// compaction does. The fields that change are patched in a copy of the 61 bytes of the header; the rest is written
    /// from where it is. The producer's state is checked before a byte is written.
    ///
    /// # Errors
    /// The log is unchanged.
    pub fn append(
        &mut self,
        batch: &CheckedBatch<'_>,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.append_of(batch, leader_epoch, now_ms, AppendOrigin::Client(Verification::Unknown))
    }

    /// Appends a batch as [`Self::append`] does, with what is known of its origin.
    ///
    /// # Errors
    /// The log is unchanged.
    pub fn append_of(
        &mut self,
        batch: &CheckedBatch<'_>,
        leader_epoch: i32,
        now_ms: i64,
        origin: AppendOrigin,
    ) -> Result<Appended, AppendError> {
        self.check_not_poisoned()?;
        let (size, config) = (batch.size(), &self.config);
        let max = u64::from(config.max_message_bytes);
        if size as u64 > max {
            return Err(AppendError::BatchTooLarge { size, max });
        }
        check_fits_segment(size, config.segment_bytes())?;
        let (head, header) = self.leader_header(batch, leader_epoch, now_ms)?;
        if let Some(stored) = self.check_origin(&header, origin)? {
            return Ok(Appended::Duplicate(self.stored_before(&stored, leader_epoch)));
        }
        self.append_one(header, None, &mut [IoSlice::new(&head), IoSlice::new(batch.payload())])
            .inspect_err(|error| self.note_fault(error))?;
        let log_append_time = if header.is_log_append_time() { now_ms } else { -1 };
        Ok(Appended::New(self.appended(header.base_offset, header.last_offset(), log_append_time, leader_epoch)))
    }

    /// Appends batches as a follower of the leader of `leader_epoch`: one or more whole batches with the leader's
    /// offsets and epochs, which continue at the log's end. Their CRCs and epochs are checked here.
    ///
    /// # Errors
    /// Whole batches before the one that fails may have been appended.
    pub fn append_as_follower(&mut self, records: &[u8], leader_epoch: i32) -> Result<AppendedBatch, AppendError> {
        self.check_not_poisoned()?;
        let before = seeded_bug::is(Bug::DropProducerState).then(|| self.producers.clone());
        let appended = self.append_follower(records, leader_epoch).inspect_err(|error| {
            if let AppendError::Log(error) = error {
                self.note_fault(error);
            }
        });
        if let Some(before) = before {
            self.producers = before;
        }
        appended
    }

    pub(crate) fn append_one(
        &mut self,
        header: BatchHeader,
        marker: Option<EndMarker>,
        bytes: &mut [IoSlice<'_>],
    ) -> Result<(), LogError> {
        let active = self.segment_for(&header, 0)?;
        let located = Located { position: active.size(), header };
        self.write(&active, bytes, &[Appending { located, marker }])
    }

    /// Checks the producer of a batch as [`Log::append`] does, without appending. Returns where the batch is stored if
    /// it was appended before. A caller can check before it spends work on the batch.
    ///
    /// # Errors
    /// The producer's epoch or sequence does not follow the log.
    pub fn check_producer(
        &mut self,
        batch: &CheckedBatch<'_>,
        leader_epoch: i32,
        origin: AppendOrigin,
    ) -> Result<Option<AppendedBatch>, AppendError> {
        let header = self.header_at_end(batch, leader_epoch)?;
        let stored = self.check_origin(&header, origin)?;
        Ok(stored.map(|stored| self.stored_before(&stored, leader_epoch)))
    }

    /// Checks whether a batch may be appended. Returns the stored batch that it repeats, if any. Batches without a
    /// producer id, and those that the broker makes, may always be appended.
    fn check_origin(
        &mut self,
        header: &BatchHeader,
        origin: AppendOrigin,
    ) -> Result<Option<BatchMetadata>, AppendError> {
        if header.producer_id < 0 || header.is_control() {
            return Ok(None);
        }
        match origin {
            AppendOrigin::Broker(verification) => {
                self.check_transaction(header, verification)?;
                self.producers.check_epoch(header).map(|()| None)
            }
            AppendOrigin::Client(verification) => match self.check_producer_of(header, verification) {
                // A sequence that is out of order may be a duplicate that is only in the log.
                Err(AppendError::OutOfOrderSequence { producer_id, .. }) if self.complete_window(producer_id)? => {
                    self.check_producer_of(header, verification)
                }
                checked => checked,
            },
        }
    }

    fn check_producer_of(
        &self,
        header: &BatchHeader,
        verification: Verification,
    ) -> Result<Option<BatchMetadata>, AppendError> {
        if let Some(stored) = self.producers.duplicate(header) {
            return Ok(Some(stored));
        }
        self.check_transaction(header, verification)?;
        self.producers.check_epoch(header)?;
        let is_known = self.producers.by_id.contains_key(&header.producer_id);
        let first_max = match header.is_transactional() {
            true => self.verifications.first_sequence_max(header.producer_id, is_known),
            false => None,
        };
        self.producers.check_sequence(header, first_max).map(|()| None)
    }

    /// Checks that the transaction of a batch is open here, or known to its coordinator.
    fn check_transaction(&self, header: &BatchHeader, verification: Verification) -> Result<(), AppendError> {
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        let is_known = match verification {
            _ if !header.is_transactional() => true,
            Verification::Disabled => true,
            Verification::Confirmed(guard) if self.verifications.is_current(producer_id, guard) => true,
            Verification::Confirmed(_) | Verification::Unknown => self.producers.has_open_transaction(header),
        };
        if is_known { Ok(()) } else { Err(AppendError::NoTransaction { producer_id, epoch }) }
    }

    pub(crate) fn appended(
        &self,
        base_offset: i64,
        last_offset: i64,
        log_append_time: i64,
        leader_epoch: i32,
    ) -> AppendedBatch {
        let log_start_offset = self.log_start_offset();
        AppendedBatch { base_offset, last_offset, log_append_time, log_start_offset, leader_epoch }
    }

    fn stored_before(&self, batch: &BatchMetadata, leader_epoch: i32) -> AppendedBatch {
        let stamped = self.config.timestamp_type == TimestampType::LogAppendTime;
        let log_append_time = if stamped { batch.timestamp } else { -1 };
        self.appended(batch.first_offset(), batch.last_offset, log_append_time, leader_epoch)
    }

    /// Returns the header that a batch would have at the log's end.
    fn header_at_end(&self, batch: &CheckedBatch<'_>, leader_epoch: i32) -> Result<BatchHeader, AppendError> {
        BatchHeader::at(&batch.header(), self.log_end_offset(), leader_epoch).map_err(AppendError::Corrupt)
    }

    /// Patches a copy of a batch's header for the log's end.
    pub(crate) fn leader_header(
        &self,
        batch: &CheckedBatch<'_>,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<([u8; HEADER_LEN], BatchHeader), AppendError> {
        let mut header = self.header_at_end(batch, leader_epoch)?;
        let mut patched = *batch.header().as_bytes();
        patch::set_base_offset(&mut patched, header.base_offset);
        patch::set_leader_epoch(&mut patched, leader_epoch);
        if self.config.timestamp_type == TimestampType::LogAppendTime {
            patch::set_log_append_time_in_header(&mut patched, batch.payload(), now_ms);
            header.set_log_append_time(now_ms);
        }
        Ok((patched, header))
    }

    fn append_follower(&mut self, records: &[u8], leader_epoch: i32) -> Result<AppendedBatch, AppendError> {
        let batches = self.check_follower(records, leader_epoch)?;
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            return Err(AppendError::Corrupt("no batch at all".to_owned()));
        };
        let (first, last) = (&first.located.header, &last.located.header);
        let appended = self.appended(first.base_offset, last.last_offset(), -1, last.leader_epoch);
        // Runs of batches that go to the same segment are written at once.
        let mut from = 0;
        while from < batches.len() {
            let header = |at: usize| &batches[at].located.header;
            let active = self.segment_for(header(from), 0)?;
            let mut run_len = header(from).size as u64;
            let mut to = from + 1;
            while to < batches.len() && !self.must_roll(&active, header(to), run_len)? {
                run_len += header(to).size as u64;
                to += 1;
            }
            let start = batches[from].located.position;
            let bytes = &records[start as usize..(start + run_len) as usize];
            let moved = |batch: &Appending| {
                let position = batch.located.position - start + active.size();
                Appending { located: Located { position, ..batch.located }, ..*batch }
            };
            let located: Vec<Appending> = batches[from..to].iter().map(moved).collect();
            self.write(&active, &mut [IoSlice::new(bytes)], &located)?;
            from = to;
        }
        Ok(appended)
    }

    /// Checks a fetched record set: each batch is whole, undamaged and follows the one before.
    fn check_follower(&self, records: &[u8], leader_epoch: i32) -> Result<Vec<Appending>, AppendError> {
        let mut batches: Vec<Appending> = Vec::new();
        let mut order = Order::from(self.log_end_offset());
        order.epoch = self.epochs.latest().map_or(order.epoch, |latest| latest.epoch);
        let mut position = 0;
        while position < records.len() {
            let header = BatchHeader::parse(&records[position..]).map_err(AppendError::Corrupt)?;
            let batch = BatchView::parse(&records[position..])
                .and_then(|batch| batch.verify_crc().map(|()| batch))
                .map_err(|error| AppendError::Corrupt(format!("at offset {}: {error}", header.base_offset)))?;
            if header.base_offset < order.offset {
                return Err(AppendError::UnexpectedOffset { found: header.base_offset, expected: order.offset });
            }
            let epoch = header.leader_epoch;
            let followed = match epoch > leader_epoch && !seeded_bug::is(Bug::IgnoreEpoch) {
                true => Err(format!("a batch of leader epoch {epoch}, above {leader_epoch}")),
                false => order.check(&header),
            };
            followed.map_err(|reason| AppendError::Corrupt(format!("at offset {}: {reason}", header.base_offset)))?;
            check_fits_segment(header.size, i32::MAX as u64)?;
            order = Order::after(&header);
            let located = Located { position: position as u64, header };
            batches.push(Appending { located, marker: marker_of(&header, &batch) });
            position += header.size;
        }
        Ok(batches)
    }

    /// Returns the active segment. Rolls it first if the batch has to go to a new one.
    fn segment_for(&mut self, header: &BatchHeader, pending: u64) -> Result<Arc<Segment>, LogError> {
        let active = self.active();
        if self.must_roll(&active, header, pending)? {
            self.roll(header.base_offset)?;
            return Ok(self.active());
        }
        Ok(active)
    }

    /// Returns whether the segment has to be rolled before the batch, as Kafka's `shouldRoll` does: by size, by time,
    /// by a full index, or by a relative offset that would not fit 32 bits.
    fn must_roll(&self, active: &Segment, header: &BatchHeader, pending: u64) -> Result<bool, LogError> {
        if header.last_offset() - active.base_offset() > i64::from(i32::MAX) {
            return Ok(true);
        }
        let size = active.size() + pending;
        if size == 0 {
            return Ok(false);
        }
        if size + header.size as u64 > self.config.segment_bytes() {
            return Ok(true);
        }
        let first = active.summary()?.first_timestamp.filter(|first| *first >= 0);
        let age = first.map_or(0, |first| header.max_timestamp.saturating_sub(first));
        Ok(age > self.config.segment_ms() || active.indexes_are_full(&*active.open()?)?)
    }

    /// Closes the active segment and starts one at `base_offset`.
    pub(crate) fn roll(&mut self, base_offset: i64) -> Result<(), LogError> {
        let old = self.active();
        if old.size() == 0 && old.base_offset() == base_offset {
            return Ok(());
        }
        if old.size() > 0 {
            old.finish()?;
            old.trim()?;
            self.write_snapshot(base_offset)?;
        }
        let new = Arc::new(Segment::create(&self.shared().dir, base_offset, &self.config, &self.files)?);
        self.unsynced.dir = true;
        let mut list = self.shared().list.write();
        if old.size() == 0 {
            // An empty segment whose base cannot reach the new offset has no use.
            list.segments.pop();
        }
        list.segments.push(new);
        drop(list);
        if old.size() == 0 {
            old.delete()?;
        }
        Ok(())
    }

    /// Writes the producers' state as of `offset`, without syncing it. A torn file is found by its CRC and costs a
    /// scan. The checksums are those of this time.
    pub(crate) fn write_snapshot(&mut self, offset: i64) -> Result<(), LogError> {
        let path = segment_file(self.dir(), offset, SNAPSHOT_SUFFIX);
        let snapshot = producer_snapshot::encode(&self.producers);
        self.note_checksums(&[self.active().base_offset()], Some((offset, &snapshot)))?;
        std::fs::write(&path, snapshot).map_err(LogError::io("cannot write", &path))?;
        self.snapshot_offset = Some(offset);
        Ok(())
    }

    /// Writes batches at the end of the active segment, updates the state that follows from them, and publishes them.
    fn write(
        &mut self,
        active: &Arc<Segment>,
        bytes: &mut [IoSlice<'_>],
        batches: &[Appending],
    ) -> Result<(), LogError> {
        let open = active.open()?;
        active.prepare_append(&open)?;
        if self.config.preallocate && active.size() == 0 {
            active.preallocate(&open.file, self.config.segment_bytes());
        }
        let aborts = batches.iter().filter(|batch| batch.marker.is_some_and(|marker| !marker.is_commit)).count();
        if aborts > 0 {
            let index = active.transactions();
            index.reserve(aborts as u64).map_err(LogError::io("cannot extend", &index.path()))?;
        }
        self.write_bytes(active, &open, bytes)?;
        self.unsynced.note(active, &open.file);
        let (mut size, mut log_end_offset) = (active.size(), self.log_end_offset());
        for batch in batches {
            let located = &batch.located;
            active.note_append(&open, located);
            // Nothing after this batch may be read: a reader of committed records would get those of the transaction.
            self.note_producer(batch).inspect_err(|_| self.shared().faults.poison())?;
            self.note_epoch(&located.header);
            size = located.end();
            log_end_offset = located.header.next_offset();
        }
        let mut list = self.shared().list.write();
        active.set_size(size);
        list.log_end_offset = log_end_offset;
        Ok(())
    }

    /// Adds the leader epoch of a batch, if it is the first of its epoch.
    fn note_epoch(&mut self, header: &BatchHeader) {
        self.epochs.assign(header.leader_epoch, header.base_offset);
        if self.epochs.latest().is_some_and(|latest| latest.start_offset == header.base_offset) {
            self.unsynced.epochs = true;
        }
    }

    fn write_bytes(&self, active: &Segment, open: &OpenSegment, bytes: &mut [IoSlice<'_>]) -> Result<(), LogError> {
        let position = active.size();
        let Err(error) = write_all_at(open, bytes, position) else {
            return Ok(());
        };
        // Part of the batch may be in the file. If it cannot be cut off, nothing may ever be appended after it.
        if let Err(second) = open.file.set_len(position) {
            tracing::error!(segment = %active.path().display(), error = %second, "cannot undo a failed append");
            self.shared().faults.poison();
        }
        Err(LogError::io("cannot append to", &active.path())(error))
    }
}

fn check_fits_segment(size: usize, max: u64) -> Result<(), AppendError> {
    if size as u64 > max {
        return Err(AppendError::LargerThanSegment { size, max });
    }
    Ok(())
}

fn write_all_at(open: &OpenSegment, mut bytes: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwritev(&open.file, bytes, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut bytes, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
