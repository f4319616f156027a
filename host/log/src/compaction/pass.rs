//! Runs a pass: indexes the keys, copies the segments, and puts the copies in their place.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_record::{BatchView, Codec, CodecError, EndMarker, Records};
use parking_lot::Mutex;

use super::copy::{self, Writer};
use super::offset_map::OffsetMap;
use super::plan::CleaningPlan;
use super::rules::{Kept, LastBatch, Rules, Standing};
use super::source::Source;
use super::swap::Swap;
use super::transactions::PassedTransactions;
use super::{CleanError, DecodeRecords, unreadable};
use crate::batch_walk::BatchHeader;
use crate::error::LogError;
use crate::log::Log;
use crate::segment::Segment;

/// What a pass may use.
pub struct Cleaner<'a> {
    /// The most bytes of the map of keys.
    pub map_bytes: usize,
    /// The share of the map that is filled, from 0 to 1.
    pub load_factor: f64,
    /// The bytes that are read and written at a time.
    pub piece_bytes: usize,
    /// The most bytes to which a batch may decompress.
    pub batch_bytes_max: usize,
    /// Reads batches in other codecs than Kafka's.
    pub decode: DecodeRecords<'a>,
    /// Called with the bytes of each read and write. It may wait, and stops the pass with `false`.
    pub pace: &'a dyn Fn(usize) -> bool,
}

/// Gives the log to a pass, under the lock of its owner.
pub trait LogAccess {
    /// Calls `work` with the log. Returns false without a call if the log is closed or takes no writes.
    fn with_log(&self, work: &mut dyn FnMut(&mut Log)) -> bool;
}

impl LogAccess for Mutex<Log> {
    fn with_log(&self, work: &mut dyn FnMut(&mut Log)) -> bool {
        work(&mut self.lock());
        true
    }
}

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The first offset that is not compacted.
    pub end: i64,
    /// Bytes of the segments before.
    pub bytes_before: u64,
    /// Bytes of the segments after.
    pub bytes_after: u64,
    /// The segments before.
    pub segments_before: usize,
    /// The segments after.
    pub segments_after: usize,
    /// The keys in the map.
    pub keys: usize,
    /// The bytes of the map.
    pub map_bytes: usize,
}

impl CleaningPlan {
    /// Runs the pass. Blocks for the disk.
    ///
    /// # Errors
    /// The pass ended early. The log is as before, or with some groups compacted.
    pub fn run(&self, cleaner: &Cleaner<'_>, log: &dyn LogAccess) -> Result<Cleaned, CleanError> {
        self.run_pass(cleaner, log).inspect_err(|error| {
            if let CleanError::Log(error @ LogError::Corrupt { .. }) = error {
                // A truncation may change bytes while they are read: then it is not damage.
                let _ = self.with_log(log, |log| {
                    log.note_fault(error);
                    Ok(())
                });
            }
        })
    }

    fn run_pass(&self, cleaner: &Cleaner<'_>, log: &dyn LogAccess) -> Result<Cleaned, CleanError> {
        copy::remove_leftovers(&self.reader.shared.dir)?;
        let map = self.index(cleaner)?;
        let end = map.latest() + 1;
        let producers = self.last_batches(log)?;
        let rules = self.rules(&map, &producers);
        let mut transactions = PassedTransactions::default();
        let mut cleaned = Cleaned { end, keys: map.len(), map_bytes: map.bytes(), ..Cleaned::default() };
        for group in self.groups(end) {
            let before: u64 = group.iter().map(|segment| segment.size()).sum();
            let copied = self.copy(group, &rules, &mut transactions, cleaner);
            let base_offset = group[0].base_offset();
            let after = match copied {
                Ok(None) => before,
                Ok(Some(swap)) => self.install(swap, log)?,
                Err(error) => {
                    copy::remove(&self.reader.shared.dir, base_offset)?;
                    return Err(error);
                }
            };
            cleaned.bytes_before += before;
            cleaned.bytes_after += after;
            cleaned.segments_before += group.len();
            cleaned.segments_after += 1;
        }
        self.with_log(log, |log| {
            log.first_dirty = end;
            Ok(())
        })?;
        Ok(cleaned)
    }

