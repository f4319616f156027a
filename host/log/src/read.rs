//! Reads ranges of a file that hold whole batches. Records are never decoded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::batch_walk::Located;
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
}

impl LogSlice {
    /// Reads the bytes, for callers that cannot send the file.
    pub fn read_to_bytes(&self) -> io::Result<bytes::Bytes> {
        let mut bytes = vec![0; self.len];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes.into())
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
            match segment.locate(offset) {
                Ok(Some(first)) => {
                    let slice = self.slice(&segment, &first, max_bytes, max_offset, min_one_batch);
                    return slice.or_else(|error| self.unless_deleted(offset, error));
                }
                // The segment ends in a gap, so the next batch is in a later one.
                Ok(None) => found = self.shared.list.read().after(&segment).cloned(),
                Err(error) => return self.unless_deleted(offset, error),
            }
        }
        Ok(None)
    }

    /// Returns `OffsetOutOfRange` in place of an error if retention has just removed the segment.
    fn unless_deleted<T>(&self, offset: i64, error: LogError) -> Result<T, ReadError> {
        let list = self.shared.list.read();
        if offset < list.log_start_offset {
            return Err(out_of_range(offset, list.log_start_offset, list.log_end_offset));
        }
        Err(error.into())
    }

    fn slice(
        &self,
        segment: &Segment,
        first: &Located,
        max_bytes: usize,
        max_offset: i64,
        min_one_batch: bool,
    ) -> Result<Option<LogSlice>, LogError> {
        if first.header.next_offset() > max_offset || (first.header.size > max_bytes && !min_one_batch) {
            return Ok(None);
        }
        let max_bytes = max_bytes.max(first.header.size) as u64;
        let max_position = first.position.saturating_add(max_bytes);
        // The common case needs no lookup: everything up to the end of the segment.
        let (size, end_offset) = self.end_of(segment);
        let end = if size <= max_position && end_offset <= max_offset {
            size
        } else {
            segment.end_of_range(first, max_position.min(size), max_offset)?
        };
        Ok(Some(LogSlice {
            file: Arc::clone(&segment.open()?.file),
            position: first.position,
            len: (end.max(first.end()) - first.position) as usize,
            first_offset: first.header.base_offset,
        }))
    }

    /// Returns a consistent pair: the size of a segment, and an offset above all its records.
    fn end_of(&self, segment: &Segment) -> (u64, i64) {
        let list = self.shared.list.read();
        let end_offset = list.after(segment).map_or(list.log_end_offset, |next| next.base_offset());
        (segment.size(), end_offset)
    }
}

fn out_of_range(offset: i64, log_start_offset: i64, log_end_offset: i64) -> ReadError {
    ReadError::OffsetOutOfRange { offset, log_start_offset, log_end_offset }
}
