//! The state that all connections share.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use millstream_coordinator::group::GroupCoordinator;
use millstream_coordinator::transaction::TransactionCoordinator;
use millstream_partition::{FsyncQueue, Partition};
use millstream_wire::Str;
use millstream_wire::messages::ReplicaState;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::compute_permits::ComputePermits;
use crate::config::{BrokerConfig, CleanerConfig, FOLLOWER_RATE, HostPort, LEADER_RATE, ListenerConfig};
use crate::controller::Controller;
use crate::edge::{BoxFuture, Edge, MetadataChanges, ServedTopics};
use crate::error::ApiError;
use crate::fetch_sessions::FetchSessions;
use crate::log_dirs::LogDirs;
use crate::metrics::cleaner::CleanerMetrics;
use crate::metrics::requests::RequestMetrics;
use crate::net::message_memory::MessageMemory;
use crate::net::types::ConnectionInfo;
use crate::partition_dirs;
use crate::produce::verifier::TransactionVerifier;
use crate::producer_ids::ProducerIds;
use crate::replication::{Quota, Replica, ReplicaHost, Throttle, WantedChange};
use millstream_metadata::controller::{AlterPartition, Request};
use millstream_metadata::{Endpoint, MetadataStore, NO_LEADER};

/// Everything that a handler can reach.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) config: Arc<BrokerConfig>,
    /// The data folders.
    pub(crate) dirs: Arc<LogDirs>,
    /// The id of the cluster. It is known before this node has the metadata.
    pub(crate) cluster_id: String,
    /// The id of the folder of the metadata, Kafka's `directory.id`.
    pub(crate) directory_id: Uuid,
    pub(crate) metadata: Arc<MetadataStore>,
    pub(crate) controller: Arc<Controller>,
    /// The controller, as the edge uses it.
    pub(crate) changes: Arc<dyn MetadataChanges>,
    /// Replaced as a whole by every change of a topic.
    pub(crate) topics: Arc<ArcSwap<ServedTopics>>,
    pub(crate) fsync_queue: Arc<FsyncQueue>,
    pub(crate) producer_ids: Arc<ProducerIds>,
    pub(crate) groups: Arc<GroupCoordinator>,
    pub(crate) transactions: Arc<TransactionCoordinator>,
    /// Asks the coordinators of transactions on behalf of partitions here.
    pub(crate) verifier: Arc<dyn TransactionVerifier>,
    /// The stages of topics and their plug-ins.
    pub(crate) edge: Arc<Edge>,
    /// The memory for requests and responses in flight.
    pub(crate) message_memory: MessageMemory,
    pub(crate) request_metrics: Arc<RequestMetrics>,
    /// What compaction does.
    pub(crate) cleaner_metrics: CleanerMetrics,
    /// The permits for decompressing or recoding records of topics without stages.
    pub(crate) compute: ComputePermits,
    /// For each listener the address for its clients; `None` is the address that they connected to.
    pub(crate) advertised: Vec<Option<HostPort>>,
    /// Changes after partitions have taken new roles.
    pub(crate) roles: watch::Receiver<u64>,
    /// What the broker remembers of the partitions of its readers.
    pub(crate) fetch_sessions: Arc<FetchSessions>,
    /// Takes the changes of in-sync sets that leaders want.
    pub(crate) wanted_changes: mpsc::UnboundedSender<WantedChange>,
    /// What this broker sends to throttled followers.
    pub(crate) leader_quota: Arc<Quota>,
    /// What its throttled replicas fetch.
    pub(crate) follower_quota: Arc<Quota>,
    /// `None` for a broker that is alone.
    pub(crate) cluster: Option<Arc<Cluster>>,
}

