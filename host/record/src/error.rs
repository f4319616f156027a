//! The errors of a record batch.

use crate::codec::{Codec, CodecError};
use crate::layout::BATCH_LENGTH_MIN;
use crate::varint::VarintError;

/// The class of a [`BatchError`], which a broker maps to one of Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The bytes are not those that were written: CORRUPT_MESSAGE.
    Corrupt,
    /// The bytes are intact, but their content is not allowed: INVALID_RECORD.
    InvalidRecord,
    /// A record format other than 2: UNSUPPORTED_FOR_MESSAGE_FORMAT for 0 and 1, else CORRUPT_MESSAGE.
    UnsupportedMagic,
    /// A codec id that is not defined: UNSUPPORTED_COMPRESSION_TYPE.
    UnsupportedCodec,
    /// A timestamp that is out of bounds: INVALID_TIMESTAMP.
    InvalidTimestamp,
    /// Larger than the given limit: MESSAGE_TOO_LARGE.
    TooLarge,
}

/// What is wrong with a record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The input ends before the batch does. At the end of a fetched record set this is normal: a broker
    /// may cut the last batch, and a consumer ignores it.
    #[error("the record batch is cut short: it needs {needed} bytes, {available} are there")]
    Truncated {
        /// The bytes that the batch, or its header, takes.
        needed: usize,
        /// The bytes that are there.
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
    /// The stored CRC-32C is wrong.
    #[error("CRC-32C mismatch: the batch says {stored:#010x}, its bytes give {computed:#010x}")]
    CrcMismatch {
        /// The CRC in the batch.
        stored: u32,
        /// The CRC of its bytes.
        computed: u32,
    },
    /// The batch, or one of its records, has content that is not allowed.
    #[error("{}{fault}", at_record(*.index))]
    Invalid {
        /// The record's index in its batch, from 0; `None` if the whole batch is wrong.
        index: Option<u32>,
        /// What is wrong.
        fault: RecordFault,
    },
    /// Records that break the topic's rules, each with the reason (KIP-467).
    #[error("{}", rejected_text(.records, *.total))]
    Rejected {
        /// The rejected records in order, at most 10,000.
        records: Vec<RejectedRecord>,
        /// The number of all rejected records, named or not.
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
        /// Its whole size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The codec is unknown, or the compressed records cannot be read or exceed the limit.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// What is not allowed in a batch or a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// There is no batch.
    #[error("there is no record batch: exactly one is needed for each partition")]
    NoBatch,
    /// Bytes follow the only batch that is allowed.
    #[error("{trailing} bytes follow the record batch: exactly one batch is allowed for each partition")]
    MoreThanOneBatch {
        /// The bytes after the first batch.
        trailing: usize,
    },
    /// The record count is zero or negative, or differs from the last offset delta + 1.
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
    /// The count is larger than the bytes can hold.
    #[error("{count} records cannot fit {payload} bytes ({codec})")]
    CountOverPayload {
        /// The record count field.
        count: i32,
        /// The bytes after the header.
        payload: usize,
        /// The codec of the records.
        codec: Codec,
    },
    /// A client's batch must start at offset 0.
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
        /// The record's index in its batch, from 0.
        index: u32,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A varint inside a record cannot be read.
    #[error("its {field}: {error}")]
    Varint {
        /// The name of the field.
        field: &'static str,
        /// The cause.
        error: VarintError,
    },
    /// A length or count is negative where that is not allowed, or exceeds the bytes that are there.
    #[error("its {field} is {value}, with {available} bytes left")]
    Length {
        /// The name of the field.
        field: &'static str,
        /// Its value.
        value: i32,
        /// The bytes that are left for it.
        available: usize,
    },
    /// A record is longer than its fields.
    #[error("{0} bytes follow its last header")]
    RecordTrailing(usize),
    /// Bytes follow the last record.
    #[error("{0} bytes follow the last record")]
    BatchTrailing(usize),
    /// An offset delta that is negative, above the batch's last, or not the next one.
    #[error("its offset delta is {delta}, expected {expected}")]
    OffsetDelta {
        /// The offset delta of the record.
        delta: i32,
        /// The record's index in a produced batch; otherwise the batch's last offset delta, which is the limit.
        expected: i32,
    },
}

/// A record that breaks a rule of its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRecord {
    /// The record's index in its batch, from 0.
    pub index: u32,
    /// The rule that it breaks.
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
        /// The earliest allowed timestamp.
        earliest: i64,
        /// The latest allowed timestamp.
        latest: i64,
    },
    /// The producer has set the timestamp type that only brokers may set.
    #[error("Invalid timestamp type. Producer should not set timestamp type to LogAppendTime.")]
    LogAppendTime,
    /// It has no key, and the topic is compacted.
    #[error("Compacted topic cannot accept message without key")]
    NoKey,
}

impl RejectedRecord {
    /// Returns Kafka's message about the record.
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
    /// Returns the class of this error.
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
            // A correct CRC shows that the client wrote these bytes, so a retry would not help.
            Self::Codec(_) => ErrorKind::InvalidRecord,
        }
    }

    /// Returns the rejected records, each with its index and a message, for the record errors of a Produce response. It
    /// is empty if the whole batch is wrong.
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
