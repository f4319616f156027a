//! Produce to a topic with stages: checks a batch, runs the filters, rewrites and appends it. A chain of any length
//! needs one decode and at most one encode. A batch without dropped records is stored as it was sent.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use millstream_record::validate::check_each;
use millstream_record::{BatchError, BatchView, CheckedBatch, Codec, Records};
use millstream_stage::{Stage, StageError};
use millstream_wire::ErrorCode;

use super::context::Edge;
use super::dead_letter_records::DeadLetters;
use super::decoders::NeededDecoder;
use super::pending::{Admitted, PendingAppend};
use super::private_format::{self, Private};
use super::rewrite::thin;
use super::stages::{Gathered, Packed, Verdict, compress, filter_gathered, filter_rows, pin};
use super::topic::ServedTopic;
use super::topic_stages::ActiveStages;
use crate::compute_permits::aside;
use crate::config::{CompressionType, FailurePolicy};
use crate::error::ApiError;
use crate::produce::append::Intake;
use crate::produce::recode::{recode, with_payload};

/// The most rejected records that a response names. A batch of a normal client has fewer.
const REFUSED_RECORDS_MAX: usize = 10_000;

/// The most bytes of messages about single records in a response. Further records have no message, so that clients show
/// that of the batch.
const REFUSED_WORDS_MAX: usize = 64 << 10;

/// A batch between its checks and its append.
struct Checked<'a> {
    batch: BatchView<'a>,
    records: &'a Records<'a>,
}

/// A batch as it is stored.
struct Encoded<'a> {
    bytes: Cow<'a, [u8]>,
    /// The plug-in that decompresses it, if no Kafka codec does. It is kept until the batch is in the log.
    decoder: Option<NeededDecoder>,
}

impl<'a> Encoded<'a> {
    fn standard(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Encoded { bytes: bytes.into(), decoder: None }
    }
}

/// The stages for the batches of a topic.
pub(crate) struct Admission<'a> {
    pub(crate) edge: &'a Edge,
    pub(crate) topic: &'a Arc<ServedTopic>,
    pub(crate) stages: &'a ActiveStages,
}

