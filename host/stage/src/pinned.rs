//! Pins one version of a stage for one batch: makes its calls, counts them, and finds the rows that a batch fails for.

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

/// Pins one version of a stage for one batch. Do not keep it longer: an old version lives as long as something pins it.
pub struct Pinned<'s> {
    stage: &'s Stage,
    pool: Arc<Pool>,
    mode: Mode,
}

/// The purpose of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A failure is final.
    Plain,
    /// After a failure, the rows to blame are searched.
    First,
    /// Part of such a search: on a fresh instance. Its traps do not count.
    Search,
}

impl<'s> Pinned<'s> {
    pub(crate) fn new(stage: &'s Stage, pool: Arc<Pool>) -> Pinned<'s> {
        Pinned { stage, pool, mode: Mode::Plain }
    }

    fn with_mode(&self, mode: Mode) -> Pinned<'s> {
        Pinned { stage: self.stage, pool: Arc::clone(&self.pool), mode }
    }

    /// Returns the plug-in that is pinned.
    pub fn plugin(&self) -> &Plugin {
        self.pool.plugin()
    }

    /// Returns the columns that it reads. No others are copied to it.
    pub fn columns(&self) -> Columns {
        self.plugin().description().columns
    }

    /// Returns the partition of every row, each below `partitions`. `load` has the bytes that wait for each partition.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch may be used.
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

    /// Returns new columns for records that are produced.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch may be used.
    pub fn serialize(&self, topic: &str, records: &Records<'_>) -> Result<Changed, StageError> {
        self.batch(records, |instance, records| instance.serialize(topic, records))
    }

    /// Returns new columns for records that are consumed.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch may be used.
    pub fn deserialize(&self, topic: &str, records: &Records<'_>) -> Result<Changed, StageError> {
        self.batch(records, |instance, records| instance.deserialize(topic, records))
    }

    /// Returns the rows to keep.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch may be used.
    pub fn filter(&self, topic: &str, records: &Records<'_>) -> Result<Bitmap, StageError> {
        self.batch(records, |instance, records| instance.filter(topic, records))
    }

    /// Returns the rows to keep if the filter fails for none. If it fails, call [`Pinned::filter_search`], which may
    /// take many times as long.
    ///
    /// # Errors
    /// [`StageError`], to pass to the search.
    pub fn filter_first(&self, topic: &str, records: &Records<'_>) -> Result<Bitmap, StageError> {
        self.with_mode(Mode::First).filter(topic, records)
    }

    /// Finds the rows for which the filter failed with `error`, and decides the others as if those were not in the
    /// batch. See [`mod@crate::isolate`].
    ///
    /// # Errors
    /// A fault that no row is to blame for; nothing of the batch may be used.
    pub fn filter_search(&self, topic: &str, records: &Records<'_>, error: StageError) -> Result<Isolated, StageError> {
        let mut keep = Bitmap::none(records.rows as usize);
        let take = |part: &[u32], kept: Bitmap| kept.iter().for_each(|row| keep.set(part[row] as usize, true));
        let bad = self.search(records, error, &mut |pinned, part| pinned.filter(topic, part), take)?;
        Ok(Isolated { keep, bad })
    }

    /// Makes a call for a whole batch. If it fails, makes it again for parts to find the bad rows, and returns them.
    /// `call` makes the call with the version and the rows that it is passed. `take` gets each response with its rows,
    /// in order; `None` stands for the whole batch.
    ///
    /// # Errors
    /// A fault that no row is to blame for; nothing of the batch may be used.
    pub fn isolate<R>(
        &self,
        records: &Records<'_>,
        mut call: impl FnMut(&Pinned<'_>, &Records<'_>) -> Result<R, StageError>,
        mut take: impl FnMut(Option<&[u32]>, R),
    ) -> Result<Vec<RowError>, StageError> {
        match call(&self.with_mode(Mode::First), records) {
            Ok(response) => {
                take(None, response);
                Ok(Vec::new())
            }
            Err(error) => self.search(records, error, &mut call, |rows, response| take(Some(rows), response)),
        }
    }

    /// Finds the rows that a call failed for.
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

    /// Compresses the `rows` records in `data`, and decompresses the result to check it: a compressor that loses a byte
    /// fails here, not in a consumer. The check runs on another instance, which cannot remember the input. Its cost is
    /// in the stats.
    ///
    /// # Errors
    /// [`StageError`]; nothing was compressed.
    pub fn compress(&self, data: &[u8], rows: u32) -> Result<Vec<u8>, StageError> {
        self.measured(u64::from(rows), || {
            let mut writer = self.lease()?;
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
        let mut reader = self.lease()?;
        let outcome = verify(reader.instance(), compressed, data);
        reader.end(&outcome);
        outcome
    }

    /// Decompresses `rows` records, to at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`StageError`]; nothing was decompressed.
    pub fn decompress(&self, data: &[u8], rows: u32, bytes_max: usize) -> Result<Vec<u8>, StageError> {
        self.measured(u64::from(rows), || run(self.lease()?, |instance| instance.decompress(data, bytes_max)))
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
                // The number of rows is known at the end of the search.
                Mode::First if is_trap => health.incident(true, 0),
                Mode::First | Mode::Search => {}
            }
            error
        })
    }

    /// Lends an instance for a call.
    fn lease(&self) -> Result<Lease<'_>, Fault> {
        if self.mode == Mode::Search {
            return self.pool.lease_fresh();
        }
        let lease = self.pool.lease()?;
        if let Some(waited) = lease.waited() {
            for counters in [&self.pool.health().counters, &self.stage.counters] {
                counters.waited(nanos(waited));
            }
        }
        Ok(lease)
    }
}

/// Calls an instance, and returns it to its pool unless the guest misbehaved.
pub(crate) fn run<R>(mut lease: Lease<'_>, call: impl FnOnce(&mut Instance) -> Result<R, Fault>) -> Result<R, Fault> {
    let outcome = call(lease.instance());
    lease.end(&outcome);
    outcome
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
