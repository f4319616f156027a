//! The state that all connections share.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use millstream_coordinator::group::GroupCoordinator;
use millstream_partition::{FsyncQueue, Partition};
use millstream_wire::Str;
use uuid::Uuid;

use crate::compute_permits::ComputePermits;
use crate::config::{BrokerConfig, HostPort};
use crate::controller::Controller;
use crate::edge::{Edge, MetadataChanges, ServedTopics};
use crate::error::ApiError;
use crate::metrics::requests::RequestMetrics;
use crate::net::request_memory::RequestMemory;
use crate::net::types::ConnectionInfo;
use crate::producer_ids::ProducerIds;
use millstream_metadata::MetadataStore;

/// Everything that a handler can reach.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) data_dir: PathBuf,
    /// The id of the data folder, Kafka's `directory.id`.
    pub(crate) directory_id: Uuid,
    pub(crate) metadata: Arc<MetadataStore>,
    pub(crate) controller: Arc<Controller>,
    /// The controller, as the edge uses it.
    pub(crate) changes: Arc<dyn MetadataChanges>,
    /// Replaced as a whole by every change of a topic.
    pub(crate) topics: Arc<ArcSwap<ServedTopics>>,
    pub(crate) fsync_queue: Arc<FsyncQueue>,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) groups: Arc<GroupCoordinator>,
    /// The stages of topics and their plug-ins.
    pub(crate) edge: Arc<Edge>,
    pub(crate) request_memory: RequestMemory,
    pub(crate) request_metrics: Arc<RequestMetrics>,
    /// The permits for decompressing or recoding records of topics without stages.
    pub(crate) compute: ComputePermits,
    /// For each listener the address for its clients; `None` is the address that they connected to.
    pub(crate) advertised: Vec<Option<HostPort>>,
}

impl Broker {
    /// Returns a partition by its topic's name.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, ApiError> {
        self.topics.load().partition(topic, index).cloned().ok_or_else(ApiError::unknown_topic)
    }

    /// Returns the address at which the client of this connection reaches the broker.
    pub(crate) fn advertised(&self, connection: &ConnectionInfo) -> (Str, i32) {
        match self.advertised.get(connection.listener).and_then(Option::as_ref) {
            Some(address) => (Str::from(&address.host), i32::from(address.port)),
            None => (Str::from(connection.local.ip().to_string()), i32::from(connection.local.port())),
        }
    }
}
