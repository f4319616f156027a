//! What a view shows of its source: batches read into memory, put through the filters, written with the offsets they had.
//!
//! A [`Scan`] is one partition of one request. It goes on where it stands until the answer is full or the request's time is
//! over, so that no record is looked at twice for one request. A batch that is shown whole goes out byte for byte; one that is
//! shown in part keeps its offsets, timestamps and producer fields ([`retain`]); one that is not shown at all leaves a gap. An
//! answer that ends in a gap gets a control batch at the last offset scanned, since not every client moves past a gap that
//! nothing follows: KafkaJS asks for the same offset for ever.
//!
//! A topic with batches in a private format is read in the same way, without any filter: those batches are given back in one
//! of Kafka's codecs ([`super::decoders`]).

use bytes::Bytes;
use millstream_record::{
    BatchBuilder, BatchError, BatchView, Codec, CodecError, Record, Records, TimestampType, batches, patch, retain,
};
use millstream_stage::StageError;
use millstream_wire::{ErrorCode, Str};
use parking_lot::Mutex;

use super::private::is_private;
use super::stages::filter_rows;
use crate::attachments::Attachments;
use crate::broker::Broker;
use crate::config::FailurePolicy;
use crate::error::ApiError;
use crate::partition::Partition;
use crate::views::Layer;

/// The key of a record in a control batch that ends a transaction: its version and, as the type, a commit.
const MARKER_KEY: [u8; 4] = [0, 0, 0, 1];

/// Its value: its version and the coordinator's epoch.
const MARKER_VALUE: [u8; 6] = [0; 6];

/// How many times as many bytes as are read may come out of it in one step: what is well compressed takes longer.
const EXPANSION: usize = 4;

/// How much a batch may decompress to without waiting for a turn, bytes. Clients send batches of a megabyte at most.
const DECOMPRESSED_BYTES: usize = 16 << 20;

/// Batches that decompress to more have their turn one after the other, so that many of them take no more memory than one.
static LARGE: Mutex<()> = Mutex::new(());

/// How far one partition of a request has got.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The offset that the client asked for.
    from: i64,
    /// Everything below has been looked at.
    next: i64,
    /// The batches that are shown.
    shown: Vec<u8>,
    /// The offset after the last of them.
    shown_end: i64,
    /// Leader epoch and newest timestamp of the last batch that was looked at.
    last: (i32, i64),
    progress: Progress,
}

/// What a scan does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There may be more to look at.
    Behind,
    /// Everything that is there was looked at.
    AtEnd,
    /// The next batch does not fit into the answer.
    Full,
    /// It cannot go on in this request.
    Stopped(ApiError),
}

/// What one step may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepLimits {
    /// How much of the source is read, but for a first batch that is larger. Bytes.
    pub(crate) read_bytes: usize,
    /// How large what is shown may become, bytes.
    pub(crate) shown_bytes: usize,
    /// Whether a first batch is shown even if it is larger than that.
    pub(crate) at_least_one: bool,
    /// How much a batch may decompress to, bytes.
    pub(crate) decompressed_bytes: usize,
    /// Whether the client's version can carry zstd.
    pub(crate) zstd: bool,
}

/// What is shown of one batch.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Nothing,
    Whole,
    Part(Vec<u8>),
}

/// What came of looking at one batch.
struct Looked {
    shown: Shown,
    /// The offset after what was looked at.
    next: i64,
    /// How many bytes that was, decompressed.
    bytes: usize,
    /// Why the scan ends there.
    stop: Option<ApiError>,
}

