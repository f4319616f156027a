//! What keeps a replica from being in sync, and the end of it.

use millstream_log::LogFault;

use crate::error::PartitionError;
use crate::fsync_queue::SyncSource;
use crate::partition::{LogState, Partition};

/// What keeps a replica from being in sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaFault {
    /// The disk is full. The records that the replica has confirmed are there.
    Full,
    /// The process has no file descriptor left. The records that the replica has confirmed are there.
    NoDescriptor,
    /// The log cannot be opened, and why. A restart may help.
    Offline(String),
    /// Records are damaged, or may not be on the disk, and why. The replica has to be copied again.
    Damaged(String),
}

impl ReplicaFault {
    /// Returns whether the fault passes by itself, and the replica has all records that it has confirmed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Full | Self::NoDescriptor)
    }

    /// Returns the message for the log.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Full => "its disk is full; it goes on when there is space",
            Self::NoDescriptor => {
                "the process has no file descriptor left (ulimit -n); it goes on when there is one again"
            }
            Self::Offline(reason) | Self::Damaged(reason) => reason,
        }
    }
}

impl Partition {
    /// Returns what keeps this replica from being in sync; `None` for one that works, or is on other brokers only.
    #[must_use]
    pub fn fault(&self) -> Option<ReplicaFault> {
        let Ok(reader) = self.reader() else {
            return match &self.state.lock().log {
                LogState::Offline { reason, is_damaged: true } => Some(ReplicaFault::Damaged(reason.to_string())),
                LogState::Offline { reason, .. } => Some(ReplicaFault::Offline(reason.to_string())),
                _ => None,
            };
        };
        match reader.fault()? {
            LogFault::Full => Some(ReplicaFault::Full),
            LogFault::NoDescriptor => Some(ReplicaFault::NoDescriptor),
            LogFault::Damaged(damage) => Some(ReplicaFault::Damaged(damage)),
            LogFault::Poisoned => Some(ReplicaFault::Damaged("an fsync or a repair failed".to_owned())),
        }
    }

    /// Checks the batch at an offset, in which a reader found wrong bytes. Damage becomes the fault of this replica.
    /// Blocks for the disk.
    pub fn check_batch(&self, offset: i64) {
        let slice = self.reader().and_then(|reader| Ok(reader.read(offset, 0, i64::MAX, true)?));
        if let Ok(Some(slice)) = slice {
            // The log notes the damage.
            let _ = slice.verify();
        }
    }

    /// Notes that the disk of this replica is full. Followers fetch nothing until [`Self::go_on`].
    pub fn note_full(&self) {
        if let Ok(reader) = self.reader() {
            reader.note_full();
        }
    }

    /// Lets a replica go on whose disk has space again, or whose process has descriptors. First syncs what it appended,
    /// which the fault may have prevented. Blocks for the disk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn go_on(&self) -> Result<(), PartitionError> {
        self.sync()?;
        self.reader()?.clear_passing();
        Ok(())
    }
}
