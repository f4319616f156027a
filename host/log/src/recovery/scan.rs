//! Reads every byte of a segment for recovery, and checks that each batch is whole, undamaged and follows the one
//! before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crc_fast::{CrcAlgorithm, Digest};

use crate::batch_walk::{BatchHeader, CRC_COVERS_FROM, HEADER_LEN, Located, Order};

/// The bytes that are read at once. A batch may be larger: its CRC is computed piece by piece, so that no length field
/// decides the size of an allocation.
const BUFFER_LEN: usize = 256 * 1024;

/// Where a scan stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At the end of the file, after the last batch.
    End,
    /// At bytes that are not the next batch.
    Bad {
        /// The position of the first wrong byte.
        position: u64,
        /// What is wrong.
        reason: String,
        /// Whether it is a whole batch in the wrong place, which is never a torn write.
        whole: bool,
    },
}

/// Where a scan begins.
#[derive(Clone, Copy)]
pub(crate) struct From {
    /// Where its first batch starts, bytes.
    pub(crate) position: u64,
    /// What its first batch may be.
    pub(crate) order: Order,
    /// Batches below this offset are known to be whole: only their headers are read.
    pub(crate) checked_from: i64,
}

/// Reads a file in large pieces.
pub(crate) struct Scanner<'a> {
    file: &'a File,
    len: u64,
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Scanner<'a> {
    /// Returns a scanner over the first `len` bytes of a file.
    pub(crate) fn new(file: &'a File, len: u64) -> Self {
        Self { file, len, buffer: Vec::new(), start: 0 }
    }

    /// Returns the bytes at `position`, as many as one piece holds, and at least `least` unless the file ends.
    fn bytes_at(&mut self, position: u64, least: usize) -> io::Result<&[u8]> {
        let end = self.start + self.buffer.len() as u64;
        let there = position >= self.start && (position + least as u64).min(self.len) <= end;
        if !there {
            let want = self.len.saturating_sub(position).min(BUFFER_LEN as u64) as usize;
            self.buffer.resize(want, 0);
            self.start = position;
            self.file.read_exact_at(&mut self.buffer, position)?;
        }
        Ok(&self.buffer[(position - self.start) as usize..])
    }

    fn header_at(&mut self, position: u64) -> io::Result<Result<BatchHeader, String>> {
        Ok(BatchHeader::parse(self.bytes_at(position, HEADER_LEN)?))
    }

    /// Returns whether the batch at `position` is complete and has the right CRC.
    fn check_body(&mut self, batch: &Located) -> io::Result<Result<(), String>> {
        if batch.end() > self.len {
            let (size, left) = (batch.header.size, self.len - batch.position);
            return Ok(Err(format!("a batch of {size} bytes, of which {left} are there")));
        }
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut at = batch.position + CRC_COVERS_FROM as u64;
        while at < batch.end() {
            let bytes = self.bytes_at(at, 1)?;
            let take = bytes.len().min((batch.end() - at) as usize);
            digest.update(&bytes[..take]);
            at += take as u64;
        }
        let computed = digest.finalize() as u32;
        if computed == batch.header.crc {
            return Ok(Ok(()));
        }
        Ok(Err(format!("the CRC is {computed:#010x}, the header says {:#010x}", batch.header.crc)))
    }

    /// Visits the good batches from `from` on, in a segment that starts at `base_offset`. Returns where they end.
    pub(crate) fn scan(
        &mut self,
        base_offset: i64,
        from: From,
        mut visit: impl FnMut(&Located) -> io::Result<()>,
    ) -> io::Result<Stop> {
        let From { mut position, mut order, checked_from } = from;
        while position < self.len {
            let bad = |reason, whole| Ok(Stop::Bad { position, reason, whole });
            let header = match self.header_at(position)? {
                Ok(header) => header,
                Err(reason) => return bad(reason, false),
            };
            let batch = Located { position, header };
            let is_checked = header.next_offset() > checked_from || batch.end() > self.len;
            if is_checked && let Err(reason) = self.check_body(&batch)? {
                return bad(reason, false);
            }
            if let Err(reason) = order.check(&header) {
                return bad(reason, true);
            }
            if header.last_offset() - base_offset > i64::from(i32::MAX) {
                return bad(
                    format!("a batch of base offset {} where {} is next", header.base_offset, order.offset),
                    true,
                );
            }
            visit(&batch)?;
            position = batch.end();
            order = Order::after(&header);
        }
        Ok(Stop::End)
    }

    /// Returns whether a whole, undamaged batch follows a bad one. If so, this is damage in the middle and not a torn
    /// tail.
    ///
    /// `expected` is the offset that the bad batch should have started with. A record may contain the bytes of another
    /// batch. Within the range that the bad batch's header claims, only a batch that continues after it therefore
    /// counts. After that range, or if the header is unusable, any later batch counts.
    pub(crate) fn find_batch_after(
        &mut self,
        bad: u64,
        base_offset: i64,
        expected: i64,
    ) -> io::Result<Option<Located>> {
        let header = self.header_at(bad)?.ok().filter(|header| header.base_offset == expected);
        let inside = header.map_or(bad, |header| bad + header.size as u64);
        let next = header.map(|header| header.next_offset());
        // Offsets beyond what a segment can hold are impossible. There is no closer limit: an empty batch of 61 bytes
        // may stand for any number of dropped records.
        let most = base_offset.saturating_add(i64::from(i32::MAX));
        self.search(
            bad + 1,
            |position, offset| {
                if position < inside { Some(offset) == next } else { offset > expected && offset <= most }
            },
        )
    }

    /// Returns the first good batch at or after `from` for which `wanted(position, base_offset)` holds.
    fn search(&mut self, from: u64, wanted: impl Fn(u64, i64) -> bool) -> io::Result<Option<Located>> {
        let mut position = from;
        while position + HEADER_LEN as u64 <= self.len {
            let bytes = self.bytes_at(position, HEADER_LEN)?;
            let here = bytes.windows(HEADER_LEN).enumerate().position(|(at, window)| {
                // The magic byte is checked first: it rules out nearly everything.
                window[16] == 2
                    && BatchHeader::parse(window).is_ok_and(|header| wanted(position + at as u64, header.base_offset))
            });
            let Some(here) = here else {
                position += (bytes.len() - HEADER_LEN + 1) as u64;
                continue;
            };
            position += here as u64;
            if let Ok(header) = self.header_at(position)? {
                let batch = Located { position, header };
                if self.check_body(&batch)?.is_ok() {
                    return Ok(Some(batch));
                }
            }
            position += 1;
        }
        Ok(None)
    }
}
