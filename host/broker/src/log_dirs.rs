//! The data folders of this node (`log.dirs`), and which of them have failed.
//!
//! Each folder has its lock, its `meta.properties`, its checkpoints and its marker of a clean stop. One of them, or
//! another folder, has the metadata (`metadata.log.dir`). A folder that fails takes only its partitions out of service.
//! Without the folder of the metadata, or without any folder for partitions, the node ends.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use millstream_log::{DataDir, DataDirError, MetaProperties};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::disk_reserve::{Change, DiskReserve};

/// The file that [`LogDir::probe`] writes.
const PROBE: &str = ".probe";

/// Why the data folders cannot be used together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogDirsError {
    #[error("{} is in log.dirs twice, also as {}", one.display(), other.display())]
    Same { one: PathBuf, other: PathBuf },
    #[error(
        "the data folder {} is inside of the data folder {}: choose folders side by side",
        inner.display(), outer.display()
    )]
    Nested { inner: PathBuf, outer: PathBuf },
    #[error(
        "the metadata of this node is in {}, not in {}: set metadata.log.dir={}, or name that folder first in log.dirs",
        found.display(), expected.display(), found.display()
    )]
    MetadataElsewhere { found: PathBuf, expected: PathBuf },
    #[error(transparent)]
    Unusable(#[from] DataDirError),
    #[error(
        "{} has the data of a node, but its metadata is not there, and {} is new: bring the folder of the metadata \
         back, or begin with empty folders",
        found.display(), metadata.display()
    )]
    MetadataLost { found: PathBuf, metadata: PathBuf },
    #[error("none of the data folders works: {0}")]
    AllFailed(String),
}

/// One data folder for partitions.
#[derive(Debug)]
pub(crate) struct LogDir {
    path: Arc<Path>,
    /// `None` if the folder could not be opened at the start.
    directory_id: Option<Uuid>,
    failure: OnceLock<Arc<str>>,
    reserve: DiskReserve,
    /// Something failed in it, so that it has to be checked.
    is_suspected: AtomicBool,
    /// Held while a checkpoint is written: two writers would use the same temporary file, and the older offsets could
    /// win.
    pub(crate) checkpoints: Mutex<WrittenCheckpoints>,
}

/// What was written to the checkpoints of a folder.
#[derive(Debug, Default)]
pub(crate) struct WrittenCheckpoints {
    /// A hash of the high watermarks. They are written often, and change seldom on an idle broker.
    pub(crate) high_watermarks: Option<u64>,
}

impl LogDir {
    fn new(path: &Path, directory_id: Option<Uuid>, reserve_bytes: u64) -> Self {
        Self {
            path: Arc::from(path),
            directory_id,
            failure: OnceLock::new(),
            reserve: DiskReserve::new(path, reserve_bytes),
            is_suspected: AtomicBool::new(false),
            checkpoints: Mutex::default(),
        }
    }

    /// Returns the path, as it is configured.
    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Returns the absolute path.
    pub(crate) fn absolute(&self) -> PathBuf {
        std::path::absolute(&self.path).unwrap_or_else(|_| self.path.to_path_buf())
    }

    /// Returns whether a list of folders names this one, or all by `*`.
    pub(crate) fn is_named_in(&self, folders: &str) -> bool {
        folders
            .split(',')
            .map(str::trim)
            .any(|one| one == "*" || !one.is_empty() && is_same(&self.path, Path::new(one)))
    }

    /// Returns the `directory.id`; `None` if the folder could not be opened at the start.
    pub(crate) fn directory_id(&self) -> Option<Uuid> {
        self.directory_id
    }

    /// Returns why the folder is offline; `None` if it works.
    pub(crate) fn failure(&self) -> Option<&Arc<str>> {
        self.failure.get()
    }

    /// Returns whether the folder works.
    pub(crate) fn is_online(&self) -> bool {
        self.failure.get().is_none()
    }

    /// Returns whether the disk of the folder is so full that the folder takes no records of producers.
    pub(crate) fn is_full(&self) -> bool {
        self.reserve.is_full()
    }

