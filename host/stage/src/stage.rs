//! A stage: a plug-in with its configuration, in a slot where new versions take its place while
//! batches flow.
//!
//! A call pins one version for its whole batch. A swap prepares the new version aside (instantiate,
//! configure, probe, warm), then changes one pointer: no call waits for any of it, and calls that run
//! finish on the old version, which is gone when the last of them ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::batch::{Bitmap, Changed, Column, Headers, Records};
use crate::contract::{Columns, Kind};
use crate::error::{Fault, StageError};
use crate::host_imports::HostSide;
use crate::instance::Instance;
use crate::plugin::{Digest, Plugin};
use crate::pool::{Lease, Pool};

/// What a compressor is probed with: it has to come back the same.
const PROBE: &[u8] = b"a small text that repeats itself: a small text that repeats itself";

/// A configured, hot-swappable stage.
pub struct Stage {
    kind: Kind,
    config: Arc<str>,
    slot: ArcSwap<Pool>,
    side: Arc<HostSide>,
    /// Held while a new version is prepared, so that two swaps do not overtake each other.
    swapping: Mutex<()>,
    counts: Counts,
}

/// Sums over all versions.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    records: AtomicU64,
    nanos: AtomicU64,
    verify_nanos: AtomicU64,
    errors: AtomicU64,
    traps: AtomicU64,
    swaps: AtomicU64,
    swap_pause_last_nanos: AtomicU64,
    swap_pause_max_nanos: AtomicU64,
}

/// What a stage has done so far, over all its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageStats {
    /// The plug-in that serves now.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// Calls, failed ones too. The check of a compressor belongs to its call.
    pub calls: u64,
    /// Rows of all calls.
    pub records: u64,
    /// Time of all calls, the check of a compressor included.
    pub nanos: u64,
    /// Time that the check of a compressor took.
    pub verify_nanos: u64,
    /// Calls that failed, for any reason.
    pub errors: u64,
    /// Calls that failed because the plug-in misbehaved; its instance was thrown away.
    pub traps: u64,
    /// How often a new version took over.
    pub swaps: u64,
    /// How long the last swap held the slot: what a call may have waited for it.
    pub swap_pause_last_nanos: u64,
    /// The longest of those.
    pub swap_pause_max_nanos: u64,
}

