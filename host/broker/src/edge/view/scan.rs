//! What a view shows of its source: batches are read into memory, filtered, and written with their original offsets.
//!
//! A [`Scan`] is one partition of one request. It continues until the response is full or the request's time is over,
//! so that no record is scanned twice for one request. A batch that is shown completely is sent byte for byte. One that
//! is shown in part keeps its offsets, timestamps and producer fields ([`retain`]). One that is not shown leaves a gap.
//! A response that ends in a gap gets a control batch at the last scanned offset. Not every client moves past a gap
//! that nothing follows: KafkaJS requests the same offset for ever.
//!
//! A topic with batches in a private format is read in the same way, without any filter. Those batches are converted to
//! one of Kafka's codecs ([`super::decoders`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_log::AbortedTransaction;
use millstream_partition::{Partition, PartitionError};
use millstream_record::{
    BatchBuilder, BatchError, BatchView, Codec, CodecError, Record, Records, TimestampType, batches, patch, retain,
};
use millstream_stage::{Pinned, StageError};
use millstream_wire::ErrorCode;
use parking_lot::Mutex;

use crate::config::FailurePolicy;
use crate::edge::Edge;
use crate::edge::dead_letters::ViewDeadLetters;
use crate::edge::private_format::is_private;
use crate::edge::stages::{filter_rows, pin};
use crate::edge::topic_stages::ActiveStages;
use crate::edge::view::link::Layer;
use crate::edge::view::unreadable::{self, Treatment};
use crate::error::ApiError;

/// The key of a record in a control batch that ends a transaction: its version and, as the type, a commit.
const MARKER_KEY: [u8; 4] = [0, 0, 0, 1];

/// Its value: its version and the coordinator's epoch.
const MARKER_VALUE: [u8; 6] = [0; 6];

/// The limit for decompressed bytes in one step, as a multiple of the bytes read: well-compressed batches take longer.
const EXPANSION: usize = 4;

/// The most bytes that a batch may decompress to without waiting for the lock. Clients send batches of a megabyte at
/// most.
const DECOMPRESSED_BYTES: usize = 16 << 20;

/// The number of rows that are filtered together.
const ROWS_MAX: usize = 1 << 16;

/// Batches that decompress to more are processed one after the other, so that many of them take no more memory than
/// one.
static LARGE: Mutex<()> = Mutex::new(());

/// The progress of one partition of a request.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The requested offset.
    from: i64,
    /// Everything below was scanned.
    next: i64,
    /// Whether it ends at the last stable offset.
    is_committed: bool,
    /// The last stable offset of the last step.
    stable: i64,
    /// The aborted transactions in what was scanned, by the offset of their marker.
    aborted: BTreeMap<i64, AbortedTransaction>,
    /// The batches that are shown.
    shown: Vec<u8>,
    /// The offset after the last of them.
    shown_end: i64,
    /// Leader epoch and newest timestamp of the last scanned batch.
    last: (i32, i64),
    /// Dead letters that have to be written before the batches scanned since `unwritten` count.
    letters: Vec<ViewDeadLetters>,
    unwritten: Option<Mark>,
    progress: Progress,
}

/// The state of a scan before the first batch with dead letters that are not written yet.
#[derive(Debug)]
struct Mark {
    next: i64,
    shown_bytes: usize,
    shown_end: i64,
    last: (i32, i64),
}

/// The next step of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There may be more to scan.
    Behind,
    /// Everything was scanned.
    AtEnd,
    /// The next batch does not fit into the response.
    Full,
    /// It cannot continue in this request.
    Stopped(ApiError),
}

/// The limits of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepLimits {
    /// The bytes of the source to read, except for a first batch that is larger.
    pub(crate) read_bytes: usize,
    /// The most bytes that may be shown.
    pub(crate) shown_bytes: usize,
    /// Whether a first batch is shown even if it is larger than that.
    pub(crate) at_least_one: bool,
    /// The most bytes that a batch may decompress to.
    pub(crate) decompressed_bytes: usize,
    /// Whether the client's version allows zstd.
    pub(crate) zstd: bool,
}

/// The shown part of one batch.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Nothing,
    Whole,
    Part(Vec<u8>),
}

/// The result of scanning one batch.
struct Looked {
    shown: Shown,
    /// The offset after the scanned part.
    next: i64,
    /// The scanned bytes, decompressed.
    bytes: usize,
    /// Why the scan ends there.
    stop: Option<ApiError>,
    /// The dead letters of the scanned part.
    letters: Vec<ViewDeadLetters>,
}

