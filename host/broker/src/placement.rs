//! In which data folder each partition is.
//!
//! The folders themselves say it. A node that has or had several of them also keeps a file, beside the metadata: by it
//! the node knows a partition whose folder is gone from one that is new. A replica that lost its log must not begin
//! with an empty one as if it had every record.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_log::{CheckpointError, Directories, PartitionDirectories, PartitionDirectory};
use millstream_metadata::MetadataImage;
use millstream_partition::ReplicaFault;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::log_dirs::{LogDir, LogDirs};
use crate::partition_dirs;

/// The most partitions that are not there yet and have a folder.
const PREFERRED_MAX: usize = 10_000;

/// Why the partitions cannot be found in their folders.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlacementError {
    #[error(transparent)]
    File(#[from] CheckpointError),
    #[error("cannot write where the partitions are: {0}")]
    Write(std::io::Error),
    #[error("cannot read the data folder {}: {error}", folder.display())]
    Folder { folder: PathBuf, error: std::io::Error },
    #[error("the partition {name} is in {} and in {}: move one of the two away", one.display(), other.display())]
    Twice { name: String, one: PathBuf, other: PathBuf },
}

/// Where a partition is.
#[derive(Debug)]
pub(crate) enum Place {
    /// In this data folder, or to be created there.
    In(Arc<Path>),
    /// Nowhere, and why.
    Nowhere(ReplicaFault),
}

/// A partition to find a folder for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) key: (String, i32),
    pub(crate) topic_id: Uuid,
}

/// The data folder of each partition of this node.
#[derive(Debug)]
pub(crate) struct Placement {
    dirs: Arc<LogDirs>,
    file: PartitionDirectories,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    directories: Directories,
    /// Whether the node keeps the file.
    is_kept: bool,
    /// The folders that were asked for, for partitions that are not there yet.
    preferred: HashMap<(String, i32), Arc<Path>>,
}

