//! The checks of a broker before it appends a batch.
//!
//! Two depths:
//!
//! | | [`validate_produce`] | [`check_records`] |
//! |---|---|---|
//! | cost | one pass for the CRC | a walk over the records, and a decompression if they are compressed |
//! | one batch, magic, lengths, size, CRC | yes | |
//! | count = last offset delta + 1, and the bytes can hold it | yes | the real number of records |
//! | control, producer fields, codec id | yes | |
//! | timestamps | with [`check_header_timestamps`]: base and max | every record |
//! | keys of a compacted topic | | every record |
//! | record and header lengths, offsets without gaps | | yes |
//! | compression bombs | never decompressed, so harmless | each record and the whole have a limit |
//!
//! Both allocate nothing for an uncompressed batch. A compressed one is decompressed piece by piece into a buffer that
//! its thread keeps; see [`codec::pieces`](crate::codec).

use std::cell::RefCell;

use crate::checked::CheckedBatch;
use crate::codec::pieces::Scratch;
use crate::codec::{self, Codec};
use crate::error::{BatchError, RecordFault, RejectReason, RejectedRecord};
use crate::layout::*;
use crate::record_walk::walk;
use crate::records::{Record, Records};
use crate::view::{BatchHeader, BatchView, TimestampType};

/// The most bytes of all records of a compressed batch. It limits the time that a compression bomb takes; Kafka's
/// consumers cannot read more either.
pub const UNCOMPRESSED_BYTES_MAX: usize = i32::MAX as usize;

/// The number of rejected records that are named. The others are counted.
const REJECTED_MAX: usize = 10_000;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The rules of a topic for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRules {
    /// Limits of the producer's timestamps; `None` if the broker sets them (`LogAppendTime`).
    pub timestamps: Option<TimestampBounds>,
    /// Whether each record needs a key: `cleanup.policy=compact`.
    pub keys: bool,
    /// `max.decompressed.message.bytes`: the largest record of a compressed batch.
    pub record_bytes_max: usize,
}

impl RecordRules {
    /// The rules that apply to every record.
    pub const NONE: Self = Self { timestamps: None, keys: false, record_bytes_max: usize::MAX };
}

/// The limits of a producer's timestamps around the broker's clock, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampBounds {
    /// The broker's clock, in milliseconds since 1970.
    pub now_ms: i64,
    /// `message.timestamp.before.max.ms`: how old; Kafka's default is `i64::MAX`.
    pub before_ms_max: i64,
    /// `message.timestamp.after.max.ms`: how far in the future; Kafka's default is an hour.
    pub after_ms_max: i64,
}

impl TimestampBounds {
    /// Returns whether a record may have this timestamp. Timestamps before 1970 are allowed like any other.
    #[inline]
    fn allow(&self, timestamp: i64) -> bool {
        let age = self.now_ms.checked_sub(timestamp);
        timestamp == NO_TIMESTAMP || age.is_some_and(|age| age <= self.before_ms_max && -age <= self.after_ms_max)
    }

    fn reason(&self, timestamp: i64) -> RejectReason {
        RejectReason::Timestamp {
            timestamp,
            earliest: self.now_ms.saturating_sub(self.before_ms_max),
            latest: self.now_ms.saturating_add(self.after_ms_max),
        }
    }
}

/// Checks what a client produced to one partition, without decoding a record. `batch_bytes_max` is `max.message.bytes`:
/// the largest batch as the client sends it, header included.
///
/// `records` must be exactly one batch. The CRC is checked before the fields that it covers: a batch whose length is
/// wrong is corrupt, not two batches.
///
/// # Errors
/// Any [`BatchError`]; its [`kind`](BatchError::kind) shows which of Kafka's codes it is.
pub fn validate_produce(records: &[u8], batch_bytes_max: usize) -> Result<CheckedBatch<'_>, BatchError> {
    validate(records, batch_bytes_max, |sequence| sequence >= 0)
}

/// Checks a batch that another broker has built, as [`validate_produce`] does. If it is part of a transaction, it has
/// the producer of that, but no sequences.
///
/// # Errors
/// As [`validate_produce`].
pub fn validate_built(records: &[u8], batch_bytes_max: usize) -> Result<CheckedBatch<'_>, BatchError> {
    validate(records, batch_bytes_max, |sequence| sequence == NO_SEQUENCE)
}

fn validate(
    records: &[u8],
    batch_bytes_max: usize,
    is_sequence: fn(i32) -> bool,
) -> Result<CheckedBatch<'_>, BatchError> {
    if records.is_empty() {
        return Err(BatchError::batch(RecordFault::NoBatch));
    }
    // A batch that claims more bytes than there are is cut or corrupt, whatever the largest size is.
    let batch = BatchView::parse(records)?;
    if batch.size() > batch_bytes_max {
        return Err(BatchError::TooLarge { size: batch.size(), max: batch_bytes_max });
    }
    batch.verify_crc()?;
    if batch.size() < records.len() {
        let trailing = records.len() - batch.size();
        return Err(BatchError::batch(RecordFault::MoreThanOneBatch { trailing }));
    }
    let codec = batch.codec()?;
    check_counts(&batch, codec)?;
    check_producer(&batch, is_sequence)?;
    if batch.base_offset() != 0 {
        return Err(BatchError::batch(RecordFault::BaseOffset(batch.base_offset())));
    }
    check_timestamp_type(&batch)?;
    Ok(CheckedBatch::new(batch))
}

