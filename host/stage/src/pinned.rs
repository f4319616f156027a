//! One version of a stage, pinned for one batch: its calls, what they count, and how the rows are found
//! that a batch fails for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Bitmap, Changed, Records};
use crate::contract::{Columns, RowError};
use crate::error::{Fault, StageError};
use crate::instance::Instance;
use crate::isolate::{self, Isolated};
use crate::plugin::Plugin;
use crate::pool::{Lease, Pool};
use crate::probe::verify;
use crate::stage::Stage;

/// One version of a stage, pinned for one batch. It is not to be kept: an old version lives for as
/// long as something pins it.
pub struct Pinned<'s> {
    stage: &'s Stage,
    pool: Arc<Pool>,
    mode: Mode,
}

/// What a call of a pinned version is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// What fails has failed.
    Plain,
    /// What fails is searched for the rows that it fails for.
    First,
    /// Part of such a search: on a fresh instance, and no trap of its own.
    Search,
}

impl<'s> Pinned<'s> {
    pub(crate) fn new(stage: &'s Stage, pool: Arc<Pool>) -> Pinned<'s> {
        Pinned { stage, pool, mode: Mode::Plain }
    }

    fn with_mode(&self, mode: Mode) -> Pinned<'s> {
        Pinned { stage: self.stage, pool: Arc::clone(&self.pool), mode }
    }

    /// The plug-in that is pinned.
    pub fn plugin(&self) -> &Plugin {
        self.pool.plugin()
    }

    /// The columns that it reads; no others are copied to it.
    pub fn columns(&self) -> Columns {
        self.plugin().description().columns
    }

    /// The partition of every row, each below `partitions`. `load` has the bytes that wait for each
    /// partition.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch is to be used.
    pub fn partition(
        &self,
        topic: &str,
        partitions: u32,
        load: &[u64],
        records: &Records<'_>,
    ) -> Result<Vec<u32>, StageError> {
        if load.len() != partitions as usize {
            let column = "load";
            return Err(StageError::of(self.plugin(), Fault::ColumnMissing { column }));
        }
        self.batch(records, |instance, records| instance.partition(topic, partitions, load, records))
    }

    /// New columns for the records on their way out.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch is to be used.
    pub fn serialize(&self, topic: &str, records: &Records<'_>) -> Result<Changed, StageError> {
        self.batch(records, |instance, records| instance.serialize(topic, records))
    }

    /// New columns for the records on their way in.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch is to be used.
    pub fn deserialize(&self, topic: &str, records: &Records<'_>) -> Result<Changed, StageError> {
        self.batch(records, |instance, records| instance.deserialize(topic, records))
    }

    /// The rows to keep.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch is to be used.
    pub fn filter(&self, topic: &str, records: &Records<'_>) -> Result<Bitmap, StageError> {
        self.batch(records, |instance, records| instance.filter(topic, records))
    }

    /// The rows to keep, where the filter fails for none. Where it fails, [`Pinned::filter_search`] goes on: that may take
    /// many times as long, which is why a caller has to ask for it.
    ///
    /// # Errors
    /// [`StageError`], for the search.
    pub fn filter_first(&self, topic: &str, records: &Records<'_>) -> Result<Bitmap, StageError> {
        self.with_mode(Mode::First).filter(topic, records)
    }

    /// The rows to keep and the rows that are bad of a batch for which the filter has failed with `error`: the rows that it
    /// fails for are found, and the others are decided as if those were not there. See [`mod@crate::isolate`].
    ///
    /// # Errors
    /// A fault that no row is to blame for; nothing of the batch is to be used.
    pub fn filter_search(&self, topic: &str, records: &Records<'_>, error: StageError) -> Result<Isolated, StageError> {
        let mut keep = Bitmap::none(records.rows as usize);
        let take = |part: &[u32], kept: Bitmap| kept.iter().for_each(|row| keep.set(part[row] as usize, true));
        let bad = self.search(records, error, &mut |pinned, part| pinned.filter(topic, part), take)?;
        Ok(Isolated { keep, bad })
    }

    /// Makes a call for a whole batch, and if that fails for parts of it, to find the rows that are bad:
    /// the answer. `call` makes the call with the version that it is given, for the rows that it is
    /// given. `take` gets what was answered, with the rows that it was answered for, in order; `None` is
    /// the whole batch.
    ///
    /// # Errors
    /// A fault that no row is to blame for; nothing of the batch is to be used.
    pub fn isolate<R>(
        &self,
        records: &Records<'_>,
        mut call: impl FnMut(&Pinned<'_>, &Records<'_>) -> Result<R, StageError>,
        mut take: impl FnMut(Option<&[u32]>, R),
    ) -> Result<Vec<RowError>, StageError> {
        match call(&self.with_mode(Mode::First), records) {
            Ok(answer) => {
                take(None, answer);
                Ok(Vec::new())
            }
            Err(error) => self.search(records, error, &mut call, |rows, answer| take(Some(rows), answer)),
        }
    }

