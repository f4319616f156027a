//! The write-ahead log of a voter: votes and entries in one order, in segments.
//!
//! A segment is a file of frames. It begins with the state that the segments before it leave behind, so that the oldest
//! can be deleted when all their entries are purged. Each append is one frame and is synced before it returns.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::disk::Disk;
use super::frame::{HEADER, PAYLOAD_BYTES_MAX, Purged, Record, is_torn, payload};

/// The length from which a segment is followed by a new one.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// The space on the disk that is taken in advance. Changes of the metadata go on while records have filled the disk.
const RESERVED_BYTES: u64 = 4 << 20;
/// The longest segment: the last frame begins below the limit.
const FILE_BYTES_MAX: u64 = SEGMENT_BYTES + (HEADER + PAYLOAD_BYTES_MAX) as u64;
/// The largest proposal.
pub const PROPOSAL_BYTES_MAX: usize = 64 << 20;
/// The largest entry: a proposal and what the consensus adds to it.
const ENTRY_BYTES_MAX: usize = PROPOSAL_BYTES_MAX + (1 << 20);
/// The most bytes of entries in one frame, with room for their lengths.
const ENTRIES_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - (1 << 20);

/// Why the storage of a voter cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk fails.
    #[error("cannot read or write {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the disk reports.
        error: io::Error,
    },
    /// A file is damaged where no crash can have torn it.
    #[error("{} is damaged at offset {offset}: restore the file, or add the node as a new voter", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The offset of the first byte that cannot be read.
        offset: u64,
    },
    /// A file is missing.
    #[error("{} is missing: restore the file, or add the node as a new voter", .0.display())]
    Missing(PathBuf),
    /// An entry or a snapshot is larger than a file may hold.
    #[error("a record of {0} bytes exceeds the limit of {1}")]
    TooLarge(usize, usize),
    /// Entries do not follow the last one.
    #[error("entries from index {first} cannot follow a log that ends before index {end}")]
    Gap {
        /// The first index of the entries.
        first: u64,
        /// The index that follows the log.
        end: u64,
    },
    /// An earlier write failed, so the state of the file is unknown.
    #[error("an earlier write to {} failed: restart the node", .0.display())]
    Failed(PathBuf),
}

struct Segment {
    sequence: u64,
    /// The highest index of an entry that was ever in the segment.
    last_index: Option<u64>,
}

/// The log of one voter. Its entries are in memory as well, until they are purged.
pub struct Wal {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// The length of the last segment.
    length: u64,
    /// The length of the last segment for which space was taken.
    reserved: u64,
    directory_id: Uuid,
    vote: Option<Bytes>,
    purged: Option<Purged>,
    /// The index of the first entry.
    first: u64,
    entries: VecDeque<Bytes>,
    has_failed: bool,
}