fn check_counts(batch: &BatchView<'_>, codec: Codec) -> Result<(), BatchError> {
    let (count, last_offset_delta) = (batch.count(), batch.last_offset_delta());
    if count < 1 || last_offset_delta != count - 1 {
        return Err(BatchError::batch(RecordFault::Count { count, last_offset_delta }));
    }
    // A count that the bytes cannot hold would waste offsets, up to two thousand million a batch.
    let payload = batch.payload().len();
    if count as usize > payload.saturating_mul(codec.expansion_max()) / RECORD_LEN_MIN {
        return Err(BatchError::batch(RecordFault::CountOverPayload { count, payload, codec }));
    }
    Ok(())
}

fn check_producer(batch: &BatchView<'_>, is_sequence: fn(i32) -> bool) -> Result<(), BatchError> {
    if batch.is_control() {
        return Err(BatchError::batch(RecordFault::Control));
    }
    let (producer_id, producer_epoch, base_sequence) =
        (batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
    if producer_id >= 0 && (producer_epoch < 0 || !is_sequence(base_sequence)) || producer_id < NO_PRODUCER_ID {
        let fault = RecordFault::Producer { producer_id, producer_epoch, base_sequence };
        return Err(BatchError::batch(fault));
    }
    if batch.is_transactional() && producer_id < 0 {
        return Err(BatchError::batch(RecordFault::TransactionalWithoutProducer));
    }
    Ok(())
}

fn check_timestamp_type(batch: &BatchView<'_>) -> Result<(), BatchError> {
    if batch.timestamp_type() == TimestampType::LogAppendTime {
        // The count cannot be trusted yet.
        let total = batch.count().unsigned_abs();
        let rejected = |index| RejectedRecord { index, reason: RejectReason::LogAppendTime };
        let records = (0..total.min(REJECTED_MAX as u32)).map(rejected).collect();
        return Err(BatchError::Rejected { records, total: total as usize });
    }
    Ok(())
}

/// Checks the timestamps of a batch's header, which is enough if the records are not read.
///
/// # Errors
/// [`BatchError::InvalidTimestamp`]. [`check_records`] then finds the records that are out of range.
pub fn check_header_timestamps(batch: &BatchView<'_>, bounds: &TimestampBounds) -> Result<(), BatchError> {
    for timestamp in [batch.base_timestamp(), batch.max_timestamp()] {
        if !bounds.allow(timestamp) {
            return Err(BatchError::InvalidTimestamp { reason: bounds.reason(timestamp) });
        }
    }
    Ok(())
}

/// Checks the framing of a compressed batch without decompressing it: its payload starts and ends as the codec
/// requires, and can hold the number of records in the header.
///
/// # Errors
/// [`BatchError::Codec`], or [`BatchError::Invalid`] for too many records.
pub fn check_framing(batch: &BatchView<'_>) -> Result<(), BatchError> {
    let codec = batch.codec()?;
    let (count, payload) = (batch.count(), batch.payload().len());
    let most = codec::check_framing(codec, batch.payload())?;
    if u64::from(count.unsigned_abs()) * RECORD_LEN_MIN as u64 > most {
        return Err(BatchError::batch(RecordFault::CountOverPayload { count, payload, codec }));
    }
    Ok(())
}

/// The result of a walk over the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsSummary {
    /// Their number.
    pub count: u32,
    /// Their largest timestamp. A correct client has the same in the header.
    pub max_timestamp: i64,
    /// Their uncompressed bytes.
    pub payload_bytes: usize,
}

/// Walks over every record of a produced batch. Checks lengths, header counts, offsets 0, 1, 2 ... without gaps, the
/// rules, and that the number of records is that of the header. A compressed batch is decompressed piece by piece, and
/// nothing of it is kept.
///
/// # Errors
/// [`BatchError::Rejected`] names each record that breaks a rule. [`BatchError::Invalid`] names the first that cannot
/// be read. [`BatchError::Codec`]: the payload cannot be decompressed, or exceeds [`UNCOMPRESSED_BYTES_MAX`].
pub fn check_records(batch: &BatchView<'_>, rules: &RecordRules) -> Result<RecordsSummary, BatchError> {
    check_records_up_to(batch, rules, UNCOMPRESSED_BYTES_MAX)
}

