//! The one file of the broker that calls stages.
//!
//! All of it blocks for as long as a plug-in computes: call it where that is allowed, never on a worker that serves sockets.

use std::ops::Range;
use std::sync::Arc;

use millstream_record::{Codec, Record, codec};
use millstream_stage::{Columns, Fault, Format, Isolated, Pinned, Plugin, RecordsBuf, Stage, StageError};

/// The bytes of rows that go into one call; a larger row has a call of its own. A guest needs room for its own work beside
/// its copy of the columns.
const CALL_BYTES: usize = 1 << 20;

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
            (Err(_), Some(plugin)) => format!("the filter {} {} does not let it in", plugin.name(), plugin.version()),
            (Err(_), None) => String::new(),
        }
    }
}

/// Asks a chain of filters about rows. Every stage sees the rows that those before it keep; each is pinned once, so that
/// one version sees all of the batch.
///
/// # Errors
/// A fault that no row is to blame for: the host has no room for another instance, say. Nothing is decided then.
pub(crate) fn filter_rows(chain: &[Arc<Stage>], topic: &str, rows: &[Record<'_>]) -> Result<Verdict, StageError> {
    filter_rows_by(&pin(chain), topic, rows)
}

/// Pins the stages of a chain, for those who show a batch piece by piece.
pub(crate) fn pin(chain: &[Arc<Stage>]) -> Vec<Pinned<'_>> {
    chain.iter().map(|stage| stage.pin()).collect()
}

/// [`filter_rows`] by versions that are pinned.
pub(crate) fn filter_rows_by(pinned: &[Pinned<'_>], topic: &str, rows: &[Record<'_>]) -> Result<Verdict, StageError> {
    let mut verdict = Verdict {
        decided: vec![KEPT; rows.len()],
        failed: Vec::new(),
        plugins: pinned.iter().map(|stage| stage.plugin().clone()).collect(),
    };
    for run in runs(rows) {
        filter_run(pinned, topic, rows, run, &mut verdict)?;
    }
    verdict.failed.sort_unstable_by_key(|failed| failed.row);
    Ok(verdict)
}

fn filter_run(
    chain: &[Pinned<'_>],
    topic: &str,
    rows: &[Record<'_>],
    run: Range<usize>,
    verdict: &mut Verdict,
) -> Result<(), StageError> {
    let mut left: Vec<usize> = run.collect();
    let mut batch = columns(rows, &left, read_by(chain));
    for (place, stage) in chain.iter().enumerate() {
        let Isolated { keep, bad } = stage.filter_isolated(topic, &batch.as_records())?;
        verdict
            .failed
            .extend(bad.into_iter().map(|bad| FailedRow { row: left[bad.row as usize], message: bad.message }));
        let before = left.len();
        let mut at = 0..;
        left.retain(|&row| {
            let kept = at.next().is_some_and(|at| keep.get(at));
            if !kept {
                verdict.decided[row] = place as u8;
            }
            kept
        });
        let rest = &chain[place + 1..];
        if left.is_empty() || rest.is_empty() {
            break;
        }
        if left.len() < before {
            batch = columns(rows, &left, read_by(rest));
        }
    }
    Ok(())
}

/// The columns that any of the stages reads.
fn read_by(chain: &[Pinned<'_>]) -> Columns {
    chain.iter().fold(Columns::NONE, |all, stage| all.union(stage.columns()))
}

/// Runs of rows that fit a call.
fn runs(rows: &[Record<'_>]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rows[start..].iter().take_while(|row| {
            bytes += row_bytes(row);
            bytes <= CALL_BYTES
        });
        let count = fits.count().max(1).min(rows.len() - start);
        let run = start..start + count;
        start += count;
        (count > 0).then_some(run)
    })
}

fn row_bytes(row: &Record<'_>) -> usize {
    // A timestamp, and the ends of a key, a value and headers.
    const FIXED: usize = 8 + 3 * 4;
    let of = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers: usize = row.headers.map(|header| header.name.len() + of(header.value) + 8).sum();
    FIXED + of(row.key) + of(row.value) + headers
}

/// The rows as columns, those that are wanted and no others.
fn columns(rows: &[Record<'_>], which: &[usize], wanted: Columns) -> RecordsBuf {
    let mut columns = RecordsBuf::new(wanted);
    for row in which.iter().map(|row| &rows[*row]) {
        // A name that is not UTF-8 does not fit the columns: the stage sees what Java would.
        let names: Vec<_> = match wanted.headers {
            true => row.headers.map(|header| header.name_lossy()).collect(),
            false => Vec::new(),
        };
        let headers = names.iter().zip(row.headers).map(|(name, header)| (&**name, header.value));
        let pushed = columns.push(row.timestamp, row.key, row.value, headers);
        pushed.expect("no request is as large as a column may be");
    }
    columns
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

/// Compresses the `rows` records of a batch. What comes back was read back and is what was given: by the plug-in itself, and where
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
        let lossy = |problem: String| StageError {
            plugin: plugin.name().into(),
            version: plugin.version().into(),
            fault: Fault::Lossy { problem },
        };
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
    let plugin = stage.plugin();
    Err(StageError { plugin: plugin.name().into(), version: plugin.version().into(), fault: Fault::Lossy { problem } })
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
