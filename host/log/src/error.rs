//! The errors of a log, each with the file and the position.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use uuid::Uuid;

/// Why a log could not be opened, written, synced or truncated.
#[derive(Debug, Error)]
pub enum LogError {
    /// The operating system reported an error for an operation on a file.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What the log did when it failed.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Bytes that were durable are damaged. The log is left exactly as it was found: quarantine the replica.
    #[error(
        "{} is damaged at byte {position}: {reason}. Nothing was changed. Restore the file from a replica or a backup; \
         to give up what follows, cut the file to {position} bytes and delete the broker's \
         recovery-point-offset-checkpoint",
        path.display()
    )]
    Corrupt {
        /// The damaged segment.
        path: PathBuf,
        /// Where the first bad batch starts.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The log ends before an offset that is known to have been durable.
    #[error(
        "the log in {} ends at offset {log_end_offset}, but offset {recovery_point} had been made durable: \
         data is missing. Nothing was changed. Restore the folder, or delete the broker's \
         recovery-point-offset-checkpoint to go on without it",
        path.display()
    )]
    Shorter {
        /// The partition's folder.
        path: PathBuf,
        /// The log end offset now.
        log_end_offset: i64,
        /// The offset in the checkpoint.
        recovery_point: i64,
    },
    /// The folder belongs to another topic, such as a deleted one of the same name.
    #[error(
        "{} belongs to topic id {found}, not to {expected}: the folder is that of another topic, or the file is \
         damaged. Nothing was changed. Restore the folder; if its records are those of this topic, delete the file",
        path.display()
    )]
    TopicId {
        /// The `partition.metadata` file.
        path: PathBuf,
        /// The id in the file.
        found: Uuid,
        /// The expected id.
        expected: Uuid,
    },
    /// An earlier fsync failed, so what the kernel still holds of the log cannot be trusted.
    #[error(
        "the log in {} is out of service since an fsync or a repair failed: restart the broker once the disk is well",
        path.display()
    )]
    Poisoned {
        /// The partition's folder.
        path: PathBuf,
    },
}

impl LogError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }
}

/// Why a batch was not appended. The log is unchanged.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Kafka's OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {producer_id}: sequence {found} after {last} is out of order")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// First sequence of the batch.
        found: i32,
        /// Last sequence in the log; -1 if the epoch has none.
        last: i32,
    },
    /// Kafka's INVALID_PRODUCER_EPOCH: a newer instance of the producer has written.
    #[error("producer {producer_id}: epoch {found} is older than the current {current}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        found: i16,
        /// The current epoch.
        current: i16,
    },
    /// Kafka's INVALID_TXN_STATE: no transaction of the producer is open here, and its coordinator was not asked.
    #[error("the batch of producer {producer_id}, epoch {epoch}, is not part of an ongoing transaction")]
    NoTransaction {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        epoch: i16,
    },
    /// Kafka's INVALID_TXN_STATE: the producer has a transaction open, and the batch is not part of it.
    #[error("producer {producer_id} has an open transaction, and the batch is not transactional")]
    OutsideTransaction {
        /// The producer.
        producer_id: i64,
    },
    /// Kafka's TRANSACTION_COORDINATOR_FENCED: another broker has become the coordinator.
    #[error("producer {producer_id}: coordinator epoch {found} of the marker is older than the current {current}")]
    CoordinatorFenced {
        /// The producer.
        producer_id: i64,
        /// The epoch of the marker.
        found: i32,
        /// The epoch of an earlier marker.
        current: i32,
    },
    /// Kafka's MESSAGE_TOO_LARGE.
    #[error("the record batch has {size} bytes, max.message.bytes allows {max}")]
    BatchTooLarge {
        /// Size of the batch in bytes.
        size: usize,
        /// The limit in bytes.
        max: u64,
    },
    /// Kafka's RECORD_LIST_TOO_LARGE.
    #[error("the record batch has {size} bytes and does not fit into a segment: segment.bytes is {max}")]
    LargerThanSegment {
        /// Size of the batch in bytes.
        size: usize,
        /// The limit in bytes.
        max: u64,
    },
    /// Kafka's CORRUPT_MESSAGE: these bytes are not a record batch of version 2, or the CRC is wrong.
    #[error("not a valid record batch: {0}")]
    Corrupt(String),
    /// A follower was given offsets that do not continue its log.
    #[error("batch at offset {found} does not follow the log's end at {expected}")]
    UnexpectedOffset {
        /// Base offset of the batch.
        found: i64,
        /// The log end offset.
        expected: i64,
    },
    /// The log cannot append: the disk is full, or the log is poisoned.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why a read failed.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Kafka's OFFSET_OUT_OF_RANGE.
    #[error("offset {offset} is outside of {log_start_offset}..={log_end_offset}")]
    OffsetOutOfRange {
        /// The requested offset.
        offset: i64,
        /// First offset that can be read.
        log_start_offset: i64,
        /// The offset that the next record will get.
        log_end_offset: i64,
    },
    /// The disk failed, or its data is damaged.
    #[error(transparent)]
    Log(#[from] LogError),
}
