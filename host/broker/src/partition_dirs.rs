//! The data folder around the partitions' own folders: checkpoints, folders to remove, and unknown folders.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millstream_log::{DataDir, OffsetCheckpoint, Offsets};
use millstream_partition::Partition;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::topics::{Topic, TopicTable};
use millstream_metadata::{MetadataImage, TopicImage};

/// The suffix of a folder that is to be removed, as in Kafka.
const DELETED_SUFFIX: &str = "-delete";

/// The suffix of a folder that belongs to no topic, as in Kafka.
const STRAY_SUFFIX: &str = "-stray";

/// The suffix of a folder with a damaged log, which an operator may look at and remove.
const DAMAGED_SUFFIX: &str = "-damaged";

/// The longest file name on common file systems.
const FILE_NAME_MAX: usize = 255;

/// The checkpoints that the last broker on the folder wrote about its logs.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    pub(crate) recovery_points: Offsets,
    pub(crate) log_starts: Offsets,
    pub(crate) high_watermarks: Offsets,
    pub(crate) clean_shutdown: bool,
}

impl Checkpoints {
    /// Reads the checkpoints. Without the recovery points every log is scanned from its start, so that a damaged file
    /// costs time but loses nothing.
    pub(crate) fn read(data_dir: &DataDir, clean_shutdown: bool) -> Self {
        let read = |name| {
            data_dir.checkpoint(name).read().unwrap_or_else(|error| {
                tracing::warn!("a checkpoint is ignored: {error}");
                Offsets::new()
            })
        };
        Self {
            recovery_points: read(OffsetCheckpoint::RECOVERY_POINT),
            log_starts: read(OffsetCheckpoint::LOG_START),
            high_watermarks: read(OffsetCheckpoint::HIGH_WATERMARK),
            clean_shutdown,
        }
    }
}

/// Writes the recovery point of each log.
pub(crate) fn write_recovery_points<E>(data_dir: &Path, topics: &TopicTable<E>) -> io::Result<()> {
    write(data_dir, OffsetCheckpoint::RECOVERY_POINT, topics, |partition| partition.recovery_point().ok())
}

/// Writes the high watermark of each partition. A replica that starts again knows by it what was committed.
pub(crate) fn write_high_watermarks<E>(data_dir: &Path, topics: &TopicTable<E>) -> io::Result<()> {
    let high_watermark = |partition: &Partition| partition.is_served().then(|| partition.high_watermark());
    write(data_dir, OffsetCheckpoint::HIGH_WATERMARK, topics, high_watermark)
}

/// Writes the start of each log that does not start with its first segment.
pub(crate) fn write_log_starts<E>(data_dir: &Path, topics: &TopicTable<E>) -> io::Result<()> {
    let start =
        |partition: &Partition| partition.with_log(|log| log.log_start_offset()).ok().filter(|start| *start > 0);
    write(data_dir, OffsetCheckpoint::LOG_START, topics, start)
}

fn write<E>(
    data_dir: &Path,
    name: &str,
    topics: &TopicTable<E>,
    offset: impl Fn(&Partition) -> Option<i64>,
) -> io::Result<()> {
    // Two concurrent writers would use the same temporary file, and the older offsets could win.
    static WRITER: Mutex<()> = Mutex::new(());
    let _writer = WRITER.lock();
    let mut offsets = Vec::new();
    for partition in topics.iter().flat_map(|topic| topic.own_partitions()) {
        if let Some(offset) = offset(partition) {
            offsets.push((partition.topic(), partition.index(), offset));
        }
    }
    OffsetCheckpoint::new(data_dir, name).write(offsets)
}

/// Takes the partitions of a deleted topic out of service and renames their folders, so that the name is free.
/// Partitions that belong to another topic stay. The fetches that wait for them read again, and find that the topic is
/// gone.
pub(crate) fn set_aside(data_dir: &Path, topic: &Topic) -> Vec<PathBuf> {
    let own = topic.own_partitions();
    if own.is_empty() {
        topic.partitions.iter().for_each(|partition| partition.waiters().wake_all());
    }
    set_aside_partitions(data_dir, own)
}

