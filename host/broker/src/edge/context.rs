//! What the edge works with, and what it asks of the controller.

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
use crate::config::BrokerConfig;
use crate::error::ApiError;

/// The state that all of the edge shares.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) metadata: Arc<MetadataStore>,
    pub(crate) topics: Arc<ArcSwap<ServedTopics>>,
    pub(crate) plugins: Plugins,
    pub(crate) decoders: Arc<Decoders>,
}

impl Edge {
    /// Returns a partition by its topic's name.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, ApiError> {
        self.topics.load().partition(topic, index).cloned().ok_or_else(ApiError::unknown_topic)
    }
}

/// A future behind a trait object.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The changes of the metadata that the edge needs. The controller makes them; the edge does not know it.
pub(crate) trait MetadataChanges: fmt::Debug + Send + Sync {
    /// Makes sure that a topic exists, with the configs that creation on demand gives it.
    fn ensure_topic<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), ApiError>>;

    /// Notes that a topic needs a plug-in, named by the digest in hexadecimal, to be read.
    fn add_decoder(&self, topic: Uuid, digest: String) -> BoxFuture<'_, Result<(), ApiError>>;

    /// Starts the stages of a topic that could not be started before, if they can be started now.
    fn restart_stages(&self, topic: Uuid) -> BoxFuture<'_, ()>;

    /// Keeps the metadata as it is while the guard lives.
    fn hold(&self) -> BoxFuture<'_, OwnedMutexGuard<()>>;
}
