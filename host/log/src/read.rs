//! Reads ranges of a file that hold whole batches. Records are never decoded.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use millstream_record::BatchView;

use crate::batch_walk::{BatchHeader, HEADER_LEN, HeaderWalk, Located, Order, WalkError};
use crate::error::{LogError, ReadError};
use crate::log::{Log, LogReader};
use crate::segment::Segment;

/// A range of a segment that holds whole batches, ready for sendfile.
///
/// It stays readable even if the segment is deleted.
#[derive(Clone, Debug)]
pub struct LogSlice {
    /// The segment's file.
    pub file: Arc<File>,
    /// The position of its first byte.
    pub position: u64,
    /// Its length in bytes, above 0.
    pub len: usize,
    /// Base offset of its first batch, which may be below the requested offset.
    pub first_offset: i64,
    /// The requested offset, and the one after the last record.
    offsets: Range<i64>,
    /// An offset above all records of the segment.
    segment_end: i64,
    log: LogReader,
    segment: Arc<Segment>,
    is_unchecked: bool,
}

impl LogSlice {
    /// Reads the bytes, for callers that cannot send the file.
    pub fn read_to_bytes(&self) -> io::Result<bytes::Bytes> {
        let mut bytes = vec![0; self.len];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes.into())
    }

    /// Returns the requested offset, and the one after the last record.
    pub(crate) fn offsets(&self) -> Range<i64> {
        self.offsets.clone()
    }

    /// Returns whether bytes may be damaged: they came from the disk just now, or another process has written them.
    pub fn is_unchecked(&self) -> bool {
        self.is_unchecked
    }

    /// Checks the CRCs of all batches, and that they follow one another. A caller does so before it passes on bytes
    /// that may be damaged. Blocks for the disk.
    ///
    /// # Errors
    /// A batch is damaged, which the log then has as its fault.
    pub fn verify(&self) -> Result<(), LogError> {
        match self.first_damaged()? {
            None => {
                self.segment.note_checked(self.position, self.position + self.len as u64);
                Ok(())
            }
            Some((position, reason)) => {
                let error = LogError::Corrupt { path: self.segment.path(), position, reason };
                self.log.shared.faults.note(&error);
                Err(error)
            }
        }
    }

    /// Returns the batches before the first one that is damaged.
    fn sound(mut self) -> Result<Self, LogError> {
        match self.first_damaged()? {
            None => Ok(self),
            Some((position, reason)) if position == self.position => {
                Err(LogError::Corrupt { path: self.segment.path(), position, reason })
            }
            Some((position, _)) => {
                self.len = (position - self.position) as usize;
                Ok(self)
            }
        }
    }

    /// Returns the position of the first damaged batch, and what is wrong with it.
    fn first_damaged(&self) -> Result<Option<(u64, String)>, LogError> {
        let (mut position, end) = (self.position, self.position + self.len as u64);
        let mut bytes = Vec::new();
        let mut follows = Follows::new(self);
        while position < end {
            let left = (end - position) as usize;
            bytes.resize(HEADER_LEN.min(left), 0);
            self.read_at(&mut bytes, position)?;
            let header = match BatchHeader::parse(&bytes) {
                Ok(header) if header.size <= left => header,
                Ok(header) => return Ok(Some((position, format!("a batch of {} bytes, of {left}", header.size)))),
                Err(reason) => return Ok(Some((position, reason))),
            };
            bytes.resize(header.size, 0);
            self.read_at(&mut bytes, position)?;
            if let Err(error) = BatchView::parse(&bytes).and_then(|batch| batch.verify_crc()) {
                return Ok(Some((position, error.to_string())));
            }
            if let Err(damage) = follows.next(Located { position, header }) {
                return Ok(Some(damage));
            }
            position += header.size as u64;
        }
        self.damaged_end(&follows)
    }

    /// Compares the last batch with what comes after it: the next batch, or the end of the segment's offsets.
    fn damaged_end(&self, follows: &Follows) -> Result<Option<(u64, String)>, LogError> {
        let end = self.position + self.len as u64;
        let mut next = HeaderWalk::new(&self.file, end, self.segment.size());
        match next.next() {
            // What is wrong with the next batch is found when it is read.
            Err(WalkError::Bad { .. }) => Ok(None),
            Err(WalkError::Io(error)) => Err(self.segment.read_error(error)),
            Ok(Some(next)) => {
                let damage = follows.clone().next(next).err();
                Ok(damage.filter(|(position, _)| *position < end))
            }
            Ok(None) => Ok(follows.beyond(self.segment_end)),
        }
    }

    fn read_at(&self, bytes: &mut [u8], position: u64) -> Result<(), LogError> {
        self.file.read_exact_at(bytes, position).map_err(|error| self.segment.read_error(error))
    }
}

