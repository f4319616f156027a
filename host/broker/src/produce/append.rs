//! One produced batch: the checks, the append, and the wait before its response. On the plain path records are never
//! decoded; the stored bytes are those that the client sent, except for base offset and leader epoch.

use std::sync::Arc;

use millstream_log::{AppendOrigin, AppendedBatch, Verification};
use millstream_partition::{Acks, Committed, Partition, WriteEnd};
use millstream_record::validate::{
    RecordRules, TimestampBounds, check_decoded, check_framing, check_header_timestamps, check_records,
    check_records_up_to, validate_produce,
};
use millstream_record::{BatchError, BatchView, CheckedBatch, Codec, CodecError, RejectReason};
use millstream_wire::{ErrorCode, Str};

use crate::compute_permits::aside;
use crate::config::{CompressionType, Validation};
use crate::error::ApiError;
use crate::produce::recode::recode;
use crate::topics::Topic;

/// The first version of Produce that may carry zstd.
const ZSTD_SINCE: i16 = 7;

/// The most compressed bytes of one request that are decompressed on a worker that serves sockets. Passing them to
/// another thread would cost more.
pub(crate) const INLINE_COMPRESSED_BYTES: usize = 16 << 10;

/// The most bytes that they may decompress to there. Larger ones continue where they delay no other connection.
const INLINE_BYTES: usize = 256 << 10;

/// The destination of a batch, and how it was sent.
pub(crate) struct Intake<'a> {
    /// The most bytes that a batch may decompress to.
    pub(crate) request_bytes_max: usize,
    /// The version of the produce request.
    pub(crate) version: i16,
    pub(crate) acks: Acks,
    pub(crate) topic: &'a Topic,
    pub(crate) partition: &'a Arc<Partition>,
    /// The broker's clock, for the whole batch.
    pub(crate) now_ms: i64,
    /// The transactional id of the request.
    pub(crate) transactional_id: Option<&'a Str>,
    /// What is known of that transaction in this partition.
    pub(crate) verification: Verification,
}

/// The result of an append to one partition.
pub(crate) struct Stored {
    pub(crate) base_offset: i64,
    pub(crate) log_append_time: i64,
    pub(crate) log_start_offset: i64,
    /// The wait before the response.
    pub(crate) committed: Committed,
}

