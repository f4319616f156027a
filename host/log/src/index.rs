//! A segment's two mapped indexes: Kafka's `.index` and `.timeindex`.
//!
//! Both are caches of the log file. The log rebuilds them if anything is wrong: a missing file, an odd length, entries
//! out of order, or an entry that does not point at a batch.
//!
//! An index grows by blocks that are allocated on disk before the map touches them. If the disk is full, a store into a
//! hole of a mapped file kills the process with SIGBUS. A failing `fallocate` is only an error. The tail of the last
//! block is zero until the file is trimmed, at roll and close.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::FallocateFlags;

use crate::batch_walk::Located;
use crate::fsutil::{remove_if_there, segment_file};

/// The bytes of an index file that are allocated at a time.
const BLOCK: usize = 4096;
/// Kafka's "no timestamp".
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// A mapped file of fixed-size entries.
struct EntryFile<const N: usize> {
    path: PathBuf,
    map: Option<MmapMut>,
    /// The number of valid entries.
    entries: usize,
    /// The bytes of the file that exist on disk. The map is only touched below this.
    allocated: usize,
    /// The largest size of the file in bytes, a multiple of `N`.
    capacity: usize,
}

impl<const N: usize> EntryFile<N> {
    /// Creates an index without entries. The file appears with the first entry, or in [`Self::finish`].
    fn create(path: PathBuf, capacity: usize) -> io::Result<Self> {
        remove_if_there(&path)?;
        Ok(Self { path, map: None, entries: 0, allocated: 0, capacity: capacity / N * N })
    }

    /// Maps an existing index; `None` if it is missing or its length is impossible.
    fn load(path: PathBuf, capacity: usize) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.metadata()?.len();
        if len > i32::MAX as u64 {
            return Ok(None);
        }
        let len = len as usize;
        let capacity = (capacity / N * N).max(len / N * N);
        let mut index = Self { path, map: None, entries: len / N, allocated: len, capacity };
        if len > 0 {
            index.map = Some(map(&file, len)?);
        }
        while index.entries > 0 && index.get(index.entries - 1) == [0; N] {
            index.entries -= 1;
        }
        // The tail of the last block may be part of an entry only if it is zero.
        let odd = index.map.as_deref().is_some_and(|bytes| bytes[len / N * N..].iter().any(|b| *b != 0));
        Ok((!odd).then_some(index))
    }

    fn get(&self, at: usize) -> [u8; N] {
        let mut entry = [0; N];
        if let Some(map) = &self.map {
            entry.copy_from_slice(&map[at * N..(at + 1) * N]);
        }
        entry
    }

    fn last(&self) -> Option<[u8; N]> {
        self.entries.checked_sub(1).map(|at| self.get(at))
    }

    fn room(&self) -> usize {
        self.capacity / N - self.entries
    }

    fn push(&mut self, entry: [u8; N]) -> io::Result<()> {
        let end = (self.entries + 1) * N;
        if end > self.allocated || self.map.as_ref().is_none_or(|map| map.len() < end) {
            self.grow(end)?;
        }
        if let Some(map) = &mut self.map {
            map[end - N..end].copy_from_slice(&entry);
            self.entries += 1;
        }
        Ok(())
    }

    fn grow(&mut self, end: usize) -> io::Result<()> {
        let target = end.next_multiple_of(BLOCK).min(self.capacity.max(end));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        if target > self.allocated {
            allocate(&file, self.allocated as u64, (target - self.allocated) as u64)?;
            self.allocated = target;
        }
        if self.map.as_ref().is_none_or(|map| map.len() < end) {
            self.map = Some(map(&file, self.capacity.max(target))?);
        }
        Ok(())
    }

    /// Sets the file's length to that of its entries, as Kafka does at roll and close. Creates the file if there are
    /// none.
    fn finish(&mut self) -> io::Result<()> {
        let len = self.entries * N;
        if self.allocated != len || self.map.is_none() {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
            file.set_len(len as u64)?;
            self.allocated = len;
        }
        Ok(())
    }

    /// Cuts the file to the length of its entries, if it exists.
    fn trim(&mut self) -> io::Result<()> {
        if self.allocated > 0 { self.finish() } else { Ok(()) }
    }

    /// Removes the entries after the last one for which `keep` holds.
    fn truncate(&mut self, keep: impl Fn([u8; N]) -> bool) {
        let before = self.entries;
        self.entries = self.count(keep);
        if let Some(map) = &mut self.map {
            // A later load must not find them again.
            map[self.entries * N..before * N].fill(0);
        }
    }

    /// Returns the last entry for which `keep` holds. It must hold for a first part of the entries and for no others.
    fn floor(&self, keep: impl Fn([u8; N]) -> bool) -> Option<[u8; N]> {
        self.count(keep).checked_sub(1).map(|at| self.get(at))
    }

    /// Returns the number of entries for which `keep` holds, under the same condition as [`Self::floor`].
    fn count(&self, keep: impl Fn([u8; N]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            if keep(self.get(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[expect(unsafe_code, reason = "a map of a file is unsafe by nature; it is confined to this function")]
fn map(file: &File, len: usize) -> io::Result<MmapMut> {
    // SAFETY: the data folder is locked against other brokers. Within this process only the `EntryFile` that owns the
    // map shortens the file, never below `allocated`, which bounds every access. The file is read only as bytes.
    unsafe { MmapOptions::new().len(len).map_mut(file) }
}

/// Extends a file by blocks that exist on disk, so that a store through the map cannot fail.
fn allocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), offset, len) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            file.write_all_at(&vec![0; len as usize], offset)
        }
        result => Ok(result?),
    }
}

