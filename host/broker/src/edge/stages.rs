//! The only file of the broker that calls stages.
//!
//! Everything here blocks while a plug-in computes: call it where that is allowed. Only filters that are known to be
//! quick may run on a worker that serves sockets ([`super::inline_policy`]).

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_record::{Codec, Header, Record, codec};
use millstream_stage::{Columns, Fault, Format, Isolated, Pinned, Plugin, Records, RecordsBuf, Stage, StageError};

use crate::compute_permits::aside;

/// The bytes of rows in one call; a larger row has a call of its own. A guest needs room for its own work beside its
/// copy of the columns.
const CALL_BYTES: usize = 1 << 20;

/// The additional bytes of a row: a timestamp, and the ends of a key, a value and headers.
const ROW_BYTES: usize = 8 + 3 * 4;

/// After this time a worker that serves sockets is released.
const AT_ONCE: Duration = Duration::from_millis(1);

/// In [`Verdict::decided`]: every stage keeps the row. A chain is far shorter.
const KEPT: u8 = u8::MAX;

/// The decisions of a chain of filters about the rows of a batch.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// By row: the index of the stage that decided against it, or [`KEPT`].
    decided: Vec<u8>,
    /// The rows on which a stage failed, in order.
    failed: Vec<FailedRow>,
    /// The versions that decided, by index.
    plugins: Vec<Plugin>,
}

/// A row on which a stage failed: it reported the row as bad, trapped, ran out of time, or returned an invalid
/// response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedRow {
    pub(crate) row: usize,
    /// The plug-in's message, or the host's about the plug-in. At most about 1 KiB, without control characters.
    pub(crate) message: String,
}

impl Verdict {
    /// Returns a verdict in which all rows are kept so far.
    fn new(chain: &[Pinned<'_>], rows: usize) -> Self {
        let plugins = chain.iter().map(|stage| stage.plugin().clone()).collect();
        Self { decided: vec![KEPT; rows], failed: Vec::new(), plugins }
    }

    /// Returns whether every stage keeps the row.
    pub(crate) fn keeps(&self, row: usize) -> bool {
        self.decided[row] == KEPT
    }

    /// Returns whether every stage keeps every row.
    pub(crate) fn keeps_all(&self) -> bool {
        self.decided.iter().all(|decided| *decided == KEPT)
    }

    /// Returns the rows that some stage does not keep, failed or not, in order.
    pub(crate) fn bad(&self) -> impl Iterator<Item = usize> {
        (0..self.decided.len()).filter(|row| !self.keeps(*row))
    }

    /// Returns the rows on which a stage failed, in order. The other dropped rows were rejected by a filter.
    pub(crate) fn failed(&self) -> &[FailedRow] {
        &self.failed
    }

    /// Returns the plug-in that decided against a row.
    pub(crate) fn plugin(&self, row: usize) -> Option<&Plugin> {
        self.plugins.get(usize::from(self.decided[row]))
    }

    /// Returns why a row is not kept, as a message.
    pub(crate) fn reason(&self, row: usize) -> String {
        let said = self.failed.binary_search_by_key(&row, |failed| failed.row);
        match (said, self.plugin(row)) {
            (Ok(at), _) => self.failed[at].message.clone(),
            (Err(_), Some(plugin)) => format!("rejected by filter {}", plugin.version_name()),
            (Err(_), None) => String::new(),
        }
    }
}

/// Pins the stages of a chain, each once, so that one version processes all of a batch.
pub(crate) fn pin(chain: &[Arc<Stage>]) -> Vec<Pinned<'_>> {
    chain.iter().map(|stage| stage.pin()).collect()
}

/// Rows as the columns that a chain reads. They are gathered during another walk over the batch: a second walk would
/// load each of its cache lines again.
#[derive(Debug)]
pub(crate) struct Gathered {
    columns: RecordsBuf,
    bytes: usize,
}

