//! The errors of a record batch.

use crate::codec::{Codec, CodecError};
use crate::layout::BATCH_LENGTH_MIN;
use crate::varint::VarintError;

/// The class of a [`BatchError`]: what a broker maps to one of Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The bytes are not those that were written: CORRUPT_MESSAGE.
    Corrupt,
    /// The bytes are sound and what they say is not allowed: INVALID_RECORD.
    InvalidRecord,
    /// A record format other than 2: UNSUPPORTED_FOR_MESSAGE_FORMAT for 0 and 1, else CORRUPT_MESSAGE.
    UnsupportedMagic,
    /// A codec id that is not defined: UNSUPPORTED_COMPRESSION_TYPE.
    UnsupportedCodec,
    /// A timestamp that is out of bounds: INVALID_TIMESTAMP.
    InvalidTimestamp,
    /// Larger than the cap that was given: MESSAGE_TOO_LARGE.
    TooLarge,
}

/// What is wrong with a record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The input ends before the batch does. At the end of a fetched record set this is normal: a broker
    /// may cut the last batch, and a consumer ignores it.
    #[error("the record batch is cut short: it needs {needed} bytes, {available} are there")]
    Truncated {
        /// Bytes that the batch, or its header, takes.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// The batch length is negative or shorter than the header.
    #[error("batch length {length} is below the least possible, {BATCH_LENGTH_MIN}")]
    BadLength {
        /// The value of the batch length field.
        length: i32,
    },
    /// A record format other than 2.
    #[error("record format (magic) {magic} is not supported: only 2 is, which clients write since Kafka 0.11")]
    UnsupportedMagic {
        /// The value of the magic field.
        magic: i8,
    },
    /// The stored CRC-32C is not that of the bytes.
    #[error("CRC-32C mismatch: the batch says {stored:#010x}, its bytes give {computed:#010x}")]
    CrcMismatch {
        /// What the batch says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// The batch, or one record of it, says something that is not allowed.
    #[error("{}{fault}", at_record(*.index))]
    Invalid {
        /// The record's place in its batch, from 0; none if it is the batch as a whole.
        index: Option<u32>,
        /// What is wrong.
        fault: RecordFault,
    },
    /// Records that break the topic's rules, each with the reason (KIP-467).
    #[error("{}", rejected_text(.records, *.total))]
    Rejected {
        /// The rejected records in order; no more than 10,000 of them.
        records: Vec<RejectedRecord>,
        /// How many there are in all.
        total: usize,
    },
    /// The batch's header has a timestamp that the topic does not allow.
    #[error("the batch's header: {reason}")]
    InvalidTimestamp {
        /// The timestamp and its limits.
        reason: RejectReason,
    },
    /// The batch is larger than the topic allows.
    #[error("the record batch has {size} bytes, the largest allowed is {max}")]
    TooLarge {
        /// Its size in bytes, all of it.
        size: usize,
        /// The cap in bytes.
        max: usize,
    },
    /// The codec is unknown, or the compressed records cannot be read or are larger than the cap.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// What is not allowed about a batch or one record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// There is no batch where one must be.
    #[error("there is no record batch: exactly one is needed for each partition")]
    NoBatch,
    /// There is more after the one batch that is allowed.
    #[error("{trailing} bytes follow the record batch: exactly one batch is allowed for each partition")]
    MoreThanOneBatch {
        /// Bytes after the first batch.
        trailing: usize,
    },
    /// The record count is zero, negative, or other than the last offset delta + 1.
    #[error(
        "the record count is {count} and the last offset delta {last_offset_delta}: \
         the count must be at least 1 and one more than the delta"
    )]
    Count {
        /// The record count field.
        count: i32,
        /// The last offset delta field.
        last_offset_delta: i32,
    },
    /// More records than the bytes can hold.
    #[error("{count} records cannot fit {payload} bytes ({codec})")]
    CountOverPayload {
        /// The record count field.
        count: i32,
        /// Bytes after the header.
        payload: usize,
        /// How they are compressed.
        codec: Codec,
    },
    /// A client's batch starts at offset 0 by definition.
    #[error("the base offset of a produced batch must be 0, it is {0}")]
    BaseOffset(i64),
    /// Only brokers write control batches.
    #[error("clients may not write control batches")]
    Control,
    /// A producer id without an epoch or sequence, or a transaction without a producer id.
    #[error("producer id {producer_id}, epoch {producer_epoch} and base sequence {base_sequence} do not go together")]
    Producer {
        /// The producer id field.
        producer_id: i64,
        /// The producer epoch field.
        producer_epoch: i16,
        /// The base sequence field.
        base_sequence: i32,
    },
    /// A transactional batch must name its producer.
    #[error("a transactional batch needs a producer id")]
    TransactionalWithoutProducer,
    /// A record of a compressed batch is larger than the topic allows.
    #[error("record {index} has {size} bytes uncompressed, max.decompressed.message.bytes allows {max}")]
    RecordTooLarge {
        /// The record's place in its batch, from 0.
        index: u32,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A varint inside a record cannot be read.
    #[error("its {field}: {error}")]
    Varint {
        /// Which field.
        field: &'static str,
        /// Why not.
        error: VarintError,
    },
    /// A length or count is negative where it may not be, or reaches past the bytes that are there.
    #[error("its {field} is {value}, with {available} bytes left")]
    Length {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: i32,
        /// Bytes that are left for it.
        available: usize,
    },
    /// A record is longer than its fields.
    #[error("{0} bytes follow its last header")]
    RecordTrailing(usize),
    /// There is more after the last record.
    #[error("{0} bytes follow the last record")]
    BatchTrailing(usize),
    /// An offset delta that is negative or above the batch's last, or not the one that must come next.
    #[error("its offset delta is {delta}, expected {expected}")]
    OffsetDelta {
        /// The offset delta of the record.
        delta: i32,
        /// In a produced batch its place; else the batch's last offset delta, which it may not pass.
        expected: i32,
    },
}

