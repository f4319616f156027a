//! Reads the headers of record batches, and walks from batch to batch in a file.
//!
//! `millstream_record::BatchView` needs a whole batch in memory. Finding offsets in a segment needs only the 61 bytes
//! at the start of each batch, so this file reads only those.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

pub(crate) use millstream_record::HEADER_LEN;
use millstream_record::layout::{NO_TIMESTAMP, TIMESTAMP_TYPE_BIT};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Where the bytes that the CRC covers start.
pub(crate) const CRC_COVERS_FROM: usize = 21;

/// The bytes that a walk over headers reads at once: about one index interval.
const WALK_CHUNK: usize = 4096;

/// The fields of a batch's header that the log needs, checked for consistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    /// Size of the whole batch in bytes.
    pub(crate) size: usize,
    pub(crate) leader_epoch: i32,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    /// The number of records: 0 if all were dropped.
    pub(crate) count: i32,
}

impl BatchHeader {
    /// Parses a header. The error names the wrong field. Does not read the bytes after the header.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw = millstream_record::BatchHeader::parse(bytes).map_err(|error| error.to_string())?;
        Self::at(&raw, raw.base_offset(), raw.leader_epoch())
    }

    /// Returns the header of a batch that will be stored at `base_offset` with `leader_epoch`.
    pub(crate) fn at(
        raw: &millstream_record::BatchHeader<'_>,
        base_offset: i64,
        leader_epoch: i32,
    ) -> Result<Self, String> {
        let header = Self {
            base_offset,
            size: raw.size(),
            leader_epoch,
            crc: raw.crc(),
            attributes: raw.attributes(),
            last_offset_delta: raw.last_offset_delta(),
            max_timestamp: raw.max_timestamp(),
            producer_id: raw.producer_id(),
            producer_epoch: raw.producer_epoch(),
            base_sequence: raw.base_sequence(),
            count: raw.count(),
        };
        if header.last_offset_delta < 0 {
            return Err(format!("last offset delta {} is negative", header.last_offset_delta));
        }
        if header.base_offset < 0 || header.base_offset.checked_add(i64::from(header.last_offset_delta) + 1).is_none() {
            return Err(format!("base offset {} is impossible", header.base_offset));
        }
        Ok(header)
    }

    /// Sets the broker's time, as `LogAppendTime` does.
    pub(crate) fn set_log_append_time(&mut self, now_ms: i64) {
        self.attributes |= TIMESTAMP_TYPE_BIT;
        self.max_timestamp = now_ms;
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// Returns the newest timestamp of a record; -1 if the batch has no records left, whatever its header says.
    pub(crate) fn newest_record(&self) -> i64 {
        if self.count > 0 { self.max_timestamp } else { NO_TIMESTAMP }
    }

    pub(crate) fn is_log_append_time(&self) -> bool {
        self.attributes & TIMESTAMP_TYPE_BIT != 0
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// Returns the sequence of the last record; 0 follows `i32::MAX`. Batches of coordinators have none, which is -1.
    pub(crate) fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 { -1 } else { add_sequence(self.base_sequence, self.last_offset_delta) }
    }
}

/// Returns `sequence + delta`, wrapping from `i32::MAX` to 0.
pub(crate) fn add_sequence(sequence: i32, delta: i32) -> i32 {
    ((i64::from(sequence) + i64::from(delta)) & 0x7fff_ffff) as i32
}

/// Where the next batch may start. The CRC of a batch does not cover its base offset and its leader epoch, so damage to
/// them shows only beside the other batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// The lowest base offset.
    pub(crate) offset: i64,
    /// The lowest leader epoch.
    pub(crate) epoch: i32,
}

impl Order {
    /// Returns the order of batches from an offset on, in any epoch.
    pub(crate) fn from(offset: i64) -> Self {
        Self { offset, epoch: i32::MIN }
    }