impl Scan {
    /// Returns a scan that starts at an offset.
    pub(crate) fn new(from: i64, is_committed: bool) -> Self {
        Self {
            from,
            next: from,
            is_committed,
            stable: 0,
            aborted: BTreeMap::new(),
            shown: Vec::new(),
            shown_end: from,
            last: (-1, -1),
            letters: Vec::new(),
            unwritten: None,
            progress: Progress::Behind,
        }
    }

    /// Returns the aborted transactions in what was scanned, by their first offsets.
    pub(crate) fn aborted(&self) -> Vec<AbortedTransaction> {
        let mut aborted: Vec<_> = self.aborted.values().copied().collect();
        aborted.sort_unstable_by_key(|aborted| aborted.first_offset);
        aborted
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns the next offset to scan.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Returns the size of the shown batches so far.
    pub(crate) fn shown_bytes(&self) -> usize {
        self.shown.len()
    }

    /// Ends the scan for now if nothing is left to scan. A fetch that is registered with the partition is woken by new
    /// records.
    pub(crate) fn is_at_end(&mut self, source: &Partition) -> bool {
        let end = if self.is_committed { source.last_stable_offset() } else { source.high_watermark() };
        let is_at_end = source.is_online() && end == self.next;
        if is_at_end && self.progress == Progress::Behind {
            self.progress = Progress::AtEnd;
        }
        is_at_end
    }

    /// Continues: there may be more now.
    pub(crate) fn resume(&mut self) {
        if self.progress == Progress::AtEnd {
            self.progress = Progress::Behind;
        }
    }

    /// Ends the scan.
    pub(crate) fn stop(&mut self, error: ApiError) {
        self.progress = Progress::Stopped(error);
    }

    /// Returns the error for the client, if it gets nothing else: what was found before must reach it first.
    pub(crate) fn error(&self) -> Option<&ApiError> {
        match &self.progress {
            Progress::Stopped(error) if self.next == self.from => Some(error),
            _ => None,
        }
    }

    /// Returns the dead letters of the steps since the last call. They must be written before the shown records are
    /// sent. [`Self::letters_failed`] undoes the scan.
    pub(crate) fn take_letters(&mut self) -> Vec<ViewDeadLetters> {
        std::mem::take(&mut self.letters)
    }

    /// Records that the dead letters were written.
    pub(crate) fn letters_written(&mut self) {
        self.unwritten = None;
    }

    /// Returns to the state before the first batch with dead letters that could not be written, and ends the scan
    /// there.
    pub(crate) fn letters_failed(&mut self, error: ApiError) {
        if let Some(mark) = self.unwritten.take() {
            self.shown.truncate(mark.shown_bytes);
            (self.next, self.shown_end, self.last) = (mark.next, mark.shown_end, mark.last);
        }
        self.stop(error);
    }

    /// Scans a part of the source. Returns the scanned bytes, decompressed. Blocks for the disk and for the filters.
    pub(crate) fn step(&mut self, edge: &Edge, source: &Partition, layers: &[Layer], limits: &StepLimits) -> usize {
        self.try_step(edge, source, layers, limits).unwrap_or_else(|error| {
            self.stop(error);
            0
        })
    }

    fn try_step(
        &mut self,
        edge: &Edge,
        source: &Partition,
        layers: &[Layer],
        limits: &StepLimits,
    ) -> Result<usize, ApiError> {
        let read = match self.is_committed {
            true => source.read_committed(self.next, limits.read_bytes, true)?,
            false => source.read(self.next, limits.read_bytes, true)?,
        };
        let Some(slice) = read.slice else {
            self.progress = Progress::AtEnd;
            return Ok(0);
        };
        let aborted = match read.aborted {
            None if !layers.is_empty() => {
                source.reader()?.aborted_transactions(&slice).map_err(PartitionError::from)?
            }
            aborted => aborted.unwrap_or_default(),
        };
        self.stable = read.last_stable_offset;
        self.aborted.extend(aborted.into_iter().map(|aborted| (aborted.last_offset, aborted)));
        let storage = |error: std::io::Error| ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string());
        let read = slice.read_to_bytes().map_err(storage)?;
        let mut looked_at = 0;
        for batch in batches(&read) {
            let batch = batch?;
            let Looked { shown, next, bytes, stop, letters } = self.look(edge, source, &batch, layers, limits)?;
            looked_at += bytes;
            if self.counts(&batch) {
                self.keep(letters);
            }
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
        self.is_at_end(source);
        Ok(looked_at)
    }

    /// Returns whether the records of a batch count: its transaction, if it has one, is committed. Only then do they
    /// become dead letters, which no abort removes.
    fn counts(&self, batch: &BatchView<'_>) -> bool {
        let is_of = |aborted: &AbortedTransaction| {
            aborted.producer_id == batch.producer_id()
                && (aborted.first_offset..aborted.last_offset).contains(&batch.base_offset())
        };
        !batch.is_transactional() || batch.next_offset() <= self.stable && !self.aborted.values().any(is_of)
    }

    /// Keeps the dead letters of a batch that will be added.
    fn keep(&mut self, letters: Vec<ViewDeadLetters>) {
        if letters.is_empty() {
            return;
        }
        let (shown_bytes, last) = (self.shown.len(), self.last);
        self.unwritten.get_or_insert(Mark { next: self.next, shown_bytes, shown_end: self.shown_end, last });
        self.letters.extend(letters);
    }

    /// Adds the shown part of a batch, if there is room for it.
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

    /// Filters a batch.
    fn look(
        &self,
        edge: &Edge,
        source: &Partition,
        batch: &BatchView<'_>,
        layers: &[Layer],
        limits: &StepLimits,
    ) -> Result<Looked, ApiError> {
        let all =
            |shown| Looked { shown, next: batch.next_offset(), bytes: batch.size(), stop: None, letters: Vec::new() };
        let treated = |error: BatchError| {
            let treatment = unreadable::treat(batch, &error, source, layers)?;
            Ok(all(if treatment == Treatment::Shown { Shown::Whole } else { Shown::Nothing }))
        };
        if batch.is_control() {
            return Ok(all(Shown::Whole));
        }
        // Rewriting a batch would compute the right CRC for wrong bytes.
        batch.verify_crc().map_err(|error| {
            source.check_batch(batch.base_offset());
            unreadable::fail(batch, &error, source, layers)
        })?;
        let is_private = is_private(batch);
        if layers.is_empty() && is_private {
            return Ok(all(Shown::Part(edge.give_back(batch, limits.zstd)?)));
        }
        let unpacked = is_private.then(|| edge.unpack(batch, limits.decompressed_bytes)).transpose()?;
        let codec = match &unpacked {
            Some((_, Codec::Zstd)) if !limits.zstd => Codec::Lz4,
            Some((_, codec)) => *codec,
            None => match batch.codec() {
                Ok(codec) => codec,
                Err(error) => return treated(error.into()),
            },
        };
        if codec == Codec::Zstd && !limits.zstd {
            let message = "the source holds zstd, which needs a newer version of Fetch";
            return Err(ApiError::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
        }
        if layers.is_empty() {
            return Ok(all(if batch.count() == 0 { Shown::Nothing } else { Shown::Whole }));
        }
        let small = DECOMPRESSED_BYTES.min(limits.decompressed_bytes);
        let (_turn, records) = match &unpacked {
            Some((payload, _)) => (None, Ok(batch.records_in(payload))),
            None => match batch.records(small) {
                Err(BatchError::Codec(CodecError::TooLarge { .. })) if small < limits.decompressed_bytes => {
                    (Some(LARGE.lock()), batch.records(limits.decompressed_bytes))
                }
                records => (None, records),
            },
        };
        let filter = Filter { source, layers, from: self.from };
        let looked =
            records.map_err(Problem::from).and_then(|records| filter.batch(batch, &records, codec, is_private));
        match looked {
            Err(Problem::Batch(error)) => treated(error),
            Err(Problem::Api(error)) => Err(error),
            Ok(looked) => Ok(looked),
        }
    }

    /// Returns the records of the response.
    pub(crate) fn into_records(self) -> Bytes {
        let mut records = self.shown;
        if self.next > self.shown_end {
            records.extend(marker(self.next - 1, self.last));
        }
        Bytes::from(records)
    }
}

/// A fault of a batch, or of a filter.
enum Problem {
    Batch(BatchError),
    Api(ApiError),
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// The filters of one batch.
struct Filter<'a> {
    source: &'a Partition,
    layers: &'a [Layer],
    /// The requested offset.
    from: i64,
}

/// One layer, with the versions for the batch.
struct PinnedLayer<'a> {
    layer: &'a Layer,
    stages: &'a ActiveStages,
    chain: Vec<Pinned<'a>>,
}

impl Filter<'_> {
    /// Returns the shown part of a batch.
    fn batch(
        &self,
        batch: &BatchView<'_>,
        records: &Records<'_>,
        codec: Codec,
        is_private: bool,
    ) -> Result<Looked, Problem> {
        let layers = self.layers.iter().map(pin_layer).collect::<Result<Vec<_>, _>>()?;
        let (mut kept, mut count, mut stop, mut letters) = (Vec::new(), 0, None, Vec::new());
        let mut rows = records.iter();
        while stop.is_none() {
            // Row by row in pieces, so that a batch of very many tiny records takes no more memory than one of few.
            let mut piece = rows.by_ref().take(ROWS_MAX).collect::<Result<Vec<Record<'_>>, _>>()?;
            if piece.is_empty() {
                break;
            }
            count += piece.len();
            for layer in &layers {
                stop = self.narrow(&mut piece, layer, codec, &mut letters)?.or(stop);
            }
            kept.extend(piece.iter().map(|row| row.offset));
        }
        let (next, stop) = stop.map_or((batch.next_offset(), None), |(offset, error)| (offset, Some(error)));
        let looked = |shown| Ok(Looked { shown, next, bytes: records.payload().len(), stop, letters });
        if kept.len() == count && next == batch.next_offset() && !is_private {
            return looked(if count == 0 { Shown::Nothing } else { Shown::Whole });
        }
        // A client that asks from the middle of the batch has the records before. If only those were shown, KafkaJS
        // would treat the response as one that does not reach its offset.
        kept.retain(|offset| *offset >= self.from);
        if kept.is_empty() {
            return looked(Shown::Nothing);
        }
        let mut kept = kept.into_iter().peekable();
        let mut part = retain(batch, records, codec, None, |_, row| kept.next_if_eq(&row.offset).is_some())?;
        if next < batch.next_offset() {
            patch::set_last_offset(&mut part, next - 1);
        }
        looked(Shown::Part(part))
    }