/// What a read may return.
#[derive(Clone, Copy)]
struct Limits {
    /// The requested offset.
    offset: i64,
    max_bytes: usize,
    max_offset: i64,
    /// The end of the log before the read.
    log_end_offset: i64,
    min_one_batch: bool,
}

/// The batches of a slice in order.
#[derive(Clone)]
struct Follows {
    /// What may come after the batch before the last one.
    before: Order,
    last: Option<Located>,
}

impl Follows {
    fn new(slice: &LogSlice) -> Self {
        Self { before: Order::from(slice.offsets.start), last: None }
    }

    /// Adds a batch. If it does not follow the last one, the last one is damaged if this one follows the batch before.
    fn next(&mut self, batch: Located) -> Result<(), (u64, String)> {
        if let Some(last) = self.last.replace(batch) {
            let order = Order::after(&last.header);
            if let Err(reason) = order.check(&batch.header) {
                let is_odd = self.before.check(&batch.header).is_ok();
                return Err((if is_odd { last.position } else { batch.position }, reason));
            }
            self.before = order;
        }
        Ok(())
    }

    /// Returns the last batch as damaged if it goes beyond the end of the log.
    fn beyond(&self, end: i64) -> Option<(u64, String)> {
        let last = self.last.filter(|last| last.header.next_offset() > end)?;
        Some((last.position, format!("a batch up to offset {}, beyond {end}", last.header.last_offset())))
    }
}

impl Log {
    /// Works like [`LogReader::read`].
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        max_offset_exclusive: i64,
        min_one_batch: bool,
    ) -> Result<Option<LogSlice>, ReadError> {
        self.reader.read(offset, max_bytes, max_offset_exclusive, min_one_batch)
    }
}

