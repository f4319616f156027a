//! Background jobs: retention, the expiry of producers, flushes, checkpoints, compaction.

mod cleaner;

use std::sync::Arc;
use std::time::Duration;

use millstream_partition::{Partition, PartitionError, now_ms};
use tokio::sync::watch;

use crate::blocking::blocking;
use crate::broker::Broker;
use crate::partition_dirs;

/// How often the free space of the disks is looked at.
const SPACE_PERIOD: Duration = Duration::from_millis(250);

/// How often files of deleted segments are looked for.
const DELETION_PERIOD: Duration = Duration::from_secs(1);

/// Starts the background jobs, which end with the broker.
pub(crate) fn start(broker: &Arc<Broker>, stop: &watch::Receiver<bool>) {
    let config = &broker.config;
    every(broker, stop, "retention", config.retention_check_interval, retain);
    every(broker, stop, "disk space", SPACE_PERIOD, look_at_space);
    every(broker, stop, "deleted segments", DELETION_PERIOD, remove_deleted);
    every(broker, stop, "flush", config.flush_check_interval, flush);
    every(broker, stop, "recovery checkpoint", config.recovery_checkpoint_interval, checkpoint_recovery_points);
    let interval = config.high_watermark_checkpoint_interval;
    every(broker, stop, "high watermark checkpoint", interval, checkpoint_high_watermarks);
    every(broker, stop, "log start checkpoint", config.log_start_checkpoint_interval, checkpoint_log_starts);
    cleaner::start(broker, stop);
}

/// Runs a job periodically, in a span with its name, until the broker stops.
fn every(
    broker: &Arc<Broker>,
    stop: &watch::Receiver<bool>,
    job: &'static str,
    period: Duration,
    work: fn(&Arc<Broker>),
) {
    let (broker, mut stop) = (Arc::clone(broker), stop.clone());
    // Some configs allow an interval of 0, which would keep a core busy.
    let period = period.max(Duration::from_millis(10));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let broker = Arc::clone(&broker);
            let run = move || tracing::info_span!("job", name = job).in_scope(|| work(&broker));
            if let Err(error) = blocking(run).await {
                tracing::error!(job, "a background job failed: {error}");
            }
        }
    });
}

/// Looks at the free space. In a cluster the replicas on a full disk leave the in-sync sets, as after a failed append.
fn look_at_space(broker: &Arc<Broker>) {
    broker.dirs.look_at_space();
    if broker.cluster.is_none() || !broker.dirs.is_any_full() {
        return;
    }
    for partition in partitions(broker) {
        let dir = partition.data_dir().and_then(|path| broker.dirs.find(path));
        if dir.is_some_and(|dir| dir.is_full()) {
            partition.note_full();
        }
    }
}

fn partitions(broker: &Broker) -> Vec<Arc<Partition>> {
    broker.topics.load().iter().flat_map(|topic| topic.own_partitions()).cloned().collect()
}

fn retain(broker: &Arc<Broker>) {
    let now = now_ms();
    for partition in partitions(broker) {
        match partition.apply_retention(now) {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(
                topic = partition.topic(),
                partition = partition.index(),
                deleted,
                "retention deleted segments"
            ),
            Err(error) => report("retention failed", &partition, &error),
        }
    }
}

/// Removes the files of deleted segments after `file.delete.delay.ms`, and from a full disk at once.
fn remove_deleted(broker: &Arc<Broker>) {
    for topic in broker.topics.load().iter() {
        for partition in topic.own_partitions() {
            let files = partition.take_deleted_files();
            if files.is_empty() {
                continue;
            }
            let dir = partition.data_dir().and_then(|path| broker.dirs.find(path));
            let delay = match dir.is_some_and(|dir| dir.is_full()) {
                true => Duration::ZERO,
                false => Duration::from_millis(u64::try_from(topic.config.file_delete_delay_ms).unwrap_or(0)),
            };
            partition_dirs::remove_files_later(files, delay);
        }
    }
}

/// Syncs partitions with records that have waited for `flush.ms`, and those with a full segment that is not synced yet.
fn flush(broker: &Arc<Broker>) {
    for partition in partitions(broker) {
        if let Err(error) = partition.flush_if_due() {
            report("flush failed", &partition, &error);
        }
    }
}

/// Logs an error of a periodic job, unless the partition is offline or deleted.
fn report(what: &str, partition: &Partition, error: &PartitionError) {
    use PartitionError::{Elsewhere, Frozen, NotHosted, Offline};
    if !matches!(error, Offline(_) | NotHosted | Elsewhere | Frozen) {
        partition.report(what, error);
    }
}

fn checkpoint_recovery_points(broker: &Arc<Broker>) {
    if let Err(error) = partition_dirs::write_recovery_points(&broker.dirs, &broker.topics.load()) {
        tracing::error!("cannot write the recovery points: {error}");
    }
    if let Err(error) = partition_dirs::write_first_dirty(&broker.dirs, &broker.topics.load()) {
        tracing::error!("cannot write the cleaner offsets: {error}");
    }
}

fn checkpoint_high_watermarks(broker: &Arc<Broker>) {
    if let Err(error) = partition_dirs::write_high_watermarks(&broker.dirs, &broker.topics.load()) {
        tracing::error!("cannot write the high watermarks: {error}");
    }
}

fn checkpoint_log_starts(broker: &Arc<Broker>) {
    if let Err(error) = partition_dirs::write_log_starts(&broker.dirs, &broker.topics.load()) {
        tracing::error!("cannot write the log start offsets: {error}");
    }
}
