//! Borrowed views of record batches. Nothing is copied, and no record is decoded.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use crate::codec::{Codec, CodecError};
use crate::crc::crc32c;
use crate::error::BatchError;
use crate::layout::*;
use crate::records::Records;

/// What set the timestamps of a batch: `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer, for each record.
    #[default]
    CreateTime,
    /// The broker, once for the batch: every record has the batch's max timestamp.
    LogAppendTime,
}

/// The fixed header of a batch: everything that is known without its records.
#[derive(Clone, Copy)]
pub struct BatchHeader<'a> {
    bytes: &'a [u8; HEADER_LEN],
}

impl<'a> BatchHeader<'a> {
    /// Parses the header at the start of `bytes`; the records may be missing.
    ///
    /// # Errors
    /// [`BatchError::UnsupportedMagic`] (checked first, as the older formats are shorter), [`BatchError::BadLength`],
    /// or [`BatchError::Truncated`] if there are under [`HEADER_LEN`] bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        if let Some(&magic) = bytes.get(MAGIC_AT)
            && magic as i8 != MAGIC
        {
            return Err(BatchError::UnsupportedMagic { magic: magic as i8 });
        }
        if let Some(length) = bytes.get(BATCH_LENGTH..).and_then(|rest| rest.first_chunk()) {
            let length = i32::from_be_bytes(*length);
            if length < BATCH_LENGTH_MIN {
                return Err(BatchError::BadLength { length });
            }
        }
        match bytes.first_chunk() {
            Some(bytes) => Ok(Self { bytes }),
            None => Err(BatchError::Truncated { needed: HEADER_LEN, available: bytes.len() }),
        }
    }

    /// Returns the 61 bytes.
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8; HEADER_LEN] {
        self.bytes
    }

    /// Returns the bytes of a field. `AT` is a constant, so the bounds check is gone after inlining.
    #[inline]
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[at..at + N]);
        field
    }

    /// Returns the bytes of the whole batch, header and records. The next batch starts there.
    #[inline]
    pub fn size(&self) -> usize {
        // Not negative: checked by `parse`.
        LOG_OVERHEAD + i32::from_be_bytes(self.field(BATCH_LENGTH)) as usize
    }

    /// Returns the offset of the first record, which compaction may have removed.
    #[inline]
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.field(BASE_OFFSET))
    }

    /// Returns the offset of the last record (base offset + last offset delta; saturates on hostile values).
    #[inline]
    pub fn last_offset(&self) -> i64 {
        self.base_offset().saturating_add(i64::from(self.last_offset_delta()))
    }

    /// Returns the offset after [`BatchHeader::last_offset`], where the next batch starts at the earliest.
    #[inline]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Returns the epoch of the leader that appended the batch; -1 before that.
    #[inline]
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(self.field(LEADER_EPOCH))
    }

    /// Returns the record format, which is always 2.
    #[inline]
    pub fn magic(&self) -> i8 {
        self.bytes[MAGIC_AT] as i8
    }

    /// Returns the stored CRC-32C. [`BatchView::verify_crc`] checks it.
    #[inline]
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.field(CRC))
    }

    /// Returns the attribute bits (see the crate's docs).
    #[inline]
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field(ATTRIBUTES))
    }

    /// Returns the codec of the records.
    ///
    /// # Errors
    /// [`CodecError::UnknownId`] for the ids 5 to 7.
    #[inline]
    pub fn codec(&self) -> Result<Codec, CodecError> {
        Codec::from_attributes(self.attributes())
    }

    /// Returns what set the timestamps.
    #[inline]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & TIMESTAMP_TYPE_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Returns whether the batch belongs to a transaction.
    #[inline]
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Returns whether its record is a marker of the broker (commit, abort), which consumers skip.
    #[inline]
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// Returns when compaction may drop the batch's tombstones, in milliseconds since 1970 (KIP-534). The base
    /// timestamp holds it then.
    #[inline]
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes() & DELETE_HORIZON_BIT != 0).then(|| self.base_timestamp())
    }

    /// Returns the difference between the base offset and the last offset. Compaction keeps it when it drops records.
    #[inline]
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(LAST_OFFSET_DELTA))
    }

    /// Returns the base of the records' timestamp deltas, in milliseconds since 1970.
    #[inline]
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(BASE_TIMESTAMP))
    }

    /// Returns the largest timestamp of the batch; with [`TimestampType::LogAppendTime`] that of every record.
    #[inline]
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(MAX_TIMESTAMP))
    }

    /// Returns the producer's id; -1 for none.
    #[inline]
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.field(PRODUCER_ID))
    }

    /// Returns the producer's epoch; -1 for none.
    #[inline]
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(PRODUCER_EPOCH))
    }

    /// Returns the sequence of the first record; -1 for none.
    #[inline]
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(BASE_SEQUENCE))
    }

    /// Returns the sequence of the last record; 0 follows `i32::MAX`. -1 for none.
    #[inline]
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            base if base < 0 => NO_SEQUENCE,
            base => {
                let last = i64::from(base) + i64::from(self.last_offset_delta().max(0));
                (last & i64::from(i32::MAX)) as i32
            }
        }
    }

    /// Returns the number of records in the header. It may be any number until it is checked.
    #[inline]
    pub fn count(&self) -> i32 {
        i32::from_be_bytes(self.field(COUNT))
    }
}