    /// Returns the order after a batch.
    pub(crate) fn after(header: &BatchHeader) -> Self {
        Self { offset: header.next_offset(), epoch: header.leader_epoch }
    }

    /// Checks that a batch may come next. The error says what goes back.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<(), String> {
        if header.base_offset < self.offset {
            return Err(format!("a batch of base offset {} where {} is next", header.base_offset, self.offset));
        }
        if header.leader_epoch < self.epoch {
            return Err(format!("a batch of leader epoch {} after epoch {}", header.leader_epoch, self.epoch));
        }
        Ok(())
    }
}

/// A batch in a segment file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl Located {
    /// Returns the position of the next batch.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.size as u64
    }
}

/// Why a walk stops before the end.
#[derive(Debug)]
pub(crate) enum WalkError {
    /// The file cannot be read.
    Io(io::Error),
    /// The bytes are not the next batch.
    Bad { position: u64, reason: String },
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Walks the batch headers of a segment in order, a page at a time, without reading the records.
pub(crate) struct HeaderWalk<'a> {
    file: &'a File,
    position: u64,
    end: u64,
    order: Order,
    chunk: [u8; WALK_CHUNK],
    chunk_start: u64,
    chunk_len: usize,
    /// Whether a header came from the disk, and not from the page cache.
    is_cold: bool,
}

impl<'a> HeaderWalk<'a> {
    /// Walks from `position`, where a batch must start, to `end`.
    pub(crate) fn new(file: &'a File, position: u64, end: u64) -> Self {
        let order = Order::from(0);
        Self { file, position, end, order, chunk: [0; WALK_CHUNK], chunk_start: 0, chunk_len: 0, is_cold: false }
    }

    /// Rejects a first batch below an offset.
    pub(crate) fn starting_at(mut self, offset: i64) -> Self {
        self.order = Order::from(offset);
        self
    }

    /// Returns the next header; `None` at the end. A batch that crosses the end is bad, and so is one that does not
    /// follow the batch before.
    pub(crate) fn next(&mut self) -> Result<Option<Located>, WalkError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let (position, end) = (self.position, self.end);
        let bad = |reason| WalkError::Bad { position, reason };
        let header = BatchHeader::parse(self.header_bytes()?).map_err(bad)?;
        let located = Located { position, header };
        if located.end() > end {
            return Err(bad(format!("a batch of {} bytes, of which {} are there", header.size, end - position)));
        }
        self.order.check(&header).map_err(bad)?;
        self.order = Order::after(&header);
        self.position = located.end();
        Ok(Some(located))
    }

    /// Moves back to an earlier batch.
    pub(crate) fn rewind(&mut self, position: u64) {
        self.position = position;
        self.order = Order::from(0);
    }

    /// Returns whether a header came from the disk, and not from the page cache. The records may have come with it.
    pub(crate) fn is_cold(&self) -> bool {
        self.is_cold
    }

    fn read_chunk(&mut self, want: usize) -> io::Result<()> {
        let mut buffer = [IoSliceMut::new(&mut self.chunk[..want])];
        match preadv2(self.file, &mut buffer, self.position, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == want => Ok(()),
            read => {
                self.is_cold |= matches!(read, Ok(_) | Err(Errno::AGAIN));
                self.file.read_exact_at(&mut self.chunk[..want], self.position)
            }
        }
    }

    fn header_bytes(&mut self) -> io::Result<&[u8]> {
        let inside = self.position.checked_sub(self.chunk_start).map(|at| at as usize);
        let at = match inside {
            Some(at) if at + HEADER_LEN <= self.chunk_len => at,
            _ => {
                let want = (self.end - self.position).min(WALK_CHUNK as u64) as usize;
                self.read_chunk(want)?;
                self.chunk_start = self.position;
                self.chunk_len = want;
                0
            }
        };
        Ok(&self.chunk[at..self.chunk_len.min(at + HEADER_LEN)])
    }
}
