//! The only place where errors become Kafka's codes.

use millstream_coordinator::group::GroupError;
use millstream_log::{AppendError, LogError, ReadError};
use millstream_partition::PartitionError;
use millstream_record::{BatchError, ErrorKind};
use millstream_wire::{ErrorCode, Str};

use crate::config::ConfigError;
use millstream_metadata::controller::ControllerError;
use millstream_metadata::{MetadataError, TopicNameError};

/// An error response: a code, and a message for the APIs that have room for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// The invalid records of the batch, each with its index and message; an empty message stands for that of the
    /// batch.
    pub(crate) records: Vec<(u32, String)>,
    /// Whether the log or the disk failed. Other errors have the code KAFKA_STORAGE_ERROR too, since clients retry it.
    pub(crate) storage_fault: bool,
}

impl ApiError {
    /// Returns whether the disk failed, which operators need to see in the log.
    pub(crate) fn is_storage_fault(&self) -> bool {
        self.storage_fault
    }

    fn storage(message: String) -> Self {
        Self { storage_fault: true, ..Self::new(ErrorCode::KAFKA_STORAGE_ERROR, message) }
    }

    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), records: Vec::new(), storage_fault: false }
    }

    /// Returns the message for a response.
    pub(crate) fn text(&self) -> Option<Str> {
        Some(Str::from(self.message.as_str()))
    }

    pub(crate) fn unknown_topic() -> Self {
        Self::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic-partition.")
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        let code = match error.kind() {
            // The formats before 2 were valid once; other numbers are not formats.
            ErrorKind::UnsupportedMagic if !matches!(error, BatchError::UnsupportedMagic { magic: 0 | 1 }) => {
                ErrorCode::CORRUPT_MESSAGE
            }
            ErrorKind::Corrupt => ErrorCode::CORRUPT_MESSAGE,
            ErrorKind::InvalidRecord => ErrorCode::INVALID_RECORD,
            ErrorKind::UnsupportedMagic => ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT,
            ErrorKind::UnsupportedCodec => ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
            ErrorKind::InvalidTimestamp => ErrorCode::INVALID_TIMESTAMP,
            ErrorKind::TooLarge => ErrorCode::MESSAGE_TOO_LARGE,
        };
        Self { records: error.record_errors(), ..Self::new(code, error.to_string()) }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        Self::storage(error.to_string())
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        let storage_fault = matches!(error, AppendError::Log(_));
        Self { storage_fault, ..Self::new(append_code(&error), error.to_string()) }
    }
}

fn append_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Log(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        AppendError::InvalidProducerEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
        AppendError::LargerThanSegment { .. } => ErrorCode::RECORD_LIST_TOO_LARGE,
        AppendError::BatchTooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        AppendError::Corrupt(_) => ErrorCode::CORRUPT_MESSAGE,
        AppendError::UnexpectedOffset { .. } => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OffsetOutOfRange { .. } => Self::new(ErrorCode::OFFSET_OUT_OF_RANGE, error.to_string()),
            ReadError::Log(error) => error.into(),
        }
    }
}

impl From<MetadataError> for ApiError {
    fn from(error: MetadataError) -> Self {
        Self::storage(error.to_string())
    }
}

impl From<PartitionError> for ApiError {
    fn from(error: PartitionError) -> Self {
        let code = match &error {
            PartitionError::NotHosted => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            PartitionError::Frozen | PartitionError::LeaderEpochChanged { .. } | PartitionError::ShuttingDown => {
                ErrorCode::NOT_LEADER_OR_FOLLOWER
            }
            PartitionError::FencedLeaderEpoch { .. } => ErrorCode::FENCED_LEADER_EPOCH,
            PartitionError::UnknownLeaderEpoch { .. } => ErrorCode::UNKNOWN_LEADER_EPOCH,
            PartitionError::Append(error) => append_code(error),
            PartitionError::Read(error) if matches!(**error, ReadError::OffsetOutOfRange { .. }) => {
                ErrorCode::OFFSET_OUT_OF_RANGE
            }
            PartitionError::Offline(_)
            | PartitionError::Replay(_)
            | PartitionError::Read(_)
            | PartitionError::Storage(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        };
        Self { storage_fault: error.is_fault(), ..Self::new(code, error.to_string()) }
    }
}

impl From<TopicNameError> for ApiError {
    fn from(error: TopicNameError) -> Self {
        Self::new(ErrorCode::INVALID_TOPIC_EXCEPTION, error.to_string())
    }
}

impl From<ControllerError> for ApiError {
    fn from(error: ControllerError) -> Self {
        use ControllerError as E;
        let code = match &error {
            E::TopicName(_) | E::NameCollision { .. } => ErrorCode::INVALID_TOPIC_EXCEPTION,
            E::TopicExists(_) => ErrorCode::TOPIC_ALREADY_EXISTS,
            E::UnknownTopic => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            E::NonPositivePartitions(_)
            | E::SamePartitions(_)
            | E::FewerPartitions { .. }
            | E::PartitionsOfView { .. } => ErrorCode::INVALID_PARTITIONS,
            E::TooManyPartitions(_) => ErrorCode::POLICY_VIOLATION,
            E::NonPositiveReplicationFactor | E::TooFewBrokers { .. } => ErrorCode::INVALID_REPLICATION_FACTOR,
            E::AssignmentWithCounts => ErrorCode::INVALID_REQUEST,
            E::AssignmentIndexes
            | E::AssignmentEmpty
            | E::AssignmentUnknownBroker(_)
            | E::AssignmentRepeatsBroker(_)
            | E::AssignmentCount { .. } => ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            E::NotAList(_) => ErrorCode::INVALID_CONFIG,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::INVALID_CONFIG, error.to_string())
    }
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        Self::new(error.into(), error.to_string())
    }
}
