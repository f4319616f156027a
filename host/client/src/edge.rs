//! The one file of the client that calls stages.
//!
//! A call may take up to the host's deadline (20 ms of CPU), and a thread that computes for that long serves no
//! socket. So stages are called on tokio's blocking threads, once for a whole chunk of rows: the switch of threads
//! costs about 10 us per chunk. `block_in_place` would save the switch, but it stops all other futures of the same
//! task and does not work on a current-thread runtime. Without stages there is no switch.

use std::sync::Arc;

use bytes::Bytes;
use millstream_record::{BatchBuilder, BatchView, Codec, Header};
use millstream_stage::{
    Changed, Column, ColumnBuf, Columns, Fault, Format, Headers, Kind, Pinned, Plugin, Records, RecordsBuf, Stage,
    StageError,
};

use crate::consumer::record::ConsumerRecord;
use crate::error::Error;
use crate::producer::accumulator::{CHUNK_BYTES, CHUNK_ROWS, Chunk, ChunkRow};

/// The maximum rounds of removing rejected rows before the whole chunk fails. A stage that still rejects new rows
/// after that is not deterministic.
const REJECT_ROUNDS_MAX: usize = 16;

/// Runs work that calls stages on a blocking thread.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and drops this future too.
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
    /// Returns whether rows pass through a stage before they are added to batches.
    pub(crate) fn see_rows(&self) -> bool {
        self.serializer.is_some() || self.partitioner.is_some()
    }
}

/// A chunk after serializer and partitioner.
pub(crate) struct Staged {
    pub(crate) chunk: Chunk,
    changed: Changed,
    /// The partition of each row, if a stage chose it.
    pub(crate) partitions: Option<Vec<u32>>,
    /// Rows that a stage rejected; they are removed from the chunk.
    pub(crate) rejected: Vec<(ChunkRow, Error)>,
}

impl Staged {
    /// Wraps a chunk that needs no stage.
    pub(crate) fn plain(chunk: Chunk) -> Self {
        Self { chunk, changed: Changed::default(), partitions: None, rejected: Vec::new() }
    }

    /// Returns the rows as they will be stored.
    pub(crate) fn records(&self) -> Records<'_> {
        overlay(self.chunk.records.as_records(), &self.changed)
    }

    /// Removes the rows that a stage rejected from the chunk.
    fn reject(&mut self, error: &StageError, kind: Kind) -> Result<(), Error> {
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
                Some(message) => self.rejected.push((*row, row_error(error, message))),
            }
        }
        tracing::debug!(plugin = %error.plugin, kind = kind.name(), rows = bad.len(), "a stage rejected rows");
        self.chunk.records = records;
        self.chunk.rows = rows;
        self.changed = Changed::default();
        Ok(())
    }
}

/// Serializes the rows of a chunk and chooses their partitions. `load`: the waiting bytes of each partition.
///
/// If a stage fails as a whole, all remaining rows are rejected.
pub(crate) fn stage_chunk(stages: &ProducerStages, topic: &str, partitions: u32, load: &[u64], chunk: Chunk) -> Staged {
    let mut staged = Staged::plain(chunk);
    let outcome = serialize(stages, topic, &mut staged)
        .and_then(|()| choose_partitions(stages, topic, partitions, load, &mut staged));
    if let Err(error) = outcome {
        let rows = std::mem::take(&mut staged.chunk.rows);
        staged.rejected.extend(rows.into_iter().map(|row| (row, error.clone())));
    }
    staged
}

