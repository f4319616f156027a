//! A broker's data folder. It belongs to one broker at a time and to one cluster, and has a marker of the last clean
//! shutdown.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use millstream_record::KafkaUuid;
use rustix::fs::{FlockOperation, fcntl_lock};
use thiserror::Error;
use uuid::Uuid;

use crate::checkpoint::OffsetCheckpoint;
use crate::fsutil::{remove_if_there, sync_dir, write_atomic};
use crate::meta_properties::{META_PROPERTIES, MetaProperties};

const LOCK_FILE: &str = ".lock";
const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";

/// How long a broker waits for the child processes of a killed broker.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(1);

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error("the data folder {} is in use by another broker: stop that one, or choose another folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system reported an error, or a file is damaged.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What the broker did when it failed.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file with the ids of the folder is damaged, or missing beside data.
    #[error(
        "cannot use {}: {reason}. Restore the file from a backup. Written by hand it has the lines version=1, \
         cluster.id, node.id and directory.id, and no comment",
        path.display()
    )]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder belongs to another cluster or another broker.
    #[error("{} belongs to {setting}={found}, not to {expected}: this is the data of another broker", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// `cluster.id` or `node.id`.
        setting: &'static str,
        /// The value in the folder.
        found: String,
        /// The value in the configuration.
        expected: String,
    },
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_path_buf();
    move |source| DataDirError::Io { what, path, source }
}

/// A data folder, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    meta: MetaProperties,
    is_new: bool,
    _lock: File,
}

impl DataDir {
    /// Creates the folder if needed, locks it, and checks that it belongs to this broker.
    ///
    /// A new folder gets `cluster_id` (a new id for `None`) and `node_id`. An existing one must have the same.
    pub fn open(path: &Path, cluster_id: Option<&str>, node_id: i32) -> Result<Self, DataDirError> {
        fs::create_dir_all(path).map_err(io("cannot create", path))?;
        let lock = lock(path)?;
        let unusable = |reason: String| DataDirError::Meta { path: path.join(META_PROPERTIES), reason };
        let meta = MetaProperties::read(path).map_err(|error| unusable(error.to_string()))?;
        if meta.is_none() && holds_data(path).map_err(io("cannot list", path))? {
            return Err(unusable("it is missing, and the folder is not empty".to_owned()));
        }
        let is_new = meta.is_none();
        let meta = match meta {
            Some(meta) => {
                check(path, "node.id", meta.node_id, node_id)?;
                if let Some(cluster_id) = cluster_id {
                    check(path, "cluster.id", meta.cluster_id.as_str(), cluster_id)?;
                }
                meta
            }
            None => {
                let cluster_id = cluster_id.map_or_else(new_cluster_id, str::to_owned);
                let meta = MetaProperties { cluster_id, node_id, directory_id: Uuid::new_v4() };
                meta.write(path).map_err(io("cannot write", &path.join(META_PROPERTIES)))?;
                meta
            }
        };
        Ok(Self { path: path.to_path_buf(), meta, is_new, _lock: lock })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the ids of the folder's cluster and broker.
    pub fn meta(&self) -> &MetaProperties {
        &self.meta
    }

    /// Returns whether the folder had no `meta.properties` before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Replaces the id of the folder. That of a node in a cluster is the id of its quorum's log.
    pub fn set_directory_id(&mut self, directory_id: Uuid) -> Result<(), DataDirError> {
        if self.meta.directory_id != directory_id {
            self.meta.directory_id = directory_id;
            self.meta.write(&self.path).map_err(io("cannot write", &self.path.join(META_PROPERTIES)))?;
        }
        Ok(())
    }

    /// Returns the folder of one partition, `topic-partition`.
    pub fn partition_dir(&self, topic: &str, partition: i32) -> PathBuf {
        self.path.join(format!("{topic}-{partition}"))
    }

    /// Returns one of the checkpoints of all partitions, by its name in [`OffsetCheckpoint`].
    pub fn checkpoint(&self, name: &str) -> OffsetCheckpoint {
        OffsetCheckpoint::new(&self.path, name)
    }

    /// Returns whether the last broker on this folder stopped cleanly, and removes its marker durably. If the broker
    /// dies after that, its stop does not count as clean.
    pub fn take_clean_shutdown(&self) -> Result<bool, DataDirError> {
        let marker = self.path.join(CLEAN_SHUTDOWN_FILE);
        let clean = marker.exists();
        if clean {
            remove_if_there(&marker).and_then(|()| sync_dir(&self.path)).map_err(io("cannot remove", &marker))?;
        }
        Ok(clean)
    }

    /// Writes the marker of a clean stop. Call it after every log is closed and durable, and the checkpoints are
    /// written.
    pub fn mark_clean_shutdown(&self) -> Result<(), DataDirError> {
        let marker = self.path.join(CLEAN_SHUTDOWN_FILE);
        // Kafka keeps the broker epoch here; -1 is its "unknown".
        write_atomic(&marker, br#"{"version":0,"brokerEpoch":-1}"#).map_err(io("cannot write", &marker))
    }
}

/// Returns whether a broker has used a folder before: it has a checkpoint, or the folder of a log.
fn holds_data(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_log = name.rsplit_once('-').is_some_and(|(_, end)| end == "quorum" || end.parse::<i32>().is_ok());
        if is_log || name.ends_with("-offset-checkpoint") || name == CLEAN_SHUTDOWN_FILE {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns a random id that does not look like an option of a command line, as Kafka's do not.
fn new_cluster_id() -> String {
    loop {
        let id = KafkaUuid(Uuid::new_v4()).to_string();
        if !id.starts_with('-') {
            return id;
        }
    }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let lock_path = path.join(LOCK_FILE);
    let in_use = || DataDirError::InUse { path: path.to_path_buf() };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(io("cannot open", &lock_path))?;
    // Apache Kafka takes a POSIX lock; flock also keeps out a second broker in this process.
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => return Err(in_use()),
        Err(error) => return Err(io("cannot lock", &lock_path)(error.into())),
    }
    // A child process that a killed broker was starting holds its flock, though not its POSIX lock, until it runs its
    // program.
    let deadline = Instant::now() + ORPHAN_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::WouldBlock) => return Err(in_use()),
            Err(TryLockError::Error(error)) => return Err(io("cannot lock", &lock_path)(error)),
        }
    }
}

