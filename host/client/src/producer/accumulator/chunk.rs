//! The chunks of one topic: records that wait for the stages.
//!
//! A stage is called with many rows at once, column by column. Records therefore wait here until a chunk is
//! full or its first record has waited for `linger.ms`. The batch of a record keeps that starting time, so a
//! record lingers only once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_stage::{Columns, RecordsBuf};

use crate::producer::delivery::ChunkResults;

/// The maximum rows of a chunk. With more than a thousand rows the fixed cost of a call no longer matters.
pub(crate) const CHUNK_ROWS: usize = 1024;

/// The size at which a chunk is full, in bytes: what a slow stage processes within its deadline of 20 ms.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// Rows that pass through the stages together.
pub(crate) struct Chunk {
    pub(crate) results: Arc<ChunkResults>,
    /// When the first record arrived.
    pub(crate) created: Instant,
    pub(crate) records: RecordsBuf,
    pub(crate) rows: Vec<ChunkRow>,
    bytes: usize,
}

/// The data of a row besides its columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRow {
    /// Its index in the chunk's results.
    pub(crate) index: u32,
    /// The partition chosen by the caller; -1 for none.
    pub(crate) partition: i32,
    /// The bytes of `buffer.memory` that it holds.
    pub(crate) memory: u32,
}

impl Chunk {
    pub(crate) fn new(results: Arc<ChunkResults>, now: Instant) -> Self {
        let records = RecordsBuf::new(Columns::ALL);
        Self { results, created: now, records, rows: Vec::new(), bytes: 0 }
    }

    /// Adds the row data of a record that was just pushed to `records`.
    pub(crate) fn pushed(&mut self, row: ChunkRow) {
        self.rows.push(row);
        self.bytes += row.memory as usize;
    }

    /// Returns whether a record of this size must go into the next chunk.
    pub(crate) fn full_for(&self, size: usize) -> bool {
        self.rows.len() >= CHUNK_ROWS || (!self.rows.is_empty() && self.bytes + size > CHUNK_BYTES)
    }

    fn full(&self) -> bool {
        self.rows.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES
    }
}

/// The chunks of one topic. The last one may still take records.
#[derive(Default)]
pub(crate) struct Chunks {
    pub(crate) queue: VecDeque<Chunk>,
}

impl Chunks {
    /// Removes the next chunk if it is full, has lingered, or `hurry` is set. The error is the time to check again.
    pub(crate) fn next(&mut self, now: Instant, linger: Duration, hurry: bool) -> Result<Chunk, Option<Instant>> {
        let Some(first) = self.queue.front() else { return Err(None) };
        let due = first.created + linger;
        if hurry || self.queue.len() > 1 || first.full() || due <= now {
            return self.queue.pop_front().ok_or(None);
        }
        Err(Some(due))
    }

    /// Returns whether to wake the worker: for the first record, to start its linger time, and for a full chunk.
    pub(crate) fn wants_worker(&self) -> bool {
        match self.queue.back() {
            Some(last) => last.rows.len() == 1 || last.full(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(chunks: &mut Chunks, created: Instant, memory: u32) {
        let size = memory as usize;
        if chunks.queue.back().is_none_or(|chunk| chunk.full_for(size)) {
            let number = chunks.queue.len() as u64;
            chunks.queue.push_back(Chunk::new(Arc::new(ChunkResults::new(number, "t".into())), created));
        }
        let chunk = chunks.queue.back_mut().unwrap();
        chunk.records.push(0, None, None, []).unwrap();
        chunk.pushed(ChunkRow { index: 0, partition: -1, memory });
    }

    #[test]
    fn a_chunk_is_due_when_it_lingered_or_is_full_or_hurried() {
        let (now, linger) = (Instant::now(), Duration::from_millis(5));
        let mut chunks = Chunks::default();
        assert!(matches!(chunks.next(now, linger, true), Err(None)));
        push(&mut chunks, now, 10);
        assert!(chunks.wants_worker());
        push(&mut chunks, now, 10);
        assert!(!chunks.wants_worker());
        assert!(matches!(chunks.next(now, linger, false), Err(Some(due)) if due == now + linger));
        assert!(matches!(chunks.next(now + linger, linger, false), Ok(chunk) if chunk.rows.len() == 2));
        push(&mut chunks, now, 10);
        assert!(chunks.next(now, linger, true).is_ok());
    }

    #[test]
    fn chunks_are_bounded_by_rows_and_bytes() {
        let now = Instant::now();
        let mut chunks = Chunks::default();
        (0..CHUNK_ROWS + 1).for_each(|_| push(&mut chunks, now, 10));
        push(&mut chunks, now, CHUNK_BYTES as u32);
        let rows: Vec<usize> = chunks.queue.iter().map(|chunk| chunk.rows.len()).collect();
        assert_eq!(rows, [CHUNK_ROWS, 1, 1]);
        assert!(chunks.wants_worker());
    }
}
