//! The one place where errors become Kafka's codes.

use millstream_log::{AppendError, LogError, ReadError};
use millstream_record::{BatchError, ErrorKind};
use millstream_wire::{ErrorCode, Str};

use crate::config::ConfigError;
use crate::group::GroupError;
use millstream_metadata::controller::ControllerError;
use millstream_metadata::{MetadataError, TopicNameError};

/// A refusal as a client gets it: a code, and words for the APIs that carry some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// The records of the batch that are to blame, each with its place and words; without words, those of the whole.
    pub(crate) records: Vec<(u32, String)>,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), records: Vec::new() }
    }

    /// The words for an answer.
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
            // The formats before 2 were once right; others are no formats at all.
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
        Self { code, message: error.to_string(), records: error.record_errors() }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        tracing::error!("{error}");
        Self::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string())
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        let code = match error {
            AppendError::Log(error) => return error.into(),
            AppendError::OutOfOrderSequence { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
            AppendError::InvalidProducerEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
            AppendError::LargerThanSegment { .. } => ErrorCode::RECORD_LIST_TOO_LARGE,
            AppendError::BatchTooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
            AppendError::Corrupt(_) => ErrorCode::CORRUPT_MESSAGE,
            AppendError::UnexpectedOffset { .. } => ErrorCode::UNKNOWN_SERVER_ERROR,
        };
        Self::new(code, error.to_string())
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
        tracing::error!("{error}");
        Self::new(ErrorCode::KAFKA_STORAGE_ERROR, error.to_string())
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

impl From<GroupError> for ErrorCode {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::UnknownMemberId => Self::UNKNOWN_MEMBER_ID,
            GroupError::FencedInstanceId => Self::FENCED_INSTANCE_ID,
            GroupError::IllegalGeneration => Self::ILLEGAL_GENERATION,
            GroupError::RebalanceInProgress => Self::REBALANCE_IN_PROGRESS,
            GroupError::InconsistentGroupProtocol => Self::INCONSISTENT_GROUP_PROTOCOL,
            GroupError::InvalidSessionTimeout => Self::INVALID_SESSION_TIMEOUT,
            GroupError::MemberIdRequired => Self::MEMBER_ID_REQUIRED,
            GroupError::GroupMaxSizeReached => Self::GROUP_MAX_SIZE_REACHED,
            GroupError::InvalidGroupId => Self::INVALID_GROUP_ID,
            GroupError::TooLargeToKeep => Self::INVALID_REQUEST,
            GroupError::CoordinatorLoadInProgress => Self::COORDINATOR_LOAD_IN_PROGRESS,
            // A client finds its coordinator again and asks once more: what a passing fault of the disk deserves.
            GroupError::CoordinatorNotAvailable | GroupError::WriteFailed => Self::COORDINATOR_NOT_AVAILABLE,
            GroupError::NotCoordinator => Self::NOT_COORDINATOR,
            GroupError::GroupIdNotFound => Self::GROUP_ID_NOT_FOUND,
            GroupError::TooLargeToWrite => Self::UNKNOWN_SERVER_ERROR,
        }
    }
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        Self::new(error.into(), error.to_string())
    }
}