/// How a swap went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swapped {
    /// The version that was replaced.
    pub before: String,
    /// The version that serves now.
    pub after: String,
    /// Time to prepare the new version, while the old one served.
    pub prepare: Duration,
    /// Time that the slot was held: what a call may have waited.
    pub pause: Duration,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Stage")
            .field("plugin", &self.plugin())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Stage {
    /// Starts a stage: an instance is made, configured with the JSON object `config` and probed.
    ///
    /// # Errors
    /// [`StageError`]: the configuration is refused, or the plug-in misbehaves.
    pub fn new(plugin: Plugin, config: &str) -> Result<Stage, StageError> {
        let config: Arc<str> = config.into();
        let side = Arc::new(HostSide::new(Arc::clone(plugin.shared_name())));
        let kind = plugin.kind();
        let pool = prepare(plugin, &config, &side, 1)?;
        Ok(Stage {
            kind,
            config,
            slot: ArcSwap::new(pool),
            side,
            swapping: Mutex::default(),
            counts: Counts::default(),
        })
    }

    /// Puts another version in this one's place, with the same configuration, at a batch boundary.
    ///
    /// # Errors
    /// [`StageError`] of the new version; the old one serves on.
    pub fn swap(&self, plugin: Plugin) -> Result<Swapped, StageError> {
        let _one_at_a_time = self.swapping.lock();
        let begun = Instant::now();
        if plugin.kind() != self.kind {
            let (have, want) = (plugin.kind(), self.kind);
            return Err(failed(&plugin, Fault::WrongKind { have, want }));
        }
        // As many instances as the old version ever used at once: no later call makes one.
        let instances = self.slot.load().leased_peak();
        let after = plugin.version().to_owned();
        let pool = prepare(plugin, &self.config, &self.side, instances)?;
        let prepared = Instant::now();
        let old = self.slot.swap(pool);
        let pause = prepared.elapsed();
        let nanos = nanos(pause);
        self.counts.swaps.fetch_add(1, Relaxed);
        self.counts.swap_pause_last_nanos.store(nanos, Relaxed);
        self.counts.swap_pause_max_nanos.fetch_max(nanos, Relaxed);
        Ok(Swapped { before: old.plugin().version().to_owned(), after, prepare: prepared - begun, pause })
    }

    /// What this stage is for; no swap changes it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The configuration, a JSON object.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// The plug-in that serves now.
    pub fn plugin(&self) -> Plugin {
        self.slot.load().plugin().clone()
    }

    /// Pins the version that serves now, for one batch: ask it which columns it reads, then call.
    pub fn pin(&self) -> Pinned<'_> {
        Pinned { stage: self, pool: self.slot.load_full() }
    }

    /// What the stage has done so far.
    pub fn stats(&self) -> StageStats {
        let plugin = self.plugin();
        let counts = &self.counts;
        StageStats {
            plugin: plugin.name().to_owned(),
            version: plugin.version().to_owned(),
            digest: plugin.digest(),
            calls: counts.calls.load(Relaxed),
            records: counts.records.load(Relaxed),
            nanos: counts.nanos.load(Relaxed),
            verify_nanos: counts.verify_nanos.load(Relaxed),
            errors: counts.errors.load(Relaxed),
            traps: counts.traps.load(Relaxed),
            swaps: counts.swaps.load(Relaxed),
            swap_pause_last_nanos: counts.swap_pause_last_nanos.load(Relaxed),
            swap_pause_max_nanos: counts.swap_pause_max_nanos.load(Relaxed),
        }
    }

    /// The counters that the plug-in itself keeps.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.side.counters()
    }

    /// [`Pinned::partition`] by the version that serves now.
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
        self.pin().partition(topic, partitions, load, records)
    }

    /// [`Pinned::serialize`] by the version that serves now.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch is to be used.
    pub fn serialize(&self, topic: &str, records: &Records<'_>) -> Result<Changed, StageError> {
        self.pin().serialize(topic, records)
    }

    /// [`Pinned::deserialize`] by the version that serves now.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch is to be used.
    pub fn deserialize(&self, topic: &str, records: &Records<'_>) -> Result<Changed, StageError> {
        self.pin().deserialize(topic, records)
    }

    /// [`Pinned::compress`] by the version that serves now.
    ///
    /// # Errors
    /// [`StageError`]; nothing was compressed.
    pub fn compress(&self, data: &[u8], rows: u32) -> Result<Vec<u8>, StageError> {
        self.pin().compress(data, rows)
    }

    /// [`Pinned::decompress`] by the version that serves now.
    ///
    /// # Errors
    /// [`StageError`]; nothing was decompressed.
    pub fn decompress(&self, data: &[u8], rows: u32, bytes_max: usize) -> Result<Vec<u8>, StageError> {
        self.pin().decompress(data, rows, bytes_max)
    }

    /// [`Pinned::filter`] by the version that serves now.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch is to be used.
    pub fn filter(&self, topic: &str, records: &Records<'_>) -> Result<Bitmap, StageError> {
        self.pin().filter(topic, records)
    }
}

/// One version of a stage, pinned for one batch. It is not to be kept: an old version lives for as
/// long as something pins it.
pub struct Pinned<'s> {
    stage: &'s Stage,
    pool: Arc<Pool>,
}