impl Scan {
    /// A scan that has looked at nothing.
    pub(crate) fn new(from: i64) -> Self {
        Self { from, next: from, shown: Vec::new(), shown_end: from, last: (-1, -1), progress: Progress::Behind }
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The offset that is to be looked at next.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Size of the batches that are shown so far.
    pub(crate) fn shown_bytes(&self) -> usize {
        self.shown.len()
    }

    /// There may be more than there was.
    pub(crate) fn resume(&mut self) {
        if self.progress == Progress::AtEnd {
            self.progress = Progress::Behind;
        }
    }

    /// Ends the scan.
    pub(crate) fn stop(&mut self, error: ApiError) {
        self.progress = Progress::Stopped(error);
    }

    /// The error that the client gets: only where it gets nothing else, for what was found before has to reach it first.
    pub(crate) fn error(&self) -> Option<&ApiError> {
        match &self.progress {
            Progress::Stopped(error) if self.next == self.from => Some(error),
            _ => None,
        }
    }

    /// Looks at a piece of the source. Gives how many bytes that was, decompressed. Blocks for the disk and for the filters.
    pub(crate) fn step(&mut self, broker: &Broker, source: &Partition, layers: &[Layer], limits: &StepLimits) -> usize {
        self.try_step(broker, source, layers, limits).unwrap_or_else(|error| {
            self.stop(error);
            0
        })
    }

    fn try_step(
        &mut self,
        broker: &Broker,
        source: &Partition,
        layers: &[Layer],
        limits: &StepLimits,
    ) -> Result<usize, ApiError> {
        let Some(slice) = source.read(self.next, limits.read_bytes, true)?.slice else {
            self.progress = Progress::AtEnd;
            return Ok(0);
        };
        let storage = |error: std::io::Error| ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string());
        let read = slice.read_to_bytes().map_err(storage)?;
        let mut looked_at = 0;
        for batch in batches(&read) {
            let batch = batch?;
            let given =
                is_private(&batch).then(|| broker.decoders.give_back(broker, &batch, limits.zstd)).transpose()?;
            let batch = given.as_deref().map_or(Ok(batch), BatchView::parse)?;
            let Looked { shown, next, bytes, stop } = self.look(&batch, layers, limits)?;
            looked_at += bytes;
            if !self.add(&batch, &shown, limits) {
                self.progress = Progress::Full;
                break;
            }
            self.next = next;
            self.last = (batch.leader_epoch(), batch.max_timestamp());
            if let Some(error) = stop {
                self.stop(error);
                break;
            }
            if looked_at > EXPANSION * limits.read_bytes {
                break;
            }
        }
        Ok(looked_at)
    }

    /// Adds what is shown of a batch, if there is room for it.
    fn add(&mut self, batch: &BatchView<'_>, shown: &Shown, limits: &StepLimits) -> bool {
        let bytes = match shown {
            Shown::Nothing => return true,
            Shown::Whole => batch.bytes(),
            Shown::Part(bytes) => bytes,
        };
        let is_first = limits.at_least_one && self.shown.is_empty();
        if self.shown.len() + bytes.len() > limits.shown_bytes && !is_first {
            return false;
        }
        self.shown.extend_from_slice(bytes);
        self.shown_end = batch.next_offset();
        true
    }

    /// Puts a batch through the filters.
    fn look(&self, batch: &BatchView<'_>, layers: &[Layer], limits: &StepLimits) -> Result<Looked, ApiError> {
        let all = |shown| Looked { shown, next: batch.next_offset(), bytes: batch.size(), stop: None };
        if batch.is_control() {
            return Ok(all(Shown::Whole));
        }
        // What is written anew would get the right CRC for the wrong bytes.
        batch.verify_crc()?;
        let codec = batch.codec().map_err(BatchError::from)?;
        if codec == Codec::Zstd && !limits.zstd {
            let message = "the source holds zstd, which needs a newer version of Fetch";
            return Err(ApiError::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
        }
        let small = DECOMPRESSED_BYTES.min(limits.decompressed_bytes);
        let (_turn, records) = match batch.records(small) {
            Err(BatchError::Codec(CodecError::TooLarge { .. })) if small < limits.decompressed_bytes => {
                (Some(LARGE.lock()), batch.records(limits.decompressed_bytes))
            }
            records => (None, records),
        };
        let rows = records.as_ref().map_err(BatchError::clone).and_then(|records| {
            let rows = records.iter().collect::<Result<Vec<_>, _>>()?;
            Ok((records, rows))
        });
        match rows {
            Ok((records, rows)) => self.filter(batch, codec, records, rows, layers),
            Err(error) => undecodable(batch, error.into(), layers).map(all),
        }
    }

    fn filter(
        &self,
        batch: &BatchView<'_>,
        codec: Codec,
        records: &Records<'_>,
        mut rows: Vec<Record<'_>>,
        layers: &[Layer],
    ) -> Result<Looked, ApiError> {
        let (count, bytes) = (rows.len(), records.payload().len());
        let mut stop = None;
        for Layer { topic, stages } in layers {
            // Clients come again, and go on as soon as it is mended.
            let out_of_service =
                |error: &ApiError| ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.message.clone());
            let stages = stages.as_ref().map_err(out_of_service)?;
            if let Some(failed) = narrow(&mut rows, self.from, topic, stages)? {
                stop = Some(failed);
            }
        }
        let next = stop.as_ref().map_or(batch.next_offset(), |(offset, _)| *offset);
        let stop = stop.map(|(_, error)| error);
        if rows.len() == count {
            let shown = if count == 0 { Shown::Nothing } else { Shown::Whole };
            return Ok(Looked { shown, next, bytes, stop });
        }
        // Who asks from the middle of the batch has what was before. Were it shown again, with nothing behind it, KafkaJS
        // would take the answer for one that does not reach its offset.
        rows.retain(|row| row.offset >= self.from);
        if rows.is_empty() {
            return Ok(Looked { shown: Shown::Nothing, next, bytes, stop });
        }
        let mut kept = rows.iter().map(|row| row.offset).peekable();
        let mut part = retain(batch, records, codec, None, |_, row| kept.next_if_eq(&row.offset).is_some())?;
        if next < batch.next_offset() {
            patch::set_last_offset(&mut part, next - 1);
        }
        Ok(Looked { shown: Shown::Part(part), next, bytes, stop })
    }