fn serialize(stages: &ProducerStages, topic: &str, staged: &mut Staged) -> Result<(), Error> {
    let Some(stage) = &stages.serializer else { return Ok(()) };
    let stage = stage.pin();
    for _ in 0..REJECT_ROUNDS_MAX {
        if staged.chunk.rows.is_empty() {
            return Ok(());
        }
        match stage.serialize(topic, &staged.chunk.records.as_records()) {
            Ok(changed) => {
                staged.changed = changed;
                return Ok(());
            }
            Err(error) => staged.reject(&error, Kind::Serializer)?,
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
    for _ in 0..REJECT_ROUNDS_MAX {
        // The caller chose every partition: there is nothing left to choose.
        if staged.chunk.rows.iter().all(|row| row.partition >= 0) {
            return Ok(());
        }
        match stage.partition(topic, partitions, load, &staged.records()) {
            Ok(chosen) => {
                staged.partitions = Some(chosen);
                return Ok(());
            }
            Err(error) => staged.reject(&error, Kind::Partitioner)?,
        }
    }
    Err(inconsistent(&stage))
}

/// Encodes a batch, with the compressor stage if there is one. The batch header names the standard codec whose format
/// the stage writes.
pub(crate) fn build(stages: &ProducerStages, builder: BatchBuilder) -> Result<Vec<u8>, Error> {
    match &stages.compressor {
        None => builder.build().map_err(Error::Build),
        Some(stage) => {
            let stage = stage.pin();
            // The codec of this version: another version may write another one.
            let codec = standard_codec(stage.plugin())?;
            let rows = u32::try_from(builder.count()).unwrap_or(u32::MAX);
            let payload = stage.compress(builder.payload(), rows)?;
            builder.build_with_payload(codec, &payload).map_err(Error::Build)
        }
    }
}

/// Returns the codec whose format a compressor writes.
///
/// # Errors
/// The plug-in writes a private format: brokers and other clients would read its bytes as records.
pub(crate) fn standard_codec(plugin: &Plugin) -> Result<Codec, Error> {
    match &plugin.description().format {
        Some(Format::Gzip) => Ok(Codec::Gzip),
        Some(Format::Snappy) => Ok(Codec::Snappy),
        Some(Format::Lz4) => Ok(Codec::Lz4),
        Some(Format::Zstd) => Ok(Codec::Zstd),
        Some(Format::Private(format)) => Err(Error::Unusable {
            plugin: plugin.name().into(),
            reason: format!(
                "it writes the private format {format:?}, which brokers and other clients cannot read; \
                 use a compressor that writes gzip, snappy, lz4 or zstd"
            )
            .into(),
        }),
        None => Err(Error::Unusable { plugin: plugin.name().into(), reason: "it is not a compressor".into() }),
    }
}

fn overlay<'a>(records: Records<'a>, changed: &'a Changed) -> Records<'a> {
    Records {
        keys: changed.keys.as_ref().map(|column| column.as_column()).or(records.keys),
        values: changed.values.as_ref().map(|column| column.as_column()).or(records.values),
        ..records
    }
}

/// Returns the headers of one row.
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

/// Copies the rows for which `kept` returns true.
fn select(records: &Records<'_>, kept: impl Fn(usize) -> bool) -> Result<RecordsBuf, Error> {
    let mut copy = RecordsBuf::new(Columns::ALL);
    let cell = |column: Option<Column<'_>>, row| column.and_then(|column| column.get(row)).map(<[u8]>::to_vec);
    for row in (0..records.rows as usize).filter(|row| kept(*row)) {
        let (key, value) = (cell(records.keys, row), cell(records.values, row));
        let headers: Vec<_> = row_headers(records.headers, row).collect();
        let named = headers.iter().map(|header| (std::str::from_utf8(header.name).unwrap_or_default(), header.value));
        copy.push(records.timestamps[row], key.as_deref(), value.as_deref(), named)
            .map_err(|_| Error::State("a chunk is larger than 4 GiB"))?;
    }
    Ok(copy)
}

fn row_error(error: &StageError, message: &str) -> Error {
    let StageError { plugin, version, number, .. } = error;
    Error::Row { plugin: plugin.clone(), version: version.clone(), number: *number, message: message.into() }
}

fn inconsistent(stage: &Pinned<'_>) -> Error {
    Error::Unusable { plugin: stage.plugin().name().into(), reason: "it rejects different rows in every call".into() }
}

/// The stages of a consumer.
#[derive(Clone, Default)]
pub(crate) struct ConsumerStages {
    /// Decompresses batches of the codec that it writes.
    pub(crate) decompressor: Option<Arc<Stage>>,
    /// In the order of the chain: each one gets the rows that the earlier ones kept.
    pub(crate) filters: Vec<Arc<Stage>>,
    pub(crate) deserializer: Option<Arc<Stage>>,
}

impl ConsumerStages {
    /// Returns whether decoded rows pass through a stage.
    pub(crate) fn see_rows(&self) -> bool {
        !self.filters.is_empty() || self.deserializer.is_some()
    }

    /// Returns whether there is any stage.
    pub(crate) fn any(&self) -> bool {
        self.see_rows() || self.decompressor.is_some()
    }
}

/// Decompresses a batch with the stage for this codec, if there is one.
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

/// Filters and deserializes the rows of one batch. Returns the rows before the first failure, and the failure with
/// the offset of its row.
///
/// Each stage is pinned for the whole batch, so that one version processes all of it, even in several calls.
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

/// Calls `stage` with as many rows at once as fit into a call. At a rejected row, that row and all later ones are
/// dropped, and the rows before it are processed again without it.
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

/// Returns how many of the rows fit into one call.
fn run_length(rows: &[ConsumerRecord]) -> usize {
    let mut bytes = 0;
    let fits = rows.iter().take(CHUNK_ROWS).take_while(|row| {
        bytes += row.key.as_ref().map_or(0, Bytes::len) + row.value.as_ref().map_or(0, Bytes::len);
        bytes <= CHUNK_BYTES
    });
    fits.count().max(1)
}

/// Returns the first row that an error names; 0 for an error about the whole call.
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
    Error::Record {
        topic: row.topic.clone(),
        partition: row.partition,
        offset: row.offset,
        next_offset: row.offset + 1,
        source: Box::new(error),
    }
}

fn columns(rows: &[ConsumerRecord], wanted: Columns) -> Result<RecordsBuf, Error> {
    let mut columns = RecordsBuf::new(wanted);
    for row in rows {
        // The columns need UTF-8: the stage gets the name as Java would decode it.
        let names: Vec<_> = match wanted.headers {
            true => row.headers.iter().map(|header| String::from_utf8_lossy(&header.name)).collect(),
            false => Vec::new(),
        };
        let headers = names.iter().zip(&row.headers).map(|(name, header)| (&**name, header.value.as_deref()));
        columns
            .push(row.timestamp, row.key.as_deref(), row.value.as_deref(), headers)
            .map_err(|_| Error::State("a batch is larger than 4 GiB"))?;
    }
    Ok(columns)
}
