//! The state that all connections share.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use millstream_coordinator::group::GroupCoordinator;
use millstream_partition::{FsyncQueue, Partition, PartitionConfig};
use millstream_wire::Str;

use crate::compute_permits::ComputePermits;
use crate::config::{BrokerConfig, HostPort, TopicConfig, TopicOverrides};
use crate::edge::Decoders;
use crate::edge::plugins::Plugins;
use crate::error::ApiError;
use crate::metadata::MetadataStore;
use crate::metrics::requests::RequestMetrics;
use crate::net::request_memory::RequestMemory;
use crate::net::types::ConnectionInfo;
use crate::producer_ids::ProducerIds;
use crate::topics::{TopicTable, log_config};

/// Everything that a handler can reach.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) config: BrokerConfig,
    pub(crate) data_dir: PathBuf,
    pub(crate) metadata: MetadataStore,
    /// Held over a change of the metadata: see [`crate::controller::carry_out`].
    pub(crate) changes: Arc<tokio::sync::Mutex<()>>,
    /// Shared with the internal topics, which look up their partitions in it.
    pub(crate) topics: Arc<ArcSwap<TopicTable>>,
    pub(crate) fsync_queue: Arc<FsyncQueue>,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) groups: Arc<GroupCoordinator>,
    pub(crate) plugins: Plugins,
    pub(crate) decoders: Decoders,
    pub(crate) request_memory: RequestMemory,
    pub(crate) request_metrics: Arc<RequestMetrics>,
    /// The turns of work that decompresses or recodes records for topics without stages.
    pub(crate) compute: ComputePermits,
    /// For each listener what its clients are told to connect to; `None` is the address that they came to.
    pub(crate) advertised: Vec<Option<HostPort>>,
}

impl Broker {
    /// A partition by its topic's name.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, ApiError> {
        self.topics.load().partition(topic, index).cloned().ok_or_else(ApiError::unknown_topic)
    }

    /// The address that a client of this connection reaches the broker at.
    pub(crate) fn advertised(&self, connection: &ConnectionInfo) -> (Str, i32) {
        match self.advertised.get(connection.listener).and_then(Option::as_ref) {
            Some(address) => (Str::from(&address.host), i32::from(address.port)),
            None => (Str::from(connection.local.ip().to_string()), i32::from(connection.local.port())),
        }
    }

    /// The options of a topic with these values of its own.
    pub(crate) fn topic_config(&self, overrides: &TopicOverrides) -> Result<TopicConfig, ApiError> {
        let explicit = |name: &str| self.config.explicit(name).map(str::to_owned);
        Ok(TopicConfig::resolve(&explicit, overrides)?)
    }

    /// Returns the config of a topic as its partitions use it.
    pub(crate) fn partition_config(&self, config: &TopicConfig) -> PartitionConfig {
        let expiration = i64::try_from(self.config.producer_id_expiration.as_millis()).unwrap_or(i64::MAX);
        PartitionConfig {
            log: Arc::new(log_config(config, expiration)),
            flush_messages: config.flush_messages,
            flush_ms: config.flush_ms,
        }
    }
}
