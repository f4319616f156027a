//! Reads the batches of a segment in order, in large pieces, and checks each one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use millstream_record::BatchView;

use super::CleanError;
use crate::batch_walk::{BatchHeader, HEADER_LEN, Located, Order};
use crate::error::LogError;
use crate::segment::Segment;

/// The batches of one segment.
pub(super) struct Source<'a> {
    segment: &'a Segment,
    file: Arc<File>,
    /// Where the next batch starts.
    position: u64,
    end: u64,
    order: Order,
    piece: usize,
    buffer: Vec<u8>,
    /// The position of the buffer's first byte.
    start: u64,
}

impl<'a> Source<'a> {
    /// Returns the batches from the first one that ends at or after `from`. The file is read `piece` bytes at a time,
    /// or one batch if it is larger.
    pub(super) fn open(segment: &'a Segment, from: i64, piece: usize) -> Result<Option<Self>, LogError> {
        let end = segment.size();
        let position = match from <= segment.base_offset() {
            true => 0,
            false => match segment.locate(from)? {
                Some(first) => first.position,
                None => return Ok(None),
            },
        };
        let file = Arc::clone(&segment.open()?.file);
        let order = Order::from(segment.base_offset());
        Ok(Some(Self { segment, file, position, end, order, piece, buffer: Vec::new(), start: position }))
    }

    /// Returns the next batch, whose bytes are undamaged. `pace` is called with the bytes that are read, and may stop
    /// it.
    pub(super) fn next(
        &mut self,
        pace: &dyn Fn(usize) -> bool,
    ) -> Result<Option<(Located, BatchView<'_>)>, CleanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let (position, segment) = (self.position, self.segment);
        let corrupt = |reason| LogError::Corrupt { path: segment.path(), position, reason };
        self.fill(HEADER_LEN, pace)?;
        let header = BatchHeader::parse(self.bytes()).map_err(corrupt)?;
        if header.size as u64 > self.end - position {
            let reason = format!("a batch of {} bytes, of which {} are there", header.size, self.end - position);
            return Err(corrupt(reason).into());
        }
        self.order.check(&header).map_err(corrupt)?;
        self.fill(header.size, pace)?;
        self.order = Order::after(&header);
        self.position += header.size as u64;
        let at = (position - self.start) as usize;
        let batch = BatchView::parse(&self.buffer[at..])
            .and_then(|batch| batch.verify_crc().map(|()| batch))
            .map_err(|error| corrupt(error.to_string()))?;
        Ok(Some((Located { position, header }, batch)))
    }

    /// Returns the bytes from the next batch on that are in memory.
    fn bytes(&self) -> &[u8] {
        &self.buffer[(self.position - self.start) as usize..]
    }

    /// Reads on until `least` bytes of the next batch are in memory, or the segment ends.
    fn fill(&mut self, least: usize, pace: &dyn Fn(usize) -> bool) -> Result<(), CleanError> {
        let left = self.end - self.position;
        if self.bytes().len() as u64 >= left.min(least as u64) {
            return Ok(());
        }
        let have = self.bytes().len();
        self.buffer.drain(..(self.position - self.start) as usize);
        self.start = self.position;
        // The size of a batch is at most that of the rest of the file.
        let want = (self.piece.max(least) as u64).min(left) as usize;
        self.buffer.resize(want, 0);
        let read = self.file.read_exact_at(&mut self.buffer[have..], self.start + have as u64);
        read.map_err(|error| self.segment.read_error(error))?;
        if pace(want - have) { Ok(()) } else { Err(CleanError::Stopped) }
    }
}
