//! The one file of the client that calls stages.
//!
//! A call is bounded by the host's deadline (20 ms of CPU) but may well use it, and a thread that
//! computes for that long answers no socket. So whatever calls stages runs on tokio's blocking
//! threads, once for a whole chunk of rows: handing over costs some 10 us, a hundredth of that a row.
//! `block_in_place` would save the hand-over but stops every other future of the same task and does
//! not exist on a current-thread runtime. Without stages nothing is handed over.

use std::sync::Arc;

use bytes::Bytes;
use millstream_record::{BatchBuilder, BatchView, Codec, Header};
use millstream_stage::{
    Changed, Column, ColumnBuf, Columns, Fault, Format, Headers, Kind, Pinned, Plugin, Records, RecordsBuf, Stage,
    StageError,
};

use crate::consumer::record::ConsumerRecord;
use crate::error::Error;
use crate::producer::intake::{CHUNK_BYTES, CHUNK_ROWS, Chunk, ChunkRow};

/// How often the rows that a stage refuses are taken out before the rest is given up: a stage that
/// still finds new ones by then does not answer the same way twice.
const REFUSAL_ROUNDS: usize = 16;

/// Runs work that calls stages where it keeps no async worker from its sockets.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and drops this future as well.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The stages of a producer.
#[derive(Clone, Default)]
pub(crate) struct ProducerStages {
    pub(crate) serializer: Option<Arc<Stage>>,
    pub(crate) partitioner: Option<Arc<Stage>>,
    pub(crate) compressor: Option<Arc<Stage>>,
}

impl ProducerStages {
    /// Whether rows go through a stage before they come into batches.
    pub(crate) fn see_rows(&self) -> bool {
        self.serializer.is_some() || self.partitioner.is_some()
    }
}

/// A chunk that went through serializer and partitioner.
pub(crate) struct Staged {
    pub(crate) chunk: Chunk,
    changed: Changed,
    /// By row, if a stage chose.
    pub(crate) partitions: Option<Vec<u32>>,
    /// Rows that a stage refused; they are not in the chunk any more.
    pub(crate) refused: Vec<(ChunkRow, Error)>,
}

impl Staged {
    /// A chunk that no stage sees.
    pub(crate) fn plain(chunk: Chunk) -> Self {
        Self { chunk, changed: Changed::default(), partitions: None, refused: Vec::new() }
    }

    /// The rows as they are to be stored.
    pub(crate) fn records(&self) -> Records<'_> {
        overlay(self.chunk.records.as_records(), &self.changed)
    }

    /// Takes the rows that a stage calls bad out of the chunk.
    fn refuse(&mut self, error: &StageError, kind: Kind) -> Result<(), Error> {
        let Fault::Rows(bad) = &error.fault else { return Err(error.clone().into()) };
        let mut messages = vec![None; self.chunk.rows.len()];
        for row in bad {
            *messages.get_mut(row.row as usize).ok_or_else(|| Error::from(error.clone()))? = Some(&row.message);
        }
        if bad.is_empty() {
            return Err(error.clone().into());
        }
        let kept = |row: usize| messages[row].is_none();
        let records = select(&self.records(), kept)?;
        let mut rows = Vec::with_capacity(self.chunk.rows.len());
        for (row, message) in self.chunk.rows.iter().zip(&messages) {
            match message {
                None => rows.push(*row),
                Some(message) => self.refused.push((*row, row_error(error, message))),
            }
        }
        tracing::debug!(plugin = %error.plugin, kind = kind.name(), rows = bad.len(), "a stage refused rows");
        self.chunk.records = records;
        self.chunk.rows = rows;
        self.changed = Changed::default();
        Ok(())
    }
}

/// Serialises the rows of a chunk and chooses their partitions. `load`: the bytes that wait, by partition.
///
/// When a stage fails altogether, all rows that are left are refused.
pub(crate) fn stage_chunk(stages: &ProducerStages, topic: &str, partitions: u32, load: &[u64], chunk: Chunk) -> Staged {
    let mut staged = Staged::plain(chunk);
    let outcome = serialize(stages, topic, &mut staged)
        .and_then(|()| choose_partitions(stages, topic, partitions, load, &mut staged));
    if let Err(error) = outcome {
        let rows = std::mem::take(&mut staged.chunk.rows);
        staged.refused.extend(rows.into_iter().map(|row| (row, error.clone())));
    }
    staged
}

fn serialize(stages: &ProducerStages, topic: &str, staged: &mut Staged) -> Result<(), Error> {
    let Some(stage) = &stages.serializer else { return Ok(()) };
    let stage = stage.pin();
    for _ in 0..REFUSAL_ROUNDS {
        if staged.chunk.rows.is_empty() {
            return Ok(());
        }
        match stage.serialize(topic, &staged.chunk.records.as_records()) {
            Ok(changed) => {
                staged.changed = changed;
                return Ok(());
            }
            Err(error) => staged.refuse(&error, Kind::Serializer)?,
        }
    }
    Err(inconsistent(&stage))
}

