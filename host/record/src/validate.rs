//! What a broker checks about a batch before it appends it.
//!
//! Two depths, so that the plain path never decodes a record:
//!
//! | | [`validate_produce`] | [`check_records`] |
//! |---|---|---|
//! | cost | one pass for the CRC | a walk over the records, a decompression if they are compressed |
//! | one batch, magic, lengths, size, CRC | yes | |
//! | count = last offset delta + 1, and possible in so many bytes | yes | the records that are really there |
//! | control, producer fields, codec id | yes | |
//! | timestamps | base and max | every record |
//! | record and header lengths, offsets without gaps | | yes |
//! | compression bombs | never decompressed, so harmless | stopped at the cap |
//!
//! A broker runs the first on every produced batch. It runs the second where records are looked at anyway:
//! stages, compacted topics (keys), look-ups by time. For an uncompressed batch it costs a walk over
//! bytes that the CRC has just brought into the cache, and allocates nothing.

use crate::codec::Codec;
use crate::error::{BatchError, RecordFault};
use crate::layout::*;
use crate::records::{Record, Records};
use crate::view::{BatchView, TimestampType};

/// What a topic allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceRules {
    /// `max.message.bytes`: the largest batch, header included, as it is sent.
    pub batch_bytes_max: usize,
    /// Bounds of the producer's timestamps; none where the broker stamps its own (`LogAppendTime`).
    pub timestamps: Option<TimestampBounds>,
}

/// How far a producer's timestamps may be from the broker's clock. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampBounds {
    /// The broker's clock, since 1970.
    pub now_ms: i64,
    /// `message.timestamp.before.max.ms`: how old; Kafka's default is `i64::MAX`.
    pub before_ms_max: i64,
    /// `message.timestamp.after.max.ms`: how far in the future; Kafka's default is an hour.
    pub after_ms_max: i64,
}

impl TimestampBounds {
    fn check(&self, index: Option<u32>, timestamp: i64) -> Result<(), BatchError> {
        let reason = if timestamp == NO_TIMESTAMP {
            return Ok(());
        } else if timestamp < 0 {
            "it is negative"
        } else if timestamp.saturating_sub(self.now_ms) > self.after_ms_max {
            "it is further in the future than message.timestamp.after.max.ms allows"
        } else if self.now_ms.saturating_sub(timestamp) > self.before_ms_max {
            "it is older than message.timestamp.before.max.ms allows"
        } else {
            return Ok(());
        };
        Err(BatchError::InvalidTimestamp { index, timestamp, reason })
    }
}

/// Checks what a client produced to one partition, without decoding a record.
///
/// `records` must be exactly one batch. The CRC comes before what it covers: a batch whose length is
/// wrong is corrupt, not two batches.
///
/// # Errors
/// Any [`BatchError`]; its [`kind`](BatchError::kind) says which of Kafka's codes it is.
pub fn validate_produce<'a>(records: &'a [u8], rules: &ProduceRules) -> Result<BatchView<'a>, BatchError> {
    if records.is_empty() {
        return Err(BatchError::batch(RecordFault::NoBatch));
    }
    // A batch that claims more than is there is cut short or corrupt, whatever the largest size is.
    let batch = BatchView::parse(records)?;
    if batch.size() > rules.batch_bytes_max {
        return Err(BatchError::TooLarge { size: batch.size(), max: rules.batch_bytes_max });
    }
    batch.verify_crc()?;
    if batch.size() < records.len() {
        let trailing = records.len() - batch.size();
        return Err(BatchError::batch(RecordFault::MoreThanOneBatch { trailing }));
    }
    let codec = batch.codec()?;
    check_counts(&batch, codec)?;
    check_producer(&batch)?;
    if batch.base_offset() != 0 {
        return Err(BatchError::batch(RecordFault::BaseOffset(batch.base_offset())));
    }
    check_timestamps(&batch, rules.timestamps)?;
    Ok(batch)
}

fn check_counts(batch: &BatchView<'_>, codec: Codec) -> Result<(), BatchError> {
    let (count, last_offset_delta) = (batch.count(), batch.last_offset_delta());
    if count < 1 || last_offset_delta != count - 1 {
        return Err(BatchError::batch(RecordFault::Count { count, last_offset_delta }));
    }
    // A count that the bytes cannot hold would burn offsets, up to two thousand million a batch.
    let payload = batch.payload().len();
    if count as usize > payload.saturating_mul(codec.expansion_max()) / RECORD_LEN_MIN {
        return Err(BatchError::batch(RecordFault::CountOverPayload { count, payload, codec }));
    }
    Ok(())
}