    /// The answer's records.
    pub(crate) fn into_records(self) -> Bytes {
        let mut records = self.shown;
        if self.next > self.shown_end {
            records.extend(marker(self.next - 1, self.last));
        }
        Bytes::from(records)
    }
}

/// Takes the rows out that the filters of a view do not show. A row on which a filter failed and that fails the fetch ends
/// them: its offset, and the error.
fn narrow(
    rows: &mut Vec<Record<'_>>,
    from: i64,
    topic: &Str,
    stages: &Attachments,
) -> Result<Option<(i64, ApiError)>, ApiError> {
    // No record is to blame, and the next fetch may find it mended.
    let out_of_order = |error: StageError| {
        tracing::warn!("view {}: {error}", &**topic);
        ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string())
    };
    let verdict = filter_rows(&stages.filter, topic, rows).map_err(out_of_order)?;
    let mut failed = verdict.failed().iter().peekable();
    let mut stop = None;
    let mut place = 0..rows.len();
    rows.retain(|row| {
        let Some(place) = place.next() else { return false };
        let failed = failed.next_if(|failed| failed.row == place);
        match (failed, stages.filter_policy) {
            _ if stop.is_some() => false,
            (Some(_), FailurePolicy::Pass) => true,
            (Some(failed), FailurePolicy::Fail) if row.offset >= from => {
                let message =
                    format!("the filter of view {} fails at offset {}: {}", &**topic, row.offset, failed.message);
                // The protocol has no room for the words: who runs the broker finds them here.
                tracing::warn!("{message}");
                stop = Some((row.offset, ApiError::new(ErrorCode::CORRUPT_MESSAGE, message)));
                false
            }
            _ => verdict.keeps(place),
        }
    });
    Ok(stop)
}

/// What is shown of a batch that cannot be read: nobody looks into what a producer has compressed before it is stored.
fn undecodable(batch: &BatchView<'_>, error: ApiError, layers: &[Layer]) -> Result<Shown, ApiError> {
    let policy = match layers.first() {
        Some(Layer { stages: Ok(stages), .. }) => stages.filter_policy,
        _ => FailurePolicy::Fail,
    };
    match policy {
        FailurePolicy::Fail => Err(error),
        FailurePolicy::Pass => Ok(Shown::Whole),
        FailurePolicy::Skip | FailurePolicy::DeadLetter => {
            tracing::warn!(offset = batch.base_offset(), "a view does not show a batch that cannot be read: {error}");
            Ok(Shown::Nothing)
        }
    }
}

/// A control batch that says nothing: the commit of no producer's transaction, at one offset.
fn marker(offset: i64, (leader_epoch, timestamp): (i32, i64)) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.base_offset(offset).leader_epoch(leader_epoch).transactional(true).control(true);
    builder.append(timestamp, Some(&MARKER_KEY), Some(&MARKER_VALUE), []).expect("a few bytes");
    builder.build().expect("one small record")
}
