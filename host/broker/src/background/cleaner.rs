//! Compacts logs: runs a pass over the log with the largest share of records that were not compacted before, and goes
//! on until no log needs one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_log::{CleanError, Cleaner, CleaningPlan};
use millstream_partition::{Partition, now_ms};
use millstream_record::BatchView;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::report;
use crate::blocking::blocking;
use crate::broker::Broker;
use crate::config::CleanerConfig;
use crate::metrics::cleaner::{Look, Pass};
use crate::partition_dirs;

/// How long a log is left alone after a pass over it has failed.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// The shortest pause between two looks at all logs.
const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// How soon a change of a config acts.
const CONFIG_PERIOD: Duration = Duration::from_secs(1);

/// The longest pause in which a pass does not look whether the broker stops.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// The longest wait for one read or write.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// A partition by its topic and number.
type Key = (String, i32);

/// What all passes share.
#[derive(Debug, Default)]
struct LogCleaner {
    /// The logs that a pass works on.
    busy: Mutex<HashSet<Key>>,
    /// The logs over which a pass has failed, and when.
    failed: Mutex<HashMap<Key, Instant>>,
    /// The logs that wait for disk space.
    without_room: Mutex<HashSet<Key>>,
    pace: Mutex<Pace>,
}

/// The rate of reads and writes.
#[derive(Debug, Default)]
struct Pace {
    /// The most bytes in a second.
    rate: f64,
    /// The number of changes of the rate.
    changes: u64,
    /// When the next bytes may be read or written.
    next: Option<Instant>,
}

/// Starts the cleaner, which ends with the broker.
pub(super) fn start(broker: &Arc<Broker>, stop: &watch::Receiver<bool>) {
    if !broker.config.cleaner.is_enabled {
        tracing::warn!("log.cleaner.enable is false: topics with cleanup.policy=compact only grow");
        return;
    }
    tokio::spawn(run(Arc::clone(broker), stop.clone()));
}

