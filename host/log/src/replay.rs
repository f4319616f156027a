//! Replays a log: passes every batch in the order of the offsets, for state that is kept in memory.

use std::io;
use std::ops::{ControlFlow, Range};

use millstream_record::{BatchError, BatchView, batches};
use thiserror::Error;

use crate::error::ReadError;
use crate::log::LogReader;

/// The bytes of the log that are read at a time. A larger batch is read as a whole.
const REPLAY_BYTES: usize = 4 << 20;

/// Why a log cannot be replayed to its end.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk failed.
    #[error("the log cannot be read after offset {offset}: {source}")]
    Io {
        /// All batches before this offset were replayed.
        offset: i64,
        /// The cause.
        source: io::Error,
    },
    /// The log holds bytes that are not a record batch.
    #[error("the log is damaged after offset {offset}: {source}")]
    Batch {
        /// All batches before this offset were replayed.
        offset: i64,
        /// What is wrong.
        source: BatchError,
    },
}

impl LogReader {
    /// Passes each batch with offsets in `range` to `visit`, in order, until `visit` breaks. Returns the value of the
    /// break.
    ///
    /// The replay starts at the log start offset if that is above the range's start, even if retention moves it during
    /// the replay. Blocks for the disk.
    ///
    /// # Errors
    /// The log cannot be read, or holds bytes that are not a batch, or a batch is damaged.
    pub fn replay<B>(
        &self,
        range: Range<i64>,
        mut visit: impl FnMut(&BatchView<'_>) -> ControlFlow<B>,
    ) -> Result<Option<B>, ReplayError> {
        let mut offset = range.start.max(self.log_start_offset());
        while offset < range.end {
            let slice = match self.read(offset, REPLAY_BYTES, range.end, true) {
                Ok(Some(slice)) => slice,
                Ok(None) => break,
                Err(ReadError::OffsetOutOfRange { log_start_offset, .. }) if log_start_offset > offset => {
                    offset = log_start_offset;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let bytes = slice.read_to_bytes().map_err(|source| ReplayError::Io { offset, source })?;
            for batch in batches(&bytes) {
                let batch = batch.and_then(|batch| batch.verify_crc().map(|()| batch)).map_err(|source| {
                    // The log has to know about its damage; this error names the offset.
                    let _ = slice.verify();
                    ReplayError::Batch { offset, source }
                })?;
                if batch.next_offset() <= offset {
                    continue;
                }
                if let ControlFlow::Break(value) = visit(&batch) {
                    return Ok(Some(value));
                }
                offset = batch.next_offset();
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use millstream_record::{BatchBuilder, CheckedBatch, Codec, TimestampType};

    use super::*;
    use crate::{Log, LogConfig, OpenOptions};

    fn log(folder: &std::path::Path, batches: i64) -> Log {
        let config = LogConfig { segment_bytes: 200, ..LogConfig::default() };
        let options = OpenOptions::default();
        let mut log = Log::open(folder, config, options).expect("an empty folder opens");
        for number in 0..batches {
            let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
            for _ in 0..2 {
                builder.append(number, None, Some(b"value"), []).expect("a small record fits");
            }
            let batch = builder.build().expect("a small batch fits");
            log.append(&CheckedBatch::of_own(&batch).expect("a valid batch"), 0, 0).expect("an empty disk takes it");
        }
        log
    }

    fn replayed(log: &Log, range: Range<i64>) -> Vec<i64> {
        let mut offsets = Vec::new();
        let visit = |batch: &BatchView<'_>| {
            offsets.push(batch.base_offset());
            ControlFlow::<()>::Continue(())
        };
        log.reader().replay(range, visit).expect("the log can be read");
        offsets
    }

    #[test]
    fn every_batch_of_the_range_comes_once_over_all_segments() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = log(folder.path(), 10);
        assert!(log.segment_count() > 2);
        assert_eq!(replayed(&log, 0..i64::MAX), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
        assert_eq!(replayed(&log, 5..10), [4, 6, 8]);
        assert_eq!(replayed(&log, 20..30), [0; 0]);
        log.delete_records(7).expect("records can be deleted");
        assert_eq!(replayed(&log, 0..12), [6, 8, 10]);
    }

    #[test]
    fn a_visitor_ends_the_replay() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log(folder.path(), 5);
        let third = |batch: &BatchView<'_>| match batch.base_offset() {
            4 => ControlFlow::Break("found"),
            _ => ControlFlow::Continue(()),
        };
        assert_eq!(log.reader().replay(0..i64::MAX, third).expect("the log can be read"), Some("found"));
    }
}