impl LogReader {
    /// Returns whole batches from the one that holds `offset` on. As many are returned as fit in `max_bytes`, end below
    /// `max_offset_exclusive` (such as the high watermark) and lie in one segment.
    ///
    /// With `min_one_batch` the first batch is returned even if it is larger than `max_bytes`. `None` means that there
    /// is nothing to read now: the offset is at the end or at the limit, or the first batch does not fit.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        max_offset_exclusive: i64,
        min_one_batch: bool,
    ) -> Result<Option<LogSlice>, ReadError> {
        let (mut found, log_end_offset) = {
            let list = self.shared.list.read();
            if offset < list.log_start_offset || offset > list.log_end_offset {
                return Err(out_of_range(offset, list.log_start_offset, list.log_end_offset));
            }
            (list.segments.get(list.segment_of(offset)).cloned(), list.log_end_offset)
        };
        let max_offset = max_offset_exclusive.min(log_end_offset);
        if offset >= max_offset {
            return Ok(None);
        }
        while let Some(segment) = found {
            match segment.locate_for_read(offset) {
                Ok(Some((first, is_cold))) => {
                    let limits = Limits { offset, max_bytes, max_offset, log_end_offset, min_one_batch };
                    let slice = self.slice(&segment, &first, limits);
                    let slice = slice.and_then(|slice| self.sound(slice, is_cold));
                    return slice.or_else(|error| self.unless_deleted(offset, error));
                }
                Ok(None) => {
                    let list = self.shared.list.read();
                    // Retention may have removed the segment and those after it meanwhile.
                    if offset < list.log_start_offset {
                        return Err(out_of_range(offset, list.log_start_offset, list.log_end_offset));
                    }
                    found = match list.holds(&segment) {
                        // The segment ends in a gap, so the next batch is in a later one.
                        true => list.after(&segment).cloned(),
                        // A compacted one has taken its place meanwhile, and may hold more.
                        false => list.segments.get(list.segment_of(offset)).cloned(),
                    };
                }
                Err(error) => return self.unless_deleted(offset, error),
            }
        }
        Ok(None)
    }

    /// Returns `OffsetOutOfRange` in place of an error if retention has just removed the segment.
    pub(crate) fn unless_deleted<T>(&self, offset: i64, error: LogError) -> Result<T, ReadError> {
        let list = self.shared.list.read();
        if offset < list.log_start_offset {
            return Err(out_of_range(offset, list.log_start_offset, list.log_end_offset));
        }
        self.shared.faults.note(&error);
        Err(error.into())
    }

    /// Leaves out damaged batches, once it is known that the log has some. Before that, the reader checks the batches.
    fn sound(&self, slice: Option<LogSlice>, is_cold: bool) -> Result<Option<LogSlice>, LogError> {
        let Some(mut slice) = slice else { return Ok(None) };
        if self.shared.faults.is_damaged() {
            return slice.sound().map(Some);
        }
        slice.is_unchecked |= is_cold;
        Ok(Some(slice))
    }

    fn slice(&self, segment: &Arc<Segment>, first: &Located, limits: Limits) -> Result<Option<LogSlice>, LogError> {
        let Limits { offset, max_bytes, max_offset, log_end_offset, min_one_batch } = limits;
        let (size, end_offset) = self.end_of(segment, log_end_offset);
        if first.header.next_offset() > end_offset {
            let reason = format!("a batch up to offset {}, beyond {end_offset}", first.header.last_offset());
            return Err(LogError::Corrupt { path: segment.path(), position: first.position, reason });
        }
        if first.header.next_offset() > max_offset || (first.header.size > max_bytes && !min_one_batch) {
            return Ok(None);
        }
        let max_bytes = max_bytes.max(first.header.size) as u64;
        let max_position = first.position.saturating_add(max_bytes);
        // The common case needs no lookup: everything up to the end of the segment.
        let (end, next_offset) = if size <= max_position && end_offset <= max_offset {
            (size, end_offset)
        } else {
            segment.end_of_range(first, max_position.min(size), max_offset)?
        };
        let end = end.max(first.end());
        Ok(Some(LogSlice {
            file: Arc::clone(&segment.open()?.file),
            position: first.position,
            len: (end - first.position) as usize,
            first_offset: first.header.base_offset,
            offsets: offset..next_offset,
            segment_end: end_offset,
            log: self.clone(),
            segment: Arc::clone(segment),
            is_unchecked: segment.is_unchecked(first.position, end),
        }))
    }

    /// Returns a consistent pair: the size of a segment, and an offset above all its records. A truncation may have
    /// moved the end of the log back after it was `log_end_offset`.
    fn end_of(&self, segment: &Segment, log_end_offset: i64) -> (u64, i64) {
        let list = self.shared.list.read();
        let log_end_offset = log_end_offset.max(list.log_end_offset);
        let end_offset = list.after(segment).map_or(log_end_offset, |next| next.base_offset());
        (segment.size(), end_offset)
    }
}

fn out_of_range(offset: i64, log_start_offset: i64, log_end_offset: i64) -> ReadError {
    ReadError::OffsetOutOfRange { offset, log_start_offset, log_end_offset }
}
