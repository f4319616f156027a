//! The one file of the broker that calls stages.
//!
//! All of it blocks for as long as a plug-in computes: call it where that is allowed. The filters alone may be called
//! on a worker that serves sockets, if they are known to be quick ([`super::pace`]).

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_record::{Codec, Header, Record, codec};
use millstream_stage::{Columns, Fault, Format, Isolated, Pinned, Plugin, Records, RecordsBuf, Stage, StageError};

use crate::compute_permits::aside;

/// The bytes of rows that go into one call; a larger row has a call of its own. A guest needs room for its own work
/// beside its copy of the columns.
const CALL_BYTES: usize = 1 << 20;

/// What a row takes beside its bytes: a timestamp, and the ends of a key, a value and headers.
const ROW_BYTES: usize = 8 + 3 * 4;

/// After so long no worker that serves sockets is kept any longer.
const AT_ONCE: Duration = Duration::from_millis(1);

/// In [`Verdict::decided`]: every stage keeps the row. A chain is far shorter.
const KEPT: u8 = u8::MAX;

/// What a chain of filters says about the rows of a batch.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// By row: the place in the chain of the stage that decided against it, or [`KEPT`].
    decided: Vec<u8>,
    /// The rows on which a stage failed, in order.
    failed: Vec<FailedRow>,
    /// The versions that decided, by place.
    plugins: Vec<Plugin>,
}

/// A row on which a stage failed: it called the row bad, or it trapped, ran out of time or answered nonsense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedRow {
    pub(crate) row: usize,
    /// In the plug-in's words, or the host's about the plug-in. At most about 1 KiB, without control characters.
    pub(crate) message: String,
}

impl Verdict {
    /// So many rows, which everybody keeps so far.
    fn new(chain: &[Pinned<'_>], rows: usize) -> Self {
        let plugins = chain.iter().map(|stage| stage.plugin().clone()).collect();
        Self { decided: vec![KEPT; rows], failed: Vec::new(), plugins }
    }

    /// Whether every stage keeps the row.
    pub(crate) fn keeps(&self, row: usize) -> bool {
        self.decided[row] == KEPT
    }

    /// Whether every stage keeps every row.
    pub(crate) fn keeps_all(&self) -> bool {
        self.decided.iter().all(|decided| *decided == KEPT)
    }

    /// The rows that some stage does not keep, failed or not, in order.
    pub(crate) fn bad(&self) -> impl Iterator<Item = usize> {
        (0..self.decided.len()).filter(|row| !self.keeps(*row))
    }

    /// The rows on which a stage failed, in order. All others that are not kept, a stage said no to.
    pub(crate) fn failed(&self) -> &[FailedRow] {
        &self.failed
    }

    /// The plug-in that decided against a row.
    pub(crate) fn plugin(&self, row: usize) -> Option<&Plugin> {
        self.plugins.get(usize::from(self.decided[row]))
    }

    /// Why a row is not kept, in words.
    pub(crate) fn reason(&self, row: usize) -> String {
        let said = self.failed.binary_search_by_key(&row, |failed| failed.row);
        match (said, self.plugin(row)) {
            (Ok(at), _) => self.failed[at].message.clone(),
            (Err(_), Some(plugin)) => format!("rejected by filter {}", plugin.version_name()),
            (Err(_), None) => String::new(),
        }
    }
}

/// Pins the stages of a chain, each once, so that one version sees all of a batch.
pub(crate) fn pin(chain: &[Arc<Stage>]) -> Vec<Pinned<'_>> {
    chain.iter().map(|stage| stage.pin()).collect()
}

/// Rows as the columns that a chain reads, gathered while somebody else walks over them: a second walk over a batch is
/// a second look into each of its cache lines.
#[derive(Debug)]
pub(crate) struct Gathered {
    columns: RecordsBuf,
    bytes: usize,
}