/// An entry of the offset index: the batch whose last offset is `offset` starts at `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetPosition {
    pub(crate) offset: i64,
    pub(crate) position: u64,
}

/// An entry of the time index: up to and including `offset`, no batch is newer than `timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimestampOffset {
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
}

/// Both indexes of one segment.
pub(crate) struct Indexes {
    base_offset: i64,
    offsets: EntryFile<8>,
    times: EntryFile<12>,
}

impl Indexes {
    /// Creates empty indexes, replacing any that exist.
    pub(crate) fn create(dir: &Path, base_offset: i64, capacity: u32) -> io::Result<Self> {
        Self::create_as(dir, base_offset, capacity, "")
    }

    /// Does the same in files whose names end in `suffix`.
    pub(crate) fn create_as(dir: &Path, base_offset: i64, capacity: u32, suffix: &str) -> io::Result<Self> {
        let file = |kind: &str| segment_file(dir, base_offset, &format!("{kind}{suffix}"));
        Ok(Self {
            base_offset,
            offsets: EntryFile::create(file("index"), capacity as usize)?,
            times: EntryFile::create(file("timeindex"), capacity as usize)?,
        })
    }

    /// Loads the indexes from disk; `None` if they are missing or cannot belong to a segment of `size` bytes.
    pub(crate) fn load(dir: &Path, base_offset: i64, capacity: u32, size: u64) -> io::Result<Option<Self>> {
        let offsets = EntryFile::load(segment_file(dir, base_offset, "index"), capacity as usize)?;
        let times = EntryFile::load(segment_file(dir, base_offset, "timeindex"), capacity as usize)?;
        let (Some(offsets), Some(times)) = (offsets, times) else {
            return Ok(None);
        };
        let indexes = Self { base_offset, offsets, times };
        Ok(indexes.is_ordered(size).then_some(indexes))
    }

    fn is_ordered(&self, size: u64) -> bool {
        let mut before: Option<OffsetPosition> = None;
        for at in 0..self.offsets.entries {
            let entry = self.offset_entry(self.offsets.get(at));
            let grows = before.is_none_or(|before| entry.offset > before.offset && entry.position > before.position);
            if !grows || entry.offset < self.base_offset || entry.position >= size {
                return false;
            }
            before = Some(entry);
        }
        let mut before: Option<TimestampOffset> = None;
        for at in 0..self.times.entries {
            let entry = self.time_entry(self.times.get(at));
            let grows = before.is_none_or(|before| entry.timestamp > before.timestamp && entry.offset >= before.offset);
            if !grows || entry.offset < self.base_offset {
                return false;
            }
            before = Some(entry);
        }
        true
    }

    fn offset_entry(&self, entry: [u8; 8]) -> OffsetPosition {
        let [a, b, c, d, e, f, g, h] = entry;
        OffsetPosition {
            offset: self.base_offset.saturating_add(i64::from(i32::from_be_bytes([a, b, c, d]))),
            // No valid position is negative; as a huge number it fails every check.
            position: u64::from(u32::from_be_bytes([e, f, g, h])),
        }
    }

    fn time_entry(&self, entry: [u8; 12]) -> TimestampOffset {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = entry;
        TimestampOffset {
            timestamp: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            offset: self.base_offset.saturating_add(i64::from(i32::from_be_bytes([i, j, k, l]))),
        }
    }

    /// Returns the last entry at or before `offset`.
    pub(crate) fn floor_offset(&self, offset: i64) -> Option<OffsetPosition> {
        self.offsets.floor(|entry| self.offset_entry(entry).offset <= offset).map(|e| self.offset_entry(e))
    }