impl Intake<'_> {
    /// Appends a batch to a topic without stages.
    pub(crate) fn append(&self, sent: &[u8]) -> Result<Stored, ApiError> {
        self.append_checked(&self.check(sent)?)
    }

    /// Appends a batch that [`Self::check`] has accepted. The records are walked without decoding them, unless that
    /// needs decompression, so that no malformed record is left for a consumer.
    pub(crate) fn append_checked(&self, batch: &CheckedBatch<'_>) -> Result<Stored, ApiError> {
        let rules = self.record_rules();
        match self.topic.config.compression {
            CompressionType::Codec(codec) if batch.codec() != Ok(codec) => {
                let records = batch.records(self.request_bytes_max)?;
                check_decoded(batch, &records, &rules).map_err(|error| self.rejected(error))?;
                let recoded = recode(batch, records.payload(), codec, &self.topic.config)?;
                return self.store(&CheckedBatch::of_own(&recoded)?);
            }
            _ => self.check_as_sent(batch, &rules)?,
        }
        self.store(batch)
    }

    /// Checks a batch that is stored as it was sent.
    fn check_as_sent(&self, batch: &CheckedBatch<'_>, rules: &RecordRules) -> Result<(), ApiError> {
        let checked = if batch.codec() == Ok(Codec::None) {
            check_records(batch, rules).map(drop)
        } else if self.topic.config.decompresses() {
            check_compressed(batch, rules)
        } else {
            self.check_header_timestamps(batch, rules)?;
            match self.topic.config.validation {
                Validation::None => Ok(()),
                Validation::Framing | Validation::Full => check_framing(batch),
            }
        };
        checked.map_err(|error| self.rejected(error))
    }

    /// Checks the timestamps of a batch whose records are not walked. They are walked only if a timestamp is out of
    /// range: the response names the wrong records.
    fn check_header_timestamps(&self, batch: &CheckedBatch<'_>, rules: &RecordRules) -> Result<(), ApiError> {
        let Some(bounds) = &rules.timestamps else { return Ok(()) };
        check_header_timestamps(batch, bounds).map_err(|error| {
            let records = check_records_up_to(batch, rules, self.request_bytes_max);
            self.rejected(records.err().unwrap_or(error))
        })
    }

    /// Checks everything that needs no records.
    pub(crate) fn check<'b>(&self, sent: &'b [u8]) -> Result<CheckedBatch<'b>, ApiError> {
        let batch_bytes_max = usize::try_from(self.topic.config.max_message_bytes).unwrap_or(0);
        let batch = validate_produce(sent, batch_bytes_max).map_err(|error| self.rejected(error))?;
        let codec = batch.codec().map_err(BatchError::from)?;
        if codec == Codec::Zstd && self.version < ZSTD_SINCE {
            let message = format!("zstd needs Produce v{ZSTD_SINCE}, and this is v{}", self.version);
            return Err(ApiError::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
        }
        if batch.is_transactional() && self.transactional_id.is_none() {
            let message = "a transactional batch needs a request that names its transactional id";
            return Err(ApiError::new(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, message));
        }
        Ok(batch)
    }

    /// Returns what appends the batch.
    pub(crate) fn origin(&self) -> AppendOrigin {
        AppendOrigin::Client(self.verification)
    }

    /// Returns the topic's rules for a record. If the broker sets its own time, any timestamp is allowed.
    pub(crate) fn record_rules(&self) -> RecordRules {
        let config = &self.topic.config;
        let timestamps = (!config.log_append_time).then_some(TimestampBounds {
            now_ms: self.now_ms,
            before_ms_max: config.timestamp_before_max_ms,
            after_ms_max: config.timestamp_after_max_ms,
        });
        let record_bytes_max = usize::try_from(config.record_bytes_max).unwrap_or(usize::MAX);
        RecordRules { timestamps, keys: config.compact, record_bytes_max }
    }

    /// Returns the error for a batch that a check has rejected. Kafka names the partition with a missing key.
    pub(crate) fn rejected(&self, error: BatchError) -> ApiError {
        let without_key: Vec<u32> = match &error {
            BatchError::Rejected { records, .. } => {
                let without_key = records.iter().filter(|record| record.reason == RejectReason::NoKey);
                without_key.map(|record| record.index).collect()
            }
            _ => Vec::new(),
        };
        let mut rejected = ApiError::from(error);
        for (index, message) in &mut rejected.records {
            if without_key.binary_search(index).is_ok() {
                message.push_str(&format!(
                    " in topic partition {}-{}",
                    self.topic.name.as_str(),
                    self.partition.index()
                ));
            }
        }
        rejected
    }

    /// Appends a batch that was checked.
    pub(crate) fn store(&self, batch: &CheckedBatch<'_>) -> Result<Stored, ApiError> {
        let appended = self.partition.append_of(batch, self.now_ms, self.origin()).inspect_err(|error| {
            let (topic, partition) = (self.partition.topic(), self.partition.index());
            let leader_epoch = self.partition.leader_epoch();
            tracing::debug!(topic, partition, leader_epoch, "a batch is rejected: {error}");
        });
        self.stored(appended?.batch())
    }

    /// Returns the response for a batch in the log, and the wait for its commit. A batch that was appended before gets
    /// the same response again: the producer did not receive the first one.
    pub(crate) fn stored(&self, batch: AppendedBatch) -> Result<Stored, ApiError> {
        Ok(Stored {
            base_offset: batch.base_offset,
            log_append_time: batch.log_append_time,
            log_start_offset: batch.log_start_offset,
            committed: self.partition.committed(WriteEnd::of(&batch), self.acks),
        })
    }
}

/// Decompresses a batch and checks its records.
fn check_compressed(batch: &BatchView<'_>, rules: &RecordRules) -> Result<(), BatchError> {
    if batch.size() > INLINE_COMPRESSED_BYTES {
        return check_records(batch, rules).map(drop);
    }
    match check_records_up_to(batch, rules, INLINE_BYTES) {
        Err(BatchError::Codec(CodecError::TooLarge { .. })) => aside(|| check_records(batch, rules)).map(drop),
        checked => checked.map(drop),
    }
}
