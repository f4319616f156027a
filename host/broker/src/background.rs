//! What happens without being asked: retention, periodic flushes, checkpoints, the expiry of producers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::blocking::blocking;
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::ApiError;
use crate::fsync_queue;
use crate::partition::Partition;
use crate::partition_dirs;
use crate::topics::Topic;

/// Starts the periodic work; it ends with the broker.
pub(crate) fn start(broker: &Arc<Broker>, stop: &watch::Receiver<bool>) {
    let config = &broker.config;
    every(broker, stop, config.retention_check_interval, retain);
    every(broker, stop, config.flush_check_interval, flush);
    every(broker, stop, config.recovery_checkpoint_interval, checkpoint_recovery_points);
    every(broker, stop, config.log_start_checkpoint_interval, checkpoint_log_starts);
}

fn every(broker: &Arc<Broker>, stop: &watch::Receiver<bool>, period: Duration, work: fn(&Arc<Broker>)) {
    let (broker, mut stop) = (Arc::clone(broker), stop.clone());
    // An interval of nothing is allowed by some options and would only burn.
    let period = period.max(Duration::from_millis(10));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let broker = Arc::clone(&broker);
            if let Err(error) = blocking(move || work(&broker)).await {
                tracing::error!("periodic work failed: {error}");
            }
        }
    });
}

fn partitions(broker: &Broker) -> Vec<(Arc<Topic>, Arc<Partition>)> {
    let table = broker.topics.load();
    let pairs = table
        .iter()
        .flat_map(|topic| topic.own_partitions().iter().map(|partition| (Arc::clone(topic), Arc::clone(partition))));
    pairs.collect()
}

fn retain(broker: &Arc<Broker>) {
    let now = now_ms();
    for (_, partition) in partitions(broker) {
        let kept = partition.with_log(|log| {
            log.expire_producers(now);
            let high_watermark = log.log_end_offset();
            log.apply_retention(now, high_watermark)
        });
        match kept {
            Ok(Ok(0)) => {}
            Ok(Ok(deleted)) => {
                tracing::info!(topic = partition.topic.as_str(), partition = partition.index, deleted, "retention");
                // Fetches that stand before the new start learn of it.
                partition.waiters.wake_all();
            }
            Ok(Err(error)) => drop(ApiError::from(error)),
            // Offline or deleted meanwhile.
            Err(_) => {}
        }
    }
}

/// Syncs partitions with records that have waited for `flush.ms`, and those with a full segment that nobody has synced: what
/// is synced need not be read by a recovery.
fn flush(broker: &Arc<Broker>) {
    for (topic, partition) in partitions(broker) {
        let is_due = topic.config.flush_ms != i64::MAX && partition.flush_is_due(topic.config.flush_ms);
        if !is_due && !partition.with_log(|log| log.has_full_segment_unsynced()).unwrap_or(false) {
            continue;
        }
        if let Err(error) = fsync_queue::sync(&partition) {
            tracing::error!(topic = partition.topic.as_str(), partition = partition.index, "flush failed: {error}");
        }
    }
}

fn checkpoint_recovery_points(broker: &Arc<Broker>) {
    if let Err(error) = partition_dirs::write_recovery_points(&broker.data_dir, &broker.topics.load()) {
        tracing::error!("cannot write the recovery points: {error}");
    }
}

fn checkpoint_log_starts(broker: &Arc<Broker>) {
    if let Err(error) = partition_dirs::write_log_starts(&broker.data_dir, &broker.topics.load()) {
        tracing::error!("cannot write the log start offsets: {error}");
    }
}
