//! Why the controller rejects a request.

use crate::topic_name::TopicNameError;

/// A request that the controller rejects. The texts are Kafka's where Kafka has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// The name is not valid.
    #[error(transparent)]
    TopicName(#[from] TopicNameError),
    /// The name is taken.
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// The name differs from another one only in `.` and `_`.
    #[error("Topic '{name}' collides with existing topic: {other}")]
    NameCollision {
        /// The name of the topic.
        name: String,
        /// The topic with the similar name.
        other: String,
    },
    /// There is no such topic.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// The number of partitions is not positive.
    #[error("Number of partitions was set to an invalid non-positive value {0}.")]
    NonPositivePartitions(i32),
    /// One request may not create this number of partitions.
    #[error("Excessively large number of partitions per request: {0}.")]
    TooManyPartitions(usize),
    /// The topic already has that many partitions.
    #[error("Topic already has {0} partition(s).")]
    SamePartitions(i32),
    /// A topic cannot shrink.
    #[error("The topic {name} currently has {count} partition(s); {asked} would not be an increase.")]
    FewerPartitions {
        /// The name of the topic.
        name: String,
        /// The current number.
        count: i32,
        /// The requested number.
        asked: i32,
    },
    /// A view has the partitions of its source.
    #[error("{name} is a view: it gets its partitions from {source_topic}, add them there.")]
    PartitionsOfView {
        /// The name of the topic.
        name: String,
        /// Its source.
        source_topic: String,
    },
    /// The replication factor is not positive.
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    NonPositiveReplicationFactor,
    /// There are fewer brokers than replicas.
    #[error(
        "Unable to replicate the partition {factor} time(s): \
         The target replication factor of {factor} cannot be reached \
         because only {brokers} broker(s) are registered or some brokers have all their log directories cordoned."
    )]
    TooFewBrokers {
        /// The requested factor.
        factor: i32,
        /// The number of brokers.
        brokers: usize,
    },
    /// No broker can lead a new partition.
    #[error("Unable to replicate the partition: All brokers are currently fenced.")]
    AllBrokersFenced,
    /// An assignment replaces the two counts.
    #[error("A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.")]
    AssignmentWithCounts,
    /// A partition is assigned twice.
    #[error("Found multiple manual partition assignments for partition {0}")]
    AssignmentTwice(i32),
    /// The partitions have different numbers of replicas.
    #[error(
        "The manual partition assignment includes a partition with {found} replica(s), but this is not consistent \
         with previous partitions, which have {expected} replica(s)."
    )]
    AssignmentFactor {
        /// The number of replicas of the partition.
        found: usize,
        /// The number of replicas of the partitions before it.
        expected: usize,
    },
    /// No broker of a partition can lead it.
    #[error(
        "All brokers specified in the manual partition assignment for partition {0} are fenced or in controlled \
         shutdown."
    )]
    AssignmentInactive(i32),
    /// The assigned partitions are not 0, 1, 2 ...
    #[error("partitions should be a consecutive 0-based integer sequence")]
    AssignmentIndexes,
    /// A partition without a broker.
    #[error("The manual partition assignment includes an empty replica list.")]
    AssignmentEmpty,
    /// No broker has this id.
    #[error("The manual partition assignment includes broker {0}, but no such broker is registered.")]
    AssignmentUnknownBroker(i32),
    /// A broker can hold a partition once.
    #[error("The manual partition assignment includes the broker {0} more than once.")]
    AssignmentRepeatsBroker(i32),
    /// The assignments do not match the added partitions.
    #[error("Attempted to add {added} additional partition(s), but only {given} assignment(s) were specified.")]
    AssignmentCount {
        /// The number of added partitions.
        added: usize,
        /// The number of assignments.
        given: usize,
    },
    /// Only a list has elements to add or remove.
    #[error("Config value append/subtract is not allowed for config key: {0}")]
    NotAList(String),
}