/// Checks like [`check_records`], but stops once the records exceed `bytes_max` uncompressed bytes, for a caller with
/// little time.
///
/// # Errors
/// Those of [`check_records`]; [`CodecError::TooLarge`](crate::CodecError::TooLarge) when it stops.
pub fn check_records_up_to(
    batch: &BatchView<'_>,
    rules: &RecordRules,
    bytes_max: usize,
) -> Result<RecordsSummary, BatchError> {
    if batch.codec()? == Codec::None {
        return check_decoded(batch, &batch.records(usize::MAX)?, rules);
    }
    let mut check = RecordCheck::new(batch, rules);
    let payload_bytes = SCRATCH.with_borrow_mut(|scratch| {
        walk(batch, bytes_max, scratch, |index, head| {
            if head.len > rules.record_bytes_max {
                let fault = RecordFault::RecordTooLarge { index, size: head.len, max: rules.record_bytes_max };
                return Err(BatchError::batch(fault));
            }
            let timestamp = batch.base_timestamp().wrapping_add(head.timestamp_delta);
            check.record(index, head.offset_delta, timestamp, head.has_key)
        })
    })?;
    check.finish(payload_bytes)
}

/// Checks like [`check_records`], with records that are already decompressed.
///
/// # Errors
/// Those of [`check_records`] but for its last.
pub fn check_decoded(
    batch: &BatchView<'_>,
    records: &Records<'_>,
    rules: &RecordRules,
) -> Result<RecordsSummary, BatchError> {
    check_each(batch, records, rules, |_| ())
}

/// Checks like [`check_decoded`], and passes each valid record to `each`, so that a caller that reads the records needs
/// no second walk. Later records may still be rejected, and with them the batch.
///
/// # Errors
/// Those of [`check_decoded`].
pub fn check_each<'r>(
    batch: &BatchView<'_>,
    records: &'r Records<'_>,
    rules: &RecordRules,
    mut each: impl FnMut(&Record<'r>),
) -> Result<RecordsSummary, BatchError> {
    let mut check = RecordCheck::new(batch, rules);
    let is_compressed = batch.codec() != Ok(Codec::None);
    let mut iter = records.iter();
    let mut index = 0;
    loop {
        let before = iter.rest().len();
        let Some(record) = iter.next() else { break };
        let record = record?;
        let size = before - iter.rest().len();
        if is_compressed && size > rules.record_bytes_max {
            let fault = RecordFault::RecordTooLarge { index, size, max: rules.record_bytes_max };
            return Err(BatchError::batch(fault));
        }
        let delta = record.offset.wrapping_sub(batch.base_offset()) as i32;
        check.record(index, delta, record.timestamp, record.key.is_some())?;
        index += 1;
        each(&record);
    }
    check.finish(records.payload().len())
}

/// Checks the records of a batch one after the other.
struct RecordCheck<'a> {
    header: BatchHeader<'a>,
    rules: RecordRules,
    count: u32,
    max_timestamp: i64,
    rejected: Rejected,
}

impl<'a> RecordCheck<'a> {
    fn new(batch: &BatchView<'a>, rules: &RecordRules) -> Self {
        let rejected = Rejected::default();
        Self { header: batch.header(), rules: *rules, count: 0, max_timestamp: NO_TIMESTAMP, rejected }
    }

    #[inline]
    fn record(&mut self, index: u32, delta: i32, timestamp: i64, has_key: bool) -> Result<(), BatchError> {
        if i64::from(delta) != i64::from(index) {
            let fault = RecordFault::OffsetDelta { delta, expected: index as i32 };
            return Err(BatchError::Invalid { index: Some(index), fault });
        }
        if self.rules.keys && !has_key {
            self.rejected.add(index, || RejectReason::NoKey);
        } else if let Some(bounds) = &self.rules.timestamps
            && !bounds.allow(timestamp)
        {
            self.rejected.add(index, || bounds.reason(timestamp));
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        Ok(())
    }

    fn finish(self, payload_bytes: usize) -> Result<RecordsSummary, BatchError> {
        self.rejected.finish()?;
        // The records are good, but the header's timestamps, which lookups use, may differ.
        if let Some(bounds) = &self.rules.timestamps
            && !bounds.allow(self.header.max_timestamp())
        {
            return Err(BatchError::InvalidTimestamp { reason: bounds.reason(self.header.max_timestamp()) });
        }
        Ok(RecordsSummary { count: self.count, max_timestamp: self.max_timestamp, payload_bytes })
    }
}

/// The records that break a rule.
#[derive(Default)]
struct Rejected {
    records: Vec<RejectedRecord>,
    total: usize,
}

impl Rejected {
    #[cold]
    fn add(&mut self, index: u32, reason: impl FnOnce() -> RejectReason) {
        self.total += 1;
        if self.records.len() < REJECTED_MAX {
            self.records.push(RejectedRecord { index, reason: reason() });
        }
    }

    fn finish(self) -> Result<(), BatchError> {
        match self.total {
            0 => Ok(()),
            total => Err(BatchError::Rejected { records: self.records, total }),
        }
    }
}