    /// Finds the rows that a call has failed for.
    fn search<R>(
        &self,
        records: &Records<'_>,
        error: StageError,
        call: &mut impl FnMut(&Pinned<'_>, &Records<'_>) -> Result<R, StageError>,
        take: impl FnMut(&[u32], R),
    ) -> Result<Vec<RowError>, StageError> {
        let search = self.with_mode(Mode::Search);
        let bad = isolate::search(records, error, |part| call(&search, part), take)?;
        self.pool.health().incident(false, bad.len() as u64);
        Ok(bad)
    }

    /// Compresses the `rows` records that `data` holds, and reads back what was compressed before it is
    /// answered: a compressor that loses a byte is an error here, not for whoever reads the record. The
    /// check runs on an instance of its own, which cannot remember what the first was given; its cost is
    /// in the stats.
    ///
    /// # Errors
    /// [`StageError`]; nothing was compressed.
    pub fn compress(&self, data: &[u8], rows: u32) -> Result<Vec<u8>, StageError> {
        self.measured(u64::from(rows), || {
            let mut writer = self.pool.lease()?;
            let written = writer.instance().compress(data);
            let checked = written.and_then(|compressed| {
                let begun = Instant::now();
                let checked = self.read_back(&compressed, data);
                self.stage.add_verify_nanos(nanos(begun.elapsed()));
                checked.map(|()| compressed)
            });
            writer.end(&checked);
            checked
        })
    }

    fn read_back(&self, compressed: &[u8], data: &[u8]) -> Result<(), Fault> {
        let mut reader = self.pool.lease()?;
        let outcome = verify(reader.instance(), compressed, data);
        reader.end(&outcome);
        outcome
    }

    /// Decompresses what holds `rows` records, to at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`StageError`]; nothing was decompressed.
    pub fn decompress(&self, data: &[u8], rows: u32, bytes_max: usize) -> Result<Vec<u8>, StageError> {
        self.measured(u64::from(rows), || {
            let lease = self.pool.lease()?;
            run(lease, |instance| instance.decompress(data, bytes_max))
        })
    }

    fn batch<R>(
        &self,
        records: &Records<'_>,
        call: impl FnOnce(&mut Instance, Records<'_>) -> Result<R, Fault>,
    ) -> Result<R, StageError> {
        let columns = self.columns();
        if let Some(column) = records.missing(columns) {
            return Err(StageError::of(self.plugin(), Fault::ColumnMissing { column }));
        }
        let records = records.restricted(columns);
        self.measured(u64::from(records.rows), || run(self.lease()?, |instance| call(instance, records)))
    }

    /// Counts a call and its time, and names the plug-in in its error.
    fn measured<R>(&self, rows: u64, call: impl FnOnce() -> Result<R, Fault>) -> Result<R, StageError> {
        let begun = Instant::now();
        let outcome = call();
        let nanos = nanos(begun.elapsed());
        let health = self.pool.health();
        for counters in [&health.counters, &self.stage.counters] {
            match self.mode {
                Mode::Plain | Mode::First => counters.called(rows, nanos),
                Mode::Search => counters.called_again(nanos),
            }
        }
        outcome.map_err(|fault| {
            let is_trap = fault.is_trap();
            health.counters.failed(is_trap);
            self.stage.counters.failed(is_trap);
            let bad_rows = match &fault {
                Fault::Rows(bad) => bad.len() as u64,
                Fault::InputTooLarge { .. } => 0,
                fault if fault.is_about_rows() => rows.max(1),
                _ => 0,
            };
            let error = StageError::of(self.plugin(), fault);
            match self.mode {
                Mode::Plain => health.incident(is_trap, bad_rows),
                // For how many rows is known at the end of the search.
                Mode::First if is_trap => health.incident(true, 0),
                Mode::First | Mode::Search => {}
            }
            error
        })
    }

    /// An instance for a call.
    fn lease(&self) -> Result<Lease<'_>, Fault> {
        if self.mode == Mode::Search { self.pool.lease_fresh() } else { self.pool.lease() }
    }
}

/// Calls an instance; it goes back to its pool unless it misbehaved.
pub(crate) fn run<R>(mut lease: Lease<'_>, call: impl FnOnce(&mut Instance) -> Result<R, Fault>) -> Result<R, Fault> {
    let outcome = call(lease.instance());
    lease.end(&outcome);
    outcome
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