/// Does the same for some partitions of a topic.
pub(crate) fn set_aside_partitions(data_dir: &Path, own: &[Arc<Partition>]) -> Vec<PathBuf> {
    let mut folders = Vec::with_capacity(own.len());
    for partition in own.iter().filter(|partition| partition.is_replica()) {
        if let Some(log) = partition.delete() {
            log.retire();
        }
        let name = format!("{}-{}", partition.topic(), partition.index());
        match rename(data_dir, &name, DELETED_SUFFIX) {
            Ok(folder) => folders.push(folder),
            Err(error) => tracing::error!("cannot rename the folder {name} of a deleted partition: {error}"),
        }
    }
    folders
}

/// Takes a damaged replica out of service and renames its folder. Returns the new name.
///
/// The caller has made sure that another broker leads and holds every committed record.
pub(crate) fn set_aside_damaged<E>(
    data_dir: &Path,
    damaged: &Partition,
    topics: &TopicTable<E>,
) -> io::Result<PathBuf> {
    if let Some(log) = damaged.delete() {
        log.retire();
    }
    // The new log is shorter than the checkpoints say of this one.
    write_recovery_points(data_dir, topics)?;
    write_high_watermarks(data_dir, topics)?;
    write_log_starts(data_dir, topics)?;
    rename(data_dir, &format!("{}-{}", damaged.topic(), damaged.index()), DAMAGED_SUFFIX)
}

/// Renames a folder to `<name>.<uuid><suffix>`.
fn rename(data_dir: &Path, name: &str, suffix: &str) -> io::Result<PathBuf> {
    let ending = format!(".{}{suffix}", Uuid::new_v4().simple());
    let kept = &name[..name.len().min(FILE_NAME_MAX - ending.len())];
    let target = data_dir.join(format!("{kept}{ending}"));
    std::fs::rename(data_dir.join(name), &target)?;
    Ok(target)
}

/// Removes folders after a delay. If the broker stops before, the next start does it.
pub(crate) fn remove_later(folders: Vec<PathBuf>, delay: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        // The task has no result; `remove` logs failures.
        let _ = tokio::task::spawn_blocking(move || folders.iter().for_each(|folder| remove(folder))).await;
    });
}

fn remove(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!("cannot remove {}: {error}", folder.display());
        }
        _ => {}
    }
}

/// Cleans up at the start, before anything is open. Removes deleted folders. Sets aside folders of partitions that the
/// metadata does not have on this broker, so that they cannot be mistaken for another topic's.
pub(crate) fn tidy(data_dir: &Path, image: &MetadataImage, node_id: i32) -> io::Result<()> {
    for entry in std::fs::read_dir(data_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if name.ends_with(DELETED_SUFFIX) && name.contains('.') {
            remove(&entry.path());
            continue;
        }
        let Some((topic, index)) = name.rsplit_once('-') else { continue };
        let Ok(index) = index.parse::<i32>() else { continue };
        let is_here = |topic: &TopicImage| {
            let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
            topic.view_of().is_none() && partition.is_some_and(|partition| partition.replicas.contains(&node_id))
        };
        let known = image.topic(topic).is_some_and(|topic| is_here(topic));
        if !known && topic != "__cluster_metadata" {
            let target = rename(data_dir, name, STRAY_SUFFIX)?;
            tracing::warn!(
                "{name} belongs to no partition of this broker: set aside as {}; remove it if it is not needed",
                target.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_metadata::MetadataRecord;

    #[test]
    fn tidying_keeps_known_and_foreign_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut image = MetadataImage::new(0);
        let created = MetadataRecord::TopicCreated {
            name: "a".to_owned(),
            id: Uuid::from_u128(1),
            partitions: 1,
            configs: Default::default(),
            replicas: Vec::new(),
        };
        image.apply(&created).expect("created");
        for name in ["a-0", "a-1", "b-0", "x.0123-delete", "__cluster_metadata-0", "notes", "re-port"] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
        }
        tidy(folder.path(), &image, 0).expect("tidied");
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .expect("read")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        let stray = |name: &str| name.ends_with(STRAY_SUFFIX);
        assert_eq!(names.iter().filter(|name| stray(name)).count(), 2);
        let kept: Vec<&String> = names.iter().filter(|name| !stray(name)).collect();
        assert_eq!(kept, ["__cluster_metadata-0", "a-0", "notes", "re-port"]);
    }
}
