//! Why a partition cannot serve a request.

use std::sync::Arc;

use millstream_log::{AppendError, LogError, ReadError, ReplayError};
use thiserror::Error;

/// A request that a partition rejects. Cheap to clone: one failed fsync rejects every write that waits for it.
#[derive(Debug, Clone, Error)]
pub enum PartitionError {
    /// The partition does not exist on this broker: it was deleted, or never existed.
    #[error("This server does not host this topic-partition.")]
    NotHosted,
    /// Only other brokers have replicas of the partition.
    #[error("this broker has no replica of the partition")]
    Elsewhere,
    /// The log could not be opened when the broker started.
    #[error("the partition is offline because its log could not be opened: {0}")]
    Offline(Arc<str>),
    /// The partition takes no records, see [`crate::Partition::freeze`].
    #[error("the partition takes no records for a moment, while its topic or its data folder changes")]
    Frozen,
    /// Another broker leads the partition, or none does (-1).
    #[error("this broker is not the leader of the partition; broker {leader} is")]
    NotLeader {
        /// The leader that this broker knows.
        leader: i32,
    },
    /// This broker leads as far as it knows, and has not reached the controller for longer than its session.
    #[error("this broker has not reached the controller for longer than its session: another broker may lead by now")]
    Suspended,
    /// The broker that fetches is not one of the replicas that this leader knows.
    #[error("broker {id} is not a replica of the partition in the metadata of its leader")]
    NotReplica {
        /// The broker that fetches.
        id: i32,
    },
    /// The client knows an older leader epoch.
    #[error("leader epoch {known} is older than the current epoch {current}")]
    FencedLeaderEpoch {
        /// The client's epoch.
        known: i32,
        /// The epoch of this leader.
        current: i32,
    },
    /// The client knows a newer leader epoch.
    #[error("leader epoch {known} is newer than the current epoch {current}")]
    UnknownLeaderEpoch {
        /// The client's epoch.
        known: i32,
        /// The epoch of this leader.
        current: i32,
    },
    /// A new leader does not know yet what is committed.
    #[error("the high watermark {high_watermark} is below the start {epoch_start} of this leader's epoch")]
    HighWatermarkLags {
        /// The high watermark.
        high_watermark: i64,
        /// The end of the log when the leader began.
        epoch_start: i64,
    },
    /// The leader epoch changed before the commit of a record, or already before its append.
    #[error("the record belongs to leader epoch {appended}, and the epoch is now {current}")]
    LeaderEpochChanged {
        /// The epoch of the record.
        appended: i32,
        /// The current epoch.
        current: i32,
    },
    /// The in-sync set is smaller than `min.insync.replicas`, so nothing would be committed.
    #[error("only {in_sync} replicas are in sync, fewer than min.insync.replicas")]
    NotEnoughReplicas {
        /// The size of the in-sync set.
        in_sync: usize,
    },
    /// The broker shuts down: a write that was not committed yet may be lost.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// The log rejected a batch.
    #[error(transparent)]
    Append(Arc<AppendError>),
    /// The log cannot be replayed.
    #[error(transparent)]
    Replay(Arc<ReplayError>),
    /// An offset outside of the log.
    #[error(transparent)]
    Read(Arc<ReadError>),
    /// The disk failed.
    #[error(transparent)]
    Storage(Arc<LogError>),
}

impl PartitionError {
    /// Returns whether the cause is a fault of this broker or its disk, which an operator has to see in the log.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Offline(_) | Self::Replay(_) | Self::Storage(_) => true,
            Self::Read(error) => matches!(**error, ReadError::Log(_)),
            _ => false,
        }
    }

    /// Returns whether stored bytes are damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Storage(error) if matches!(**error, LogError::Corrupt { .. }))
    }

    /// Returns whether a batch is larger than the topic's config allows.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        let Self::Append(error) = self else { return false };
        matches!(**error, AppendError::BatchTooLarge { .. } | AppendError::LargerThanSegment { .. })
    }
}

impl From<AppendError> for PartitionError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Log(error) => error.into(),
            error => Self::Append(Arc::new(error)),
        }
    }
}

impl From<ReplayError> for PartitionError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Read(error) => error.into(),
            error => Self::Replay(Arc::new(error)),
        }
    }
}

impl From<LogError> for PartitionError {
    fn from(error: LogError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<ReadError> for PartitionError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Log(error) => error.into(),
            error @ ReadError::OffsetOutOfRange { .. } => Self::Read(Arc::new(error)),
        }
    }
}
