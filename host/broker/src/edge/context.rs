//! The state of the edge, and the changes that it requests from the controller.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use millstream_metadata::MetadataStore;
use millstream_partition::Partition;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::decoders::Decoders;
use super::plugins::Plugins;
use super::topic::ServedTopics;
use crate::cluster::Cluster;
use crate::config::BrokerConfig;
use crate::error::ApiError;
use crate::produce::verifier::TransactionVerifier;

/// The state that all of the edge shares.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) metadata: Arc<MetadataStore>,
    pub(crate) topics: Arc<ArcSwap<ServedTopics>>,
    pub(crate) plugins: Plugins,
    pub(crate) decoders: Arc<Decoders>,
    /// Asks the coordinators of transactions on behalf of partitions here.
    pub(crate) verifier: Arc<dyn TransactionVerifier>,
    /// The other brokers; `None` for a broker that is alone.
    pub(crate) cluster: Option<Arc<Cluster>>,
}

impl Edge {
    /// Returns whether this broker may lack plug-ins of its cluster, because it is starting.
    pub(crate) fn may_lack_plugins(&self) -> bool {
        self.cluster.is_some() && !self.plugins.has_caught_up()
    }

    /// Returns a partition by its topic's name.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, ApiError> {
        self.topics.load().partition(topic, index).cloned().ok_or_else(ApiError::unknown_topic)
    }
}

/// A future behind a trait object.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The metadata changes that the edge needs. The controller makes them; the edge does not know it.
pub(crate) trait MetadataChanges: fmt::Debug + Send + Sync {
    /// Makes sure that a topic exists. Creates it with the configs of an automatic creation.
    fn ensure_topic<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), ApiError>>;

    /// Makes sure that a dead letter topic exists. Creates it with as many replicas as `source` has, and with the same
    /// `min.insync.replicas`.
    fn ensure_dead_letter_topic<'a>(&'a self, name: &'a str, source: &'a str) -> BoxFuture<'a, Result<(), ApiError>>;

    /// Records that a topic needs a plug-in to be read. `digest` is in hexadecimal.
    fn add_decoder(&self, topic: Uuid, digest: String) -> BoxFuture<'_, Result<(), ApiError>>;

    /// Starts the broken stages of a topic, if that works now.
    fn restart_stages(&self, topic: Uuid) -> BoxFuture<'_, ()>;

    /// Prevents metadata changes while the guard lives.
    fn hold(&self) -> BoxFuture<'_, OwnedMutexGuard<()>>;
}