impl Gathered {
    /// Makes columns for this chain, with room for this number of rows.
    pub(crate) fn new(chain: &[Pinned<'_>], rows: usize) -> Self {
        Self { columns: RecordsBuf::with_capacity(read_by(chain), rows.min(CALL_BYTES / ROW_BYTES)), bytes: 0 }
    }

    /// Adds a row. Rows beyond the size of a call are not kept.
    #[inline]
    pub(crate) fn push(&mut self, row: &Record<'_>) {
        self.bytes = self.bytes.saturating_add(row_bytes(row, self.columns.columns()));
        if self.fits() {
            push(&mut self.columns, row);
        }
    }

    /// Returns whether all rows were kept.
    pub(crate) fn fits(&self) -> bool {
        self.bytes <= CALL_BYTES
    }
}

/// Runs a chain of filters on the rows that were gathered for it, all of which fit. Every stage gets the rows that the
/// earlier ones keep.
///
/// # Errors
/// A fault that no row causes, such as a host without room for another instance. Nothing is decided then.
pub(crate) fn filter_gathered(chain: &[Pinned<'_>], topic: &str, rows: Gathered) -> Result<Verdict, StageError> {
    let mut verdict = Verdict::new(chain, rows.columns.rows());
    Asking { chain, topic, begun: Instant::now() }.ask(rows.columns, 0, &mut verdict)?;
    Ok(verdict)
}

/// Runs [`filter_gathered`] on existing rows of any number.
///
/// # Errors
/// Those of [`filter_gathered`].
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

/// A batch that passes through a chain.
struct Asking<'a> {
    chain: &'a [Pinned<'a>],
    topic: &'a str,
    begun: Instant,
}

impl Asking<'_> {
    /// Decides the rows from the index `start` on.
    fn ask(&self, mut columns: RecordsBuf, start: usize, verdict: &mut Verdict) -> Result<(), StageError> {
        // The indexes of the rows that are left; `None` while all are.
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

/// Returns the columns that any of the stages reads.
fn read_by(chain: &[Pinned<'_>]) -> Columns {
    chain.iter().fold(Columns::NONE, |all, stage| all.union(stage.columns()))
}

/// Splits rows into runs that fit into a call.
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

/// Returns the bytes of a row in the wanted columns.
fn row_bytes(row: &Record<'_>, wanted: Columns) -> usize {
    let of = |wanted: bool, bytes: Option<&[u8]>| bytes.filter(|_| wanted).map_or(0, <[u8]>::len);
    let header = |header: Header<'_>| header.name.len() + of(true, header.value) + 8;
    let headers: usize = if wanted.headers { row.headers.map(header).sum() } else { 0 };
    ROW_BYTES + of(wanted.keys, row.key) + of(wanted.values, row.value) + headers
}

fn push(columns: &mut RecordsBuf, row: &Record<'_>) {
    let pushed = if columns.columns().headers {
        // A name that is not UTF-8 does not fit the columns: the stage gets it as Java would decode it.
        let names: Vec<_> = row.headers.map(|header| header.name_lossy()).collect();
        let headers = names.iter().zip(row.headers).map(|(name, header)| (&**name, header.value));
        columns.push(row.timestamp, row.key, row.value, headers)
    } else {
        columns.push(row.timestamp, row.key, row.value, [])
    };
    pushed.expect("no request is as large as a column may be");
}

/// The records of a batch after the compressor.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    /// The Kafka codec that reads them; `None` if only the plug-in does.
    pub(crate) codec: Option<Codec>,
    /// The version that packed them.
    pub(crate) plugin: Plugin,
}

/// Compresses the `rows` records of a batch. The result was decompressed and compared: by the plug-in itself and, if
/// its format is one of Kafka's, by the codec that every other client uses.
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

/// Decompresses `rows` records that a compressor has packed, to exactly `len` bytes.
///
/// # Errors
/// The stage failed, twice if it misbehaved, or returned another number of bytes.
pub(crate) fn decompress(stage: &Stage, packed: &[u8], rows: u32, len: usize) -> Result<Vec<u8>, StageError> {
    let stage = stage.pin();
    let bytes = twice(|| stage.decompress(packed, rows, len))?;
    if bytes.len() == len {
        return Ok(bytes);
    }
    let problem = format!("{} bytes of {len} come back", bytes.len());
    Err(StageError::of(stage.plugin(), Fault::Lossy { problem }))
}

/// Returns the Kafka codec whose format a compressor writes; `None` for a private format.
pub(crate) fn standard_codec(plugin: &Plugin) -> Option<Codec> {
    match plugin.description().format {
        Some(Format::Gzip) => Some(Codec::Gzip),
        Some(Format::Snappy) => Some(Codec::Snappy),
        Some(Format::Lz4) => Some(Codec::Lz4),
        Some(Format::Zstd) => Some(Codec::Zstd),
        Some(Format::Private(_)) | None => None,
    }
}

/// Makes a call, and retries it once if the plug-in misbehaved: its instance was thrown away, and the next one is
/// fresh.
fn twice<T>(call: impl Fn() -> Result<T, StageError>) -> Result<T, StageError> {
    match call() {
        Err(error) if error.fault.is_trap() => call(),
        outcome => outcome,
    }
}