impl Wal {
    /// Opens the log, and cuts a torn tail. An empty log receives a new directory id. A new segment begins after
    /// `segment_bytes`, at most [`SEGMENT_BYTES`].
    pub fn open(disk: Arc<dyn Disk>, segment_bytes: u64) -> Result<Self, StorageError> {
        let names = disk.list().map_err(|error| StorageError::Io { path: disk.path(""), error })?;
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| sequence(name)).collect();
        sequences.sort_unstable();
        let mut wal = Self {
            disk,
            segment_bytes: segment_bytes.min(SEGMENT_BYTES),
            segments: VecDeque::new(),
            length: 0,
            reserved: 0,
            directory_id: Uuid::new_v4(),
            vote: None,
            purged: None,
            first: 0,
            entries: VecDeque::new(),
            has_failed: false,
        };
        for (index, sequence) in sequences.iter().enumerate() {
            let expected = sequences[0] + index as u64;
            if *sequence != expected {
                return Err(StorageError::Missing(wal.disk.path(&name(expected))));
            }
            wal.replay(*sequence, index + 1 == sequences.len())?;
        }
        // Entries that were deleted with their segment must be purged.
        if wal.first > wal.purged.as_ref().map_or(0, |purged| purged.index + 1) {
            return Err(StorageError::Missing(wal.disk.path(&name(sequences[0].saturating_sub(1)))));
        }
        match wal.segments.back() {
            None => wal.begin_segment(1)?,
            Some(_) if wal.length == 0 => wal.write_head()?,
            Some(_) => wal.sync_tail()?,
        }
        wal.reserve(0);
        Ok(wal)
    }

    /// Reads a segment. Only the last one can have a torn tail.
    fn replay(&mut self, sequence: u64, is_last: bool) -> Result<(), StorageError> {
        let name = name(sequence);
        let bytes = self.disk.read(&name, FILE_BYTES_MAX).map_err(|error| self.io(sequence, error))?;
        let bytes = Bytes::from(bytes);
        self.segments.push_back(Segment { sequence, last_index: None });
        let mut at = 0;
        while let Some(payload) = payload(&bytes, at) {
            let length = payload.len();
            let record = Record::decode(payload).filter(|record| self.apply(record.clone(), at == 0));
            if record.is_none() {
                return Err(self.damaged(sequence, at));
            }
            at += HEADER + length;
        }
        let is_whole = at == bytes.len() && at > 0;
        if !is_whole && !(is_last && (bytes.is_empty() || is_torn(&bytes, at))) {
            return Err(self.damaged(sequence, at));
        }
        if at < bytes.len() {
            self.disk.truncate(&name, at as u64).map_err(|error| self.io(sequence, error))?;
        }
        self.length = at as u64;
        Ok(())
    }

    /// Applies a record to the state in memory. Returns false if the record does not fit.
    fn apply(&mut self, record: Record, begins_segment: bool) -> bool {
        if begins_segment != matches!(record, Record::Segment { .. }) {
            return false;
        }
        match record {
            Record::Segment { directory_id, purged, vote } => {
                if self.segments.len() > 1 {
                    return (self.directory_id, &self.purged, &self.vote) == (directory_id, &purged, &vote);
                }
                self.directory_id = directory_id;
                self.vote = vote;
                self.first = purged.as_ref().map_or(0, |purged| purged.index + 1);
                self.purged = purged;
            }
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Entries { first, entries } => {
                // The segment with the entries between was deleted after a purge, which is a later record.
                if first > self.end() {
                    self.entries.clear();
                    self.first = first;
                }
                if first != self.end() || entries.is_empty() {
                    return false;
                }
                self.entries.extend(entries);
                if let Some(segment) = self.segments.back_mut() {
                    segment.last_index = segment.last_index.max(Some(self.first + self.entries.len() as u64 - 1));
                }
            }
            Record::Truncate(index) => {
                self.entries.truncate(index.saturating_sub(self.first) as usize);
                // In a log that lost its oldest segments, the index can be before the first entry.
                self.first = self.first.min(index);
            }
            Record::Purge(purged) => {
                let removed = (purged.index + 1).saturating_sub(self.first).min(self.entries.len() as u64);
                self.entries.drain(..removed as usize);
                if self.entries.is_empty() {
                    self.first = purged.index + 1;
                } else {
                    self.first += removed;
                }
                self.purged = Some(purged);
            }
        }
        true
    }

    /// Returns the id of the voter's folder. A lost log has a new one.
    pub fn directory_id(&self) -> Uuid {
        self.directory_id
    }

    /// Returns the last vote.
    pub fn vote(&self) -> Option<&Bytes> {
        self.vote.as_ref()
    }

    /// Returns the last purged entry.
    pub fn purged(&self) -> Option<&Purged> {
        self.purged.as_ref()
    }

    /// Returns the index of the first entry, or that of the next one if the log is empty.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Returns the index that follows the last entry.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Returns the entries of a range of indexes, as far as the log has them.
    pub fn entries(&self, range: Range<u64>) -> impl Iterator<Item = &Bytes> {
        let from = range.start.clamp(self.first, self.end()) - self.first;
        let to = range.end.clamp(self.first + from, self.end()) - self.first;
        self.entries.range(from as usize..to as usize)
    }

    /// Writes a vote, and returns when it is durable.
    pub fn save_vote(&mut self, vote: Bytes) -> Result<(), StorageError> {
        self.write(Record::Vote(vote))
    }

    /// Appends entries, and returns when they are durable. A crash may keep only the first of them.
    pub fn append(&mut self, first: u64, entries: Vec<Bytes>) -> Result<(), StorageError> {
        let end = self.end();
        if first != end {
            return Err(StorageError::Gap { first, end });
        }
        if let Some(entry) = entries.iter().find(|entry| entry.len() > ENTRY_BYTES_MAX) {
            return Err(StorageError::TooLarge(entry.len(), ENTRY_BYTES_MAX));
        }
        let (mut chunk, mut size) = (Vec::new(), 0);
        for entry in entries {
            if size + entry.len() + 4 > ENTRIES_BYTES_MAX {
                self.write(Record::Entries { first: self.end(), entries: std::mem::take(&mut chunk) })?;
                size = 0;
            }
            size += entry.len() + 4;
            chunk.push(entry);
        }
        if chunk.is_empty() {
            return Ok(());
        }
        self.write(Record::Entries { first: self.end(), entries: chunk })
    }

    /// Removes the entries from an index on, and returns when that is durable.
    pub fn truncate(&mut self, index: u64) -> Result<(), StorageError> {
        self.write(Record::Truncate(index))
    }

    /// Removes the entries up to an index, and deletes the segments that are no longer needed.
    pub fn purge(&mut self, purged: Purged) -> Result<(), StorageError> {
        if self.purged.as_ref().is_some_and(|before| before.index >= purged.index) {
            return Ok(());
        }
        let index = purged.index;
        self.write(Record::Purge(purged))?;
        while self.segments.len() > 1 && self.segments[0].last_index.is_none_or(|last| last <= index) {
            let sequence = self.segments[0].sequence;
            // The folder is synced each time: the segments that a crash leaves are always the newest.
            let removed = self.disk.remove(&name(sequence)).and_then(|()| self.disk.sync_folder());
            self.check(sequence, removed)?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn write(&mut self, record: Record) -> Result<(), StorageError> {
        let last = self.last_sequence();
        if self.has_failed {
            return Err(StorageError::Failed(self.disk.path(&name(last))));
        }
        if self.length >= self.segment_bytes {
            self.begin_segment(last + 1)?;
        }
        self.write_frame(&record)?;
        self.apply(record, false);
        Ok(())
    }

    fn begin_segment(&mut self, sequence: u64) -> Result<(), StorageError> {
        self.segments.push_back(Segment { sequence, last_index: None });
        (self.length, self.reserved) = (0, 0);
        self.write_head()
    }

    fn write_head(&mut self) -> Result<(), StorageError> {
        self.write_frame(&Record::Segment {
            directory_id: self.directory_id,
            purged: self.purged.clone(),
            vote: self.vote.clone(),
        })?;
        let synced = self.disk.sync_folder();
        self.check(self.last_sequence(), synced)
    }

    fn write_frame(&mut self, record: &Record) -> Result<(), StorageError> {
        let frame = record.frame().map_err(|size| StorageError::TooLarge(size, PAYLOAD_BYTES_MAX))?;
        let sequence = self.last_sequence();
        self.reserve(frame.len() as u64);
        let name = name(sequence);
        let written = self.disk.append(&name, &frame).and_then(|()| self.disk.sync(&name));
        self.check(sequence, written)?;
        self.length += frame.len() as u64;
        Ok(())
    }

    /// Takes space for the next frames, once half of it is used.
    fn reserve(&mut self, frame: u64) {
        let end = self.length + frame;
        if end + RESERVED_BYTES / 2 <= self.reserved {
            return;
        }
        self.reserved = end + RESERVED_BYTES;
        let name = name(self.last_sequence());
        if let Err(error) = self.disk.reserve(&name, self.reserved) {
            // The frame may fit all the same.
            tracing::warn!("cannot take space for {}: {error}", self.disk.path(&name).display());
        }
    }

    /// Makes what was read durable: a killed process may have left bytes that are not.
    fn sync_tail(&mut self) -> Result<(), StorageError> {
        let sequence = self.last_sequence();
        let synced = self.disk.sync(&name(sequence)).and_then(|()| self.disk.sync_folder());
        self.check(sequence, synced)
    }

    fn check(&mut self, sequence: u64, result: io::Result<()>) -> Result<(), StorageError> {
        self.has_failed |= result.is_err();
        result.map_err(|error| self.io(sequence, error))
    }

    fn last_sequence(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.sequence)
    }

    fn io(&self, sequence: u64, error: io::Error) -> StorageError {
        StorageError::Io { path: self.disk.path(&name(sequence)), error }
    }

    fn damaged(&self, sequence: u64, at: usize) -> StorageError {
        StorageError::Damaged { path: self.disk.path(&name(sequence)), offset: at as u64 }
    }
}

fn name(sequence: u64) -> String {
    format!("{sequence:020}.wal")
}

fn sequence(name: &str) -> Option<u64> {
    name.strip_suffix(".wal")?.parse().ok()
}

#[cfg(test)]
mod tests;