fn check_producer(batch: &BatchView<'_>) -> Result<(), BatchError> {
    if batch.is_control() {
        return Err(BatchError::batch(RecordFault::Control));
    }
    let (producer_id, producer_epoch, base_sequence) =
        (batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
    if producer_id >= 0 && (producer_epoch < 0 || base_sequence < 0) || producer_id < NO_PRODUCER_ID {
        let fault = RecordFault::Producer { producer_id, producer_epoch, base_sequence };
        return Err(BatchError::batch(fault));
    }
    if batch.is_transactional() && producer_id < 0 {
        return Err(BatchError::batch(RecordFault::TransactionalWithoutProducer));
    }
    Ok(())
}

fn check_timestamps(batch: &BatchView<'_>, bounds: Option<TimestampBounds>) -> Result<(), BatchError> {
    if batch.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::InvalidTimestamp {
            index: None,
            timestamp: batch.max_timestamp(),
            reason: "a producer may not set the timestamp type LogAppendTime",
        });
    }
    if let Some(bounds) = bounds {
        bounds.check(None, batch.base_timestamp())?;
        bounds.check(None, batch.max_timestamp())?;
    }
    Ok(())
}

/// What a walk over the records of a batch has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsSummary {
    /// Their number.
    pub count: u32,
    /// Their largest timestamp. A sound client says the same in the header.
    pub max_timestamp: i64,
    /// How many have no key: compacted topics refuse those.
    pub null_keys: u32,
    /// Place of the first record without a key.
    pub first_null_key: Option<u32>,
    /// Their uncompressed bytes.
    pub payload_bytes: usize,
}

/// Walks every record of a produced batch: lengths, header counts, offsets 0, 1, 2 ... without gaps, timestamps,
/// and exactly as many records as the header says. Decompresses at most `max` bytes; allocates nothing for an
/// uncompressed batch.
///
/// # Errors
/// [`BatchError::Invalid`] or [`BatchError::InvalidTimestamp`] with the record's place;
/// [`BatchError::Codec`] for a payload that cannot be decompressed, or not into `max` bytes.
pub fn check_records(
    batch: &BatchView<'_>,
    max: usize,
    bounds: Option<TimestampBounds>,
) -> Result<RecordsSummary, BatchError> {
    check_decoded(batch, &batch.records(max)?, bounds)
}

/// As [`check_records`], where the records are decompressed already.
///
/// # Errors
/// Those of [`check_records`] but for its last.
pub fn check_decoded(
    batch: &BatchView<'_>,
    records: &Records<'_>,
    bounds: Option<TimestampBounds>,
) -> Result<RecordsSummary, BatchError> {
    check_each(batch, records, bounds, |_| ())
}

/// As [`check_decoded`], and shows each record that is sound to `each`: who reads the records need not walk over them once
/// more. Those after it may still be refused, and with them the batch.
///
/// # Errors
/// Those of [`check_decoded`].
pub fn check_each<'r>(
    batch: &BatchView<'_>,
    records: &'r Records<'_>,
    bounds: Option<TimestampBounds>,
    mut each: impl FnMut(&Record<'r>),
) -> Result<RecordsSummary, BatchError> {
    let mut summary = RecordsSummary {
        count: 0,
        max_timestamp: NO_TIMESTAMP,
        null_keys: 0,
        first_null_key: None,
        payload_bytes: records.payload().len(),
    };
    for record in records {
        let record = record?;
        let index = summary.count;
        let delta = record.offset.wrapping_sub(batch.base_offset()) as i32;
        if i64::from(delta) != i64::from(index) {
            let fault = RecordFault::OffsetDelta { delta, expected: index as i32 };
            return Err(BatchError::Invalid { index: Some(index), fault });
        }
        if let Some(bounds) = bounds {
            bounds.check(Some(index), record.timestamp)?;
        }
        if record.key.is_none() {
            summary.null_keys += 1;
            summary.first_null_key.get_or_insert(index);
        }
        summary.max_timestamp = summary.max_timestamp.max(record.timestamp);
        summary.count += 1;
        each(&record);
    }
    Ok(summary)
}