impl Placement {
    /// Reads what the last process has kept.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub(crate) fn open(dirs: Arc<LogDirs>) -> Result<Self, PlacementError> {
        let file = PartitionDirectories::new(dirs.metadata());
        let kept = file.read()?;
        let is_kept = kept.is_some() || dirs.only().is_none();
        let known = Known { directories: kept.unwrap_or_default(), is_kept, preferred: HashMap::new() };
        Ok(Self { dirs, file, known: Mutex::new(known) })
    }

    /// Cleans the folders up, and notes which partitions are in them. Blocks for the disk.
    ///
    /// # Errors
    /// A partition is in two folders and none is known to be the right one, or the disk of the metadata fails.
    pub(crate) fn settle(&self, image: &MetadataImage, node_id: i32) -> Result<(), PlacementError> {
        let mut known = self.known.lock();
        let is_same = |topic: &str, id| image.topic(topic).is_some_and(|topic| topic.id == id);
        let is_here = |topic: &str, index| partition_dirs::is_here(image, topic, index, node_id);
        known.directories.retain(|(topic, index), at| is_same(topic, at.topic_id) && is_here(topic, *index));
        let mut found: BTreeMap<(String, i32), Vec<&LogDir>> = BTreeMap::new();
        for dir in self.dirs.online() {
            match partition_dirs::tidy(dir.path(), image, node_id) {
                Ok(partitions) => partitions.into_iter().for_each(|key| found.entry(key).or_default().push(dir)),
                Err(error) if self.dirs.only().is_some() => {
                    return Err(PlacementError::Folder { folder: dir.path().to_path_buf(), error });
                }
                Err(error) => drop(self.dirs.fail(dir, &error.to_string())),
            }
        }
        for (key, dirs) in found {
            let Some(topic) = image.topic(&key.0) else { continue };
            let right = known.directories.get(&key).map(|at| at.directory_id);
            let dir = match dirs[..] {
                [only] => only,
                _ => {
                    let is_right = |dir: &&&LogDir| right.is_some() && dir.directory_id() == right;
                    let right = dirs.iter().find(is_right).ok_or_else(|| twice(&key, &dirs))?;
                    for other in dirs.iter().filter(|dir| dir.path() != right.path()) {
                        set_aside_old_copy(other, &key, right)?;
                    }
                    right
                }
            };
            if let Some(directory_id) = dir.directory_id() {
                known.directories.insert(key, PartitionDirectory { topic_id: topic.id, directory_id });
            }
        }
        self.keep(&known)
    }

    /// Finds the folder of each partition. One that is new gets the folder with the fewest partitions that is not
    /// cordoned. Blocks for the disk.
    pub(crate) fn place(&self, wanted: &[Wanted], is_cordoned: impl Fn(&LogDir) -> bool) -> Vec<Place> {
        let mut known = self.known.lock();
        if let Some(only) = self.dirs.only()
            && !known.is_kept
        {
            return wanted.iter().map(|_| Place::In(Arc::clone(only.path()))).collect();
        }
        let before = known.directories.clone();
        let mut counts: HashMap<Uuid, usize> = HashMap::new();
        known.directories.values().for_each(|at| *counts.entry(at.directory_id).or_default() += 1);
        let places = wanted.iter().map(|one| self.place_one(&mut known, &mut counts, one, &is_cordoned)).collect();
        if known.directories == before {
            return places;
        }
        match self.keep(&known) {
            Ok(()) => places,
            Err(error) => {
                // What is not written down would count as new after a restart.
                known.directories = before;
                let reason = error.to_string();
                wanted.iter().map(|_| Place::Nowhere(ReplicaFault::Offline(reason.clone()))).collect()
            }
        }
    }

    fn place_one(
        &self,
        known: &mut Known,
        counts: &mut HashMap<Uuid, usize>,
        wanted: &Wanted,
        is_cordoned: &impl Fn(&LogDir) -> bool,
    ) -> Place {
        if let Some(at) = known.directories.get(&wanted.key).filter(|at| at.topic_id == wanted.topic_id) {
            return self.known_place(at.directory_id);
        }
        let preferred = known.preferred.remove(&wanted.key);
        let preferred = preferred.and_then(|path| self.dirs.find(&path)).filter(|dir| dir.is_online());
        let count = |dir: &&Arc<LogDir>| dir.directory_id().and_then(|id| counts.get(&id)).copied().unwrap_or(0);
        let open = || self.dirs.online().filter(|dir| !is_cordoned(dir)).min_by_key(count);
        // The controller gives a broker with only cordoned folders no partitions, unless it is asked to.
        let chosen = preferred.or_else(open).or_else(|| self.dirs.online().min_by_key(count));
        let chosen = chosen.and_then(|dir| Some((dir.path(), dir.directory_id()?)));
        let Some((path, directory_id)) = chosen else {
            return Place::Nowhere(ReplicaFault::Offline("no data folder works".to_owned()));
        };
        *counts.entry(directory_id).or_default() += 1;
        known.directories.insert(wanted.key.clone(), PartitionDirectory { topic_id: wanted.topic_id, directory_id });
        Place::In(Arc::clone(path))
    }

    fn known_place(&self, directory_id: Uuid) -> Place {
        let dirs: Vec<&Arc<LogDir>> = self.dirs.iter().collect();
        if let Some(dir) = dirs.iter().find(|dir| dir.directory_id() == Some(directory_id)) {
            return match dir.failure() {
                None => Place::In(Arc::clone(dir.path())),
                Some(reason) => Place::Nowhere(ReplicaFault::Offline(reason.to_string())),
            };
        }
        // The id of a folder that could not be opened is not known: the partition may be in it.
        let unknown = dirs.iter().find(|dir| dir.directory_id().is_none());
        if let Some(reason) = unknown.and_then(|dir| dir.failure()) {
            return Place::Nowhere(ReplicaFault::Offline(reason.to_string()));
        }
        let id = millstream_record::KafkaUuid(directory_id);
        let reason = format!("its data folder, the one with directory.id={id}, is not in log.dirs");
        Place::Nowhere(ReplicaFault::Damaged(reason))
    }

    /// Forgets a replica that is deleted, or is copied again. Its next log may be in any folder.
    pub(crate) fn forget(&self, topic: &str, index: i32) {
        self.known.lock().directories.remove(&(topic.to_owned(), index));
    }

    /// Notes that a partition has moved to a folder. Blocks for the disk.
    ///
    /// # Errors
    /// The disk of the metadata fails: the partition is where it was.
    pub(crate) fn moved(&self, topic: &str, index: i32, topic_id: Uuid, dir: &LogDir) -> std::io::Result<()> {
        let mut known = self.known.lock();
        let Some(directory_id) = dir.directory_id() else { return Err(std::io::ErrorKind::NotFound.into()) };
        let at = PartitionDirectory { topic_id, directory_id };
        let before = known.directories.insert((topic.to_owned(), index), at);
        self.file.write(&known.directories).inspect_err(|_| {
            before.map(|before| known.directories.insert((topic.to_owned(), index), before));
        })
    }

    /// Notes in which folder a partition is to be once it is created.
    pub(crate) fn prefer(&self, topic: &str, index: i32, dir: &LogDir) {
        let preferred = &mut self.known.lock().preferred;
        if preferred.len() < PREFERRED_MAX {
            preferred.insert((topic.to_owned(), index), Arc::clone(dir.path()));
        }
    }

    fn keep(&self, known: &Known) -> Result<(), PlacementError> {
        if known.is_kept { self.file.write(&known.directories).map_err(PlacementError::Write) } else { Ok(()) }
    }
}

fn twice(key: &(String, i32), dirs: &[&LogDir]) -> PlacementError {
    let [one, other] = [0, 1].map(|index| dirs[index].path().to_path_buf());
    PlacementError::Twice { name: format!("{}-{}", key.0, key.1), one, other }
}

fn set_aside_old_copy(dir: &LogDir, key: &(String, i32), right: &LogDir) -> Result<(), PlacementError> {
    let name = format!("{}-{}", key.0, key.1);
    let folder = partition_dirs::set_aside_stray(dir.path(), &name)
        .map_err(|error| PlacementError::Folder { folder: dir.path().to_path_buf(), error })?;
    let (used, folder) = (right.path().display(), folder.display());
    tracing::warn!("{name} is used in {used}, so an old copy is set aside as {folder}; remove it if it is not needed");
    Ok(())
}
