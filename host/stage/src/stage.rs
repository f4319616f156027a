//! Runs a plug-in with a configuration, and swaps its version while batches flow.
//!
//! A call pins one version for its whole batch. A swap first prepares the new version (instantiate, configure, probe,
//! warm), then changes one pointer. No call waits for it. Running calls finish on the old version, which is dropped
//! with the last of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::batch::{Bitmap, Changed, Records};
use crate::contract::Kind;
use crate::counters::Counters;
use crate::error::{Fault, StageError};
use crate::host_imports::{HostSide, LogSink};
use crate::pinned::{Pinned, nanos};
use crate::plugin::{Digest, Plugin};
use crate::pool::Pool;
use crate::probe::prepare;
use crate::source::VersionName;

/// Runs a configured plug-in whose version can be swapped.
pub struct Stage {
    kind: Kind,
    config: Arc<str>,
    attachment: Arc<str>,
    slot: ArcSwap<Pool>,
    side: Arc<HostSide>,
    /// The sums over all versions.
    pub(crate) counters: Counters,
    verify_nanos: AtomicU64,
    swaps: AtomicU64,
    swap_pause_last_nanos: AtomicU64,
    swap_pause_max_nanos: AtomicU64,
}

/// Holds a version that is ready for a stage. Only a pointer has to change.
pub(crate) struct Prepared {
    pub(crate) stage: Arc<Stage>,
    pool: Arc<Pool>,
    prepare: Duration,
}

impl Prepared {
    /// Lets the version take over, between two batches.
    pub(crate) fn commit(self) -> Swapped {
        self.stage.replace(self.pool, self.prepare)
    }
}

/// Counts what a stage did so far, over all its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageStats {
    /// The name of the current plug-in.
    pub plugin: String,
    /// The version that it states.
    pub version: String,
    /// The number of the version in a store, if it has one.
    pub number: Option<u32>,
    /// The digest of the component.
    pub digest: Digest,
    /// Calls, including failed ones. The check of a compressor is part of its call.
    pub calls: u64,
    /// Rows of all calls.
    pub records: u64,
    /// Time of all calls, including the check of a compressor.
    pub nanos: u64,
    /// Time of the checks of a compressor.
    pub verify_nanos: u64,
    /// Calls that failed, for any reason.
    pub errors: u64,
    /// Calls that failed because the plug-in misbehaved. Its instance was thrown away.
    pub traps: u64,
    /// Calls that found no idle instance, and waited until one was created.
    pub waits: u64,
    /// The longest of these waits.
    pub wait_max_nanos: u64,
    /// The number of swaps.
    pub swaps: u64,
    /// How long the last swap may have delayed a call.
    pub swap_pause_last_nanos: u64,
    /// The longest of these delays.
    pub swap_pause_max_nanos: u64,
}

impl StageStats {
    /// Returns the current version for display.
    pub fn version_name(&self) -> VersionName<'_> {
        VersionName { plugin: &self.plugin, version: &self.version, number: self.number }
    }
}