impl Broker {
    /// Returns a partition by its topic's name.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, ApiError> {
        self.topics.load().partition(topic, index).cloned().ok_or_else(ApiError::unknown_topic)
    }

    /// Returns whether the metadata has a replica of a partition on this broker.
    pub(crate) fn has_replica(&self, partition: &Partition) -> bool {
        let image = self.metadata.image();
        let topic = image.topic(partition.topic());
        let stored = topic.and_then(|topic| topic.partitions.get(usize::try_from(partition.index()).ok()?));
        stored.is_some_and(|stored| stored.replicas.contains(&self.config.node_id))
    }

    /// Returns the address at which the client of this connection reaches the broker.
    pub(crate) fn advertised(&self, connection: &ConnectionInfo) -> (Str, i32) {
        match self.advertised.get(connection.listener).and_then(Option::as_ref) {
            Some(address) => (Str::from(&address.host), i32::from(address.port)),
            None => (Str::from(connection.local.ip().to_string()), i32::from(connection.local.port())),
        }
    }

    /// Returns the address at which the client of this connection reaches a broker; `None` if the broker is not
    /// registered, or has no listener of this name.
    pub(crate) fn endpoint(&self, connection: &ConnectionInfo, node_id: i32) -> Option<(Str, i32)> {
        if node_id == self.config.node_id {
            return Some(self.advertised(connection));
        }
        let listener = &self.config.listeners.get(connection.listener)?.name;
        let image = self.metadata.image();
        let endpoints = &image.broker(node_id)?.registration.endpoints;
        let endpoint = endpoints.iter().find(|endpoint| endpoint.listener == *listener)?;
        Some((Str::from(endpoint.host.as_str()), i32::from(endpoint.port)))
    }

    /// Returns the throttle of what this broker sends to followers; `None` without a rate.
    pub(crate) fn leader_throttle(&self) -> Option<Throttle> {
        Throttle::new(&self.leader_quota, self.rate(LEADER_RATE, BrokerConfig::leader_throttled_rate))
    }

    /// Returns a rate that can be changed while the broker runs.
    fn rate(&self, name: &str, of_file: fn(&BrokerConfig) -> i64) -> i64 {
        let image = self.metadata.image();
        let set = image.broker_config(self.config.node_id, name).and_then(|rate| rate.parse().ok());
        set.unwrap_or_else(|| of_file(&self.config))
    }

    /// Returns the configs of the cleaner, which can be changed while the broker runs.
    pub(crate) fn cleaner_config(&self) -> CleanerConfig {
        let image = self.metadata.image();
        let set = |name: &str| image.broker_config(self.config.node_id, name).map(str::to_owned);
        self.config.cleaner_with(&set)
    }

    /// Returns the broker that carries out changes of the metadata, as responses name it. Clients do not reach a
    /// controller that is not a broker: this one forwards the changes.
    pub(crate) fn controller_id(&self) -> i32 {
        let own = self.config.node_id;
        let Some(cluster) = &self.cluster else { return own };
        match cluster.leadership().leader {
            None => -1,
            Some(leader) => {
                if self.metadata.image().broker(leader).is_some() {
                    leader
                } else {
                    own
                }
            }
        }
    }

    /// Returns the addresses that this broker registers: those for clients, and the one for other brokers.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let nodes = self.config.cluster.as_ref().map(|cluster| cluster.listener);
        let listeners = self.config.listeners.iter().zip(&self.advertised).enumerate();
        let registered =
            listeners.filter(|(index, _)| Some(*index) != nodes || nodes == self.config.inter_broker_listener);
        let endpoint = |(_, (listener, address)): (usize, (&ListenerConfig, &Option<HostPort>))| {
            let HostPort { host, port } = address.clone()?;
            Some(Endpoint { listener: listener.name.clone(), host, port })
        };
        registered.filter_map(endpoint).collect()
    }

    /// Returns the replicas of this broker that `wanted` selects.
    fn replicas(&self, wanted: impl Fn(&Partition) -> bool) -> Vec<Replica> {
        let topics = self.topics.load();
        let replicas = topics.iter().flat_map(|topic| topic.own_partitions().iter().map(move |one| (topic.id, one)));
        let replicas = replicas.filter(|(_, partition)| wanted(partition));
        replicas.map(|(topic_id, partition)| Replica { topic_id, partition: Arc::clone(partition) }).collect()
    }
}

impl ReplicaHost for Broker {
    fn registration(&self) -> ReplicaState {
        let replica_id = self.config.node_id;
        let replica_epoch = self.metadata.image().broker(replica_id).map_or(-1, |broker| broker.epoch);
        ReplicaState { replica_id, replica_epoch }
    }

    fn leaders(&self) -> BTreeSet<i32> {
        let topics = self.topics.load();
        let partitions = topics.iter().flat_map(|topic| topic.own_partitions());
        let leaders = partitions.filter(|partition| partition.is_online()).map(|partition| partition.leader());
        leaders.filter(|leader| *leader != self.config.node_id && *leader != NO_LEADER).collect()
    }

    fn address(&self, broker: i32) -> Option<(String, u16)> {
        let listener = &self.config.listeners[self.config.inter_broker_listener?];
        let image = self.metadata.image();
        let endpoints = &image.broker(broker)?.registration.endpoints;
        let endpoint = endpoints.iter().find(|endpoint| endpoint.listener == listener.name)?;
        Some((endpoint.host.clone(), endpoint.port))
    }

    fn followed(&self, leader: i32) -> Vec<Replica> {
        self.replicas(|partition| partition.leader() == leader)
    }

    fn led(&self) -> Vec<Replica> {
        self.replicas(Partition::has_followers)
    }

    fn throttle(&self) -> Option<Throttle> {
        Throttle::new(&self.follower_quota, self.rate(FOLLOWER_RATE, BrokerConfig::follower_throttled_rate))
    }

    fn is_throttled(&self, replica: &Replica) -> bool {
        let topics = self.topics.load();
        let throttled = topics.by_id(replica.topic_id).map(|topic| &topic.config.throttled_followers);
        throttled.is_some_and(|throttled| throttled.contains(replica.partition.index(), self.config.node_id))
    }

    fn roles(&self) -> watch::Receiver<u64> {
        self.roles.clone()
    }

    fn write_recovery_points(&self) -> io::Result<()> {
        partition_dirs::write_recovery_points(&self.dirs, &self.topics.load())
    }

    fn alter_partition(&self, request: AlterPartition) -> BoxFuture<'_, Result<bool, ApiError>> {
        Box::pin(async move {
            let records = self.controller.submit_one(Request::AlterPartition(request), false).await?;
            Ok(!records.is_empty())
        })
    }
}