/// Passes a batch through the stages of its topic. Appends it unless something has to be durable first. Blocks while
/// the stages compute; see [`super::inline_policy`].
///
/// # Errors
/// The batch is rejected, or cannot be appended.
pub(crate) fn admit(at: &Admission<'_>, intake: &Intake<'_>, sent: &Bytes) -> Result<Admitted, ApiError> {
    let Admission { edge, topic, stages } = *at;
    let partition = topic.edge.partition(intake.partition.index()).ok_or_else(ApiError::unknown_topic)?;
    let batch = intake.check(sent)?;
    // A batch that was appended before gets its response before any stage sees it. No filter then judges it twice, and
    // no dead letter is written twice.
    if let Some(stored) = intake.partition.check_producer(&batch, intake.origin())? {
        return intake.stored(stored).map(Admitted::Stored);
    }
    let records = batch.records(intake.request_bytes_max)?;
    let verdict = ask(intake, stages, &batch, &records)?;
    let checked = Checked { batch: batch.view(), records: &records };
    let dropping = match stages.admit_policy {
        _ if verdict.keeps_all() => None,
        FailurePolicy::Fail => return Err(reject(edge, intake, checked.batch, &verdict)),
        FailurePolicy::Skip | FailurePolicy::DeadLetter => Some(&verdict),
        FailurePolicy::Pass => None,
    };
    let encoded = checked.encode(at, intake, dropping)?;
    if CheckedBatch::of_own(&encoded.bytes)?.count() == 0 {
        partition.expect_emptied_batches();
    }
    let takes_turns = stages.admit_policy == FailurePolicy::DeadLetter;
    let letters = dropping.filter(|_| takes_turns).map(|verdict| checked.letters(intake, verdict)).transpose()?;
    if letters.is_none() && encoded.decoder.as_ref().is_none_or(NeededDecoder::is_noted) {
        let turn = takes_turns.then(|| partition.dead_letters.try_lock());
        if !matches!(turn, Some(Err(_))) {
            return intake.store(&CheckedBatch::of_own(&encoded.bytes)?).map(Admitted::Stored);
        }
    }
    Ok(Admitted::Pending(Box::new(PendingAppend {
        topic: Arc::clone(topic),
        partition: Arc::clone(intake.partition),
        acks: intake.acks,
        version: intake.version,
        request_bytes_max: intake.request_bytes_max,
        now_ms: intake.now_ms,
        transactional_id: intake.transactional_id.cloned(),
        verification: intake.verification,
        sent: sent.clone(),
        batch: match encoded.bytes {
            Cow::Borrowed(bytes) => sent.slice_ref(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        },
        decoder: encoded.decoder,
        takes_turns,
        letters,
        dead_letter_topic: stages.dead_letter_topic.clone(),
    })))
}

/// Checks the records, runs the filters on them, and measures the time.
fn ask(
    intake: &Intake<'_>,
    stages: &ActiveStages,
    batch: &BatchView<'_>,
    records: &Records<'_>,
) -> Result<Verdict, ApiError> {
    let chain = pin(&stages.admit);
    // The payload limits the number of records, whatever the header claims.
    let mut gathered = Gathered::new(&chain, batch.count().unsigned_abs() as usize);
    check_each(batch, records, &intake.record_rules(), |row| gathered.push(row))
        .map_err(|error| intake.rejected(error))?;
    let topic = &intake.topic.name;
    let filter = || {
        if gathered.fits() {
            return filter_gathered(&chain, topic, gathered).map_err(unable);
        }
        filter_rows(&chain, topic, &records.iter().collect::<Result<Vec<_>, BatchError>>()?).map_err(unable)
    };
    let is_sound =
        |verdict: &Result<Verdict, ApiError>| verdict.as_ref().is_ok_and(|verdict| verdict.failed().is_empty());
    let timed = || stages.pace.timed(records.payload().len(), filter, is_sound);
    // A request may have many batches: after a slow one, the others do not occupy a worker that serves sockets.
    if stages.pace.is_quick() { timed() } else { aside(timed) }
}

impl<'a> Checked<'a> {
    /// Encodes the batch for storage: without the dropped records, in the topic's codec.
    fn encode(
        &self,
        at: &Admission<'_>,
        intake: &Intake<'_>,
        dropping: Option<&Verdict>,
    ) -> Result<Encoded<'a>, ApiError> {
        match &at.stages.compressor {
            None => self.standard(intake, dropping).map(Encoded::standard),
            Some(compressor) => match self.packed(at, intake, compressor, dropping)? {
                Ok(encoded) => Ok(encoded),
                Err(error) if at.stages.compressor_policy == FailurePolicy::Pass => {
                    tracing::debug!(topic = intake.topic.name.as_str(), "stored without stage.compressor: {error}");
                    self.standard(intake, dropping).map(Encoded::standard)
                }
                Err(error) => Err(ApiError::new(ErrorCode::INVALID_RECORD, error.to_string())),
            },
        }
    }

    /// Encodes the batch in the codec of the producer or the topic.
    fn standard(&self, intake: &Intake<'_>, dropping: Option<&Verdict>) -> Result<Cow<'a, [u8]>, ApiError> {
        let config = &intake.topic.config;
        let sent = self.codec()?;
        let codec = match config.compression {
            CompressionType::Codec(codec) => codec,
            CompressionType::Producer => sent,
        };
        match dropping {
            Some(verdict) => self.thinned(intake, verdict, codec).map(Cow::Owned),
            None if codec == sent => Ok(Cow::Borrowed(self.batch.bytes())),
            None => recode(&self.batch, self.records.payload(), codec, config).map(Cow::Owned),
        }
    }

    /// Encodes the batch with the compressor. The inner error is the compressor's.
    fn packed(
        &self,
        at: &Admission<'_>,
        intake: &Intake<'_>,
        compressor: &Stage,
        dropping: Option<&Verdict>,
    ) -> Result<Result<Encoded<'a>, StageError>, ApiError> {
        let thinned = dropping.map(|verdict| self.thinned(intake, verdict, Codec::None)).transpose()?;
        let (batch, payload) = match &thinned {
            None => (self.batch, self.records.payload()),
            Some(bytes) => {
                let thinned = BatchView::parse(bytes)?;
                (thinned, thinned.payload())
            }
        };
        if batch.count() == 0 {
            // There is nothing to compress.
            return Ok(Ok(Encoded::standard(batch.bytes().to_vec())));
        }
        let Packed { bytes, codec, plugin } = match compress(compressor, payload, batch.count().unsigned_abs()) {
            Ok(packed) => packed,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(codec) = codec {
            return with_payload(&batch, codec.id(), &bytes).map(|bytes| Ok(Encoded::standard(bytes)));
        }
        let decoder = at.edge.packed(at.topic, &plugin)?;
        let private = Private {
            codec: self.codec()?,
            digest: plugin.digest(),
            len: payload.len(),
            config: compressor.config(),
            packed: &bytes,
        };
        let payload = private.to_payload().ok_or_else(|| {
            ApiError::new(ErrorCode::MESSAGE_TOO_LARGE, "the records are too large for a private format")
        })?;
        let bytes = Cow::Owned(with_payload(&batch, private_format::CODEC_ID, &payload)?);
        Ok(Ok(Encoded { bytes, decoder: Some(decoder) }))
    }

    fn thinned(&self, intake: &Intake<'_>, verdict: &Verdict, codec: Codec) -> Result<Vec<u8>, ApiError> {
        thin(&self.batch, self.records, |row| verdict.keeps(row), codec, &intake.topic.config)
    }

    /// Copies the records that the verdict does not keep.
    fn letters(&self, intake: &Intake<'_>, verdict: &Verdict) -> Result<DeadLetters, ApiError> {
        let mut letters = DeadLetters::new(intake.topic.name.clone(), intake.partition.index(), self.codec()?);
        if self.batch.is_transactional() {
            letters.in_transaction(self.batch.producer_id(), self.batch.producer_epoch());
        }
        for (row, record) in self.records.iter().enumerate() {
            let record = record?;
            if !verdict.keeps(row) {
                // A produced batch has offset deltas 0, 1, 2 ...
                letters.push(&record, row as i64, verdict, row);
            }
        }
        Ok(letters)
    }

    fn codec(&self) -> Result<Codec, ApiError> {
        Ok(self.batch.codec().map_err(BatchError::from)?)
    }
}

/// Rejects the whole batch, as Kafka does for an invalid record, and counts that for the producer.
fn reject(edge: &Edge, intake: &Intake<'_>, batch: BatchView<'_>, verdict: &Verdict) -> ApiError {
    let error = rejection(verdict);
    let records = verdict.bad().count() as u64;
    edge.plugins.rejected().add(&intake.topic.name, batch.producer_id(), records, intake.now_ms, &error.message);
    error
}

/// Names every bad record of a rejected batch (KIP-467).
fn rejection(verdict: &Verdict) -> ApiError {
    let mut words = 0;
    let named = verdict.bad().take(REFUSED_RECORDS_MAX).map(|row| {
        let reason = verdict.reason(row);
        words += reason.len();
        let reason = if words <= REFUSED_WORDS_MAX { reason } else { String::new() };
        (row as u32, reason)
    });
    let records: Vec<(u32, String)> = named.collect();
    let message = match &records[..] {
        [] => "a record is rejected".to_owned(),
        [(row, reason)] => format!("record {row} is rejected: {reason}"),
        [(row, reason), ..] => {
            format!("{} records are rejected, the first of them is record {row}: {reason}", verdict.bad().count())
        }
    };
    ApiError { records, ..ApiError::new(ErrorCode::INVALID_RECORD, message) }
}

/// Returns the error for a fault that no record causes. Its code is one that clients retry.
fn unable(error: StageError) -> ApiError {
    tracing::warn!("{error}");
    ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string())
}