    /// Returns the last entry at or before a position.
    pub(crate) fn floor_position(&self, position: u64) -> Option<OffsetPosition> {
        self.offsets.floor(|entry| self.offset_entry(entry).position <= position).map(|e| self.offset_entry(e))
    }

    /// Returns the last entry at or before a time.
    pub(crate) fn floor_time(&self, timestamp: i64) -> Option<TimestampOffset> {
        self.times.floor(|entry| self.time_entry(entry).timestamp <= timestamp).map(|e| self.time_entry(e))
    }

    pub(crate) fn last_offset(&self) -> Option<OffsetPosition> {
        self.offsets.last().map(|e| self.offset_entry(e))
    }

    pub(crate) fn last_time(&self) -> Option<TimestampOffset> {
        self.times.last().map(|e| self.time_entry(e))
    }

    /// Returns whether there may be no room for the next entry, so that the segment has to be rolled.
    pub(crate) fn is_full(&self) -> bool {
        // One slot of the time index is reserved for the entry that is written at the roll.
        self.offsets.room() == 0 || self.times.room() <= 1
    }

    fn push_offset(&mut self, entry: OffsetPosition) -> io::Result<()> {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&((entry.offset - self.base_offset) as i32).to_be_bytes());
        bytes[4..].copy_from_slice(&(entry.position as u32).to_be_bytes());
        self.offsets.push(bytes)
    }

    /// Adds an entry if it is newer than the last one.
    pub(crate) fn push_time(&mut self, entry: TimestampOffset) -> io::Result<()> {
        let last = self.last_time().map_or(NO_TIMESTAMP, |last| last.timestamp);
        if entry.timestamp <= last || self.times.room() == 0 {
            return Ok(());
        }
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&entry.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&((entry.offset - self.base_offset) as i32).to_be_bytes());
        self.times.push(bytes)
    }

    /// Removes the entries of batches after `offset`.
    pub(crate) fn truncate(&mut self, offset: i64) {
        let base_offset = self.base_offset;
        let relative = |bytes: [u8; 4]| base_offset.saturating_add(i64::from(i32::from_be_bytes(bytes)));
        self.offsets.truncate(|[a, b, c, d, ..]| relative([a, b, c, d]) <= offset);
        self.times.truncate(|[.., a, b, c, d]| relative([a, b, c, d]) <= offset);
    }

    /// Cuts the files that exist to the length of their entries.
    pub(crate) fn trim(&mut self) -> io::Result<()> {
        self.offsets.trim()?;
        self.times.trim()
    }

    /// Trims both files to their entries, and creates those that do not exist.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.offsets.finish()?;
        self.times.finish()
    }
}

/// A segment's knowledge of its batches, in step with its indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The newest timestamp so far and the last offset of the first batch that has it.
    pub(crate) newest: TimestampOffset,
    /// Max timestamp of the first batch, from which `segment.ms` counts.
    pub(crate) first_timestamp: Option<i64>,
    /// Bytes since the last entry of the offset index.
    pub(crate) bytes_since_entry: u64,
}

impl Summary {
    pub(crate) fn new(base_offset: i64) -> Self {
        Self {
            newest: TimestampOffset { timestamp: NO_TIMESTAMP, offset: base_offset },
            first_timestamp: None,
            bytes_since_entry: 0,
        }
    }

    /// Adds the next batch of the segment, and an index entry if one is due, at the same places as Kafka.
    pub(crate) fn add(&mut self, batch: &Located, indexes: &mut Indexes, interval: u32) -> io::Result<()> {
        let without_entry = self.bytes_since_entry + batch.header.size as u64;
        if !self.note(batch, interval) {
            return Ok(());
        }
        // An entry that cannot be written is due again with the next batch.
        let with_entry = std::mem::replace(&mut self.bytes_since_entry, without_entry);
        if indexes.offsets.room() > 0 {
            indexes.push_offset(OffsetPosition { offset: batch.header.last_offset(), position: batch.position })?;
            indexes.push_time(self.newest)?;
            self.bytes_since_entry = with_entry;
        }
        Ok(())
    }

    /// Adds the next batch of the segment to the summary alone. Returns whether an index entry is due.
    pub(crate) fn note(&mut self, batch: &Located, interval: u32) -> bool {
        let header = &batch.header;
        self.first_timestamp.get_or_insert(header.max_timestamp);
        if header.newest_record() > self.newest.timestamp {
            self.newest = TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() };
        }
        let is_due = self.bytes_since_entry > u64::from(interval);
        let since_entry = if is_due { 0 } else { self.bytes_since_entry };
        self.bytes_since_entry = since_entry + header.size as u64;
        is_due
    }
}
