//! The space that a data folder keeps for the broker itself (`disk.reserve.bytes`).
//!
//! While less than the reserve is free, the folder takes no records of producers. What is left is for the metadata,
//! checkpoints, committed offsets and deletions. When twice the reserve is free, producers go on.
//!
//! Other programs may take that space too. So a file keeps a quarter of the reserve, and is removed when the broker
//! starts or ends on a full disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

const FILE: &str = ".disk-reserve";

/// The reserve of one data folder.
#[derive(Debug)]
pub(crate) struct DiskReserve {
    folder: PathBuf,
    /// The size; 0 for no reserve.
    bytes: u64,
    is_full: AtomicBool,
    kept: Mutex<Kept>,
}

/// The file of a reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    There,
    Missing,
    /// The file system cannot take space ahead.
    Unsupported,
}

/// What a look at the disk has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The disk has become full.
    Full,
    /// The disk has space again.
    Space,
}

impl DiskReserve {
    /// Makes the reserve of a folder. The disk is not looked at yet.
    pub(crate) fn new(folder: &Path, bytes: u64) -> Self {
        let kept = if folder.join(FILE).exists() { Kept::There } else { Kept::Missing };
        Self { folder: folder.to_path_buf(), bytes, is_full: AtomicBool::new(false), kept: Mutex::new(kept) }
    }

    /// Returns whether the folder takes no records of producers.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Looks at the free space, and returns what has changed.
    ///
    /// # Errors
    /// The folder does not work.
    pub(crate) fn look(&self) -> io::Result<Option<Change>> {
        let mut kept = self.kept.lock();
        if self.bytes == 0 {
            return self.remove(&mut kept).map(|()| None);
        }
        let free = self.free()?;
        if free < self.bytes {
            let was_full = self.is_full.swap(true, Ordering::Relaxed);
            return Ok((!was_full).then_some(Change::Full));
        }
        if free < self.bytes.saturating_mul(2) {
            return Ok(None);
        }
        if *kept == Kept::Missing {
            *kept = self.keep()?;
        }
        let was_full = self.is_full.swap(false, Ordering::Relaxed);
        Ok(was_full.then_some(Change::Space))
    }

    /// Removes the file if the disk has less space than the file keeps, so that the broker can start or end.
    ///
    /// # Errors
    /// The folder does not work.
    pub(crate) fn make_room(&self) -> io::Result<()> {
        let mut kept = self.kept.lock();
        if self.free()? < self.kept_bytes() { self.remove(&mut kept) } else { Ok(()) }
    }

    fn kept_bytes(&self) -> u64 {
        self.bytes / 4
    }

    /// Returns the bytes that can still be written to the disk.
    ///
    /// # Errors
    /// The folder does not work.
    pub(crate) fn free(&self) -> io::Result<u64> {
        let status = statvfs(&self.folder)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// Returns whether this number of bytes can be written without taking from the reserve. A folder that does not work
    /// says so when it is written to.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        self.bytes == 0 || self.free().map_or(true, |free| free >= self.bytes.saturating_add(bytes))
    }

    fn keep(&self) -> io::Result<Kept> {
        let path = self.folder.join(FILE);
        let file = File::create(&path)?;
        let Err(error) = fallocate(&file, FallocateFlags::empty(), 0, self.kept_bytes()) else {
            return Ok(Kept::There);
        };
        fs::remove_file(&path)?;
        Ok(if error == rustix::io::Errno::OPNOTSUPP { Kept::Unsupported } else { Kept::Missing })
    }

    fn remove(&self, kept: &mut Kept) -> io::Result<()> {
        if *kept == Kept::There {
            fs::remove_file(self.folder.join(FILE))?;
            *kept = Kept::Missing;
        }
        Ok(())
    }
}