/// A record that breaks a rule of its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRecord {
    /// The record's place in its batch, from 0.
    pub index: u32,
    /// Which rule it breaks.
    pub reason: RejectReason,
}

/// Why a record is rejected. The texts are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// Its timestamp is out of range.
    #[error("timestamp {timestamp} is out of range. The timestamp should be within [{earliest}, {latest}]")]
    Timestamp {
        /// The timestamp, in milliseconds since 1970.
        timestamp: i64,
        /// The earliest that is allowed.
        earliest: i64,
        /// The latest that is allowed.
        latest: i64,
    },
    /// The producer has set the timestamp type that only brokers set.
    #[error("Invalid timestamp type. Producer should not set timestamp type to LogAppendTime.")]
    LogAppendTime,
    /// It has no key, and the topic is compacted.
    #[error("Compacted topic cannot accept message without key")]
    NoKey,
}

impl RejectedRecord {
    /// Returns what Kafka says about the record.
    pub fn message(&self) -> String {
        match &self.reason {
            RejectReason::Timestamp { timestamp, earliest, latest } => format!(
                "Timestamp {timestamp} of message with offset {} is out of range. \
                 The timestamp should be within [{earliest}, {latest}]",
                self.index
            ),
            reason => reason.to_string(),
        }
    }
}

fn is_timestamp(reason: &RejectReason) -> bool {
    !matches!(reason, RejectReason::NoKey)
}

fn rejected_text(records: &[RejectedRecord], total: usize) -> String {
    if records.iter().any(|record| is_timestamp(&record.reason)) {
        return "One or more records have been rejected due to invalid timestamp".to_owned();
    }
    let shown: Vec<String> = records
        .iter()
        .take(3)
        .map(|r| format!("RecordError(batchIndex={}, message='{}')", r.index, r.message()))
        .collect();
    format!(
        "One or more records have been rejected due to {total} record errors in total, \
         and only showing the first three errors at most: [{}]",
        shown.join(", ")
    )
}

fn at_record(index: Option<u32>) -> String {
    index.map_or_else(String::new, |index| format!("record {index}: "))
}

impl BatchError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Truncated { .. } | Self::BadLength { .. } | Self::CrcMismatch { .. } => ErrorKind::Corrupt,
            Self::UnsupportedMagic { .. } => ErrorKind::UnsupportedMagic,
            Self::Invalid { .. } => ErrorKind::InvalidRecord,
            Self::Rejected { records, .. } if records.iter().any(|record| is_timestamp(&record.reason)) => {
                ErrorKind::InvalidTimestamp
            }
            Self::Rejected { .. } => ErrorKind::InvalidRecord,
            Self::InvalidTimestamp { .. } => ErrorKind::InvalidTimestamp,
            Self::TooLarge { .. } | Self::Codec(CodecError::TooLarge { .. }) => ErrorKind::TooLarge,
            Self::Codec(CodecError::UnknownId(_)) => ErrorKind::UnsupportedCodec,
            // A right CRC says that these bytes are those that the client wrote: to send them again would not help.
            Self::Codec(_) => ErrorKind::InvalidRecord,
        }
    }

    /// Returns the records that this is about, each with its place and a message, for the record errors of a Produce
    /// response. There are none if it is about the batch as a whole.
    pub fn record_errors(&self) -> Vec<(u32, String)> {
        match self {
            Self::Invalid { index: Some(index), .. } => vec![(*index, self.to_string())],
            Self::Rejected { records, .. } => records.iter().map(|record| (record.index, record.message())).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn batch(fault: RecordFault) -> Self {
        Self::Invalid { index: None, fault }
    }
}