    /// Runs `work` on the log if it is still the one of the plan.
    fn with_log<T>(
        &self,
        access: &dyn LogAccess,
        work: impl FnOnce(&mut Log) -> Result<T, LogError>,
    ) -> Result<T, CleanError> {
        let (mut work, mut done) = (Some(work), Err(CleanError::Stopped));
        access.with_log(&mut |log| {
            if log.truncations() == self.truncations
                && !log.is_poisoned()
                && let Some(work) = work.take()
            {
                done = work(log).map_err(CleanError::from);
            }
        });
        done
    }

    /// Maps each key from the first dirty offset on to its last offset.
    fn index(&self, cleaner: &Cleaner<'_>) -> Result<OffsetMap, CleanError> {
        let mut map = OffsetMap::new(self.first_dirty, cleaner.map_bytes, cleaner.load_factor);
        let mut transactions = PassedTransactions::default();
        transactions.add(self.reader.aborted_between(self.first_dirty..self.end)?);
        let first = self.first_dirty_segment();
        for (at, segment) in self.segments.iter().enumerate().skip(first) {
            let Some(mut source) = Source::open(segment, self.first_dirty, cleaner.piece_bytes)? else { continue };
            while let Some((located, batch)) = source.next(&|bytes| self.goes_on(cleaner, bytes))? {
                let header = &located.header;
                if header.is_control() {
                    transactions.pass_marker(header, EndMarker::of(&batch));
                } else if !transactions.pass_batch(header) && !self.index_batch(&mut map, header, &batch, cleaner)? {
                    return Ok(map);
                }
                map.indexed(header.last_offset());
            }
            // It may end in a gap.
            map.indexed(self.end_of(at) - 1);
        }
        Ok(map)
    }

    /// Adds the keys of a batch to the map. Returns false if the map is full.
    fn index_batch(
        &self,
        map: &mut OffsetMap,
        header: &BatchHeader,
        batch: &BatchView<'_>,
        cleaner: &Cleaner<'_>,
    ) -> Result<bool, CleanError> {
        if header.count == 0 {
            return Ok(true);
        }
        let (records, _) = records(batch, cleaner)?;
        let mut keys = Vec::new();
        for record in records.iter() {
            let record = record.map_err(unreadable(header.base_offset))?;
            if let Some(key) = record.key.filter(|_| record.offset >= self.first_dirty) {
                keys.push((map.hash(key), record.offset));
            }
        }
        Ok(map.put_all(&keys))
    }

    /// Returns the last batch of each producer that the log knows.
    fn last_batches(&self, log: &dyn LogAccess) -> Result<HashMap<i64, LastBatch>, CleanError> {
        self.with_log(log, |log| {
            let producers = log.producers.by_id.iter();
            let last = |entry: &crate::producer_state::ProducerEntry| LastBatch {
                last_offset: entry.last_batch().map(|batch| batch.last_offset).filter(|offset| *offset >= 0),
                epoch: entry.epoch,
            };
            Ok(producers.map(|(id, entry)| (*id, last(entry))).collect())
        })
    }

