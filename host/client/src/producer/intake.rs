//! Where the records of one topic gather before the stages see them.
//!
//! A stage is called with a batch of rows, column by column, so records wait here until a chunk is
//! full or its first record has waited for `linger.ms`. That time counts for the batch that they come
//! into as well: a record lingers once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_stage::{Columns, RecordsBuf};

use super::receipt::Receipt;

/// The most rows of a chunk: past a thousand a call's own cost no longer shows.
pub(crate) const CHUNK_ROWS: usize = 1024;

/// The bytes at which a chunk is full: what a slow stage gets through within its deadline of 20 ms.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// Rows that go through the stages together.
pub(crate) struct Chunk {
    pub(crate) receipt: Arc<Receipt>,
    /// When the first record came.
    pub(crate) created: Instant,
    pub(crate) records: RecordsBuf,
    pub(crate) rows: Vec<ChunkRow>,
    bytes: usize,
}

/// What a row has beside its columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRow {
    /// Its number on the receipt.
    pub(crate) receipt_row: u32,
    /// The partition that the caller chose; -1 for none.
    pub(crate) partition: i32,
    /// What it holds of `buffer.memory`, in bytes.
    pub(crate) memory: u32,
}

impl Chunk {
    pub(crate) fn new(receipt: Arc<Receipt>, now: Instant) -> Self {
        let records = RecordsBuf::new(Columns::ALL);
        Self { receipt, created: now, records, rows: Vec::new(), bytes: 0 }
    }

    /// Counts a row that was pushed to `records`.
    pub(crate) fn pushed(&mut self, row: ChunkRow) {
        self.rows.push(row);
        self.bytes += row.memory as usize;
    }

    /// Whether a record of this size belongs into the next chunk.
    pub(crate) fn full_for(&self, size: usize) -> bool {
        self.rows.len() >= CHUNK_ROWS || (!self.rows.is_empty() && self.bytes + size > CHUNK_BYTES)
    }

    fn full(&self) -> bool {
        self.rows.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES
    }
}

/// The chunks of one topic, the last one still open.
#[derive(Default)]
pub(crate) struct Intake {
    pub(crate) chunks: VecDeque<Chunk>,
}

impl Intake {
    /// Takes the next chunk that is full, has lingered, or is wanted in a `hurry`; if there is none, when
    /// to look again.
    pub(crate) fn next(&mut self, now: Instant, linger: Duration, hurry: bool) -> Result<Chunk, Option<Instant>> {
        let Some(first) = self.chunks.front() else { return Err(None) };
        let due = first.created + linger;
        if hurry || self.chunks.len() > 1 || first.full() || due <= now {
            return self.chunks.pop_front().ok_or(None);
        }
        Err(Some(due))
    }

    /// Whether the worker must look: for the first record, to count its time, and for a full chunk.
    pub(crate) fn wants_worker(&self) -> bool {
        match self.chunks.back() {
            Some(last) => last.rows.len() == 1 || last.full(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(intake: &mut Intake, created: Instant, memory: u32) {
        let size = memory as usize;
        if intake.chunks.back().is_none_or(|chunk| chunk.full_for(size)) {
            let number = intake.chunks.len() as u64;
            intake.chunks.push_back(Chunk::new(Arc::new(Receipt::new(number, "t".into())), created));
        }
        let chunk = intake.chunks.back_mut().unwrap();
        chunk.records.push(0, None, None, []).unwrap();
        chunk.pushed(ChunkRow { receipt_row: 0, partition: -1, memory });
    }

    #[test]
    fn a_chunk_is_due_when_it_lingered_or_is_full_or_wanted() {
        let (now, linger) = (Instant::now(), Duration::from_millis(5));
        let mut intake = Intake::default();
        assert!(matches!(intake.next(now, linger, true), Err(None)));
        push(&mut intake, now, 10);
        assert!(intake.wants_worker());
        push(&mut intake, now, 10);
        assert!(!intake.wants_worker());
        assert!(matches!(intake.next(now, linger, false), Err(Some(due)) if due == now + linger));
        assert!(matches!(intake.next(now + linger, linger, false), Ok(chunk) if chunk.rows.len() == 2));
        push(&mut intake, now, 10);
        assert!(intake.next(now, linger, true).is_ok());
    }

    #[test]
    fn chunks_are_bounded_by_rows_and_bytes() {
        let now = Instant::now();
        let mut intake = Intake::default();
        (0..CHUNK_ROWS + 1).for_each(|_| push(&mut intake, now, 10));
        push(&mut intake, now, CHUNK_BYTES as u32);
        let rows: Vec<usize> = intake.chunks.iter().map(|chunk| chunk.rows.len()).collect();
        assert_eq!(rows, [CHUNK_ROWS, 1, 1]);
        assert!(intake.wants_worker());
    }
}
