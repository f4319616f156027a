//! The only place where errors become Kafka's codes.

use millstream_coordinator::group::GroupError;
use millstream_coordinator::transaction::TransactionError;
use millstream_log::{AppendError, LogError, ReadError};
use millstream_partition::PartitionError;
use millstream_record::{BatchError, ErrorKind};
use millstream_wire::{ErrorCode, Str};

use crate::config::ConfigError;
use millstream_metadata::controller::{ClusterError, ControllerError};
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
        AppendError::NoTransaction { .. } | AppendError::OutsideTransaction { .. } => ErrorCode::INVALID_TXN_STATE,
        AppendError::CoordinatorFenced { .. } => ErrorCode::TRANSACTION_COORDINATOR_FENCED,
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
            PartitionError::Frozen
            | PartitionError::Elsewhere
            | PartitionError::Suspended
            | PartitionError::LeaderEpochChanged { .. }
            | PartitionError::NotLeader { .. }
            | PartitionError::ShuttingDown => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            PartitionError::NotEnoughReplicas { .. } => ErrorCode::NOT_ENOUGH_REPLICAS,
            PartitionError::FencedLeaderEpoch { .. } => ErrorCode::FENCED_LEADER_EPOCH,
            PartitionError::HighWatermarkLags { .. } => ErrorCode::OFFSET_NOT_AVAILABLE,
            // The follower retries until the leader has the metadata with it, as in Kafka.
            PartitionError::UnknownLeaderEpoch { .. } | PartitionError::NotReplica { .. } => {
                ErrorCode::UNKNOWN_LEADER_EPOCH
            }
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
            E::NonPositiveReplicationFactor | E::TooFewBrokers { .. } | E::AllBrokersFenced => {
                ErrorCode::INVALID_REPLICATION_FACTOR
            }
            E::AssignmentWithCounts => ErrorCode::INVALID_REQUEST,
            E::AssignmentIndexes
            | E::AssignmentTwice(_)
            | E::AssignmentFactor { .. }
            | E::AssignmentInactive(_)
            | E::AssignmentEmpty
            | E::AssignmentUnknownBroker(_)
            | E::AssignmentRepeatsBroker(_)
            | E::AssignmentCount { .. } => ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            E::NotAList(_) => ErrorCode::INVALID_CONFIG,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        use ClusterError as E;
        let code = match &error {
            E::Assignment(error) => return error.clone().into(),
            E::CancelLosesIsr => ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            E::LevelTooLow { .. } | E::UnknownLevel { .. } => ErrorCode::UNSUPPORTED_VERSION,
            E::OtherCluster { .. } => ErrorCode::INCONSISTENT_CLUSTER_ID,
            E::IdInUse { .. } => ErrorCode::DUPLICATE_BROKER_REGISTRATION,
            E::NotRegistered(_) | E::NoSuchBroker(_) => ErrorCode::BROKER_ID_NOT_REGISTERED,
            E::StaleBrokerEpoch { .. } => ErrorCode::STALE_BROKER_EPOCH,
            E::UnknownTopicId(_) => ErrorCode::UNKNOWN_TOPIC_ID,
            E::UnknownPartition { .. } => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            E::View { .. } => ErrorCode::INVALID_TOPIC_EXCEPTION,
            E::NewerThanController => ErrorCode::NOT_CONTROLLER,
            E::FencedLeaderEpoch { .. } => ErrorCode::FENCED_LEADER_EPOCH,
            E::OldPartitionEpoch | E::FeatureUpdate { .. } => ErrorCode::INVALID_UPDATE_VERSION,
            E::LastBroker(_) | E::NotLeader(_) | E::InvalidIsr(_) | E::RecoveringWithFollowers | E::RecoveredTwice => {
                ErrorCode::INVALID_REQUEST
            }
            E::IneligibleReplica(_) | E::LastInSync(_) => ErrorCode::INELIGIBLE_REPLICA,
            E::ElectionNotNeeded => ErrorCode::ELECTION_NOT_NEEDED,
            E::PreferredLeaderNotAvailable => ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE,
            E::EligibleLeadersNotAvailable => ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE,
            E::NoReassignment => ErrorCode::NO_REASSIGNMENT_IN_PROGRESS,
            E::ReplicationFactorChanged { .. } => ErrorCode::INVALID_REPLICATION_FACTOR,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::INVALID_CONFIG, error.to_string())
    }
}