    /// Removes the rows that a view does not show. If a filter fails on a row and the policy fails the fetch, the rows
    /// end there: returns its offset and the error.
    fn narrow(
        &self,
        rows: &mut Vec<Record<'_>>,
        layer: &PinnedLayer<'_>,
        codec: Codec,
        letters: &mut Vec<ViewDeadLetters>,
    ) -> Result<Option<(i64, ApiError)>, ApiError> {
        let PinnedLayer { layer, stages, chain } = layer;
        let topic = &layer.topic;
        // No record causes this, and the next fetch may succeed.
        let out_of_order = |error: StageError| {
            tracing::warn!("view {}: {error}", &**topic);
            ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string())
        };
        let verdict = filter_rows(chain, topic, rows).map_err(out_of_order)?;
        if stages.filter_policy == FailurePolicy::DeadLetter && !verdict.failed().is_empty() {
            letters.extend(ViewDeadLetters::of(layer, stages, self.source, (&rows[..], &verdict), codec));
        }
        let mut failed = verdict.failed().iter().peekable();
        let mut stop = None;
        let mut place = 0..rows.len();
        rows.retain(|row| {
            let Some(place) = place.next() else { return false };
            let failed = failed.next_if(|failed| failed.row == place);
            match (failed, stages.filter_policy) {
                _ if stop.is_some() => false,
                (Some(_), FailurePolicy::Pass) => true,
                (Some(failed), FailurePolicy::Fail) if row.offset >= self.from => {
                    let (view, offset) = (&**topic, row.offset);
                    let message = format!("the filter of view {view} fails at offset {offset}: {}", failed.message);
                    // A fetch response has no room for a message, so it is logged for operators.
                    tracing::warn!("{message}");
                    stop = Some((offset, ApiError::new(ErrorCode::CORRUPT_MESSAGE, message)));
                    false
                }
                _ => verdict.keeps(place),
            }
        });
        Ok(stop)
    }
}

fn pin_layer(layer: &Layer) -> Result<PinnedLayer<'_>, ApiError> {
    // Clients retry, and continue as soon as it is fixed.
    let out_of_service = |error: &ApiError| ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.message.clone());
    let stages = layer.stages.as_ref().map_err(out_of_service)?;
    Ok(PinnedLayer { layer, stages, chain: pin(&stages.filter) })
}

/// Returns a control batch without effect: the commit of no producer's transaction, at one offset.
fn marker(offset: i64, (leader_epoch, timestamp): (i32, i64)) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    builder.base_offset(offset).leader_epoch(leader_epoch).transactional(true).control(true);
    builder.append(timestamp, Some(&MARKER_KEY), Some(&MARKER_VALUE), []).expect("a few bytes");
    builder.build().expect("one small record")
}