fn choose_partitions(
    stages: &ProducerStages,
    topic: &str,
    partitions: u32,
    load: &[u64],
    staged: &mut Staged,
) -> Result<(), Error> {
    let Some(stage) = &stages.partitioner else { return Ok(()) };
    let stage = stage.pin();
    for _ in 0..REFUSAL_ROUNDS {
        // Where the caller chose every partition there is nothing to ask.
        if staged.chunk.rows.iter().all(|row| row.partition >= 0) {
            return Ok(());
        }
        match stage.partition(topic, partitions, load, &staged.records()) {
            Ok(chosen) => {
                staged.partitions = Some(chosen);
                return Ok(());
            }
            Err(error) => staged.refuse(&error, Kind::Partitioner)?,
        }
    }
    Err(inconsistent(&stage))
}

/// Writes a batch, through the compressor if there is one. What a compressor wrote is stored under the
/// standard codec whose format it writes.
pub(crate) fn build(stages: &ProducerStages, builder: BatchBuilder) -> Result<Vec<u8>, Error> {
    match &stages.compressor {
        None => builder.build().map_err(Error::Build),
        Some(stage) => {
            let stage = stage.pin();
            // That of this version: another one may write another.
            let codec = standard_codec(stage.plugin())?;
            let rows = u32::try_from(builder.count()).unwrap_or(u32::MAX);
            let payload = stage.compress(builder.payload(), rows)?;
            builder.build_with_payload(codec, &payload).map_err(Error::Build)
        }
    }
}

/// The codec whose format a compressor writes.
///
/// # Errors
/// A format of the plug-in's own: brokers and other clients would take its bytes for records.
pub(crate) fn standard_codec(plugin: &Plugin) -> Result<Codec, Error> {
    match &plugin.description().format {
        Some(Format::Gzip) => Ok(Codec::Gzip),
        Some(Format::Snappy) => Ok(Codec::Snappy),
        Some(Format::Lz4) => Ok(Codec::Lz4),
        Some(Format::Zstd) => Ok(Codec::Zstd),
        Some(Format::Private(format)) => Err(Error::Unusable {
            plugin: plugin.name().into(),
            reason: format!(
                "it writes a format of its own, {format:?}, which no broker and no other client can read; \
                 use a compressor that writes gzip, snappy, lz4 or zstd"
            )
            .into(),
        }),
        None => Err(Error::Unusable { plugin: plugin.name().into(), reason: "it is no compressor".into() }),
    }
}

fn overlay<'a>(records: Records<'a>, changed: &'a Changed) -> Records<'a> {
    Records {
        keys: changed.keys.as_ref().map(|column| column.as_column()).or(records.keys),
        values: changed.values.as_ref().map(|column| column.as_column()).or(records.values),
        ..records
    }
}

/// The headers of one row.
pub(crate) fn row_headers<'a>(
    headers: Option<Headers<'a>>,
    row: usize,
) -> impl Iterator<Item = Header<'a>> + Clone + use<'a> {
    let range = headers.map_or(0..0, |headers| {
        let start = if row == 0 { 0 } else { headers.ends[row - 1] };
        start as usize..headers.ends[row] as usize
    });
    range.filter_map(move |index| {
        let headers = headers?;
        Some(Header { name: headers.names.get(index)?, value: headers.values.get(index) })
    })
}

/// A copy of the rows that are kept.
fn select(records: &Records<'_>, kept: impl Fn(usize) -> bool) -> Result<RecordsBuf, Error> {
    let mut copy = RecordsBuf::new(Columns::ALL);
    let cell = |column: Option<Column<'_>>, row| column.and_then(|column| column.get(row)).map(<[u8]>::to_vec);
    for row in (0..records.rows as usize).filter(|row| kept(*row)) {
        let (key, value) = (cell(records.keys, row), cell(records.values, row));
        let headers: Vec<_> = row_headers(records.headers, row).collect();
        let named = headers.iter().map(|header| (std::str::from_utf8(header.name).unwrap_or_default(), header.value));
        copy.push(records.timestamps[row], key.as_deref(), value.as_deref(), named)
            .map_err(|_| Error::State("a chunk of more than 4 GiB"))?;
    }
    Ok(copy)
}

fn row_error(error: &StageError, message: &str) -> Error {
    let StageError { plugin, version, number, .. } = error;
    Error::Row { plugin: plugin.clone(), version: version.clone(), number: *number, message: message.into() }
}

fn inconsistent(stage: &Pinned<'_>) -> Error {
    Error::Unusable {
        plugin: stage.plugin().name().into(),
        reason: "it refuses other rows every time it is asked".into(),
    }
}

/// The stages of a consumer.
#[derive(Clone, Default)]
pub(crate) struct ConsumerStages {
    /// For the batches of the codec that it writes.
    pub(crate) decompressor: Option<Arc<Stage>>,
    /// In the order of the chain: each sees the rows that those before it kept.
    pub(crate) filters: Vec<Arc<Stage>>,
    pub(crate) deserializer: Option<Arc<Stage>>,
}

impl ConsumerStages {
    /// Whether rows go through a stage once they are unpacked.
    pub(crate) fn see_rows(&self) -> bool {
        !self.filters.is_empty() || self.deserializer.is_some()
    }