impl Gathered {
    /// For this chain, with room for so many rows.
    pub(crate) fn new(chain: &[Pinned<'_>], rows: usize) -> Self {
        Self { columns: RecordsBuf::with_capacity(read_by(chain), rows.min(CALL_BYTES / ROW_BYTES)), bytes: 0 }
    }

    /// Adds a row. What is more than a call takes is not kept.
    #[inline]
    pub(crate) fn push(&mut self, row: &Record<'_>) {
        self.bytes = self.bytes.saturating_add(row_bytes(row, self.columns.columns()));
        if self.fits() {
            push(&mut self.columns, row);
        }
    }

    /// Whether all rows were kept.
    pub(crate) fn fits(&self) -> bool {
        self.bytes <= CALL_BYTES
    }
}

/// Asks a chain of filters about the rows that were gathered for it, which fit. Every stage sees the rows that those
/// before it keep.
///
/// # Errors
/// A fault that no row is to blame for: the host has no room for another instance, say. Nothing is decided then.
pub(crate) fn filter_gathered(chain: &[Pinned<'_>], topic: &str, rows: Gathered) -> Result<Verdict, StageError> {
    let mut verdict = Verdict::new(chain, rows.columns.rows());
    Asking { chain, topic, begun: Instant::now() }.ask(rows.columns, 0, &mut verdict)?;
    Ok(verdict)
}

/// [`filter_gathered`] of rows that are there already, however many.
///
/// # Errors
/// As those of [`filter_gathered`].
pub(crate) fn filter_rows(chain: &[Pinned<'_>], topic: &str, rows: &[Record<'_>]) -> Result<Verdict, StageError> {
    let mut verdict = Verdict::new(chain, rows.len());
    let asking = Asking { chain, topic, begun: Instant::now() };
    let wanted = read_by(chain);
    for run in runs(rows, wanted) {
        let mut columns = RecordsBuf::with_capacity(wanted, run.len());
        rows[run.clone()].iter().for_each(|row| push(&mut columns, row));
        asking.ask(columns, run.start, &mut verdict)?;
    }
    Ok(verdict)
}

/// A batch on its way through a chain.
struct Asking<'a> {
    chain: &'a [Pinned<'a>],
    topic: &'a str,
    begun: Instant,
}

impl Asking<'_> {
    /// Asks about the rows from the place `start` on.
    fn ask(&self, mut columns: RecordsBuf, start: usize, verdict: &mut Verdict) -> Result<(), StageError> {
        // The places of the rows that are left; none while all are.
        let mut left: Option<Vec<usize>> = None;
        for (at, stage) in self.chain.iter().enumerate() {
            let Isolated { keep, bad } = self.call(stage, &columns.as_records())?;
            if keep.count() == columns.rows() {
                continue;
            }
            let place = |row: u32| left.as_ref().map_or(start + row as usize, |left| left[row as usize]);
            verdict.failed.extend(bad.into_iter().map(|bad| FailedRow { row: place(bad.row), message: bad.message }));
            let (kept, gone): (Vec<u32>, Vec<u32>) =
                (0..columns.rows() as u32).partition(|row| keep.get(*row as usize));
            gone.into_iter().for_each(|row| verdict.decided[place(row)] = at as u8);
            let rest = &self.chain[at + 1..];
            if kept.is_empty() || rest.is_empty() {
                break;
            }
            left = Some(kept.iter().copied().map(place).collect());
            columns = columns.as_records().restricted(read_by(rest)).pick(&kept);
        }
        verdict.failed.sort_unstable_by_key(|failed| failed.row);
        Ok(())
    }

    fn call(&self, stage: &Pinned<'_>, rows: &Records<'_>) -> Result<Isolated, StageError> {
        let first = || stage.filter_first(self.topic, rows);
        let asked = if self.begun.elapsed() < AT_ONCE { first() } else { aside(first) };
        match asked {
            Ok(keep) => Ok(Isolated { keep, bad: Vec::new() }),
            Err(error) => aside(|| stage.filter_search(self.topic, rows, error)),
        }
    }
}

/// The columns that any of the stages reads.
fn read_by(chain: &[Pinned<'_>]) -> Columns {
    chain.iter().fold(Columns::NONE, |all, stage| all.union(stage.columns()))
}

/// Runs of rows that fit a call.
fn runs(rows: &[Record<'_>], wanted: Columns) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rows[start..].iter().take_while(|row| {
            bytes += row_bytes(row, wanted);
            bytes <= CALL_BYTES
        });
        let count = fits.count().max(1).min(rows.len() - start);
        let run = start..start + count;
        start += count;
        (count > 0).then_some(run)
    })
}

