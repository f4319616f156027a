//! Opening the logs of many partitions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_log::seeded_bug::{self, Bug};
use millstream_log::{Log, LogError, OpenOptions};
use uuid::Uuid;

use crate::fault::ReplicaFault;
use crate::fsync_queue::FsyncQueue;
use crate::many::{in_parallel, sync_many};
use crate::partition::{LogState, Partition, PartitionConfig};
use crate::replication::Assignment;

/// What the metadata and the checkpoints say about a partition to open.
#[derive(Debug, Clone)]
pub struct PartitionSpec {
    /// The name of the topic.
    pub topic: Arc<str>,
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The number of the partition within its topic.
    pub index: i32,
    /// The id of this broker.
    pub node_id: i32,
    /// The data folder that the log is in; `None` if this broker has no replica, or its folder is lost.
    pub data_dir: Option<Arc<Path>>,
    /// The role that the metadata gives it.
    pub assignment: Assignment,
    /// The high watermark at the last checkpoint.
    pub high_watermark: i64,
    /// Everything below this offset was on disk at the last checkpoint.
    pub recovery_point: i64,
    /// The first offset of the log, where it is not that of the first segment.
    pub log_start_offset: i64,
    /// Whether the checkpoint that has it is damaged or missing.
    pub log_start_is_lost: bool,
    /// Everything below this offset was compacted at the last checkpoint.
    pub first_dirty_offset: i64,
    /// Whether the last broker on the data folder closed its logs.
    pub clean_shutdown: bool,
}

impl PartitionSpec {
    /// Returns the name of the folder, as Kafka names it.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}-{}", self.topic, self.index)
    }

    /// Returns the path of the folder.
    fn path(&self) -> PathBuf {
        self.data_dir.as_deref().unwrap_or(Path::new(".")).join(self.folder())
    }
}

/// The number of logs that are recovered before they are synced together. Each holds a descriptor until then.
const RECOVERED_AT_ONCE: usize = 512;

/// An opened log, or the reason why it cannot be opened.
type Opened = Result<Log, LogError>;

impl Partition {
    /// Opens or creates the logs of many partitions in parallel, and returns them in the order of `specs`.
    ///
    /// A log that cannot be opened gives a partition that is offline. The broker serves the others.
    #[must_use]
    pub fn open_all(fsync_queue: &Arc<FsyncQueue>, specs: Vec<(PartitionSpec, PartitionConfig)>) -> Vec<Arc<Self>> {
        let mut partitions = Vec::with_capacity(specs.len());
        let mut specs = specs.into_iter().peekable();
        while specs.peek().is_some() {
            let some = specs.by_ref().take(RECOVERED_AT_ONCE).collect();
            let mut opened = in_parallel(some, |(spec, config)| {
                let log = open_log(&spec.path(), &spec, &config);
                (spec, config, log)
            });
            sync_recovered(fsync_queue, opened.iter_mut().map(|(_, _, log)| log));
            let partition = |(spec, config, log)| partition(fsync_queue, spec, &config, log);
            partitions.extend(opened.into_iter().map(partition));
        }
        partitions
    }
}

/// Makes durable what recovery found. A log that cannot be synced becomes an error.
fn sync_recovered<'a>(fsync_queue: &FsyncQueue, opened: impl Iterator<Item = &'a mut Opened>) {
    let recovered = opened.filter_map(|opened| {
        let target = opened.as_ref().ok()?.recovery_target()?;
        Some((opened, target))
    });
    let (recovered, targets): (Vec<_>, Vec<_>) = recovered.unzip();
    let results = sync_many(fsync_queue.file_system(), &targets);
    for ((opened, target), result) in recovered.into_iter().zip(&targets).zip(results) {
        match (&mut *opened, result) {
            (Ok(log), Ok(())) => drop(log.synced(target)),
            (_, Err(error)) => *opened = Err(error),
            (Err(_), Ok(())) => {}
        }
    }
}

impl Partition {
    /// Makes a partition that is offline, since its data folder is not there.
    #[must_use]
    pub fn offline(
        spec: PartitionSpec,
        config: &PartitionConfig,
        fsync_queue: &Arc<FsyncQueue>,
        fault: ReplicaFault,
    ) -> Arc<Self> {
        let (topic, partition) = (Arc::clone(&spec.topic), spec.index);
        let (reason, is_damaged) = (fault.reason(), matches!(fault, ReplicaFault::Damaged(_)));
        tracing::error!(topic = &*topic, partition, "the partition is offline: {reason}");
        let state = LogState::Offline { reason: Arc::from(reason), is_damaged };
        Arc::new(Self::new(spec, Err(state), config, fsync_queue))
    }
}

fn partition(
    fsync_queue: &Arc<FsyncQueue>,
    spec: PartitionSpec,
    config: &PartitionConfig,
    opened: Opened,
) -> Arc<Partition> {
    let span = tracing::info_span!("open", topic = &*spec.topic, partition = spec.index);
    let opened = opened.map_err(|error| {
        span.in_scope(|| tracing::error!("the partition is offline: {error}"));
        let is_damaged = matches!(error, LogError::Corrupt { .. } | LogError::Shorter { .. });
        LogState::Offline { reason: Arc::from(error.to_string()), is_damaged }
    });
    Arc::new(Partition::new(spec, opened, config, fsync_queue))
}

fn open_log(folder: &Path, spec: &PartitionSpec, config: &PartitionConfig) -> Opened {
    let span = tracing::info_span!("open", topic = &*spec.topic, partition = spec.index);
    let _entered = span.enter();
    let options = OpenOptions {
        recovery_point: spec.recovery_point,
        log_start_offset: spec.log_start_offset,
        log_start_is_lost: spec.log_start_is_lost,
        first_dirty_offset: spec.first_dirty_offset,
        clean_shutdown: spec.clean_shutdown,
        topic_id: Some(spec.topic_id),
    };
    let mut log = Log::open_unsynced(folder, Arc::clone(&config.log), options)?;
    spec.assignment.begin_epoch(&mut log);
    if seeded_bug::is(Bug::TruncateToHighWatermark) && matches!(spec.assignment, Assignment::Follower { .. }) {
        log.truncate_to(spec.high_watermark)?;
    }
    Ok(log)
}