    /// Whether there is any stage.
    pub(crate) fn any(&self) -> bool {
        self.see_rows() || self.decompressor.is_some()
    }
}

/// Decompresses a batch with the stage, if there is one for this codec.
pub(crate) fn decompress(
    stages: &ConsumerStages,
    batch: &BatchView<'_>,
    codec: Codec,
    max: usize,
) -> Option<Result<Vec<u8>, Error>> {
    let stage = stages.decompressor.as_ref()?.pin();
    if standard_codec(stage.plugin()).ok() != Some(codec) {
        return None;
    }
    let rows = u32::try_from(batch.count()).unwrap_or(0);
    Some(stage.decompress(batch.payload(), rows, max).map_err(Error::from))
}

/// Filters and deserialises the rows of one batch. A failure comes with the offset of the row that it
/// is about, and ends the rows before it.
///
/// Each stage is pinned for the whole batch, so that one version sees all of it even where the batch
/// is so large that it takes several calls.
pub(crate) fn refine(
    stages: &ConsumerStages,
    topic: &str,
    mut rows: Vec<ConsumerRecord>,
) -> (Vec<ConsumerRecord>, Option<(i64, Error)>) {
    let mut failure = None;
    for stage in &stages.filters {
        let stage = stage.pin();
        apply(&mut rows, &mut failure, |part| {
            let kept = stage.filter(topic, &columns(part, stage.columns())?.as_records())?;
            let mut row = 0..;
            part.retain(|_| row.next().is_some_and(|row| kept.get(row)));
            Ok(())
        });
    }
    if let Some(stage) = &stages.deserializer {
        let stage = stage.pin();
        apply(&mut rows, &mut failure, |part| {
            let changed = stage.deserialize(topic, &columns(part, stage.columns())?.as_records())?;
            let cell = |column: &ColumnBuf, row| column.get(row).map(Bytes::copy_from_slice);
            for (index, row) in part.iter_mut().enumerate() {
                if let Some(keys) = &changed.keys {
                    row.key = cell(keys, index);
                }
                if let Some(values) = &changed.values {
                    row.value = cell(values, index);
                }
            }
            Ok(())
        });
    }
    (rows, failure)
}

/// Calls `stage` with runs of rows that fit a call. At a row that is bad, what comes after is cut off
/// and the rows before it are tried again without it.
fn apply(
    rows: &mut Vec<ConsumerRecord>,
    failure: &mut Option<(i64, Error)>,
    mut stage: impl FnMut(&mut Vec<ConsumerRecord>) -> Result<(), Error>,
) {
    let mut done = Vec::with_capacity(rows.len());
    let mut rest = std::mem::take(rows);
    while !rest.is_empty() {
        let tail = rest.split_off(run_length(&rest));
        let mut part = std::mem::replace(&mut rest, tail);
        while let Err(error) = stage(&mut part) {
            let (row, error) = first_bad_row(error);
            let row = row.min(part.len().saturating_sub(1));
            *failure = part.get(row).map(|bad| (bad.offset, at(bad, error)));
            part.truncate(row);
            rest.clear();
            if row == 0 {
                break;
            }
        }
        done.append(&mut part);
    }
    *rows = done;
}

/// How many of the rows go into one call.
fn run_length(rows: &[ConsumerRecord]) -> usize {
    let mut bytes = 0;
    let fits = rows.iter().take(CHUNK_ROWS).take_while(|row| {
        bytes += row.key.as_ref().map_or(0, Bytes::len) + row.value.as_ref().map_or(0, Bytes::len);
        bytes <= CHUNK_BYTES
    });
    fits.count().max(1)
}

/// The row that an error is about, 0 where it is about the whole call.
fn first_bad_row(error: Error) -> (usize, Error) {
    let Error::Stage(stage) = &error else { return (0, error) };
    match &stage.fault {
        Fault::Rows(bad) => match bad.iter().min_by_key(|bad| bad.row) {
            Some(bad) => (bad.row as usize, row_error(stage, &bad.message)),
            None => (0, error),
        },
        _ => (0, error),
    }
}

fn at(row: &ConsumerRecord, error: Error) -> Error {
    Error::Record { topic: row.topic.clone(), partition: row.partition, offset: row.offset, source: Box::new(error) }
}

fn columns(rows: &[ConsumerRecord], wanted: Columns) -> Result<RecordsBuf, Error> {
    let mut columns = RecordsBuf::new(wanted);
    for row in rows {
        // A name that is not UTF-8 does not fit the columns: the stage sees what Java would.
        let names: Vec<_> = match wanted.headers {
            true => row.headers.iter().map(|header| String::from_utf8_lossy(&header.name)).collect(),
            false => Vec::new(),
        };
        let headers = names.iter().zip(&row.headers).map(|(name, header)| (&**name, header.value.as_deref()));
        columns
            .push(row.timestamp, row.key.as_deref(), row.value.as_deref(), headers)
            .map_err(|_| Error::State("a batch of more than 4 GiB"))?;
    }
    Ok(columns)
}