    /// Copies what stays of a group's batches. Returns `None` if that is all of them.
    fn copy(
        &self,
        group: &[Arc<Segment>],
        rules: &Rules<'_>,
        transactions: &mut PassedTransactions,
        cleaner: &Cleaner<'_>,
    ) -> Result<Option<Swap>, CleanError> {
        let pace = |bytes| self.goes_on(cleaner, bytes);
        let base_offset = group[0].base_offset();
        let mut copy = Writer::create(&self.reader.shared.dir, base_offset, &self.config, cleaner.piece_bytes)?;
        let mut is_equal = group.len() == 1;
        for segment in group {
            let next = self.segments.partition_point(|other| other.base_offset() <= segment.base_offset());
            let end = self.segments.get(next).map_or(self.end, |next| next.base_offset());
            transactions.add(self.reader.aborted_between(segment.base_offset()..end)?);
            let Some(mut source) = Source::open(segment, segment.base_offset(), cleaner.piece_bytes)? else { continue };
            while let Some((located, batch)) = source.next(&pace)? {
                let header = &located.header;
                let standing = match header.is_control() {
                    false if transactions.pass_batch(header) => Standing::Aborted,
                    false => Standing::Committed,
                    true => {
                        let fate = transactions.pass_marker(header, EndMarker::of(&batch));
                        if let Some(aborted) = fate.aborted {
                            copy.add_aborted(aborted);
                        }
                        if fate.may_go { Standing::LeftoverMarker } else { Standing::Marker }
                    }
                };
                match rules.apply(&batch, header, standing, || records(&batch, cleaner))? {
                    Kept::Whole => copy.add(batch.bytes(), &pace)?,
                    Kept::Part(part) => {
                        is_equal = false;
                        copy.add(&part, &pace)?;
                    }
                    Kept::Nothing => is_equal = false,
                }
            }
        }
        if is_equal {
            copy::remove(&self.reader.shared.dir, base_offset)?;
            return Ok(None);
        }
        let last = &group[group.len() - 1];
        let copied = copy.finish(last.modified()?, &pace)?;
        Ok(Some(Swap::new(copied, group.to_vec())))
    }

    /// Copies the first group, which does not take its place yet.
    #[cfg(test)]
    pub(super) fn copy_first_group(
        &self,
        cleaner: &Cleaner<'_>,
        log: &dyn LogAccess,
    ) -> Result<Option<Swap>, CleanError> {
        let map = self.index(cleaner)?;
        let producers = self.last_batches(log)?;
        let rules = self.rules(&map, &producers);
        self.copy(self.groups(self.end)[0], &rules, &mut PassedTransactions::default(), cleaner)
    }

    fn rules<'a>(&self, map: &'a OffsetMap, producers: &'a HashMap<i64, LastBatch>) -> Rules<'a> {
        let delete_retention_ms = self.config.delete_retention_ms;
        Rules { map, now_ms: self.now_ms, delete_retention_ms, end: self.end, producers }
    }

    /// Puts a copy in the place of its sources. Returns its size.
    fn install(&self, swap: Swap, log: &dyn LogAccess) -> Result<u64, CleanError> {
        let (size, base_offset) = (swap.size(), swap.base_offset());
        let installed = self.with_log(log, |log| log.install(swap));
        // The files of the sources are freed here, outside of the lock.
        match installed {
            Ok(Some(_retired)) => Ok(size),
            stopped => {
                copy::remove(&self.reader.shared.dir, base_offset)?;
                Err(stopped.err().unwrap_or(CleanError::Stopped))
            }
        }
    }

    /// Returns whether the pass goes on after some bytes.
    fn goes_on(&self, cleaner: &Cleaner<'_>, bytes: usize) -> bool {
        (cleaner.pace)(bytes) && !self.reader.is_poisoned()
    }
}

/// Returns the records of a batch, and the codec in which a part of them is stored.
fn records<'b>(batch: &BatchView<'b>, cleaner: &Cleaner<'_>) -> Result<(Records<'b>, Codec), CleanError> {
    let offset = batch.base_offset();
    match batch.codec() {
        Ok(codec) => Ok((batch.records(cleaner.batch_bytes_max).map_err(unreadable(offset))?, codec)),
        Err(CodecError::UnknownId(_)) => {
            let (bytes, codec) = (cleaner.decode)(batch, cleaner.batch_bytes_max)
                .map_err(|reason| CleanError::Unreadable { offset, reason })?;
            Ok((batch.records_of(bytes), codec))
        }
        Err(error) => Err(CleanError::Unreadable { offset, reason: error.to_string() }),
    }
}
