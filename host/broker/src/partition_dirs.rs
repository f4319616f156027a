//! A data folder around the partitions' own folders: checkpoints, folders to remove, and unknown folders.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millstream_log::{DataDir, DataDirError, OffsetCheckpoint, Offsets};
use millstream_partition::{FUTURE_MARKER, Partition};
use uuid::Uuid;

use crate::log_dirs::LogDirs;
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

/// What the last broker on the data folders wrote about its logs.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    folders: HashMap<PathBuf, FolderCheckpoints>,
    /// Whether the last broker closed all of its logs.
    pub(crate) clean_shutdown: bool,
}

/// The checkpoints of one data folder.
#[derive(Debug)]
pub(crate) struct FolderCheckpoints {
    pub(crate) recovery_points: Offsets,
    /// `None` if the file is damaged or missing. A log then starts where its leader epochs do.
    pub(crate) log_starts: Option<Offsets>,
    pub(crate) high_watermarks: Offsets,
    pub(crate) first_dirty: Offsets,
    pub(crate) clean_shutdown: bool,
}

impl Checkpoints {
    /// Reads the checkpoints of all folders that are open, and takes their markers of a clean stop.
    ///
    /// # Errors
    /// A marker cannot be removed.
    pub(crate) fn take(folders: &[DataDir]) -> Result<Self, DataDirError> {
        let mut checkpoints = Self { folders: HashMap::new(), clean_shutdown: true };
        for folder in folders {
            let clean_shutdown = folder.take_clean_shutdown()?;
            checkpoints.clean_shutdown &= clean_shutdown || folder.is_new();
            if folder.is_new()
                && let Err(error) = folder.checkpoint(OffsetCheckpoint::LOG_START).write([])
            {
                // It is written again before the first record is deleted.
                tracing::warn!("cannot create log-start-offset-checkpoint in {}: {error}", folder.path().display());
            }
            checkpoints.folders.insert(folder.path().to_path_buf(), FolderCheckpoints::read(folder, clean_shutdown));
        }
        Ok(checkpoints)
    }

    /// Returns those of a folder.
    pub(crate) fn of(&self, folder: &Path) -> Option<&FolderCheckpoints> {
        self.folders.get(folder)
    }
}

impl FolderCheckpoints {
    /// Reads the checkpoints. Without the recovery points every log is scanned from its start, so that a damaged file
    /// costs time but loses nothing.
    fn read(data_dir: &DataDir, clean_shutdown: bool) -> Self {
        let try_read = |name| {
            let read = data_dir.checkpoint(name).read();
            read.inspect_err(|error| tracing::warn!("a checkpoint is ignored: {error}")).ok()
        };
        let read = |name| try_read(name).unwrap_or_default();
        let log_starts = data_dir.checkpoint(OffsetCheckpoint::LOG_START);
        let is_lost = !log_starts.path().exists();
        if is_lost && !data_dir.is_new() {
            tracing::warn!("a checkpoint is missing: {}", log_starts.path().display());
        }
        Self {
            recovery_points: read(OffsetCheckpoint::RECOVERY_POINT),
            log_starts: try_read(OffsetCheckpoint::LOG_START).filter(|_| !is_lost),
            high_watermarks: read(OffsetCheckpoint::HIGH_WATERMARK),
            first_dirty: read(OffsetCheckpoint::FIRST_DIRTY),
            clean_shutdown,
        }
    }
}

/// Writes the recovery point of each log.
pub(crate) fn write_recovery_points<E>(dirs: &LogDirs, topics: &TopicTable<E>) -> io::Result<()> {
    write(dirs, OffsetCheckpoint::RECOVERY_POINT, topics, |partition| partition.recovery_point().ok())
}

/// Writes the high watermark of each partition. A replica that starts again knows by it what was committed.
pub(crate) fn write_high_watermarks<E>(dirs: &LogDirs, topics: &TopicTable<E>) -> io::Result<()> {
    let high_watermark = |partition: &Partition| partition.is_online().then(|| partition.high_watermark());
    write(dirs, OffsetCheckpoint::HIGH_WATERMARK, topics, high_watermark)
}

/// Writes the start of each log that does not start with its first segment.
pub(crate) fn write_log_starts<E>(dirs: &LogDirs, topics: &TopicTable<E>) -> io::Result<()> {
    let start =
        |partition: &Partition| partition.with_log(|log| log.log_start_offset()).ok().filter(|start| *start > 0);
    write(dirs, OffsetCheckpoint::LOG_START, topics, start)
}

/// Writes the first offset of each log that was not compacted. A log without one is compacted from its start.
pub(crate) fn write_first_dirty<E>(dirs: &LogDirs, topics: &TopicTable<E>) -> io::Result<()> {
    write(dirs, OffsetCheckpoint::FIRST_DIRTY, topics, Partition::first_dirty_offset)
}