impl Pinned<'_> {
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
            return Err(failed(self.plugin(), Fault::ColumnMissing { column }));
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
                let verify_nanos = &self.stage.counts.verify_nanos;
                verify_nanos.fetch_add(nanos(begun.elapsed()), Relaxed);
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
            return Err(failed(self.plugin(), Fault::ColumnMissing { column }));
        }
        let records = records.restricted(columns);
        self.measured(u64::from(records.rows), || run(self.pool.lease()?, |instance| call(instance, records)))
    }

    /// Counts a call and its time, and names the plug-in in its error.
    fn measured<R>(&self, rows: u64, call: impl FnOnce() -> Result<R, Fault>) -> Result<R, StageError> {
        let begun = Instant::now();
        let outcome = call();
        let counts = &self.stage.counts;
        counts.nanos.fetch_add(nanos(begun.elapsed()), Relaxed);
        counts.calls.fetch_add(1, Relaxed);
        counts.records.fetch_add(rows, Relaxed);
        outcome.map_err(|fault| {
            counts.errors.fetch_add(1, Relaxed);
            counts.traps.fetch_add(u64::from(fault.is_trap()), Relaxed);
            failed(self.plugin(), fault)
        })
    }
}

/// Calls an instance; it goes back to its pool unless it misbehaved.
fn run<R>(mut lease: Lease<'_>, call: impl FnOnce(&mut Instance) -> Result<R, Fault>) -> Result<R, Fault> {
    let outcome = call(lease.instance());
    lease.end(&outcome);
    outcome
}

/// Makes a version ready to serve: instances, configured, one of them probed.
fn prepare(plugin: Plugin, config: &Arc<str>, side: &Arc<HostSide>, instances: usize) -> Result<Arc<Pool>, StageError> {
    let failed = |fault| failed(&plugin, fault);
    let pool = Pool::new(plugin.clone(), Arc::clone(config), Arc::clone(side));
    let lease = pool.lease().map_err(failed)?;
    run(lease, |instance| probe(instance, &plugin)).map_err(failed)?;
    pool.warm(instances.saturating_sub(1)).map_err(failed)?;
    Ok(pool)
}

/// Calls every function once with a batch of no rows. A typed error is an answer; only a plug-in that
/// misbehaves is refused.
fn probe(instance: &mut Instance, plugin: &Plugin) -> Result<(), Fault> {
    let column = Column { data: &[], ends: &[], nulls: &[] };
    let headers = Headers { ends: &[], names: column, values: column };
    let records =
        Records { rows: 0, timestamps: &[], keys: Some(column), values: Some(column), headers: Some(headers) }
            .restricted(plugin.description().columns);
    let tolerate = |outcome: Result<(), Fault>| match outcome {
        Err(fault) if fault.is_trap() => Err(fault),
        _ => Ok(()),
    };
    match plugin.kind() {
        Kind::Partitioner => tolerate(instance.partition("", 1, &[0], records).map(drop)),
        Kind::Filter => tolerate(instance.filter("", records).map(drop)),
        Kind::Serializer => {
            tolerate(instance.serialize("", records).map(drop))?;
            tolerate(instance.deserialize("", records).map(drop))
        }
        Kind::Compressor => {
            let compressed = instance.compress(PROBE);
            tolerate(compressed.and_then(|bytes| verify(instance, &bytes, PROBE)))
        }
    }
}

/// Whether `compressed` comes back as `data`.
fn verify(instance: &mut Instance, compressed: &[u8], data: &[u8]) -> Result<(), Fault> {
    let problem = match instance.decompress(compressed, data.len()) {
        Ok(back) if back == data => return Ok(()),
        Ok(back) => match back.iter().zip(data).position(|(have, want)| have != want) {
            Some(at) => format!("byte {at} of {} is different", data.len()),
            None => format!("{} bytes of {} come back", back.len(), data.len()),
        },
        Err(Fault::Batch(message)) => message,
        Err(fault) => return Err(fault),
    };
    Err(Fault::Lossy { problem })
}

fn failed(plugin: &Plugin, fault: Fault) -> StageError {
    StageError { plugin: Arc::clone(plugin.shared_name()), version: Arc::clone(plugin.shared_version()), fault }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
