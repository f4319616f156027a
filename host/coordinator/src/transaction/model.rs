//! What all parts of the transaction coordinator share: names of producers and partitions, states, errors.

use std::sync::Arc;

use millstream_wire::ErrorCode;
use thiserror::Error;

use crate::shard::NotServed;

/// Stands for no producer id.
pub const NO_PRODUCER_ID: i64 = -1;

/// Stands for no producer epoch.
pub const NO_PRODUCER_EPOCH: i16 = -1;

/// A partition of a topic, by name.
pub type TopicPartition = (Arc<str>, i32);

/// A producer's id with its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// The id.
    pub id: i64,
    /// Fences older instances of the producer.
    pub epoch: i16,
}

impl Producer {
    /// Stands for no producer, in a response with an error.
    pub const NONE: Self = Self { id: NO_PRODUCER_ID, epoch: NO_PRODUCER_EPOCH };

    /// Returns whether the id has no further epoch for a client. The one that is left fences the last producer.
    pub(crate) fn is_exhausted(self) -> bool {
        self.epoch >= i16::MAX - 1
    }

    /// Returns the producer with the next epoch.
    pub(crate) fn bumped(self) -> Self {
        Self { epoch: self.epoch.saturating_add(1), ..self }
    }
}

/// The protocol by which a transaction was changed: the level of `transaction.version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TransactionVersion {
    /// Producers add partitions by requests, and keep their epoch.
    #[default]
    V0,
    /// As before, with records that have room for what the next level needs.
    V1,
    /// The end of each transaction raises the epoch (KIP-890).
    V2,
}

impl TransactionVersion {
    /// Returns the newest protocol up to this level of the feature.
    #[must_use]
    pub fn of_level(level: u16) -> Self {
        match level {
            0 => Self::V0,
            1 => Self::V1,
            _ => Self::V2,
        }
    }

    /// Returns the level of the feature.
    #[must_use]
    pub fn level(self) -> i8 {
        self as i8
    }
}

/// The state of a transactional id. The names and numbers are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionState {
    /// There was no transaction since the producer id was assigned.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// It will be committed: the markers are being written.
    PrepareCommit,
    /// It will be aborted: the markers are being written.
    PrepareAbort,
    /// The last transaction was committed.
    CompleteCommit,
    /// The last transaction was aborted.
    CompleteAbort,
    /// The transactional id has expired.
    Dead,
    /// The producer is about to be fenced. It is never written.
    PrepareEpochFence,
}

impl TransactionState {
    /// All states, each at its number.
    const ALL: [Self; 8] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
        Self::Dead,
        Self::PrepareEpochFence,
    ];

    /// Returns the number in records.
    pub(crate) fn number(self) -> i8 {
        self as i8
    }

    /// Returns the state with a number.
    pub(crate) fn of_number(number: i8) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Returns the name that ListTransactions and DescribeTransactions show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
            Self::Dead => "Dead",
            Self::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// Returns the state with a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Returns whether the outcome is decided, and its markers are not all written.
    pub(crate) fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// Returns whether no transaction is open.
    pub(crate) fn is_idle(self) -> bool {
        matches!(self, Self::Empty | Self::CompleteCommit | Self::CompleteAbort)
    }
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its records count.
    Commit,
    /// Its records are left out by readers of committed records.
    Abort,
}

/// Why the coordinator rejects a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// Kafka's INVALID_REQUEST.
    #[error("the transactional id is empty or too long")]
    InvalidTransactionalId,
    /// Kafka's INVALID_TRANSACTION_TIMEOUT.
    #[error("the transaction timeout is not between 1 and transaction.max.timeout.ms")]
    InvalidTimeout,
    /// Kafka's INVALID_PRODUCER_ID_MAPPING.
    #[error("the producer id is not the one of the transactional id")]
    InvalidProducerIdMapping,
    /// Kafka's PRODUCER_FENCED.
    #[error("a newer producer with the same transactional id has fenced this one")]
    ProducerFenced,
    /// Kafka's CONCURRENT_TRANSACTIONS.
    #[error("the transaction before is not complete yet")]
    ConcurrentTransactions,
    /// Kafka's INVALID_TXN_STATE.
    #[error("the transaction is in a state that does not allow the request")]
    InvalidState,
    /// Kafka's TRANSACTION_ABORTABLE.
    #[error("the partition is not in the transaction, which has to be aborted")]
    Abortable,
    /// Kafka's TRANSACTIONAL_ID_NOT_FOUND.
    #[error("the transactional id does not exist")]
    NotFound,
    /// Kafka's COORDINATOR_LOAD_IN_PROGRESS.
    #[error("the transactional id is being loaded from the log")]
    LoadInProgress,
    /// Kafka's COORDINATOR_NOT_AVAILABLE.
    #[error("the coordinator is not available")]
    NotAvailable,
    /// Kafka's NOT_COORDINATOR.
    #[error("this broker is not the coordinator of the transactional id")]
    NotCoordinator,
    /// The record is larger than a batch may be.
    #[error("the transaction has too many partitions for one record of __transaction_state")]
    RecordTooLarge,
}

impl From<NotServed> for TransactionError {
    fn from(not_served: NotServed) -> Self {
        match not_served {
            NotServed::Loading => Self::LoadInProgress,
            NotServed::Failed => Self::NotAvailable,
            NotServed::Closed => Self::NotCoordinator,
        }
    }
}

impl From<TransactionError> for ErrorCode {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::InvalidTransactionalId => Self::INVALID_REQUEST,
            TransactionError::InvalidTimeout => Self::INVALID_TRANSACTION_TIMEOUT,
            TransactionError::InvalidProducerIdMapping => Self::INVALID_PRODUCER_ID_MAPPING,
            TransactionError::ProducerFenced => Self::PRODUCER_FENCED,
            TransactionError::ConcurrentTransactions => Self::CONCURRENT_TRANSACTIONS,
            TransactionError::InvalidState => Self::INVALID_TXN_STATE,
            TransactionError::Abortable => Self::TRANSACTION_ABORTABLE,
            TransactionError::NotFound => Self::TRANSACTIONAL_ID_NOT_FOUND,
            TransactionError::LoadInProgress => Self::COORDINATOR_LOAD_IN_PROGRESS,
            TransactionError::NotAvailable => Self::COORDINATOR_NOT_AVAILABLE,
            TransactionError::NotCoordinator => Self::NOT_COORDINATOR,
            TransactionError::RecordTooLarge => Self::UNKNOWN_SERVER_ERROR,
        }
    }
}