/// Writes a checkpoint in every folder that works. Returns the first error; the other folders have theirs.
fn write<E>(
    dirs: &LogDirs,
    name: &str,
    topics: &TopicTable<E>,
    offset: impl Fn(&Partition) -> Option<i64>,
) -> io::Result<()> {
    let mut written = Ok(());
    for dir in dirs.online() {
        let mut last = dir.checkpoints.lock();
        let mut offsets = Vec::new();
        for partition in topics.iter().flat_map(|topic| topic.own_partitions()) {
            if partition.data_dir() == Some(dir.path())
                && let Some(offset) = offset(partition)
            {
                offsets.push((partition.topic(), partition.index(), offset));
            }
        }
        let hash = (name == OffsetCheckpoint::HIGH_WATERMARK).then(|| {
            let mut hasher = DefaultHasher::new();
            offsets.hash(&mut hasher);
            hasher.finish()
        });
        if hash.is_some() && hash == last.high_watermarks {
            continue;
        }
        let here = OffsetCheckpoint::new(dir.path(), name).write(offsets);
        if hash.is_some() {
            last.high_watermarks = hash.filter(|_| here.is_ok());
        }
        written = written.and(here.inspect_err(|_| dir.suspect()));
    }
    written
}

/// Takes the partitions of a deleted topic out of service and renames their folders, so that the name is free.
/// Partitions that belong to another topic stay. The fetches that wait for them read again, and find that the topic is
/// gone.
pub(crate) fn set_aside(topic: &Topic) -> Vec<PathBuf> {
    let own = topic.own_partitions();
    if own.is_empty() {
        topic.partitions.iter().for_each(|partition| partition.waiters().wake_all());
    }
    set_aside_partitions(own)
}

/// Does the same for some partitions of a topic.
pub(crate) fn set_aside_partitions(own: &[Arc<Partition>]) -> Vec<PathBuf> {
    let mut folders = Vec::with_capacity(own.len());
    for partition in own.iter().filter(|partition| partition.is_replica()) {
        if let Some(log) = partition.delete() {
            log.retire();
        }
        // The log of a partition without a folder is lost.
        let Some(data_dir) = partition.data_dir() else { continue };
        let name = format!("{}-{}", partition.topic(), partition.index());
        match rename(data_dir, &name, DELETED_SUFFIX) {
            Ok(folder) => folders.push(folder),
            Err(error) => tracing::error!("cannot rename the folder {name} of a deleted partition: {error}"),
        }
    }
    folders
}

/// Takes a damaged replica out of service and renames its folder. Returns the new name; `None` if its folder is lost or
/// was renamed before.
///
/// The caller has made sure that another broker leads and holds every committed record. It may retry after an error.
pub(crate) fn set_aside_damaged<E>(
    dirs: &LogDirs,
    damaged: &Partition,
    topics: &TopicTable<E>,
) -> io::Result<Option<PathBuf>> {
    if let Some(log) = damaged.give_up("a damaged log is about to be set aside") {
        log.retire();
    }
    let Some(data_dir) = damaged.data_dir() else { return Ok(None) };
    // The new log is shorter than the checkpoints say of this one.
    write_recovery_points(dirs, topics)?;
    write_high_watermarks(dirs, topics)?;
    write_log_starts(dirs, topics)?;
    match rename(data_dir, &format!("{}-{}", damaged.topic(), damaged.index()), DAMAGED_SUFFIX) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes what there is of the folder of a replica that could not be opened, and holds no record.
pub(crate) fn remove_new(replica: &Partition) {
    if let Some(data_dir) = replica.data_dir() {
        remove(&data_dir.join(format!("{}-{}", replica.topic(), replica.index())));
    }
}

/// Renames the folder of a partition that is not to be used. Returns the new name.
pub(crate) fn set_aside_stray(data_dir: &Path, name: &str) -> io::Result<PathBuf> {
    rename(data_dir, name, STRAY_SUFFIX)
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

/// Does the same for files.
pub(crate) fn remove_files_later(files: Vec<PathBuf>, delay: Duration) {
    let remove = |file: &PathBuf| match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!("cannot remove {}: {error}", file.display());
        }
        // The folder of a deleted topic may be gone.
        _ => {}
    };
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        let _ = tokio::task::spawn_blocking(move || files.iter().for_each(remove)).await;
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

/// Cleans a data folder up at the start, before anything is open. Removes deleted folders. Sets aside folders of
/// partitions that the metadata does not have on this broker, so that they cannot be mistaken for another topic's.
/// Returns the partitions that are in the folder.
pub(crate) fn tidy(data_dir: &Path, image: &MetadataImage, node_id: i32) -> io::Result<Vec<(String, i32)>> {
    let mut found = Vec::new();
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
        if entry.path().join(FUTURE_MARKER).exists() {
            // A move to this folder was not complete.
            remove(&entry.path());
        } else if is_here(image, topic, index, node_id) {
            found.push((topic.to_owned(), index));
        } else if topic != "__cluster_metadata" {
            let target = rename(data_dir, name, STRAY_SUFFIX)?;
            tracing::warn!(
                "{name} belongs to no partition of this broker: set aside as {}; remove it if it is not needed",
                target.display()
            );
        }
    }
    Ok(found)
}

/// Returns whether the metadata has a replica of a partition on this broker.
pub(crate) fn is_here(image: &MetadataImage, topic: &str, index: i32, node_id: i32) -> bool {
    let has_replica = |topic: &TopicImage| {
        let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
        topic.view_of().is_none() && partition.is_some_and(|partition| partition.replicas.contains(&node_id))
    };
    image.topic(topic).is_some_and(|topic| has_replica(topic))
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
        assert_eq!(tidy(folder.path(), &image, 0).expect("tidied"), [("a".to_owned(), 0)]);
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
