//! Opening the logs of many partitions.

use std::path::Path;
use std::sync::Arc;

use millstream_log::{Log, LogError, OpenOptions};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::fsync_queue::FsyncQueue;
use crate::partition::{Partition, PartitionConfig};

/// What the metadata and the checkpoints say about a partition to open.
#[derive(Debug, Clone)]
pub struct PartitionSpec {
    /// The name of the topic.
    pub topic: Arc<str>,
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The number of the partition within its topic.
    pub index: i32,
    /// The epoch that this broker leads with.
    pub leader_epoch: i32,
    /// Everything below this offset was on disk at the last checkpoint.
    pub recovery_point: i64,
    /// The first offset of the log, where it is not that of the first segment.
    pub log_start_offset: i64,
    /// Whether the last broker on the data directory closed its logs.
    pub clean_shutdown: bool,
}

impl PartitionSpec {
    /// Returns the name of the folder, as Kafka names it.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}-{}", self.topic, self.index)
    }
}

/// The number of threads. After a crash, each log waits for the fsyncs of what was recovered, and the file system's
/// journal merges the fsyncs that run at the same time.
const OPEN_THREADS: usize = 32;

impl Partition {
    /// Opens or creates the logs of many partitions in parallel, and returns them in the order of `specs`.
    ///
    /// A log that cannot be opened gives a partition that is offline. The broker serves the others.
    #[must_use]
    pub fn open_all(
        data_dir: &Path,
        fsync_queue: &Arc<FsyncQueue>,
        specs: Vec<(PartitionSpec, PartitionConfig)>,
    ) -> Vec<Arc<Self>> {
        let open = |(spec, config): (PartitionSpec, PartitionConfig)| {
            let span = tracing::info_span!("open", topic = &*spec.topic, partition = spec.index);
            let _entered = span.enter();
            Arc::new(open(data_dir, fsync_queue, spec, &config))
        };
        let threads = OPEN_THREADS.min(specs.len());
        if threads <= 1 {
            return specs.into_iter().map(open).collect();
        }
        // One at a time from a shared queue, since the partitions that need recovery are not spread evenly.
        let (count, queue) = (specs.len(), Mutex::new(specs.into_iter().enumerate()));
        let opened = Mutex::new(Vec::with_capacity(count));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().next();
                        let Some((place, spec)) = next else { return };
                        let partition = open(spec);
                        opened.lock().push((place, partition));
                    }
                });
            }
        });
        let mut opened = opened.into_inner();
        opened.sort_unstable_by_key(|(place, _)| *place);
        opened.into_iter().map(|(_, partition)| partition).collect()
    }
}

fn open(data_dir: &Path, fsync_queue: &Arc<FsyncQueue>, spec: PartitionSpec, config: &PartitionConfig) -> Partition {
    let opened = open_log(&data_dir.join(spec.folder()), &spec, config).map_err(|error| {
        tracing::error!("the partition is offline: {error}");
        error.to_string()
    });
    Partition::new(spec, opened, config, fsync_queue)
}

fn open_log(folder: &Path, spec: &PartitionSpec, config: &PartitionConfig) -> Result<Log, LogError> {
    let options = OpenOptions {
        recovery_point: spec.recovery_point,
        log_start_offset: spec.log_start_offset,
        clean_shutdown: spec.clean_shutdown,
        topic_id: Some(spec.topic_id),
    };
    let mut log = Log::open(folder, Arc::clone(&config.log), options)?;
    if log.latest_epoch().is_none_or(|epoch| epoch < spec.leader_epoch) {
        let end = log.log_end_offset();
        log.assign_epoch(spec.leader_epoch, end);
    }
    Ok(log)
}