    /// Returns whether this number of bytes can be written without taking from the reserve.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        self.reserve.has_room_for(bytes)
    }

    /// Returns the bytes that can still be written to the disk of the folder.
    ///
    /// # Errors
    /// The folder does not work.
    pub(crate) fn free(&self) -> io::Result<u64> {
        self.reserve.free()
    }

    /// Notes that something failed in the folder, so that it is checked.
    pub(crate) fn suspect(&self) {
        self.is_suspected.store(true, Ordering::Release);
    }

    /// Returns whether something has failed in the folder since the last call.
    pub(crate) fn take_suspicion(&self) -> bool {
        self.is_suspected.swap(false, Ordering::AcqRel)
    }

    /// Checks that the folder takes a file and syncs it. A full disk passes: it is over once there is space.
    ///
    /// # Errors
    /// The folder does not work.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let path = self.path.join(PROBE);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(b"probe")?;
            file.sync_all()
        });
        match written.and_then(|()| fs::remove_file(&path)) {
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The data folders of this node.
#[derive(Debug)]
pub(crate) struct LogDirs {
    dirs: Vec<Arc<LogDir>>,
    /// The folder of the metadata.
    metadata: PathBuf,
    /// Whether the disk of some folder is full.
    is_any_full: AtomicBool,
    /// Set once the node cannot go on.
    fatal: watch::Sender<Option<String>>,
}

impl LogDirs {
    /// Opens the other folders beside that of the metadata, which is open. Returns them, and the locks of those that
    /// this has opened. A folder that cannot be read or written is offline.
    ///
    /// # Errors
    /// A folder belongs to another node or another cluster, or another process uses it, or no folder works.
    pub(crate) fn open(
        paths: &[PathBuf],
        metadata: &DataDir,
        reserve_bytes: u64,
    ) -> Result<(Self, Vec<DataDir>), LogDirsError> {
        let (mut dirs, mut opened) = (Vec::with_capacity(paths.len()), Vec::new());
        let ids = metadata.meta();
        for path in paths {
            if is_same(path, metadata.path()) {
                dirs.push(Arc::new(LogDir::new(metadata.path(), Some(ids.directory_id), reserve_bytes)));
                continue;
            }
            match DataDir::open(path, Some(&ids.cluster_id), ids.node_id) {
                Ok(dir) => {
                    dirs.push(Arc::new(LogDir::new(path, Some(dir.meta().directory_id), reserve_bytes)));
                    opened.push(dir);
                }
                Err(DataDirError::Io { source, what, path: at }) if source.kind() != io::ErrorKind::InvalidData => {
                    let reason = format!("{what} {}: {source}", at.display());
                    tracing::error!("the data folder {} is offline: {reason}", path.display());
                    let dir = LogDir::new(path, None, reserve_bytes);
                    let _ = dir.failure.set(offline_reason(path, &reason));
                    dirs.push(Arc::new(dir));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(reason) = dirs.iter().all(|dir| !dir.is_online()).then(|| dirs[0].failure()).flatten() {
            return Err(LogDirsError::AllFailed(reason.to_string()));
        }
        let metadata = metadata.path().to_path_buf();
        let (is_any_full, fatal) = (AtomicBool::new(false), watch::Sender::default());
        Ok((Self { dirs, metadata, is_any_full, fatal }, opened))
    }

    /// Returns the folder of the metadata.
    pub(crate) fn metadata(&self) -> &Path {
        &self.metadata
    }

    /// Returns all folders for partitions, in the order of `log.dirs`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<LogDir>> {
        self.dirs.iter()
    }

    /// Returns the folders for partitions that work.
    pub(crate) fn online(&self) -> impl Iterator<Item = &Arc<LogDir>> {
        self.dirs.iter().filter(|dir| dir.is_online())
    }

    /// Returns the only folder; `None` if there are several.
    pub(crate) fn only(&self) -> Option<&Arc<LogDir>> {
        match &self.dirs[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Returns the folder with a path.
    pub(crate) fn find(&self, path: &Path) -> Option<&Arc<LogDir>> {
        self.dirs.iter().find(|dir| *dir.path == *path)
    }

    /// Looks at the free space of all folders, and logs what has changed.
    pub(crate) fn look_at_space(&self) {
        for dir in self.online() {
            let path = dir.path.display();
            match dir.reserve.look() {
                Ok(None) => {}
                Ok(Some(Change::Full)) => {
                    tracing::error!(
                        "the disk of {path} is full: it takes no records of producers until there is space"
                    );
                }
                Ok(Some(Change::Space)) => tracing::info!("the disk of {path} has space again: producers go on"),
                Err(error) => {
                    tracing::debug!("cannot look at the space of {path}: {error}");
                    dir.suspect();
                }
            }
        }
        self.is_any_full.store(self.online().any(|dir| dir.is_full()), Ordering::Relaxed);
    }

    /// Makes room on full disks, so that the broker can start or end.
    pub(crate) fn make_room(&self) {
        for dir in self.online() {
            if let Err(error) = dir.reserve.make_room() {
                tracing::warn!("cannot make room on the disk of {}: {error}", dir.path.display());
            }
        }
    }

    /// Returns whether the disk of some folder is full.
    pub(crate) fn is_any_full(&self) -> bool {
        self.is_any_full.load(Ordering::Relaxed)
    }

    /// Takes a folder out of service. Returns false if it is already.
    pub(crate) fn fail(&self, dir: &LogDir, reason: &str) -> bool {
        if dir.failure.set(offline_reason(&dir.path, reason)).is_err() {
            return false;
        }
        tracing::error!("the data folder {} is offline: {reason}", dir.path.display());
        if is_same(&dir.path, &self.metadata) {
            self.end(format!("the data folder of the metadata, {}, has failed: {reason}", dir.path.display()));
        } else if self.online().next().is_none() {
            self.end(format!("the last data folder, {}, has failed: {reason}", dir.path.display()));
        }
        true
    }

    fn end(&self, reason: String) {
        self.fatal.send_if_modified(|fatal| fatal.replace(reason).is_none());
    }

    /// Returns the reason once the node cannot go on.
    pub(crate) fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }
}

fn offline_reason(path: &Path, reason: &str) -> Arc<str> {
    Arc::from(format!("its data folder {} is offline: {reason}", path.display()))
}

/// Checks that folders can be used together, before any of them is created. `has_metadata` says whether a folder has
/// the metadata of a node.
///
/// # Errors
/// Two folders are the same, or one is inside of another, or the metadata is in another folder than the configured one.
pub(crate) fn check(
    paths: &[PathBuf],
    metadata: &Path,
    has_metadata: impl Fn(&Path) -> bool,
    is_alone: bool,
) -> Result<(), LogDirsError> {
    let real: Vec<PathBuf> = paths.iter().map(|path| real(path)).collect();
    for (index, one) in real.iter().enumerate() {
        for (other_index, other) in real.iter().enumerate().filter(|(other, _)| *other != index) {
            let (path, other_path) = (paths[index].clone(), paths[other_index].clone());
            if one == other {
                return Err(LogDirsError::Same { one: path, other: other_path });
            }
            if one.starts_with(other) {
                return Err(LogDirsError::Nested { inner: path, outer: other_path });
            }
        }
    }
    if !has_metadata(metadata)
        && let Some(found) = paths.iter().find(|path| has_metadata(path))
    {
        return Err(LogDirsError::MetadataElsewhere { found: found.clone(), expected: metadata.to_path_buf() });
    }
    // A node that is alone cannot get its metadata back from others.
    let is_new = |path: &Path| matches!(MetaProperties::read(path), Ok(None));
    if is_alone
        && is_new(metadata)
        && let Some(found) = paths.iter().find(|path| matches!(MetaProperties::read(path), Ok(Some(_))))
    {
        return Err(LogDirsError::MetadataLost { found: found.clone(), metadata: metadata.to_path_buf() });
    }
    Ok(())
}

/// Returns whether two paths are the same folder.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    one == other || real(one) == real(other)
}

/// Returns a path without links, as far as its folders exist.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut path = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
        // A link may lead elsewhere before a `..` goes up.
        path = fs::canonicalize(&path).unwrap_or(path);
    }
    path
}
