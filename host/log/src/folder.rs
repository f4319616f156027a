//! Syncs a folder once for all changes in it: many logs have the same parent, and each of them needs its own entry
//! there.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::fsutil::sync_dir;

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

    /// Makes the change durable. Changes that wait for a running fsync share the next one.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut synced = self.folder.synced.lock();
        if synced.failed {
            return Err(io::Error::other("an earlier fsync of this folder failed"));
        }
        if synced.upto >= self.number {
            return Ok(());
        }
        let upto = self.folder.changes.load(Ordering::Acquire);
        sync_dir(self.path()).inspect_err(|_| synced.failed = true)?;
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
        changes[1].sync().unwrap();
        assert_eq!(changes[0].folder.synced.lock().upto, 3);
        let later = FolderChange::in_parent_of(&dir.path().join("later"));
        assert!(Arc::ptr_eq(&later.folder, &changes[0].folder));
        // What is synced needs no disk; what is not does, and a failure lasts.
        let path = dir.path().to_path_buf();
        drop(dir);
        changes[2].sync().unwrap();
        assert!(later.sync().is_err());
        std::fs::create_dir(&path).unwrap();
        assert!(changes[0].sync().is_err() && later.sync().is_err());
        std::fs::remove_dir(&path).unwrap();
    }
}
