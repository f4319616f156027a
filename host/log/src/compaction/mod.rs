//! Log compaction: keeps the last record of each key, as Kafka 4.2 does.
//!
//! A pass has two parts. The first reads the segments that were not compacted before, and maps each key to its last
//! offset, in bounded memory ([`offset_map`]). If the map gets full, the next pass continues at the first offset that
//! is not in it. The second part copies all segments up to there, group by group, into new segments. What stays of a
//! batch is decided by [`rules`] and [`transactions`]; offsets never change.
//!
//! A pass reads without any lock. A group's copy is synced, and then takes the place of its sources under the log's
//! lock ([`swap`]). A kill at any step leaves the old segments or the new one. Readers of the old segments keep them.
//!
//! Nothing at or above the last stable offset or the recovery point is touched, nor the active segment. A segment that
//! holds such an offset is left alone as a whole.

mod copy;
mod offset_map;
mod pass;
mod plan;
mod rules;
mod source;
mod swap;
mod transactions;

pub use pass::{Cleaned, Cleaner, LogAccess};
pub use plan::CleaningPlan;
pub(crate) use swap::{SWAP, complete_swaps};

use millstream_record::{BatchError, BatchView, Codec};
use thiserror::Error;

use crate::error::{LogError, ReadError};

/// Returns the uncompressed records of a batch whose codec is not one of Kafka's, and the codec in which a part of them
/// is stored. The component that appends such batches provides it.
pub type DecodeRecords<'d> = &'d dyn Fn(&BatchView<'_>, usize) -> Result<(Vec<u8>, Codec), String>;

/// Why a pass ended early. Groups that it had finished stay compacted.
#[derive(Debug, Error)]
pub enum CleanError {
    /// The log was closed or truncated, or the cleaner stops.
    #[error("the pass was stopped")]
    Stopped,
    /// The records of a batch cannot be read, so its keys are not known.
    #[error("the batch at offset {offset} cannot be compacted: {reason}")]
    Unreadable {
        /// The base offset of the batch.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed, or its data is damaged.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<ReadError> for CleanError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Log(error) => Self::Log(error),
            ReadError::OffsetOutOfRange { .. } => Self::Stopped,
        }
    }
}

/// Returns the error for a batch whose records cannot be read.
pub(crate) fn unreadable(offset: i64) -> impl FnOnce(BatchError) -> CleanError {
    move |error| CleanError::Unreadable { offset, reason: error.to_string() }
}
