//! Reading: a range of a file that holds whole batches. Records are never looked at.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::batch_walk::Located;
use crate::error::{LogError, ReadError};
use crate::log::{Log, LogReader};
use crate::segment::Segment;

/// A range of a segment that holds whole batches: ready for sendfile.
///
/// It stays readable when the segment is deleted meanwhile.
#[derive(Clone, Debug)]
pub struct LogSlice {
    /// The segment's file.
    pub file: Arc<File>,
    /// Where the range starts, bytes.
    pub position: u64,
    /// Its length, bytes; more than 0.
    pub len: usize,
    /// Base offset of its first batch, which may be below the offset that was asked for.
    pub first_offset: i64,
}

impl LogSlice {
    /// The bytes themselves, for those who cannot send the file.
    pub fn read_to_bytes(&self) -> io::Result<bytes::Bytes> {
        let mut bytes = vec![0; self.len];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes.into())
    }
}

impl Log {
    /// See [`LogReader::read`].
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
    /// The whole batches from the one that holds `offset` on: as many as fit in `max_bytes`, end below
    /// `max_offset_exclusive` (the high watermark, say) and lie in one segment.
    ///
    /// With `min_one_batch` the first batch comes even when it is larger than `max_bytes`. `None` means that there is
    /// nothing to read now: the offset is at the end, at the bound, or the first batch does not fit.
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
                // The segment ends in a gap: what comes next is in a later one.
                Ok(None) => found = self.shared.list.read().after(&segment).cloned(),
                Err(error) => return self.unless_deleted(offset, error),
            }
        }
        Ok(None)
    }

    /// A segment that retention has just removed fails to open; that is an offset out of range, not an error.
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

    /// Size of a segment, and an offset that none of its records reaches, as they belong together.
    fn end_of(&self, segment: &Segment) -> (u64, i64) {
        let list = self.shared.list.read();
        let end_offset = list.after(segment).map_or(list.log_end_offset, |next| next.base_offset());
        (segment.size(), end_offset)
    }
}

fn out_of_range(offset: i64, log_start_offset: i64, log_end_offset: i64) -> ReadError {
    ReadError::OffsetOutOfRange { offset, log_start_offset, log_end_offset }
}
