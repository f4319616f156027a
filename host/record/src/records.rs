//! The records of a batch, borrowed from its bytes or from the buffer that they were decompressed into.

use std::borrow::Cow;

use crate::codec::{self, Codec};
use crate::error::{BatchError, RecordFault};
use crate::layout::RECORD_HEADER_LEN_MIN;
use crate::varint;
use crate::view::{BatchView, TimestampType};

/// The uncompressed records of one batch. They are decompressed at most once, on construction.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    payload: Cow<'a, [u8]>,
    base_offset: i64,
    last_offset_delta: i32,
    base_timestamp: i64,
    /// Set if the broker's time applies to every record.
    log_append_time: Option<i64>,
    count: i32,
}

impl<'a> Records<'a> {
    pub(crate) fn of(batch: &BatchView<'a>, max: usize) -> Result<Self, BatchError> {
        let codec = batch.codec()?;
        // Compaction leaves batches without records, which have nothing to decompress.
        let payload = if codec == Codec::None || (batch.count() == 0 && batch.payload().is_empty()) {
            Cow::Borrowed(batch.payload())
        } else {
            Cow::Owned(codec::decompress(codec, batch.payload(), max)?)
        };
        Ok(Self::in_payload(batch, payload))
    }

    pub(crate) fn in_payload(batch: &BatchView<'_>, payload: Cow<'a, [u8]>) -> Self {
        Self {
            payload,
            base_offset: batch.base_offset(),
            last_offset_delta: batch.last_offset_delta(),
            base_timestamp: batch.base_timestamp(),
            log_append_time: (batch.timestamp_type() == TimestampType::LogAppendTime).then(|| batch.max_timestamp()),
            count: batch.count(),
        }
    }

    /// Returns the uncompressed bytes of all records.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Iterates over the records in order. Each is checked when it is reached; the first error is the last item.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter {
            rest: &self.payload,
            base_offset: self.base_offset,
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp,
            log_append_time: self.log_append_time,
            count: self.count,
            index: 0,
            done: false,
        }
    }
}

impl<'a> IntoIterator for &'a Records<'_> {
    type Item = Result<Record<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// One record. Its bytes are borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970: the producer's time, or the broker's with `LogAppendTime`. -1 for none.
    pub timestamp: i64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: Headers<'a>,
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header<'a> {
    /// Its name, which is UTF-8 only by convention: no broker checks it. A reader that rejected other bytes could be
    /// stopped for good by one record. [`Header::name_lossy`] reads it as Java does.
    pub name: &'a [u8],
    /// Its value, if it has one.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// Makes a header with a text name.
    pub fn new(name: &'a str, value: Option<&'a [u8]>) -> Self {
        Self { name: name.as_bytes(), value }
    }

    /// Returns the name as text, with U+FFFD for bytes that are not UTF-8. It is borrowed if possible.
    pub fn name_lossy(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.name)
    }
}

/// The headers of a record, in order; a name may repeat. Iteration cannot fail, since they were checked with the
/// record.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> Headers<'a> {
    /// Returns the number of headers that are left.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether no headers are left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the last header called `name`, as Kafka's `lastHeader` does.
    pub fn last_header(&self, name: &str) -> Option<Header<'a>> {
        self.filter(|header| header.name == name.as_bytes()).last()
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        read_header(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Iterates over [`Records`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    base_offset: i64,
    last_offset_delta: i32,
    base_timestamp: i64,
    log_append_time: Option<i64>,
    count: i32,
    index: i32,
    done: bool,
}

impl<'a> RecordIter<'a> {
    /// Returns the bytes that are still unread.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[cold]
    fn invalid(&mut self, index: Option<i32>, fault: RecordFault) -> Option<Result<Record<'a>, BatchError>> {
        self.done = true;
        let index = index.map(|index| index as u32);
        Some(Err(BatchError::Invalid { index, fault }))
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    // Inlined into the loops of other crates: otherwise handing over each record takes half of the time.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.count < 0 {
            let fault = RecordFault::Count { count: self.count, last_offset_delta: self.last_offset_delta };
            return self.invalid(None, fault);
        }
        if self.index == self.count {
            self.done = true;
            return match self.rest.len() {
                0 => None,
                trailing => self.invalid(None, RecordFault::BatchTrailing(trailing)),
            };
        }
        let index = self.index;
        self.index += 1;
        match read_record(&mut self.rest) {
            Ok(raw) if raw.offset_delta < 0 || raw.offset_delta > self.last_offset_delta => {
                let fault = RecordFault::OffsetDelta { delta: raw.offset_delta, expected: self.last_offset_delta };
                self.invalid(Some(index), fault)
            }
            Ok(raw) => Some(Ok(Record {
                offset: self.base_offset.saturating_add(i64::from(raw.offset_delta)),
                // Wraps as in Java; validation rejects values out of range before they are stored.
                timestamp: self
                    .log_append_time
                    .unwrap_or_else(|| self.base_timestamp.wrapping_add(raw.timestamp_delta)),
                key: raw.key,
                value: raw.value,
                headers: raw.headers,
            })),
            Err(fault) => self.invalid(Some(index), fault),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Collectors allocate by the lower bound, and the count cannot be trusted.
        (0, usize::try_from(self.count - self.index).ok().and_then(|left| left.checked_add(1)))
    }
}

