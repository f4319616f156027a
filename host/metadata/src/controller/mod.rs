//! The controller's decisions: from an image and a request to records, or to an error.
//!
//! Everything here is pure: no disk, no sandbox, no clock and no randomness. A decision can be tested alone, and in a
//! cluster the leader makes it for all nodes.

mod alter_partition;
mod brokers;
mod cluster;
mod cluster_error;
mod configs;
mod elections;
mod error;
mod features;
mod leave_in_sync;
mod partition_edit;
mod partitions;
mod placement;
mod producer_ids;
mod reassignments;
mod topics;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use alter_partition::{AlterPartition, alter_partition};
pub use brokers::{BrokerState, Heartbeat, Kept, Registration, fence, heartbeat, register, unregister};
pub use cluster_error::ClusterError;
pub use configs::{ConfigChange, ConfigEdit, ConfigOperation};
pub use elections::{balance, elect};
pub use error::ControllerError;
pub use features::{
    FeatureError, FeatureUpdate, FeatureUpdates, MILLSTREAM_VERSION, UpgradeType, transaction_versions,
};
pub use leave_in_sync::{LeaveInSync, leave_in_sync};
pub use partition_edit::Election;
pub use producer_ids::PRODUCER_ID_BLOCK;
pub use reassignments::{Reassignment, reassign};
pub use topics::{Assignment, NewTopic, Replication};

use crate::{BrokerConfigs, MetadataImage, MetadataRecord, TopicConfigs, TopicImage};

/// The most partitions that one request may create, as in Kafka: more would block every other change for too long.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// A change that a client or the broker itself asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Creates a topic.
    CreateTopic(NewTopic),
    /// Deletes a topic.
    DeleteTopic {
        /// Its id.
        id: Uuid,
    },
    /// Grows a topic.
    AddPartitions {
        /// Its name.
        name: String,
        /// The number of partitions after the change.
        count: i32,
        /// The brokers of each new partition, if the client assigns them.
        assignments: Option<Vec<Vec<i32>>>,
    },
    /// Changes the configs of a topic.
    AlterTopic {
        /// Its name.
        name: String,
        /// The change.
        change: ConfigChange,
    },
    /// Changes the configs of a broker that runs.
    AlterBroker {
        /// Its id; `None` for the defaults of all brokers.
        broker: Option<i32>,
        /// The change.
        change: ConfigChange,
    },
    /// Batches of the topic may need the plug-in of this digest.
    AddDecoder {
        /// The id of the topic.
        id: Uuid,
        /// The SHA-256 of the plug-in in hexadecimal.
        digest: String,
    },
    /// Allocates the next block of producer ids.
    AllocateProducerIds,
    /// Changes the levels of features.
    UpdateFeatures(FeatureUpdates),
    /// Moves a partition to other brokers.
    Reassign(Reassignment),
    /// Elects the leader of a partition.
    ElectLeader {
        /// The kind of the election.
        election: Election,
        /// The id of the topic.
        topic: Uuid,
        /// The index of the partition.
        partition: i32,
    },
    /// Changes an in-sync set, at the request of its leader.
    AlterPartition(AlterPartition),
    /// Takes a replica out of the in-sync set, at the request of its broker.
    LeaveInSync(LeaveInSync),
    /// Removes a broker from the cluster.
    UnregisterBroker {
        /// Its id.
        id: i32,
    },
    /// Registers a broker that starts.
    RegisterBroker(Registration),
    /// Carries out what a broker's heartbeat changes.
    Heartbeat(Heartbeat),
    /// Fences a broker that is gone.
    FenceBroker {
        /// Its id.
        id: i32,
        /// The epoch of its registration.
        epoch: i64,
    },
    /// Gives partitions back to their preferred leaders.
    BalanceLeaders {
        /// The share of a broker's partitions, in percent, that others may lead.
        percentage: usize,
    },
}

/// The most leaders that move in one step of balancing.
const BALANCED_AT_ONCE: usize = 1000;

