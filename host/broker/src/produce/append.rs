//! One produced batch on its way into its partition: the checks, the append, the wait that the answer has to make. Records
//! are never decoded on the plain path; the bytes that a client sent are those that are stored, but for base offset and
//! leader epoch.

use std::sync::Arc;

use millstream_log::AppendError;
use millstream_record::validate::{
    ProduceRules, RecordsSummary, TimestampBounds, check_decoded, check_records, validate_produce,
};
use millstream_record::{BatchError, BatchView, Codec};
use millstream_wire::ErrorCode;

use crate::broker::Broker;
use crate::config::{CompressionType, FlushMode};
use crate::edge::recode;
use crate::error::ApiError;
use crate::fsync_queue::Durable;
use crate::partition::Partition;
use crate::topics::Topic;

/// The first version of Produce that may carry zstd.
const ZSTD_SINCE: i16 = 7;

/// Where a batch goes, and how it was sent.
pub(crate) struct Intake<'a> {
    pub(crate) broker: &'a Arc<Broker>,
    /// Of the produce request.
    pub(crate) version: i16,
    pub(crate) acks: i16,
    pub(crate) topic: &'a Topic,
    pub(crate) partition: &'a Arc<Partition>,
    /// The broker's clock, for the whole batch.
    pub(crate) now_ms: i64,
}

/// What one partition appended.
pub(crate) struct Stored {
    pub(crate) base_offset: i64,
    pub(crate) log_append_time: i64,
    pub(crate) log_start_offset: i64,
    /// The wait for stable storage, where the answer has to make it.
    pub(crate) durable: Option<Durable>,
}

impl Intake<'_> {
    /// Appends a batch to a topic without stages. What such a topic needs, the batch's header and its CRC tell; the records
    /// themselves are walked, without decoding, where that costs no decompression, so that no malformed record lies in wait
    /// for a consumer.
    pub(crate) fn append(&self, sent: &[u8]) -> Result<Stored, ApiError> {
        let batch = self.check(sent)?;
        let recoded = match self.topic.config.compression {
            CompressionType::Codec(codec) if batch.codec() != Ok(codec) => {
                let records = batch.records(self.broker.config.request_max_bytes)?;
                self.check_summary(&check_decoded(&batch, &records, self.bounds())?)?;
                Some(recode(&batch, records.payload(), codec, &self.topic.config)?)
            }
            _ => {
                if batch.codec() == Ok(Codec::None) || self.topic.config.compact {
                    let max = self.broker.config.request_max_bytes;
                    self.check_summary(&check_records(&batch, max, self.bounds())?)?;
                }
                None
            }
        };
        self.store(recoded.as_deref().unwrap_or(sent))
    }

    /// Checks all that can be told without the records.
    pub(crate) fn check<'b>(&self, sent: &'b [u8]) -> Result<BatchView<'b>, ApiError> {
        let batch_bytes_max = usize::try_from(self.topic.config.max_message_bytes).unwrap_or(0);
        let rules = ProduceRules { batch_bytes_max, timestamps: self.bounds() };
        let batch = validate_produce(sent, &rules)?;
        let codec = batch.codec().map_err(BatchError::from)?;
        if codec == Codec::Zstd && self.version < ZSTD_SINCE {
            let message = format!("zstd needs Produce v{ZSTD_SINCE}, and this is v{}", self.version);
            return Err(ApiError::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
        }
        if batch.is_transactional() {
            return Err(ApiError::new(ErrorCode::INVALID_TXN_STATE, "transactions are not supported by this broker"));
        }
        Ok(batch)
    }

    /// What timestamps a producer may send; any, where the broker stamps its own.
    pub(crate) fn bounds(&self) -> Option<TimestampBounds> {
        let config = &self.topic.config;
        (!config.log_append_time).then_some(TimestampBounds {
            now_ms: self.now_ms,
            before_ms_max: config.timestamp_before_max_ms,
            after_ms_max: config.timestamp_after_max_ms,
        })
    }

    /// Checks what a walk over the records has found.
    pub(crate) fn check_summary(&self, summary: &RecordsSummary) -> Result<(), ApiError> {
        let Some(record) = summary.first_null_key.filter(|_| self.topic.config.compact) else { return Ok(()) };
        let message = "Compacted topic cannot accept message without key";
        let message = format!("{message} in topic {}", self.topic.name.as_str());
        Err(ApiError { records: vec![(record, message.clone())], ..ApiError::new(ErrorCode::INVALID_RECORD, message) })
    }

    /// Appends bytes that were checked.
    pub(crate) fn store(&self, batch: &[u8]) -> Result<Stored, ApiError> {
        match self.partition.append(batch, self.now_ms)? {
            Ok(appended) => self.stored(appended.base_offset, appended.last_offset, appended.log_append_time),
            Err(error) => self.repeated(error),
        }
    }

    /// The answer for what was appended before: the producer did not get the first one, it gets the same again. Any other
    /// error is one.
    pub(crate) fn repeated(&self, error: AppendError) -> Result<Stored, ApiError> {
        match error {
            AppendError::Duplicate { base_offset, last_offset, timestamp } => {
                self.stored(base_offset, last_offset, if self.topic.config.log_append_time { timestamp } else { -1 })
            }
            error => Err(error.into()),
        }
    }

    /// The answer for what is in the log, and the wait for stable storage if one is due.
    pub(crate) fn stored(&self, base_offset: i64, last_offset: i64, log_append_time: i64) -> Result<Stored, ApiError> {
        let promised = self.acks == -1 && self.broker.config.flush_mode == FlushMode::Fsync;
        let waits = promised || self.must_flush()?;
        Ok(Stored {
            base_offset,
            log_append_time,
            log_start_offset: self.partition.reader()?.log_start_offset(),
            durable: waits.then(|| self.broker.syncer.wait(self.partition, last_offset + 1)),
        })
    }

    /// Whether `flush.messages` asks for a sync now, whatever the producer's acks say.
    fn must_flush(&self) -> Result<bool, ApiError> {
        let most = self.topic.config.flush_messages;
        if most == i64::MAX {
            return Ok(false);
        }
        self.partition.with_log(|log| log.log_end_offset() - log.recovery_point() >= most)
    }
}