fn check<T: PartialEq + ToString>(
    path: &Path,
    setting: &'static str,
    found: T,
    expected: T,
) -> Result<(), DataDirError> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.to_string(), expected.to_string());
    Err(DataDirError::Foreign { path: path.to_path_buf(), setting, found, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_broker_is_rejected_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), None, 1).unwrap();
        for _ in 0..2 {
            let error = DataDir::open(dir.path(), None, 1).unwrap_err();
            assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
            assert!(error.to_string().contains("in use by another broker"), "{error}");
        }
        let meta = first.meta().clone();
        drop(first);
        assert_eq!(DataDir::open(dir.path(), None, 1).unwrap().meta(), &meta);
    }

    #[test]
    fn opening_waits_for_a_child_of_a_killed_broker() {
        let dir = tempfile::tempdir().unwrap();
        let inherited = File::create(dir.path().join(LOCK_FILE)).unwrap();
        inherited.lock().unwrap();
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("0.2").spawn().unwrap();
        drop(inherited);
        DataDir::open(dir.path(), None, 1).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_folder_of_another_broker_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), Some("one"), 1).unwrap());
        let error = DataDir::open(dir.path(), Some("two"), 1).unwrap_err().to_string();
        assert!(error.contains("cluster.id=one, not to two"), "{error}");
        let error = DataDir::open(dir.path(), None, 2).unwrap_err().to_string();
        assert!(error.contains("node.id=1, not to 2"), "{error}");
        fs::write(dir.path().join(META_PROPERTIES), "garbage").unwrap();
        let error = DataDir::open(dir.path(), None, 1).unwrap_err().to_string();
        assert!(error.contains("meta.properties: version is missing"), "{error}");
    }

    #[test]
    fn the_marker_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path(), None, 1).unwrap();
        assert!(!data.take_clean_shutdown().unwrap());
        data.mark_clean_shutdown().unwrap();
        assert!(data.take_clean_shutdown().unwrap());
        assert!(!data.take_clean_shutdown().unwrap());
    }
}
