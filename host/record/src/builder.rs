//! Writes a record batch.

use crate::codec::{self, Codec, CodecError};
use crate::layout::*;
use crate::patch::{put, refresh_crc};
use crate::records::Header;
use crate::varint;
use crate::view::TimestampType;

/// Why a batch could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A batch without records, and without a [`BatchBuilder::last_offset_delta`] that would mark it as emptied by
    /// compaction.
    #[error("a record batch needs at least one record")]
    Empty,
    /// The format's lengths and counts have 31 bits.
    #[error("the record batch would be larger than the format allows (2 GiB)")]
    TooLarge,
    /// Offset deltas must grow.
    #[error("offset delta {delta} does not come after {last}")]
    OffsetDelta {
        /// The requested delta.
        delta: i32,
        /// The last one so far; -1 for none.
        last: i32,
    },
    /// The records could not be compressed.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Collects records and writes them as one batch.
///
/// Records are written after room for the header, so that an uncompressed batch is never copied.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// Header (still empty) and uncompressed records.
    bytes: Vec<u8>,
    codec: Codec,
    level: Option<i32>,
    timestamp_type: TimestampType,
    base_offset: i64,
    leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    transactional: bool,
    control: bool,
    count: i32,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// Makes an empty batch. With [`TimestampType::LogAppendTime`] the largest appended timestamp is the batch's.
    pub fn new(codec: Codec, timestamp_type: TimestampType) -> Self {
        Self::with_capacity(codec, timestamp_type, 0)
    }

    /// Makes an empty batch with room for `payload` bytes of uncompressed records.
    pub fn with_capacity(codec: Codec, timestamp_type: TimestampType, payload: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload);
        bytes.resize(HEADER_LEN, 0);
        Self {
            bytes,
            codec,
            level: None,
            timestamp_type,
            base_offset: 0,
            leader_epoch: -1,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            transactional: false,
            control: false,
            count: 0,
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    /// Sets the codec's level; `None` is its default.
    pub fn level(&mut self, level: Option<i32>) -> &mut Self {
        self.level = level;
        self
    }

    /// Sets the offset of the first record. The default is 0, which producers send.
    pub fn base_offset(&mut self, base_offset: i64) -> &mut Self {
        self.base_offset = base_offset;
        self
    }

    /// Sets the leader epoch. The default is -1, which producers send.
    pub fn leader_epoch(&mut self, leader_epoch: i32) -> &mut Self {
        self.leader_epoch = leader_epoch;
        self
    }

    /// Sets the idempotent producer's id and epoch, and the sequence of the first record.
    pub fn producer(&mut self, id: i64, epoch: i16, base_sequence: i32) -> &mut Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Sets whether the batch belongs to a transaction.
    pub fn transactional(&mut self, transactional: bool) -> &mut Self {
        self.transactional = transactional;
        self
    }

    /// Sets whether its record is a marker that only brokers write.
    pub fn control(&mut self, control: bool) -> &mut Self {
        self.control = control;
        self
    }

    /// Sets the batch's last offset delta above that of its last record, as compaction does. A lower value has no
    /// effect.
    pub fn last_offset_delta(&mut self, delta: i32) -> &mut Self {
        self.last_offset_delta = self.last_offset_delta.max(delta);
        self
    }

    /// Appends a record at the offset after the last one.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`]; the batch is unchanged.
    pub fn append<'h, H>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<(), BuildError>
    where
        H: IntoIterator<Item = Header<'h>, IntoIter: Clone>,
    {
        let delta = self.last_offset_delta.checked_add(1).ok_or(BuildError::TooLarge)?;
        self.append_at(delta, timestamp, key, value, headers)
    }

    /// Appends a record at `delta` after the base offset. A batch can thus keep the offsets of another one, with gaps
    /// where records were dropped.
    ///
    /// # Errors
    /// [`BuildError::OffsetDelta`] if it does not come after the last one, [`BuildError::TooLarge`]; the batch is
    /// unchanged.
    pub fn append_at<'h, H>(
        &mut self,
        delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<(), BuildError>
    where
        H: IntoIterator<Item = Header<'h>, IntoIter: Clone>,
    {
        if delta <= self.last_offset_delta {
            return Err(BuildError::OffsetDelta { delta, last: self.last_offset_delta });
        }
        let headers = headers.into_iter();
        let base_timestamp = if self.count == 0 { timestamp } else { self.base_timestamp };
        // Wraps as the reader does.
        let timestamp_delta = timestamp.wrapping_sub(base_timestamp);
        let (header_count, headers_len) = headers.clone().fold((0, 0), |(count, len), header| {
            (count + 1, len + bytes_len(Some(header.name)) + bytes_len(header.value))
        });
        let header_count = length(header_count)?;
        let body_len = 1
            + varint::size_i64(timestamp_delta)
            + varint::size_i32(delta)
            + bytes_len(key)
            + bytes_len(value)
            + varint::size_i32(header_count)
            + headers_len;
        let record_len = length(body_len)?;
        length(self.bytes.len() + varint::size_i32(record_len) + body_len)?;

        let out = &mut self.bytes;
        out.reserve(varint::size_i32(record_len) + body_len);
        varint::write_i32(out, record_len);
        out.push(0); // attributes: none are defined
        varint::write_i64(out, timestamp_delta);
        varint::write_i32(out, delta);
        write_bytes(out, key);
        write_bytes(out, value);
        varint::write_i32(out, header_count);
        for header in headers {
            write_bytes(out, Some(header.name));
            write_bytes(out, header.value);
        }

        self.base_timestamp = base_timestamp;
        self.max_timestamp = if self.count == 0 { timestamp } else { self.max_timestamp.max(timestamp) };
        self.last_offset_delta = delta;
        self.count += 1;
        Ok(())
    }

    /// Returns the number of records.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the size of the batch without compression.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the most that a record can add to [`BatchBuilder::size`].
    pub fn record_size_max<'h>(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = Header<'h>>,
    ) -> usize {
        // Length, attributes, timestamp delta, offset delta and header count at their longest.
        const FIXED: usize = 5 + 1 + 10 + 5 + 5;
        let headers: usize =
            headers.into_iter().map(|header| bytes_len(Some(header.name)) + bytes_len(header.value)).sum();
        FIXED + bytes_len(key) + bytes_len(value) + headers
    }

    /// Returns the uncompressed records so far, for a compressor that is not one of [`Codec`].
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Returns the largest timestamp so far; -1 before the first record.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Compresses the records and writes the batch.
    ///
    /// # Errors
    /// [`BuildError::Empty`], [`BuildError::TooLarge`], or that of the codec.
    pub fn build(mut self) -> Result<Vec<u8>, BuildError> {
        self.check_not_empty()?;
        if self.codec == Codec::None || self.count == 0 {
            let bytes = std::mem::take(&mut self.bytes);
            return self.finish(Codec::None, bytes);
        }
        // Room for a payload that shrinks by half; it grows from there.
        let mut out = Vec::with_capacity(HEADER_LEN + self.payload().len() / 2);
        out.resize(HEADER_LEN, 0);
        codec::compress_into(self.codec, self.level, self.payload(), &mut out)?;
        self.finish(self.codec, out)
    }

    /// Writes the batch with records that the caller has compressed. The records are those of
    /// [`BatchBuilder::payload`], and the header names `codec`.
    ///
    /// # Errors
    /// [`BuildError::Empty`], [`BuildError::TooLarge`].
    pub fn build_with_payload(self, codec: Codec, payload: &[u8]) -> Result<Vec<u8>, BuildError> {
        self.check_not_empty()?;
        let mut out = Vec::with_capacity(HEADER_LEN + payload.len());
        out.resize(HEADER_LEN, 0);
        out.extend_from_slice(payload);
        self.finish(codec, out)
    }

    fn check_not_empty(&self) -> Result<(), BuildError> {
        if self.last_offset_delta < 0 { Err(BuildError::Empty) } else { Ok(()) }
    }

    /// Fills the header in front of the final payload.
    fn finish(&self, codec: Codec, mut out: Vec<u8>) -> Result<Vec<u8>, BuildError> {
        let batch_length = length(out.len() - LOG_OVERHEAD)?;
        let mut attributes = codec.id();
        if self.timestamp_type == TimestampType::LogAppendTime {
            attributes |= TIMESTAMP_TYPE_BIT;
        }
        if self.transactional {
            attributes |= TRANSACTIONAL_BIT;
        }
        if self.control {
            attributes |= CONTROL_BIT;
        }
        let header = &mut out[..];
        put(header, BASE_OFFSET, self.base_offset.to_be_bytes());
        put(header, BATCH_LENGTH, batch_length.to_be_bytes());
        put(header, LEADER_EPOCH, self.leader_epoch.to_be_bytes());
        put(header, MAGIC_AT, MAGIC.to_be_bytes());
        put(header, ATTRIBUTES, attributes.to_be_bytes());
        put(header, LAST_OFFSET_DELTA, self.last_offset_delta.to_be_bytes());
        put(header, BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        put(header, MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        put(header, PRODUCER_ID, self.producer_id.to_be_bytes());
        put(header, PRODUCER_EPOCH, self.producer_epoch.to_be_bytes());
        put(header, BASE_SEQUENCE, self.base_sequence.to_be_bytes());
        put(header, COUNT, self.count.to_be_bytes());
        refresh_crc(header);
        Ok(out)
    }
}

/// Converts a length or count to the format's type.
fn length(len: usize) -> Result<i32, BuildError> {
    i32::try_from(len).map_err(|_| BuildError::TooLarge)
}

/// Returns the bytes of a nullable field with its length. A field over 2 GiB is rejected by the record's length.
fn bytes_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => varint::size_i32(-1),
        Some(bytes) => varint::size_i64(bytes.len() as i64) + bytes.len(),
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::write_i32(out, -1),
        Some(bytes) => {
            // Fits 31 bits, since the whole record does.
            varint::write_i32(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}