impl std::iter::FusedIterator for RecordIter<'_> {}

/// A record as it is stored, with its offset and timestamp relative to the batch.
pub(crate) struct RawRecord<'a> {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

#[inline]
pub(crate) fn read_record<'a>(rest: &mut &'a [u8]) -> Result<RawRecord<'a>, RecordFault> {
    let mut body = read_bytes(rest, "length")?;
    let Some((_attributes, after)) = body.split_first() else {
        return Err(RecordFault::Length { field: "length", value: 0, available: 0 });
    };
    body = after;
    let timestamp_delta =
        varint::read_i64(&mut body).map_err(|error| RecordFault::Varint { field: "timestamp delta", error })?;
    let offset_delta = read_varint(&mut body, "offset delta")?;
    let key = read_nullable(&mut body, "key length")?;
    let value = read_nullable(&mut body, "value length")?;
    let headers = read_headers(&mut body)?;
    if !body.is_empty() {
        return Err(RecordFault::RecordTrailing(body.len()));
    }
    Ok(RawRecord { timestamp_delta, offset_delta, key, value, headers })
}

#[inline]
fn read_headers<'a>(body: &mut &'a [u8]) -> Result<Headers<'a>, RecordFault> {
    let value = read_varint(body, "header count")?;
    let count = usize::try_from(value)
        .ok()
        .filter(|count| *count <= body.len() / RECORD_HEADER_LEN_MIN)
        .ok_or(RecordFault::Length { field: "header count", value, available: body.len() })?;
    let headers = Headers { rest: body, count };
    for _ in 0..count {
        read_header(body)?;
    }
    Ok(headers)
}

#[inline]
fn read_header<'a>(body: &mut &'a [u8]) -> Result<Header<'a>, RecordFault> {
    let name = read_bytes(body, "header name length")?;
    let value = read_nullable(body, "header value length")?;
    Ok(Header { name, value })
}

#[inline]
fn read_varint(body: &mut &[u8], field: &'static str) -> Result<i32, RecordFault> {
    varint::read_i32(body).map_err(|error| RecordFault::Varint { field, error })
}

/// Reads bytes that may be null, which is a length of -1; other negative lengths are errors.
#[inline]
fn read_nullable<'a>(body: &mut &'a [u8], field: &'static str) -> Result<Option<&'a [u8]>, RecordFault> {
    match read_varint(body, field)? {
        -1 => Ok(None),
        length => take(body, length, field).map(Some),
    }
}

#[inline]
fn read_bytes<'a>(body: &mut &'a [u8], field: &'static str) -> Result<&'a [u8], RecordFault> {
    let length = read_varint(body, field)?;
    take(body, length, field)
}

#[inline]
fn take<'a>(body: &mut &'a [u8], length: i32, field: &'static str) -> Result<&'a [u8], RecordFault> {
    match usize::try_from(length).ok().and_then(|length| body.split_at_checked(length)) {
        Some((taken, rest)) => {
            *body = rest;
            Ok(taken)
        }
        None => Err(RecordFault::Length { field, value: length, available: body.len() }),
    }
}
