//! Finds offsets by time: the record itself, inside its batch, as ListOffsets needs it.

use millstream_record::{BatchError, BatchView, Codec, CodecError};
use parking_lot::Mutex;

use crate::batch_walk::Located;
use crate::error::{LogError, ReadError};
use crate::log::{Log, LogReader};
use crate::segment::Segment;

/// The most bytes that a compressed batch may decompress to in a lookup. Correct batches stay far below. What a hostile
/// producer has compressed is unchecked.
const DECOMPRESSED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Only one batch is decompressed at a time, so that many lookups take no more memory than one.
static DECOMPRESSING: Mutex<()> = Mutex::new(());

/// Returns the uncompressed records of a batch whose codec is not one of Kafka's, up to a number of bytes; `None` if
/// they cannot be decoded. The component that appends such batches provides it.
pub type Decode<'d> = &'d dyn Fn(&BatchView<'_>, usize) -> Option<Vec<u8>>;

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// The record's offset.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
}

impl Log {
    /// Works like [`LogReader::offset_for_timestamp`].
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<TimestampedOffset>, ReadError> {
        self.reader.offset_for_timestamp(timestamp, &|_, _| None)
    }

    /// Works like [`LogReader::offset_for_max_timestamp`].
    pub fn offset_for_max_timestamp(&self) -> Result<Option<TimestampedOffset>, ReadError> {
        self.reader.offset_for_max_timestamp(&|_, _| None)
    }
}

impl LogReader {
    /// Returns the first record whose timestamp is `timestamp` or newer.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        decode: Decode<'_>,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        let (segments, start) = {
            let list = self.shared.list.read();
            (list.segments.clone(), list.log_start_offset)
        };
        for segment in &segments {
            match find_in_segment(segment, start, timestamp, decode) {
                Ok(None) => {}
                // Retention has just removed it.
                Err(_) if segment.base_offset() < self.shared.list.read().segments[0].base_offset() => {}
                found => return Ok(found?),
            }
        }
        Ok(None)
    }

    /// Returns the first record with the newest timestamp of the log.
    pub fn offset_for_max_timestamp(&self, decode: Decode<'_>) -> Result<Option<TimestampedOffset>, ReadError> {
        let segments = self.shared.list.read().segments.clone();
        let mut newest = -1;
        for segment in &segments {
            match segment.newest() {
                Ok(of_segment) => newest = newest.max(of_segment.timestamp),
                Err(_) if segment.base_offset() < self.shared.list.read().segments[0].base_offset() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if newest < 0 { Ok(None) } else { self.offset_for_timestamp(newest, decode) }
    }
}

fn find_in_segment(
    segment: &Segment,
    start: i64,
    timestamp: i64,
    decode: Decode<'_>,
) -> Result<Option<TimestampedOffset>, LogError> {
    if segment.newest()?.timestamp < timestamp {
        return Ok(None);
    }
    let mut from = start;
    // A batch that starts below the log's start may have its newest record there; then the search continues after it.
    while let Some(batch) = segment.locate_time(timestamp, from)? {
        if let Some(found) = find(segment, &batch, start, timestamp, decode)? {
            return Ok(Some(found));
        }
        from = batch.header.next_offset();
    }
    Ok(None)
}

/// Returns the first record of a batch at or after `start` whose timestamp is `timestamp` or newer.
///
/// If the records cannot be read (more bytes than may be decompressed, or a malformed payload), the batch counts as
/// one. A consumer that starts there reads a little more and misses nothing.
fn find(
    segment: &Segment,
    batch: &Located,
    start: i64,
    timestamp: i64,
    decode: Decode<'_>,
) -> Result<Option<TimestampedOffset>, LogError> {
    let header = &batch.header;
    let at = |offset, timestamp| TimestampedOffset { offset, timestamp, leader_epoch: header.leader_epoch };
    if header.is_log_append_time() {
        // All records have the batch's time.
        return Ok(Some(at(header.base_offset.max(start), header.max_timestamp)));
    }
    let bytes = segment.read_batch(batch)?;
    let corrupt = |reason: String| LogError::Corrupt { path: segment.path(), position: batch.position, reason };
    let view = BatchView::parse(&bytes).map_err(|e| corrupt(e.to_string()))?;
    Ok(match find_record(&view, start, timestamp, decode) {
        Ok(found) => found.map(|(offset, timestamp)| at(offset, timestamp)),
        Err(error) => {
            let (segment, position) = (segment.path(), batch.position);
            tracing::debug!(segment = %segment.display(), position, %error, "a batch is taken as a whole");
            Some(at(header.base_offset.max(start), header.max_timestamp))
        }
    })
}

fn find_record(
    batch: &BatchView<'_>,
    start: i64,
    timestamp: i64,
    decode: Decode<'_>,
) -> Result<Option<(i64, i64)>, BatchError> {
    let codec = batch.codec();
    // The decoder of other codecs has its own limit and may be slow, so it runs outside of the lock.
    let decoded = match codec {
        Err(CodecError::UnknownId(_)) => decode(batch, DECOMPRESSED_BYTES_MAX),
        _ => None,
    };
    let _one_at_a_time = codec.is_ok_and(|codec| codec != Codec::None).then(|| DECOMPRESSING.lock());
    let records = match &decoded {
        Some(payload) => batch.records_in(payload),
        None => batch.records(DECOMPRESSED_BYTES_MAX)?,
    };
    for record in records.iter() {
        let record = record?;
        if record.timestamp >= timestamp && record.offset >= start {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
