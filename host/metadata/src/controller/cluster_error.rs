//! Why the controller rejects a request about brokers and partitions.

use uuid::Uuid;

use super::{ControllerError, FeatureError};

/// A request that the controller rejects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The log is one of a single broker.
    #[error("the metadata log has feature level {level}: raise it to 2 before brokers join")]
    LevelTooLow {
        /// The level of the log.
        level: u16,
    },
    /// The data folder of the broker is of another cluster.
    #[error("the broker has the data of cluster {theirs}, this is cluster {ours}: give it an empty data folder")]
    OtherCluster {
        /// The cluster of the broker's data.
        theirs: String,
        /// This cluster.
        ours: String,
    },
    /// Another process has the id.
    #[error("another broker is alive with node.id={id} (incarnation {incarnation}): give each broker its own id")]
    IdInUse {
        /// The id.
        id: i32,
        /// The process that has it.
        incarnation: Uuid,
    },
    /// The program of the broker does not fit the level of the log.
    #[error("the cluster has feature level {level}, the program of broker {id} knows {min} to {max}")]
    UnknownLevel {
        /// The broker.
        id: i32,
        /// The level of the log.
        level: u16,
        /// The lowest level that the broker knows.
        min: u16,
        /// The highest level that the broker knows.
        max: u16,
    },
    /// No broker has this id.
    #[error("Broker ID {0} is not currently registered")]
    NotRegistered(i32),
    /// No broker has this id, for a change of its configs.
    #[error("No broker with id {0} found.")]
    NoSuchBroker(i32),
    /// The cluster has no other broker.
    #[error("Broker {0} is the only broker of the cluster and has all of its data: it cannot be unregistered.")]
    LastBroker(i32),
    /// The broker has registered again since.
    #[error("Expected broker epoch {newest} of broker {id}, but got broker epoch {epoch}.")]
    StaleBrokerEpoch {
        /// The broker.
        id: i32,
        /// The epoch of the request.
        epoch: i64,
        /// The epoch of the newest registration.
        newest: i64,
    },
    /// No topic has this id.
    #[error("This server does not host the topic with the id {0}.")]
    UnknownTopicId(Uuid),
    /// The topic has no such partition.
    #[error("Unable to find partition {topic}:{partition}.")]
    UnknownPartition {
        /// The name of the topic.
        topic: String,
        /// The index of the partition.
        partition: i32,
    },
    /// A view has the partitions of its source.
    #[error("{name} is a view: its partitions are those of {source_topic}, name that topic.")]
    View {
        /// The name of the topic.
        name: String,
        /// Its source.
        source_topic: String,
    },
    /// The leader knows a state that this controller has not seen: another one is active.
    #[error("This is not the correct controller for this cluster.")]
    NewerThanController,
    /// Another leader was elected since.
    #[error("The leader epoch {epoch} is fenced, the newest is {newest}.")]
    FencedLeaderEpoch {
        /// The epoch of the request.
        epoch: i32,
        /// The present epoch.
        newest: i32,
    },
    /// Only the leader changes the in-sync set.
    #[error("Broker {0} is not the leader of the partition.")]
    NotLeader(i32),
    /// The partition has changed since.
    #[error("The partition epoch is too old.")]
    OldPartitionEpoch,
    /// The set is not one of replicas with the leader.
    #[error("The in-sync set {0:?} must be one of replicas with the leader, each once.")]
    InvalidIsr(Vec<i32>),
    /// A recovering leader is alone.
    #[error("The in-sync set of a leader that recovers from an unclean election is the leader alone.")]
    RecoveringWithFollowers,
    /// A leader recovers once.
    #[error("The leader has recovered from an unclean election already.")]
    RecoveredTwice,
    /// The broker is fenced, shuts down, or has started again.
    #[error("Broker {0} is fenced, shuts down or has started again, and cannot be in sync.")]
    IneligibleReplica(i32),
    /// The replica is the last one with every committed record.
    #[error("No replica but that of broker {0} holds every committed record of the partition.")]
    LastInSync(i32),
    /// The partition has the leader that the election would give it.
    #[error("Leader election not needed for topic partition.")]
    ElectionNotNeeded,
    /// The first replica is not in sync.
    #[error("The preferred leader was not available.")]
    PreferredLeaderNotAvailable,
    /// No replica is alive.
    #[error("Eligible topic partition leaders are not available.")]
    EligibleLeadersNotAvailable,
    /// There is nothing to cancel.
    #[error("No partition reassignment is in progress.")]
    NoReassignment,
    /// The request does not allow another number of replicas.
    #[error("The replication factor is changed from {before} to {after}")]
    ReplicationFactorChanged {
        /// The number of replicas without the change.
        before: usize,
        /// The number of replicas of the target.
        after: usize,
    },
    /// Only new replicas are in sync.
    #[error("The reassignment cannot be cancelled: none of the replicas of before is in sync.")]
    CancelLosesIsr,
    /// A feature cannot have this level.
    #[error("Invalid update version {level} for feature {feature}. {reason}")]
    FeatureUpdate {
        /// The name of the feature.
        feature: String,
        /// The level of the request.
        level: i16,
        /// What is wrong.
        reason: FeatureError,
    },
    /// The target of a reassignment is not valid.
    #[error(transparent)]
    Assignment(#[from] ControllerError),
}
