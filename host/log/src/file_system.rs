//! Syncs a whole file system at once. A start after a crash and a stop make many logs durable at the same moment: one
//! `syncfs` then takes the place of several fsyncs for each log.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{fstat, fstatfs, stat, syncfs};

use crate::durability::SyncTarget;

/// From this number of logs on, a sync of the whole file system is cheaper than the fsyncs of each.
const LOGS_MIN: usize = 16;

/// File systems on which `syncfs` writes data, metadata and the disk's own cache: ext4, XFS, Btrfs, tmpfs. Others
/// forward less of it (FUSE), or may not report an error of the layer below (overlayfs).
const KNOWN_TYPES: [u32; 4] = [0x0000_ef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

/// The first version of Linux whose `syncfs` reports that a page could not be written.
const KERNEL_MIN: (u32, u32) = (5, 8);

/// The file system of a data folder.
#[derive(Debug)]
pub struct FileSystem {
    /// Opened before the first write, so that its sync reports every error since.
    folder: File,
    device: u64,
    /// An error is reported once. After it, only the fsync of a file says whether that file is concerned.
    failed: AtomicBool,
}

impl FileSystem {
    /// Returns the file system of `folder`; `None` if its `syncfs` does not promise what an fsync of each file does.
    pub fn of(folder: &Path) -> io::Result<Option<Self>> {
        let folder = File::open(folder)?;
        // The type is a signed number on some targets; its 32 bits are what counts.
        let kind = fstatfs(&folder)?.f_type as u32;
        if !KNOWN_TYPES.contains(&kind) || !kernel_reports_errors() {
            return Ok(None);
        }
        let device = fstat(&folder)?.st_dev;
        Ok(Some(Self { folder, device, failed: AtomicBool::new(false) }))
    }

    /// Makes many logs durable with one sync. Returns false when each of them has to be synced by itself: they are few,
    /// a log lies elsewhere, or something failed, which the log concerned then reports.
    pub fn sync_all(&self, targets: &[SyncTarget]) -> bool {
        if targets.len() < LOGS_MIN || self.failed.load(Ordering::Acquire) {
            return false;
        }
        let prepare = |target: &SyncTarget| target.prepare_bulk().is_ok() && self.holds(target);
        if !targets.iter().all(prepare) {
            return false;
        }
        match syncfs(&self.folder) {
            Ok(()) => true,
            Err(error) => {
                self.failed.store(true, Ordering::Release);
                tracing::warn!("the file system cannot be synced as a whole, so each log is synced by itself: {error}");
                false
            }
        }
    }

    fn holds(&self, target: &SyncTarget) -> bool {
        stat(target.dir()).is_ok_and(|stat| stat.st_dev == self.device)
    }
}

fn kernel_reports_errors() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= KERNEL_MIN)
}