/// A topic as it will be after a change.
#[derive(Debug, Clone, Copy)]
pub struct TopicDraft<'a> {
    /// Its name.
    pub name: &'a str,
    /// The number of its partitions.
    pub partitions: i32,
    /// The configs before the change, for a topic that exists.
    pub before: Option<&'a TopicConfigs>,
    /// The configs after the change.
    pub configs: &'a TopicConfigs,
}

/// What the controller needs to know about topics beyond the image: defaults, and the rules of features outside of the
/// image. An implementation is pure as well.
pub trait TopicRules {
    /// The error for a rejected request.
    type Error: From<ControllerError> + From<ClusterError>;

    /// Returns the number of partitions of a topic that is created without one.
    fn default_partitions(&self) -> i32;

    /// Returns the replication factor of a topic that is created without one.
    fn default_replication_factor(&self) -> i32;

    /// Returns the value that a topic config has if the topic does not set it.
    fn inherited(&self, image: &MetadataImage, config: &str) -> Option<String>;

    /// Returns whether the value of a topic config is a list.
    fn is_list(&self, config: &str) -> bool;

    /// Checks the configs of a topic that is created or altered.
    fn check(&self, image: &MetadataImage, draft: &TopicDraft<'_>) -> Result<(), Self::Error>;

    /// Checks the configs that are set while brokers run: for one of them, or for `None` the defaults of all.
    fn check_broker(&self, broker: Option<i32>, configs: &BrokerConfigs) -> Result<(), Self::Error>;

    /// Checks that a topic may have this many partitions.
    fn check_partitions(&self, name: &str, count: i32) -> Result<(), Self::Error>;

    /// Checks that a topic may be deleted.
    fn check_deletion(&self, image: &MetadataImage, topic: &TopicImage) -> Result<(), Self::Error>;
}

/// Decides a request. Returns the records that carry it out: none if nothing changes.
///
/// What brokers request has functions of its own.
///
/// # Errors
/// The reason to reject the request. Nothing must be changed then.
pub fn decide<R: TopicRules>(
    image: &MetadataImage,
    request: &Request,
    rules: &R,
) -> Result<Vec<MetadataRecord>, R::Error> {
    match request {
        Request::CreateTopic(topic) => topics::create(image, topic, rules),
        Request::DeleteTopic { id } => topics::delete(image, *id, rules),
        Request::AddPartitions { name, count, assignments } => {
            partitions::add(image, name, *count, assignments.as_deref(), rules)
        }
        Request::AlterTopic { name, change } => configs::alter(image, name, change, rules),
        Request::AlterBroker { broker, change } => configs::alter_broker(image, *broker, change, rules),
        Request::AddDecoder { id, digest } => Ok(configs::add_decoder(image, *id, digest)?),
        Request::AllocateProducerIds => Ok(producer_ids::allocate(image)),
        Request::UpdateFeatures(updates) => Ok(features::update(image, updates)?),
        Request::Reassign(reassignment) => Ok(reassign(image, rules, reassignment)?),
        Request::ElectLeader { election, topic, partition } => {
            Ok(vec![elect(image, rules, *election, *topic, *partition)?])
        }
        Request::AlterPartition(request) => Ok(alter_partition(image, rules, request)?),
        Request::LeaveInSync(request) => Ok(leave_in_sync(image, rules, request)?),
        Request::UnregisterBroker { id } => Ok(unregister(image, rules, *id)?),
        Request::RegisterBroker(registration) => Ok(register(image, rules, registration)?.1),
        Request::Heartbeat(sent) => Ok(heartbeat(image, rules, *sent)?.1),
        Request::FenceBroker { id, epoch } => Ok(fence(image, rules, *id, *epoch)?),
        Request::BalanceLeaders { percentage } => Ok(balance(image, rules, *percentage, BALANCED_AT_ONCE)),
    }
}

#[cfg(test)]
pub(crate) mod cluster_tests;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tests;