/// Reports a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swapped {
    /// Where the stage is attached.
    pub attachment: Arc<str>,
    /// The old version.
    pub before: String,
    /// The new version.
    pub after: String,
    /// The time to prepare the new version, while the old one was in use.
    pub prepare: Duration,
    /// The time that a call may have been delayed.
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
    /// Starts a stage: creates an instance, configures it with the JSON object `config`, and probes it.
    ///
    /// # Errors
    /// [`StageError`] when the configuration is rejected, or the plug-in misbehaves.
    pub fn new(plugin: Plugin, config: &str) -> Result<Stage, StageError> {
        let attachment = format!("a {}", plugin.kind());
        Stage::start(plugin, config, &attachment, Arc::default())
    }

    /// Starts a stage like [`Stage::new`], attached to a named place. Its log lines go to `logs` as well.
    pub(crate) fn start(
        plugin: Plugin,
        config: &str,
        attachment: &str,
        logs: Arc<LogSink>,
    ) -> Result<Stage, StageError> {
        let config: Arc<str> = config.into();
        let side = Arc::new(HostSide::new(Arc::clone(plugin.shared_name()), logs));
        let kind = plugin.kind();
        let pool = prepare(plugin, &config, &side, 1)?;
        Ok(Stage {
            kind,
            config,
            attachment: attachment.into(),
            slot: ArcSwap::new(pool),
            side,
            counters: Counters::default(),
            verify_nanos: AtomicU64::default(),
            swaps: AtomicU64::default(),
            swap_pause_last_nanos: AtomicU64::default(),
            swap_pause_max_nanos: AtomicU64::default(),
        })
    }

    /// Replaces the version by another one with the same configuration, at a batch boundary.
    ///
    /// # Errors
    /// [`StageError`] of the new version; the old one stays in use.
    pub fn swap(&self, plugin: Plugin) -> Result<Swapped, StageError> {
        let (pool, prepare) = self.make_ready(plugin)?;
        Ok(self.replace(pool, prepare))
    }

    /// Prepares another version to replace this one, while this one is in use.
    pub(crate) fn prepare(self: &Arc<Self>, plugin: Plugin) -> Result<Prepared, StageError> {
        let (pool, prepare) = self.make_ready(plugin)?;
        Ok(Prepared { stage: Arc::clone(self), pool, prepare })
    }

    fn make_ready(&self, plugin: Plugin) -> Result<(Arc<Pool>, Duration), StageError> {
        let begun = Instant::now();
        if plugin.kind() != self.kind {
            let (have, want) = (plugin.kind(), self.kind);
            return Err(StageError::of(&plugin, Fault::WrongKind { have, want }));
        }
        // The new version gets as many instances as any earlier one used at once, so that no later call creates one.
        let instances = self.slot.load().leased_peak();
        let pool = prepare(plugin, &self.config, &self.side, instances)?;
        Ok((pool, begun.elapsed()))
    }

    fn replace(&self, pool: Arc<Pool>, prepare: Duration) -> Swapped {
        let after = pool.plugin().version().to_owned();
        let begun = Instant::now();
        let old = self.slot.swap(pool);
        let pause = begun.elapsed();
        let nanos = nanos(pause);
        self.swaps.fetch_add(1, Relaxed);
        self.swap_pause_last_nanos.store(nanos, Relaxed);
        self.swap_pause_max_nanos.fetch_max(nanos, Relaxed);
        let before = old.plugin().version().to_owned();
        Swapped { attachment: Arc::clone(&self.attachment), before, after, prepare, pause }
    }

    /// Returns the kind, which no swap changes.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the configuration, a JSON object.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Returns where it is attached, such as `topic orders, stage.admit`.
    pub fn attachment(&self) -> &str {
        &self.attachment
    }

    /// Returns the current plug-in.
    pub fn plugin(&self) -> Plugin {
        self.slot.load().plugin().clone()
    }

    /// Pins the current version for one batch.
    pub fn pin(&self) -> Pinned<'_> {
        Pinned::new(self, self.slot.load_full())
    }

    /// Returns what the stage did so far.
    pub fn stats(&self) -> StageStats {
        let plugin = self.plugin();
        let counts = self.counters.counts();
        StageStats {
            plugin: plugin.name().to_owned(),
            version: plugin.version().to_owned(),
            number: plugin.number(),
            digest: plugin.digest(),
            calls: counts.calls,
            records: counts.records,
            nanos: counts.nanos,
            verify_nanos: self.verify_nanos.load(Relaxed),
            errors: counts.errors,
            traps: counts.traps,
            waits: counts.waits,
            wait_max_nanos: counts.wait_max_nanos,
            swaps: self.swaps.load(Relaxed),
            swap_pause_last_nanos: self.swap_pause_last_nanos.load(Relaxed),
            swap_pause_max_nanos: self.swap_pause_max_nanos.load(Relaxed),
        }
    }

    pub(crate) fn add_verify_nanos(&self, nanos: u64) {
        self.verify_nanos.fetch_add(nanos, Relaxed);
    }

    /// Returns the counters that the plug-in keeps.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.side.counters()
    }

    /// Calls [`Pinned::partition`] on the current version.
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
        self.pin().partition(topic, partitions, load, records)
    }

    /// Calls [`Pinned::serialize`] on the current version.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch may be used.
    pub fn serialize(&self, topic: &str, records: &Records<'_>) -> Result<Changed, StageError> {
        self.pin().serialize(topic, records)
    }

    /// Calls [`Pinned::deserialize`] on the current version.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch may be used.
    pub fn deserialize(&self, topic: &str, records: &Records<'_>) -> Result<Changed, StageError> {
        self.pin().deserialize(topic, records)
    }

    /// Calls [`Pinned::compress`] on the current version.
    ///
    /// # Errors
    /// [`StageError`]; nothing was compressed.
    pub fn compress(&self, data: &[u8], rows: u32) -> Result<Vec<u8>, StageError> {
        self.pin().compress(data, rows)
    }

    /// Calls [`Pinned::decompress`] on the current version.
    ///
    /// # Errors
    /// [`StageError`]; nothing was decompressed.
    pub fn decompress(&self, data: &[u8], rows: u32, bytes_max: usize) -> Result<Vec<u8>, StageError> {
        self.pin().decompress(data, rows, bytes_max)
    }

    /// Calls [`Pinned::filter`] on the current version.
    ///
    /// # Errors
    /// [`StageError`]; nothing of the batch may be used.
    pub fn filter(&self, topic: &str, records: &Records<'_>) -> Result<Bitmap, StageError> {
        self.pin().filter(topic, records)
    }
}
