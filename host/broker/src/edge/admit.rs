//! Produce to a topic with stages: check, ask the filters, write, append. One decode and at most one encode, however long
//! the chain is; a batch that passes whole is stored as it came.

use std::borrow::Cow;

use millstream_record::validate::check_each;
use millstream_record::{BatchError, BatchView, CheckedBatch, Codec, Records};
use millstream_stage::{Stage, StageError};
use millstream_wire::ErrorCode;

use super::dead_letters::{self, DeadLetters};
use super::decoders::{Decoders, InUse};
use super::private_format::{self, Private};
use super::rewrite::thin;
use super::stages::{Gathered, Packed, Verdict, compress, filter_gathered, filter_rows, pin};
use crate::compute_permits::aside;
use crate::config::{CompressionType, FailurePolicy};
use crate::edge::ServedTopic;
use crate::edge::topic_stages::ActiveStages;
use crate::error::ApiError;
use crate::produce::append::{Intake, Stored};
use crate::produce::recode::{recode, with_payload};

/// How many records an answer names as refused. All of them, for any batch that a client sends by itself.
const REFUSED_RECORDS_MAX: usize = 10_000;

/// How many bytes of words about single records an answer carries. The records after that are named without words, which
/// clients take for those about the batch.
const REFUSED_WORDS_MAX: usize = 64 << 10;

/// A batch between its checks and its append.
struct Checked<'a> {
    batch: BatchView<'a>,
    records: &'a Records<'a>,
}

/// A batch as it is stored.
struct Encoded<'a> {
    bytes: Cow<'a, [u8]>,
    /// The plug-in that reads it, if only a plug-in does: there until the batch is in the log.
    _decoder: Option<InUse<'a>>,
}

impl<'a> Encoded<'a> {
    fn standard(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Encoded { bytes: bytes.into(), _decoder: None }
    }
}

/// Appends a batch to a topic with stages. Blocks for as long as they compute, see [`super::pace`].
pub(crate) fn admit(
    intake: &Intake<'_>,
    topic: &ServedTopic,
    stages: &ActiveStages,
    sent: &[u8],
) -> Result<Stored, ApiError> {
    let partition = topic.edge.partition(intake.partition.index()).ok_or_else(ApiError::unknown_topic)?;
    let batch = intake.check(sent)?;
    // What was appended before is answered before any stage sees it: no filter judges it twice, and no dead letter is
    // written twice.
    if let Some(stored) = intake.partition.check_producer(&batch)? {
        return intake.stored(stored);
    }
    let records = batch.records(intake.broker.config.request_max_bytes)?;
    let verdict = ask(intake, stages, &batch, &records)?;
    let checked = Checked { batch: batch.view(), records: &records };
    let dropping = match stages.admit_policy {
        _ if verdict.keeps_all() => None,
        FailurePolicy::Fail => return Err(reject(intake, checked.batch, &verdict)),
        FailurePolicy::Skip | FailurePolicy::DeadLetter => Some(&verdict),
        FailurePolicy::Pass => None,
    };
    let encoded = checked.encode(intake, topic, stages, dropping)?;
    let encoded_batch = CheckedBatch::of_own(&encoded.bytes)?;
    if encoded_batch.count() == 0 {
        partition.expect_emptied_batches();
    }
    match (stages.admit_policy, dropping) {
        (FailurePolicy::DeadLetter, Some(verdict)) => {
            let rows = records.iter().collect::<Result<Vec<_>, BatchError>>()?;
            let letters = DeadLetters { rows: &rows, verdict, codec: checked.codec()? };
            aside(|| dead_letters::store(intake, partition, stages, &batch, &encoded_batch, &letters))
        }
        (FailurePolicy::DeadLetter, None) => {
            let in_turn = &partition.dead_letters;
            // It is held over a wait for the disk.
            let _in_turn = in_turn.try_lock().unwrap_or_else(|| aside(|| in_turn.lock()));
            intake.store(&encoded_batch)
        }
        _ => intake.store(&encoded_batch),
    }
}

/// Checks the records, then asks the filters about them; how long these take is noted.
fn ask(
    intake: &Intake<'_>,
    stages: &ActiveStages,
    batch: &BatchView<'_>,
    records: &Records<'_>,
) -> Result<Verdict, ApiError> {
    let chain = pin(&stages.admit);
    // So many records there are at most in so many bytes, whatever the header says.
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
    // A request may hold many batches: those after the one that took too long do not keep a worker that serves sockets.
    if stages.pace.is_quick() { timed() } else { aside(timed) }
}

impl<'a> Checked<'a> {
    /// The batch as it is stored: without the records that `dropping` does not keep, in the topic's codec.
    fn encode(
        &self,
        intake: &Intake<'a>,
        topic: &ServedTopic,
        stages: &ActiveStages,
        dropping: Option<&Verdict>,
    ) -> Result<Encoded<'a>, ApiError> {
        match &stages.compressor {
            None => self.standard(intake, dropping).map(Encoded::standard),
            Some(compressor) => match self.packed(intake, topic, compressor, dropping)? {
                Ok(encoded) => Ok(encoded),
                Err(error) if stages.compressor_policy == FailurePolicy::Pass => {
                    tracing::debug!(topic = intake.topic.name.as_str(), "stored without stage.compressor: {error}");
                    self.standard(intake, dropping).map(Encoded::standard)
                }
                Err(error) => Err(ApiError::new(ErrorCode::INVALID_RECORD, error.to_string())),
            },
        }
    }

    /// In the codec that the producer or the topic has chosen.
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

    /// As the compressor packs it; the inner error is the compressor's.
    fn packed(
        &self,
        intake: &Intake<'a>,
        topic: &ServedTopic,
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
            // Nothing to pack.
            return Ok(Ok(Encoded::standard(batch.bytes().to_vec())));
        }
        let Packed { bytes, codec, plugin } = match compress(compressor, payload, batch.count().unsigned_abs()) {
            Ok(packed) => packed,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(codec) = codec {
            return with_payload(&batch, codec.id(), &bytes).map(|bytes| Ok(Encoded::standard(bytes)));
        }
        let decoder = Decoders::pack(intake.broker, topic, &plugin)?;
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
        Ok(Ok(Encoded { bytes, _decoder: Some(decoder) }))
    }

    fn thinned(&self, intake: &Intake<'_>, verdict: &Verdict, codec: Codec) -> Result<Vec<u8>, ApiError> {
        thin(&self.batch, self.records, |row| verdict.keeps(row), codec, &intake.topic.config)
    }

    fn codec(&self) -> Result<Codec, ApiError> {
        Ok(self.batch.codec().map_err(BatchError::from)?)
    }
}

/// Rejects the whole batch, as Kafka does with an invalid record, and counts that for the producer.
fn reject(intake: &Intake<'_>, batch: BatchView<'_>, verdict: &Verdict) -> ApiError {
    let error = rejection(verdict);
    let records = verdict.bad().count() as u64;
    let rejected = intake.broker.plugins.rejected();
    rejected.add(&intake.topic.name, batch.producer_id(), records, intake.now_ms, &error.message);
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

/// No record is to blame, and the next try may go well: a code that clients try again after.
fn unable(error: StageError) -> ApiError {
    tracing::warn!("{error}");
    ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string())
}
