//! Syncs a folder once for all changes in it: many logs have the same parent, and each of them needs its own entry
//! there.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// A folder that several logs of this process change.
pub(crate) struct SharedFolder {
    path: PathBuf,
    changes: AtomicU64,
    synced: Mutex<Synced>,
}

#[derive(Default)]
struct Synced {
    /// All changes up to this one are on disk.
    upto: u64,
    /// Set for ever by a failed fsync: after it, a later one may succeed and prove nothing.
    failed: bool,
}

/// A change in a [`SharedFolder`] that is not known to be on disk.
#[derive(Clone)]
pub(crate) struct FolderChange {
    folder: Arc<SharedFolder>,
    number: u64,
}

impl FolderChange {
    /// Takes note of a change that was just made in the parent of `dir`.
    pub(crate) fn in_parent_of(dir: &Path) -> Self {
        static FOLDERS: Mutex<Option<HashMap<PathBuf, Weak<SharedFolder>>>> = Mutex::new(None);
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut folders = FOLDERS.lock();
        let folders = folders.get_or_insert_default();
        let folder = match folders.get(parent).and_then(Weak::upgrade) {
            Some(folder) => folder,
            None => {
                folders.retain(|_, folder| folder.strong_count() > 0);
                let path = parent.to_path_buf();
                let folder = SharedFolder { path: path.clone(), changes: AtomicU64::new(0), synced: Mutex::default() };
                let folder = Arc::new(folder);
                folders.insert(path, Arc::downgrade(&folder));
                folder
            }
        };
        let number = folder.changes.fetch_add(1, Ordering::AcqRel) + 1;
        Self { folder, number }
    }

    /// Returns the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.folder.path
    }

    /// Opens the folder for [`Self::sync`]. Nothing is synced yet, so a failure says nothing about the disk.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(self.path())
    }

    /// Makes the change durable. Changes that wait for a running fsync share the next one.
    pub(crate) fn sync(&self, folder: &File) -> io::Result<()> {
        let mut synced = self.folder.synced.lock();
        if synced.failed {
            return Err(io::Error::other("an earlier fsync of this folder failed"));
        }
        if synced.upto >= self.number {
            return Ok(());
        }
        let upto = self.folder.changes.load(Ordering::Acquire);
        folder.sync_all().inspect_err(|_| synced.failed = true)?;
        synced.upto = upto;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sync_covers_the_changes_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let changes: Vec<_> = (0..3).map(|at| FolderChange::in_parent_of(&dir.path().join(at.to_string()))).collect();
        let folder = changes[1].open().unwrap();
        changes[1].sync(&folder).unwrap();
        assert_eq!(changes[0].folder.synced.lock().upto, 3);
        let later = FolderChange::in_parent_of(&dir.path().join("later"));
        assert!(Arc::ptr_eq(&later.folder, &changes[0].folder));
        // What is synced needs no disk; what is not does, and a failure lasts.
        let cannot_be_synced = File::open("/dev/null").unwrap();
        changes[2].sync(&cannot_be_synced).unwrap();
        assert!(later.sync(&cannot_be_synced).is_err());
        assert!(changes[0].sync(&folder).is_err() && later.sync(&folder).is_err());
    }

    #[test]
    fn a_folder_that_cannot_be_opened_is_no_failed_sync() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        let change = FolderChange::in_parent_of(&path.join("log"));
        drop(dir);
        assert!(change.open().is_err());
        std::fs::create_dir(&path).unwrap();
        change.sync(&change.open().unwrap()).unwrap();
        std::fs::remove_dir(&path).unwrap();
    }
}