impl fmt::Debug for BatchHeader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchHeader")
            .field("base_offset", &self.base_offset())
            .field("size", &self.size())
            .field("leader_epoch", &self.leader_epoch())
            .field("crc", &self.crc())
            .field("attributes", &self.attributes())
            .field("last_offset_delta", &self.last_offset_delta())
            .field("base_timestamp", &self.base_timestamp())
            .field("max_timestamp", &self.max_timestamp())
            .field("producer_id", &self.producer_id())
            .field("producer_epoch", &self.producer_epoch())
            .field("base_sequence", &self.base_sequence())
            .field("count", &self.count())
            .finish()
    }
}

/// A whole batch: its header, to which it derefs, and its records.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader<'a>,
    bytes: &'a [u8],
}

impl<'a> Deref for BatchView<'a> {
    type Target = BatchHeader<'a>;

    #[inline]
    fn deref(&self) -> &BatchHeader<'a> {
        &self.header
    }
}

impl<'a> BatchView<'a> {
    /// Parses the batch at the start of `bytes`, which may continue with others. Checks that it is complete, but
    /// neither its CRC nor its counts.
    ///
    /// # Errors
    /// Those of [`BatchHeader::parse`]; [`BatchError::Truncated`] also if the records are not complete.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let size = header.size();
        match bytes.get(..size) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(BatchError::Truncated { needed: size, available: bytes.len() }),
        }
    }

    /// Returns only the header.
    #[inline]
    pub fn header(&self) -> BatchHeader<'a> {
        self.header
    }

    /// Returns the whole batch.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the bytes after the header: the records, compressed if there is a codec.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Checks the bytes against the stored CRC-32C.
    ///
    /// # Errors
    /// [`BatchError::CrcMismatch`].
    #[inline]
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c(&self.bytes[ATTRIBUTES..]);
        if computed == self.crc() { Ok(()) } else { Err(BatchError::CrcMismatch { stored: self.crc(), computed }) }
    }

    /// Returns the records, decompressed if needed to at most `max` bytes. Uncompressed ones stay where they are.
    ///
    /// # Errors
    /// [`BatchError::Codec`]: an unknown codec, bytes that are not in its format, or more than `max` bytes.
    pub fn records(&self, max: usize) -> Result<Records<'a>, BatchError> {
        Records::of(self, max)
    }

    /// Does the same as [`Self::records_in`] with a payload that the records keep.
    pub fn records_of(&self, payload: Vec<u8>) -> Records<'static> {
        Records::in_payload(self, Cow::Owned(payload))
    }

    /// Returns the records from a payload that the caller has decompressed.
    pub fn records_in<'p>(&self, payload: &'p [u8]) -> Records<'p> {
        Records::in_payload(self, Cow::Borrowed(payload))
    }
}

/// Iterates over the batches of a record set.
///
/// The first error is the last item. A batch that is cut at the end gives [`BatchError::Truncated`], which a consumer
/// treats as the end.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// See [`batches`].
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Returns the unread bytes. After an error there are none.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = BatchView::parse(self.rest);
        self.rest = match &batch {
            Ok(batch) => &self.rest[batch.size()..],
            Err(_) => &[],
        };
        Some(batch)
    }
}

impl std::iter::FusedIterator for Batches<'_> {}
