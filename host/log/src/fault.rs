//! What keeps a log from its work, as far as the log has noticed. A replica with a fault must not count as in sync.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;

use crate::error::LogError;
use crate::log::{Log, LogReader};

/// What keeps a log from its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFault {
    /// The disk had no space for an append. It is over once there is space, see [`LogReader::clear_passing`].
    Full,
    /// The process had no file descriptor left for a file of the log. It is over once there is one again, see
    /// [`LogReader::clear_passing`].
    NoDescriptor,
    /// An fsync or a repair failed: what the kernel holds of the log may differ from the disk.
    Poisoned,
    /// Stored bytes are damaged, with the file and the position.
    Damaged(String),
}

/// The number of faults that the logs of this process have noted.
static NOTED: AtomicU64 = AtomicU64::new(0);

/// Returns a number that rises when a log of this process notes a fault.
pub fn faults_noted() -> u64 {
    NOTED.load(Ordering::Acquire)
}

/// The faults of one log.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Set for ever by a failed fsync, by a failed append that could not be undone, and by [`Log::retire`].
    pub(crate) poisoned: AtomicBool,
    full: AtomicBool,
    no_descriptor: AtomicBool,
    damage: OnceLock<String>,
}

impl Faults {
    /// Notes the fault that an error shows, if it shows one.
    pub(crate) fn note(&self, error: &LogError) {
        match error {
            LogError::Io { source, .. } if is_full(source) => self.full.store(true, Ordering::Release),
            LogError::Io { source, .. } if lacks_descriptor(source) => {
                self.no_descriptor.store(true, Ordering::Release)
            }
            LogError::Corrupt { .. } => drop(self.damage.set(error.to_string())),
            _ => return,
        }
        NOTED.fetch_add(1, Ordering::Release);
    }

    /// Notes that what the kernel holds of the log may differ from the disk.
    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
        NOTED.fetch_add(1, Ordering::Release);
    }

    /// Returns whether damage was found.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damage.get().is_some()
    }
}

/// Returns whether an error says that the disk is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Returns whether an error says that the process, or the system, has no file descriptor left.
pub(crate) fn lacks_descriptor(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

impl LogReader {
    /// Returns what keeps the log from its work. The fault that lasts longest comes first.
    pub fn fault(&self) -> Option<LogFault> {
        let faults = &self.shared.faults;
        if let Some(damage) = faults.damage.get() {
            return Some(LogFault::Damaged(damage.clone()));
        }
        if faults.poisoned.load(Ordering::Acquire) {
            return Some(LogFault::Poisoned);
        }
        if faults.full.load(Ordering::Acquire) {
            return Some(LogFault::Full);
        }
        faults.no_descriptor.load(Ordering::Acquire).then_some(LogFault::NoDescriptor)
    }

    /// Returns whether the log has a fault.
    pub fn has_fault(&self) -> bool {
        let faults = &self.shared.faults;
        let flags = [&faults.poisoned, &faults.full, &faults.no_descriptor];
        faults.is_damaged() || flags.iter().any(|flag| flag.load(Ordering::Acquire))
    }

    /// Notes that the disk is full.
    pub fn note_full(&self) {
        if !self.shared.faults.full.swap(true, Ordering::AcqRel) {
            NOTED.fetch_add(1, Ordering::Release);
        }
    }

    /// Notes that the disk has space again, and the process descriptors.
    pub fn clear_passing(&self) {
        self.shared.faults.full.store(false, Ordering::Release);
        self.shared.faults.no_descriptor.store(false, Ordering::Release);
    }
}

impl Log {
    /// Returns whether the log has a fault.
    pub fn has_fault(&self) -> bool {
        self.reader.has_fault()
    }

    /// Notes the fault that a failed append shows.
    pub(crate) fn note_fault(&self, error: &LogError) {
        self.shared().faults.note(error);
    }
}
