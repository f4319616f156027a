//! The file that a path leads to now, and the folders where that may change.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// The most symbolic links on one path, as in Linux.
const LINKS_MAX: usize = 40;

/// Distinguishes the states of a file without reading it: its inode, its size, and when it was written and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileId {
    /// Returns the state of the file behind a path, or `None` if there is no such file.
    pub(super) fn of(path: &Path) -> Option<FileId> {
        let metadata = fs::metadata(path).ok()?;
        Some(FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Distinguishes a folder from another one with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    pub(super) fn of(path: &Path) -> Option<FolderId> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
        Some(FolderId { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Returns the folders in which a change can make an absolute path lead elsewhere: those that hold a symbolic link on
/// the path, and the one that holds the file. If the path leads nowhere, the last is the deepest folder that exists.
pub(super) fn folders_on_the_way(path: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut here = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            // This is not a link, so its parent is the real one.
            here.pop();
            continue;
        }
        let next = here.join(&name);
        match fs::symlink_metadata(&next) {
            Ok(metadata) if metadata.is_symlink() && links < LINKS_MAX => {
                links += 1;
                folders.push(here.clone());
                let Ok(target) = fs::read_link(&next) else { return folders };
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                names(&target).collect::<Vec<_>>().into_iter().rev().for_each(|name| rest.push_front(name));
            }
            Ok(metadata) if metadata.is_dir() => here = next,
            Ok(_) | Err(_) => break,
        }
    }
    folders.push(here);
    folders
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Returns an empty folder without links in its path.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[test]
    fn a_plain_file_changes_in_its_folder() {
        let (_guard, folder) = folder();
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/file"), "").unwrap();
        assert_eq!(folders_on_the_way(&folder.join("a/b/file")), [folder.join("a/b")]);
        assert_eq!(folders_on_the_way(&folder.join("a/b/../b/./file")), [folder.join("a/b")]);
        assert_eq!(folders_on_the_way(&folder.join("a/b")), [folder.join("a/b")]);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_watched_where_it_ends() {
        let (_guard, folder) = folder();
        assert_eq!(folders_on_the_way(&folder.join("a/b/file")), [folder.as_path()]);
        fs::create_dir(folder.join("a")).unwrap();
        assert_eq!(folders_on_the_way(&folder.join("a/b/file")), [folder.join("a")]);
    }

    #[test]
    fn links_are_watched_where_they_lie() {
        let (_guard, folder) = folder();
        fs::create_dir_all(folder.join("mount/..2026")).unwrap();
        fs::write(folder.join("mount/..2026/file"), "").unwrap();
        // As Kubernetes mounts a ConfigMap.
        symlink("..2026", folder.join("mount/..data")).unwrap();
        symlink("..data/file", folder.join("mount/file")).unwrap();
        let mount = folder.join("mount");
        assert_eq!(folders_on_the_way(&mount.join("file")), [mount.clone(), mount.clone(), mount.join("..2026")]);
        // A link to a folder, absolute, and one whose target is missing.
        symlink(&mount, folder.join("current")).unwrap();
        let expected = [folder.clone(), mount.clone(), mount.join("..2026")];
        assert_eq!(folders_on_the_way(&folder.join("current/..data/file")), expected);
        symlink("nowhere/x", folder.join("dangling")).unwrap();
        assert_eq!(folders_on_the_way(&folder.join("dangling")), [folder.clone(), folder.clone()]);
        symlink("loop", folder.join("loop")).unwrap();
        assert_eq!(folders_on_the_way(&folder.join("loop")).last(), Some(&folder));
    }
}