/// The bytes of a row in the columns that are wanted.
fn row_bytes(row: &Record<'_>, wanted: Columns) -> usize {
    let of = |wanted: bool, bytes: Option<&[u8]>| bytes.filter(|_| wanted).map_or(0, <[u8]>::len);
    let header = |header: Header<'_>| header.name.len() + of(true, header.value) + 8;
    let headers: usize = if wanted.headers { row.headers.map(header).sum() } else { 0 };
    ROW_BYTES + of(wanted.keys, row.key) + of(wanted.values, row.value) + headers
}

fn push(columns: &mut RecordsBuf, row: &Record<'_>) {
    let pushed = if columns.columns().headers {
        // A name that is not UTF-8 does not fit the columns: the stage sees what Java would.
        let names: Vec<_> = row.headers.map(|header| header.name_lossy()).collect();
        let headers = names.iter().zip(row.headers).map(|(name, header)| (&**name, header.value));
        columns.push(row.timestamp, row.key, row.value, headers)
    } else {
        columns.push(row.timestamp, row.key, row.value, [])
    };
    pushed.expect("no request is as large as a column may be");
}

/// The records of a batch as a compressor has packed them.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    /// Kafka's codec that reads them; none where only the plug-in does.
    pub(crate) codec: Option<Codec>,
    /// The version that packed them.
    pub(crate) plugin: Plugin,
}

/// Compresses the `rows` records of a batch. What comes back was read back and is what was given: by the plug-in
/// itself, and where its format is one of Kafka's, by the codec that every other client uses.
///
/// # Errors
/// The stage failed, twice if it misbehaved.
pub(crate) fn compress(stage: &Stage, payload: &[u8], rows: u32) -> Result<Packed, StageError> {
    let stage = stage.pin();
    let bytes = twice(|| stage.compress(payload, rows))?;
    let plugin = stage.plugin().clone();
    let codec = standard_codec(&plugin);
    if let Some(codec) = codec {
        let lossy = |problem: String| StageError::of(&plugin, Fault::Lossy { problem });
        match codec::decompress(codec, &bytes, payload.len()) {
            Ok(back) if back == payload => {}
            Ok(_) => return Err(lossy(format!("read as {codec}, other bytes come back"))),
            Err(error) => return Err(lossy(error.to_string())),
        }
    }
    Ok(Packed { bytes, codec, plugin })
}

/// Decompresses what a compressor has packed of `rows` records, to exactly `len` bytes.
///
/// # Errors
/// The stage failed, twice if it misbehaved, or gave another number of bytes.
pub(crate) fn decompress(stage: &Stage, packed: &[u8], rows: u32, len: usize) -> Result<Vec<u8>, StageError> {
    let stage = stage.pin();
    let bytes = twice(|| stage.decompress(packed, rows, len))?;
    if bytes.len() == len {
        return Ok(bytes);
    }
    let problem = format!("{} bytes of {len} come back", bytes.len());
    Err(StageError::of(stage.plugin(), Fault::Lossy { problem }))
}

/// Kafka's codec whose format a compressor writes; none for a format of its own.
pub(crate) fn standard_codec(plugin: &Plugin) -> Option<Codec> {
    match plugin.description().format {
        Some(Format::Gzip) => Some(Codec::Gzip),
        Some(Format::Snappy) => Some(Codec::Snappy),
        Some(Format::Lz4) => Some(Codec::Lz4),
        Some(Format::Zstd) => Some(Codec::Zstd),
        Some(Format::Private(_)) | None => None,
    }
}

/// A call that misbehaved is tried once more: its instance was thrown away, and the next one is fresh.
fn twice<T>(call: impl Fn() -> Result<T, StageError>) -> Result<T, StageError> {
    match call() {
        Err(error) if error.fault.is_trap() => call(),
        outcome => outcome,
    }
}