impl From<TransactionError> for ApiError {
    fn from(error: TransactionError) -> Self {
        Self::new(error.into(), error.to_string())
    }
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        Self::new(error.into(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes are those of Apache Kafka 4.4 (`ReplicationControlManager`, `ConfigurationControlManager`).
    #[test]
    fn errors_of_the_controller_have_kafkas_codes() {
        use ControllerError as E;
        let name = || "t".to_owned();
        for (error, code) in [
            (E::TopicName(TopicNameError::Empty), ErrorCode::INVALID_TOPIC_EXCEPTION),
            (E::NameCollision { name: name(), other: name() }, ErrorCode::INVALID_TOPIC_EXCEPTION),
            (E::TopicExists(name()), ErrorCode::TOPIC_ALREADY_EXISTS),
            (E::UnknownTopic, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            (E::NonPositivePartitions(0), ErrorCode::INVALID_PARTITIONS),
            (E::SamePartitions(3), ErrorCode::INVALID_PARTITIONS),
            (E::FewerPartitions { name: name(), count: 3, asked: 2 }, ErrorCode::INVALID_PARTITIONS),
            (E::PartitionsOfView { name: name(), source_topic: name() }, ErrorCode::INVALID_PARTITIONS),
            (E::TooManyPartitions(10_001), ErrorCode::POLICY_VIOLATION),
            (E::NonPositiveReplicationFactor, ErrorCode::INVALID_REPLICATION_FACTOR),
            (E::TooFewBrokers { factor: 3, brokers: 1 }, ErrorCode::INVALID_REPLICATION_FACTOR),
            (E::AllBrokersFenced, ErrorCode::INVALID_REPLICATION_FACTOR),
            (E::AssignmentWithCounts, ErrorCode::INVALID_REQUEST),
            (E::AssignmentIndexes, ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (E::AssignmentTwice(1), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (E::AssignmentFactor { found: 1, expected: 2 }, ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (E::AssignmentInactive(0), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (E::AssignmentEmpty, ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (E::AssignmentUnknownBroker(9), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (E::AssignmentRepeatsBroker(0), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (E::AssignmentCount { added: 2, given: 1 }, ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (E::NotAList(name()), ErrorCode::INVALID_CONFIG),
        ] {
            let message = error.to_string();
            let error = ApiError::from(error);
            assert_eq!((error.code, error.is_storage_fault()), (code, false), "{message}");
            assert_eq!(error.message, message);
        }
    }

    #[test]
    fn errors_about_brokers_and_partitions_have_kafkas_codes() {
        use ClusterError as E;
        let unknown = E::UnknownPartition { topic: "t".to_owned(), partition: 9 };
        for (error, code) in [
            (E::NotRegistered(9), ErrorCode::BROKER_ID_NOT_REGISTERED),
            (E::LastBroker(0), ErrorCode::INVALID_REQUEST),
            (unknown, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            (E::NoReassignment, ErrorCode::NO_REASSIGNMENT_IN_PROGRESS),
            (E::CancelLosesIsr, ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (E::ReplicationFactorChanged { before: 1, after: 2 }, ErrorCode::INVALID_REPLICATION_FACTOR),
            (E::Assignment(ControllerError::AssignmentEmpty), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
        ] {
            let message = error.to_string();
            let error = ApiError::from(error);
            assert_eq!((error.code, error.message), (code, message));
        }
    }

    /// The code decides whether a client retries. A batch that can never be stored has a code that is not retried.
    #[test]
    fn errors_of_appends_have_kafkas_codes() {
        use AppendError as E;
        for (error, code) in [
            (E::OutOfOrderSequence { producer_id: 1, found: 5, last: 2 }, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
            (E::InvalidProducerEpoch { producer_id: 1, found: 0, current: 1 }, ErrorCode::INVALID_PRODUCER_EPOCH),
            (E::BatchTooLarge { size: 9, max: 8 }, ErrorCode::MESSAGE_TOO_LARGE),
            (E::LargerThanSegment { size: 9, max: 8 }, ErrorCode::RECORD_LIST_TOO_LARGE),
            (E::Corrupt("a CRC".to_owned()), ErrorCode::CORRUPT_MESSAGE),
        ] {
            let message = error.to_string();
            let through_a_partition = ApiError::from(PartitionError::from(error));
            assert_eq!(through_a_partition.code, code, "{message}");
            assert!(!through_a_partition.is_storage_fault(), "{message}");
        }
    }

    #[test]
    fn errors_of_partitions_have_kafkas_codes() {
        use PartitionError as E;
        let (known, current) = (1, 2);
        for (error, code, is_fault) in [
            (E::NotHosted, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false),
            (E::FencedLeaderEpoch { known, current }, ErrorCode::FENCED_LEADER_EPOCH, false),
            (E::UnknownLeaderEpoch { known, current }, ErrorCode::UNKNOWN_LEADER_EPOCH, false),
            (E::LeaderEpochChanged { appended: known, current }, ErrorCode::NOT_LEADER_OR_FOLLOWER, false),
            (E::ShuttingDown, ErrorCode::NOT_LEADER_OR_FOLLOWER, false),
            (E::Offline("no folder".into()), ErrorCode::KAFKA_STORAGE_ERROR, true),
        ] {
            let message = error.to_string();
            let error = ApiError::from(error);
            assert_eq!((error.code, error.is_storage_fault()), (code, is_fault), "{message}");
        }
    }

    #[test]
    fn errors_of_batches_have_kafkas_codes() {
        for (error, code) in [
            (BatchError::UnsupportedMagic { magic: 1 }, ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT),
            (BatchError::UnsupportedMagic { magic: 9 }, ErrorCode::CORRUPT_MESSAGE),
            (BatchError::BadLength { length: -1 }, ErrorCode::CORRUPT_MESSAGE),
            (BatchError::CrcMismatch { stored: 1, computed: 2 }, ErrorCode::CORRUPT_MESSAGE),
        ] {
            let message = error.to_string();
            assert_eq!(ApiError::from(error).code, code, "{message}");
        }
    }
}
