//! The position of each field of a record batch, in bytes from its start. The crate's docs have the table.

/// Bytes before the records: the whole fixed header.
pub const HEADER_LEN: usize = 61;
/// Bytes that the batch length does not count: base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;
/// The only supported record format.
pub const MAGIC: i8 = 2;
/// "There is no timestamp", as clients send it.
pub const NO_TIMESTAMP: i64 = -1;
/// "This batch has no producer id".
pub const NO_PRODUCER_ID: i64 = -1;
/// "This batch has no producer epoch".
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// "This batch has no sequence".
pub const NO_SEQUENCE: i32 = -1;

pub(crate) const BASE_OFFSET: usize = 0;
pub(crate) const BATCH_LENGTH: usize = 8;
pub(crate) const LEADER_EPOCH: usize = 12;
pub(crate) const MAGIC_AT: usize = 16;
pub(crate) const CRC: usize = 17;
pub(crate) const ATTRIBUTES: usize = 21;
pub(crate) const LAST_OFFSET_DELTA: usize = 23;
pub(crate) const BASE_TIMESTAMP: usize = 27;
pub(crate) const MAX_TIMESTAMP: usize = 35;
pub(crate) const PRODUCER_ID: usize = 43;
pub(crate) const PRODUCER_EPOCH: usize = 51;
pub(crate) const BASE_SEQUENCE: usize = 53;
pub(crate) const COUNT: usize = 57;

/// The smallest value of the batch length field: a header without records.
pub(crate) const BATCH_LENGTH_MIN: i32 = (HEADER_LEN - LOG_OVERHEAD) as i32;

pub(crate) const CODEC_MASK: i16 = 0x07;
/// Set in the attributes when the broker has set the timestamps.
pub const TIMESTAMP_TYPE_BIT: i16 = 0x08;
pub(crate) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(crate) const CONTROL_BIT: i16 = 0x20;
pub(crate) const DELETE_HORIZON_BIT: i16 = 0x40;

/// The smallest size of a record: length, attributes, two deltas, two lengths of null and a header count.
pub(crate) const RECORD_LEN_MIN: usize = 7;
/// The smallest size of a header: the lengths of an empty name and of a null value.
pub(crate) const RECORD_HEADER_LEN_MIN: usize = 2;

const _: () = assert!(COUNT + 4 == HEADER_LEN);