async fn run(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let cleaner = Arc::new(LogCleaner::default());
    let mut passes = JoinSet::new();
    // When no log needed a pass the last time.
    let mut idle_since: Option<Instant> = None;
    loop {
        let config = broker.cleaner_config();
        cleaner.set_rate(config.bytes_per_second);
        let backoff = config.backoff.max(BACKOFF_MIN);
        let is_idle = idle_since.is_some_and(|since| since.elapsed() < backoff);
        while !is_idle && passes.len() < config.threads {
            let Some((partition, plan)) = cleaner.next_log(&broker).await else {
                idle_since = Some(Instant::now());
                break;
            };
            let (cleaner, broker, config, stop) =
                (Arc::clone(&cleaner), Arc::clone(&broker), config.clone(), stop.clone());
            passes.spawn(blocking(move || {
                let span = tracing::info_span!("compaction", topic = partition.topic(), partition = partition.index());
                span.in_scope(|| cleaner.pass(&broker, &config, &partition, &plan, &stop));
            }));
        }
        tokio::select! {
            Some(_) = passes.join_next() => idle_since = None,
            () = tokio::time::sleep(backoff.min(CONFIG_PERIOD)) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn key(partition: &Partition) -> Key {
    (partition.topic().to_owned(), partition.index())
}

impl LogCleaner {
    /// Takes the log with the largest dirty share of those that need a pass.
    async fn next_log(self: &Arc<Self>, broker: &Arc<Broker>) -> Option<(Arc<Partition>, CleaningPlan)> {
        let (this, broker) = (Arc::clone(self), Arc::clone(broker));
        blocking(move || this.dirtiest(&broker)).await.ok().flatten()
    }

    fn dirtiest(&self, broker: &Broker) -> Option<(Arc<Partition>, CleaningPlan)> {
        let now = now_ms();
        let mut found: Option<(Arc<Partition>, CleaningPlan)> = None;
        let mut look = Look::default();
        self.failed.lock().retain(|_, since| since.elapsed() < RETRY_AFTER);
        let table = broker.topics.load();
        let compacted = table.iter().filter(|topic| topic.config.compact);
        for partition in compacted.flat_map(|topic| topic.own_partitions()) {
            let key = key(partition);
            if self.failed.lock().contains_key(&key) {
                look.uncleanable_partitions += 1;
                look.uncleanable_bytes += partition.reader().map_or(0, |reader| reader.size());
                continue;
            }
            if !partition.is_online() || self.busy.lock().contains(&key) {
                continue;
            }
            let plan = partition.cleaning_plan(now);
            if let Ok(Some(plan)) = &plan {
                look.dirty_ratio = look.dirty_ratio.max(plan.dirty_ratio());
                look.delay = look.delay.max(Duration::from_millis(plan.delay_ms().unsigned_abs()));
            }
            match plan {
                Ok(Some(plan)) if plan.is_due() => {
                    if !self.has_room(broker, partition, &plan) {
                        continue;
                    }
                    if found.as_ref().is_none_or(|(_, other)| plan.dirty_ratio() > other.dirty_ratio()) {
                        found = Some((Arc::clone(partition), plan));
                    }
                }
                Ok(_) => {}
                Err(error) => report("compaction failed", partition, &error),
            }
        }
        broker.cleaner_metrics.looked(look);
        if let Some((partition, _)) = &found {
            self.busy.lock().insert(key(partition));
        }
        found
    }

    /// Returns whether the disk has room for the copies of a pass beside its reserve. A log that has to wait is named
    /// once.
    fn has_room(&self, broker: &Broker, partition: &Partition, plan: &CleaningPlan) -> bool {
        let dir = partition.data_dir().and_then(|path| broker.dirs.find(path));
        let bytes = plan.copy_bytes_max();
        if dir.is_none_or(|dir| !dir.is_full() && dir.has_room_for(bytes)) {
            self.without_room.lock().remove(&key(partition));
            return true;
        }
        if self.without_room.lock().insert(key(partition)) {
            let (topic, partition) = (partition.topic(), partition.index());
            tracing::warn!(topic, partition, bytes, "compaction waits for disk space beside disk.reserve.bytes");
        }
        false
    }

    /// Runs a pass, and writes the checkpoint of what is compacted.
    fn pass(
        &self,
        broker: &Broker,
        config: &CleanerConfig,
        partition: &Partition,
        plan: &CleaningPlan,
        stop: &watch::Receiver<bool>,
    ) {
        let decode = |batch: &BatchView<'_>, bytes_max: usize| {
            broker.edge.unpack(batch, bytes_max).map_err(|error| error.to_string())
        };
        let dir = partition.data_dir().and_then(|path| broker.dirs.find(path));
        let pace = |bytes| self.pace(bytes, stop) && dir.is_none_or(|dir| !dir.is_full());
        let cleaner = Cleaner {
            map_bytes: config.map_bytes,
            load_factor: config.load_factor,
            piece_bytes: config.piece_bytes,
            batch_bytes_max: broker.config.request_max_bytes,
            decode: &decode,
            pace: &pace,
        };
        let started = Instant::now();
        match plan.run(&cleaner, partition) {
            Ok(cleaned) => {
                broker.cleaner_metrics.passed(Pass {
                    kept: cleaned.bytes_after as f64 / cleaned.bytes_before.max(1) as f64,
                    map_filled: cleaned.map_bytes as f64 / config.map_bytes.max(1) as f64,
                    took: started.elapsed(),
                });
                tracing::info!(
                    end = cleaned.end,
                    keys = cleaned.keys,
                    bytes_before = cleaned.bytes_before,
                    bytes_after = cleaned.bytes_after,
                    segments_before = cleaned.segments_before,
                    segments_after = cleaned.segments_after,
                    "compacted in {:.1?}",
                    started.elapsed()
                );
                if let Err(error) = partition_dirs::write_first_dirty(&broker.dirs, &broker.topics.load()) {
                    tracing::error!("cannot write the cleaner offsets: {error}");
                }
            }
            Err(CleanError::Stopped) => {}
            // Its folder may be gone with the partition.
            Err(_) if !partition.is_online() => {}
            Err(error) => {
                self.failed.lock().insert(key(partition), Instant::now());
                partition.report("compaction failed, and is retried in ten minutes", &error);
            }
        }
        self.busy.lock().remove(&key(partition));
    }

    /// Sets the rate. Passes that wait go on at once.
    fn set_rate(&self, rate: f64) {
        let mut pace = self.pace.lock();
        if pace.rate != rate {
            *pace = Pace { rate, changes: pace.changes + 1, next: None };
        }
    }

    /// Waits until the bytes fit the rate. Returns false if the broker stops.
    fn pace(&self, bytes: usize, stop: &watch::Receiver<bool>) -> bool {
        let (until, changes) = {
            let mut pace = self.pace.lock();
            let takes = Duration::try_from_secs_f64(bytes as f64 / pace.rate.max(1.0)).unwrap_or(WAIT_MAX);
            let now = Instant::now();
            let until = pace.next.map_or(now, |next| next.max(now)) + takes.min(WAIT_MAX);
            pace.next = Some(until);
            (until, pace.changes)
        };
        loop {
            // The broker stops, or is gone.
            if *stop.borrow() || stop.has_changed().is_err() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.pace.lock().changes != changes {
                return true;
            }
            std::thread::sleep(left.min(PAUSE_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_passes_together_keep_the_rate() {
        let cleaner = LogCleaner::default();
        let (stopping, stop) = watch::channel(false);
        cleaner.set_rate(1_000_000.0);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..5).for_each(|_| assert!(cleaner.pace(10_000, &stop))));
            }
        });
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(100), "{took:?}");
        cleaner.set_rate(f64::MAX);
        assert!(cleaner.pace(usize::MAX / 2, &stop), "no limit");
        // A change of the rate ends a wait, and so does a stop.
        cleaner.set_rate(1.0);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| cleaner.pace(usize::MAX / 2, &stop));
            while cleaner.pace.lock().next.is_none() {
                std::thread::yield_now();
            }
            cleaner.set_rate(2.0);
            assert!(waits.join().expect("it ends"));
        });
        stopping.send_replace(true);
        assert!(!cleaner.pace(usize::MAX / 2, &stop));
    }
}
