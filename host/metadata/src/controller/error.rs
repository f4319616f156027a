//! Why the controller rejects a request.

use crate::metadata::topic_name::TopicNameError;

/// A request that the controller rejects. The texts are Kafka's where Kafka has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControllerError {
    #[error(transparent)]
    TopicName(#[from] TopicNameError),
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    #[error("Topic '{name}' collides with existing topic: {other}")]
    NameCollision { name: String, other: String },
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    #[error("Number of partitions was set to an invalid non-positive value {0}.")]
    NonPositivePartitions(i32),
    #[error("Excessively large number of partitions per request: {0}.")]
    TooManyPartitions(usize),
    #[error("Topic already has {0} partition(s).")]
    SamePartitions(i32),
    #[error("The topic {name} currently has {count} partition(s); {asked} would not be an increase.")]
    FewerPartitions { name: String, count: i32, asked: i32 },
    #[error("{name} is a view: it gets its partitions from {source_topic}, add them there.")]
    PartitionsOfView { name: String, source_topic: String },
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    NonPositiveReplicationFactor,
    #[error(
        "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached \
         because only {brokers} broker(s) are registered."
    )]
    TooFewBrokers { factor: i32, brokers: usize },
    #[error("A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.")]
    AssignmentWithCounts,
    #[error("partitions should be a consecutive 0-based integer sequence")]
    AssignmentIndexes,
    #[error("The manual partition assignment includes an empty replica list.")]
    AssignmentEmpty,
    #[error("The manual partition assignment includes broker {0}, but no such broker is registered.")]
    AssignmentUnknownBroker(i32),
    #[error("The manual partition assignment includes the broker {0} more than once.")]
    AssignmentRepeatsBroker(i32),
    #[error("Attempted to add {added} additional partition(s), but only {given} assignment(s) were specified.")]
    AssignmentCount { added: usize, given: usize },
    #[error("Config value append/subtract is not allowed for config key: {0}")]
    NotAList(String),
}
