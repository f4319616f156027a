//! Starting and stopping.

mod membership;
mod recover;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use millstream_coordinator::group::{CONSUMER_OFFSETS, GroupCoordinator};
use millstream_coordinator::transaction::{HostFuture, TRANSACTION_STATE, TransactionCoordinator};
use millstream_log::DataDir;
use millstream_partition::{FsyncQueue, Partition};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api;
use crate::apply::Node;
use crate::background;
use crate::broker::Broker;
use crate::cluster::{Cluster, ControllerCalls};
use crate::compute_permits::ComputePermits;
use crate::config::{BrokerConfig, ClusterConfig, HostPort, ListenerConfig};
use crate::controller::Controller;
use crate::edge::plugins::{self, Plugins};
use crate::edge::{Edge, EdgeService, ServedTopics};
use crate::fetch_sessions::FetchSessions;
use crate::internal_topic::NamedTopic;
use crate::log_dirs::{self, LogDirs};
use crate::metrics::cleaner::CleanerMetrics;
use crate::metrics::{CleanerStats, RequestStats};
use crate::net::descriptors;
use crate::net::listener::{self, Connections};
use crate::net::message_memory::MessageMemory;
use crate::net::nodes::NodeListener;
use crate::partition_dirs::{self, Checkpoints};
use crate::placement::Placement;
use crate::producer_ids::ProducerIds;
use crate::replication::{self, FetcherConfig, Quota, WantedChange};
use crate::transactions::{self, Coordinators, LocalPartitions, MarkerSender, OtherBrokers, SharedHost};
use membership::Membership;
use millstream_metadata::{FeatureLevel, MetadataRecord, MetadataStore};
use millstream_partition::now_ms;
pub use recover::Recovery;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used: it belongs to another broker, or the disk fails.
    #[error("{0}")]
    Data(String),
    /// A listener cannot be opened.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address to listen on.
        address: HostPort,
        /// The cause.
        error: std::io::Error,
    },
}

fn data(error: impl std::fmt::Display) -> StartError {
    StartError::Data(error.to_string())
}

/// A running broker.
#[derive(Debug)]
pub struct RunningBroker {
    broker: Arc<Broker>,
    /// The data folders that are open, that of the metadata first.
    data_dirs: Vec<DataDir>,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    fetchers: JoinHandle<()>,
    /// `None` for a broker that is alone.
    membership: Option<Membership>,
}

/// Opens the data folders and the listeners. When this returns, the broker serves requests. In a cluster, requests for
/// topics get errors that clients retry, until the broker has caught up with the metadata.
///
/// # Errors
/// The data folder is in use or damaged as a whole, or a listener cannot be opened. A single partition that cannot be
/// opened is not an error: it is offline, and the rest is served.
pub async fn start(config: BrokerConfig, plugins: Plugins) -> Result<RunningBroker, StartError> {
    descriptors::raise_limit();
    match config.cluster.clone() {
        None => start_alone(config, plugins).await,
        Some(in_cluster) => start_in_cluster(config, plugins, in_cluster).await,
    }
}

async fn start_alone(config: BrokerConfig, plugins: Plugins) -> Result<RunningBroker, StartError> {
    // Lock the data folder before binding ports.
    check_folders(&config)?;
    let folder = config.metadata_dir.clone();
    let node_id = config.node_id;
    let data_dir = tokio::task::spawn_blocking(move || DataDir::open(&folder, None, node_id)).await;
    let data_dir = data_dir.map_err(data)?.map_err(data)?;
    if Cluster::is_in(data_dir.path()) {
        return Err(StartError::Data(format!(
            "{} has the data of a node of a cluster: start it with --cluster-listen and --join, or with the keys \
             controller.listener.names and controller.quorum.bootstrap.servers",
            data_dir.path().display()
        )));
    }
    let (sockets, addresses) = bind_all(&config).await?;
    let advertised = advertised(&config, &addresses);
    let opened = tokio::task::spawn_blocking(move || open(config, plugins, data_dir, advertised)).await;
    let opened = opened.map_err(data)??;
    let (stop, stopped) = watch::channel(false);
    let broker = Arc::clone(&opened.broker);
    background::start(&broker, &stopped);
    tokio::spawn(Arc::clone(&broker.controller).watch_folders(stopped.clone()));
    tokio::spawn(Arc::clone(&broker.controller).move_replicas(stopped.clone()));
    broker.groups.start().await;
    broker.transactions.start().await;
    plugins::start(&broker.edge, &broker.changes, &stopped).await;
    let (running, connections) = run(opened, addresses, stop)?;
    let listeners = sockets.into_iter().enumerate().map(|(index, socket)| {
        let (broker, connections) = (Arc::clone(&broker), Arc::clone(&connections));
        tokio::spawn(listener::serve(broker, connections, socket, index, stopped.clone()))
    });
    Ok(RunningBroker { listeners: listeners.collect(), ..running })
}

async fn start_in_cluster(
    config: BrokerConfig,
    plugins: Plugins,
    in_cluster: ClusterConfig,
) -> Result<RunningBroker, StartError> {
    let (sockets, addresses) = bind_all(&config).await?;
    let advertised = advertised(&config, &addresses);
    let nodes = in_cluster.listener;
    let address = advertised[nodes].clone().ok_or_else(|| data("the listener for nodes has no address"))?;
    let cluster = Cluster::new(config.node_id, in_cluster, address);
    let (stop, stopped) = watch::channel(false);
    let (ready, connections) = (Arc::new(OnceLock::new()), Arc::new(Connections::new().map_err(data)?));
    let (mut clients, mut listeners) = (Vec::new(), Vec::new());
    for (index, socket) in sockets.into_iter().enumerate() {
        if index == nodes {
            let (cluster, broker) = (Arc::clone(&cluster), Arc::clone(&ready));
            let listener = NodeListener { cluster, broker, connections: Arc::clone(&connections), index };
            listeners.push(tokio::spawn(listener.serve(socket, stopped.clone())));
        } else {
            clients.push((index, socket));
        }
    }
    check_folders(&config)?;
    let mut data_dir = membership::take_place(&cluster, &config.metadata_dir, config.node_id).await?;
    let opening = Arc::clone(&cluster);
    let opened = tokio::task::spawn_blocking(move || {
        if let Some(quorum) = opening.quorum() {
            data_dir.set_directory_id(quorum.directory_id()).map_err(data)?;
        }
        let folders = Folders::open(&config, data_dir)?;
        let checkpoints = Checkpoints::take(&folders.opened).map_err(data)?;
        let opened = assemble(config, plugins, folders, advertised, Arc::clone(&opening.metadata), Some(opening))?;
        Ok::<_, StartError>((opened, checkpoints))
    });
    let (opened, checkpoints) = opened.await.map_err(data)??;
    let broker = Arc::clone(&opened.broker);
    cluster.set_controller(Arc::new(Arc::clone(&broker.controller)) as Arc<dyn ControllerCalls>);
    cluster.set_edge(Arc::new(EdgeService { edge: Arc::clone(&broker.edge), changes: Arc::clone(&broker.changes) }));
    let _ = ready.set(Arc::clone(&broker));
    let (running, _) = run(opened, addresses, stop)?;
    listeners.extend(clients.into_iter().map(|(index, socket)| {
        let (broker, connections) = (Arc::clone(&broker), Arc::clone(&connections));
        tokio::spawn(listener::serve(broker, connections, socket, index, stopped.clone()))
    }));
    let membership = Membership { broker, cluster };
    tokio::spawn(membership.clone().run(checkpoints, stopped));
    Ok(RunningBroker { listeners, membership: Some(membership), ..running })
}

async fn bind_all(config: &BrokerConfig) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), StartError> {
    let mut sockets = Vec::with_capacity(config.listeners.len());
    for ListenerConfig { bind, .. } in &config.listeners {
        let socket = listener::bind(bind, config).await;
        sockets.push(socket.map_err(|error| StartError::Listen { address: bind.clone(), error })?);
    }
    let addresses = sockets.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>().map_err(data)?;
    Ok((sockets, addresses))
}

/// Starts what every broker runs, and returns it without listeners.
fn run(
    opened: Opened,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
) -> Result<(RunningBroker, Arc<Connections>), StartError> {
    let Opened { broker, data_dirs, wanted_changes } = opened;
    let stopped = stop.subscribe();
    let fetchers = replication::run(Arc::clone(&broker) as _, FetcherConfig::of(&broker.config), stopped.clone());
    let fetchers = tokio::spawn(fetchers);
    let lag_max = broker.config.replica_lag_max;
    tokio::spawn(replication::run_in_sync(Arc::clone(&broker) as _, wanted_changes, lag_max, stopped));
    let connections = Arc::new(Connections::new().map_err(data)?);
    let listeners = Vec::new();
    let running = RunningBroker { broker, data_dirs, addresses, stop, listeners, fetchers, membership: None };
    Ok((running, connections))
}

/// Returns the addresses for clients. Each is the configured address (with the real port if none was chosen) or else
/// the address listened on. If that is every address, it is the one that the client connected to.
fn advertised(config: &BrokerConfig, addresses: &[SocketAddr]) -> Vec<Option<HostPort>> {
    let told = config.listeners.iter().zip(addresses).map(|(listener, address)| {
        let real = |host: &str, port| HostPort { host: host.to_owned(), port };
        match &listener.advertised {
            Some(HostPort { host, port: 0 }) => Some(real(host, address.port())),
            Some(advertised) => Some(advertised.clone()),
            None if address.ip().is_unspecified() => None,
            None => Some(real(&listener.bind.host, address.port())),
        }
    });
    told.collect()
}

/// Opens the metadata. Begins it in a new folder, and raises the leader epoch after a crash.
fn open_metadata(data_dir: &DataDir, node_id: i32, clean: bool) -> Result<MetadataStore, StartError> {
    let metadata = MetadataStore::open(data_dir.path(), node_id).map_err(data)?;
    let image = metadata.image();
    let cluster_id = &data_dir.meta().cluster_id;
    if !image.cluster_id.is_empty() && image.cluster_id != *cluster_id {
        return Err(data(format!(
            "meta.properties in {} has cluster.id={cluster_id}, and the metadata there is that of cluster {}: restore \
             the file from a backup, or the folder {OWN}",
            data_dir.path().display(),
            image.cluster_id,
            OWN = membership::OWN_LOG,
        )));
    }
    let mut records = Vec::new();
    if image.cluster_id.is_empty() {
        let cluster_id = cluster_id.clone();
        records.push(MetadataRecord::ClusterCreated { cluster_id });
        records.push(MetadataRecord::FeatureLevelSet { level: FeatureLevel::OF_NEW_LOGS.number() });
    } else if !clean {
        // Records that clients have read may be lost. With the new epoch they detect where the log differs from what
        // they know.
        records.push(MetadataRecord::LeaderEpochRaised { epoch: image.leader_epoch + 1 });
    }
    if !records.is_empty() {
        let mut draft = metadata.draft(now_ms());
        draft.add(&records).and_then(|()| metadata.commit(&draft)).map_err(data)?;
    }
    Ok(metadata)
}

/// A broker whose data folders are open, and which has no listeners yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) broker: Arc<Broker>,
    pub(crate) data_dirs: Vec<DataDir>,
    /// The changes of in-sync sets that leaders want.
    pub(crate) wanted_changes: mpsc::UnboundedReceiver<WantedChange>,
}

/// The data folders of this node, and their locks.
struct Folders {
    dirs: Arc<LogDirs>,
    /// Those that are open, that of the metadata first.
    opened: Vec<DataDir>,
    placement: Placement,
}

impl Folders {
    /// Opens the other folders beside that of the metadata.
    fn open(config: &BrokerConfig, metadata: DataDir) -> Result<Self, StartError> {
        let (dirs, others) = LogDirs::open(&config.log_dirs, &metadata, config.disk_reserve_bytes).map_err(data)?;
        let dirs = Arc::new(dirs);
        dirs.make_room();
        dirs.look_at_space();
        let placement = Placement::open(Arc::clone(&dirs)).map_err(data)?;
        Ok(Self { dirs, opened: std::iter::once(metadata).chain(others).collect(), placement })
    }
}

/// Checks that the configured data folders can be used together.
fn check_folders(config: &BrokerConfig) -> Result<(), StartError> {
    let has_metadata = |folder: &Path| Cluster::is_in(folder) || folder.join(membership::OWN_LOG).is_dir();
    log_dirs::check(&config.log_dirs, &config.metadata_dir, has_metadata, config.cluster.is_none()).map_err(data)
}

/// Opens the data folders without the listeners. That of the metadata is open.
pub(crate) fn open(
    config: BrokerConfig,
    plugins: Plugins,
    data_dir: DataDir,
    advertised: Vec<Option<HostPort>>,
) -> Result<Opened, StartError> {
    let folders = Folders::open(&config, data_dir)?;
    let checkpoints = Checkpoints::take(&folders.opened).map_err(data)?;
    let clean = checkpoints.clean_shutdown;
    let metadata = Arc::new(open_metadata(&folders.opened[0], config.node_id, clean)?);
    let image = metadata.image();
    folders.placement.settle(&image, config.node_id).map_err(data)?;
    let opened = assemble(config, plugins, folders, advertised, metadata, None)?;
    let broker = &opened.broker;
    broker.controller.open_all(&image, &checkpoints).map_err(data)?;
    let partitions: usize = broker.topics.load().iter().map(|topic| topic.own_partitions().len()).sum();
    tracing::info!(
        data_dir = %broker.dirs.metadata().display(),
        cluster_id = image.cluster_id,
        feature_level = image.feature_level.number(),
        partitions,
        after_clean_stop = clean,
        "opened"
    );
    Ok(opened)
}

/// Makes a broker whose partitions are not open yet.
fn assemble(
    config: BrokerConfig,
    plugins: Plugins,
    folders: Folders,
    advertised: Vec<Option<HostPort>>,
    metadata: Arc<MetadataStore>,
    cluster: Option<Arc<Cluster>>,
) -> Result<Opened, StartError> {
    let Folders { dirs, opened: data_dirs, placement } = folders;
    let fsync_queue = FsyncQueue::start(config.flush_mode, dirs.metadata()).map_err(data)?;
    let topics: Arc<ArcSwap<ServedTopics>> = Arc::default();
    let offsets_topic = Box::new(NamedTopic::new(&topics, CONSUMER_OFFSETS, cluster.as_ref()));
    let config = Arc::new(config);
    let groups = GroupCoordinator::new(config.group.clone(), offsets_topic);
    let transaction_topic = Box::new(NamedTopic::new(&topics, TRANSACTION_STATE, cluster.as_ref()));
    let host = Arc::<transactions::Host>::default();
    let shared = Box::new(SharedHost(Arc::clone(&host), Arc::clone(&metadata)));
    let transactions = TransactionCoordinator::new(config.transactions.clone(), transaction_topic, shared);
    let listener = config.inter_broker_listener.map(|index| config.listeners[index].name.clone());
    let others = Arc::new(OtherBrokers::new(Arc::clone(&metadata), listener));
    let coordinators =
        Coordinators::new(config.node_id, Arc::clone(&metadata), Arc::clone(&transactions), Arc::clone(&others));
    let edge = Arc::new(Edge {
        config: Arc::clone(&config),
        metadata: Arc::clone(&metadata),
        topics: Arc::clone(&topics),
        plugins: plugins.with_limits(config.spike_limits),
        decoders: Arc::default(),
        verifier: Arc::new(coordinators.clone()),
        cluster: cluster.clone(),
    });
    let node = Node {
        config: Arc::clone(&config),
        broker_configs: ArcSwap::default(),
        dirs: Arc::clone(&dirs),
        placement,
        topics: Arc::clone(&topics),
        fsync_queue: Arc::clone(&fsync_queue),
        groups: Arc::clone(&groups),
        transactions: Arc::clone(&transactions),
        edge: Arc::clone(&edge),
        roles: watch::Sender::default(),
    };
    let roles = node.roles.subscribe();
    let (wanted_changes, receiver) = mpsc::unbounded_channel();
    let controller = Arc::new(Controller::new(Arc::clone(&metadata), node, cluster.clone()));
    let producer_ids = Arc::new(ProducerIds::default());
    let local = Box::new(LocalPartitions::new(Arc::clone(&topics), Arc::clone(&groups)));
    let sender = MarkerSender::new(config.node_id, Arc::clone(&metadata), others, local);
    host.set(new_producer_id(&producer_ids, &controller), Arc::new(sender));
    let broker = Arc::new(Broker {
        dirs,
        cluster_id: data_dirs[0].meta().cluster_id.to_string(),
        directory_id: data_dirs[0].meta().directory_id,
        metadata,
        changes: Arc::new(Arc::clone(&controller)),
        controller,
        topics,
        fsync_queue,
        groups,
        transactions,
        verifier: Arc::new(coordinators),
        producer_ids,
        edge,
        message_memory: MessageMemory::new(config.queued_max_bytes),
        request_metrics: api::request_metrics(),
        cleaner_metrics: CleanerMetrics::default(),
        compute: ComputePermits::new(),
        advertised,
        roles,
        wanted_changes,
        fetch_sessions: FetchSessions::new(config.fetch_session_slots),
        leader_quota: Arc::new(Quota::new(config.replication_quota_windows)),
        follower_quota: Arc::new(Quota::new(config.replication_quota_windows)),
        cluster,
        config,
    });
    Ok(Opened { broker, data_dirs, wanted_changes: receiver })
}

/// Returns how the transaction coordinator gets producer ids.
fn new_producer_id(ids: &Arc<ProducerIds>, controller: &Arc<Controller>) -> transactions::NewProducerId {
    let (ids, controller) = (Arc::clone(ids), Arc::clone(controller));
    Box::new(move || {
        let (ids, controller) = (Arc::clone(&ids), Arc::clone(&controller));
        let new_id: HostFuture<Option<i64>> =
            Box::pin(async move { ids.next(|| controller.allocate_producer_ids()).await.ok() });
        new_id
    })
}

impl RunningBroker {
    /// Returns the address of the first listener, with its real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Returns the addresses of all listeners.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the counts of each API since the start.
    #[must_use]
    pub fn request_stats(&self) -> Vec<RequestStats> {
        api::request_stats(&self.broker.request_metrics)
    }

    /// Returns what compaction has done since the start.
    #[must_use]
    pub fn cleaner_stats(&self) -> CleanerStats {
        self.broker.cleaner_metrics.stats()
    }

    /// Waits until the broker cannot go on, and returns the reason.
    pub async fn failed(&self) -> StartError {
        let folders = reason(self.broker.dirs.fatal());
        let reason = match &self.membership {
            None => folders.await,
            Some(membership) => tokio::select! {
                reason = folders => reason,
                reason = reason(membership.cluster.fatal()) => reason,
            },
        };
        StartError::Data(reason)
    }

    /// Stops the broker: connections end, logs are synced and closed, and the folder is marked as cleanly closed.
    ///
    /// # Errors
    /// Something could not be written; the next start then recovers as after a crash.
    pub async fn shutdown(self) -> Result<(), StartError> {
        if let Some(membership) = &self.membership {
            membership.leave().await;
        }
        // All receivers may be gone already.
        let _ = self.stop.send(true);
        self.broker.groups.stop();
        self.broker.transactions.stop();
        for listener in self.listeners {
            listener.await.map_err(data)?;
        }
        self.fetchers.await.map_err(data)?;
        let broker = self.broker;
        let data_dirs = self.data_dirs;
        let closed = tokio::task::spawn_blocking(move || close(&broker, &data_dirs)).await.map_err(data)?;
        if let Some(membership) = self.membership {
            membership.cluster.stop().await;
        }
        closed
    }
}

/// Waits for the reason why the broker cannot go on.
async fn reason(mut fatal: watch::Receiver<Option<String>>) -> String {
    fatal.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()).unwrap_or_default()
}

fn close(broker: &Broker, data_dirs: &[DataDir]) -> Result<(), StartError> {
    broker.fsync_queue.stop();
    broker.dirs.make_room();
    let topics = broker.topics.load();
    let partitions: Vec<_> = topics.iter().flat_map(|topic| topic.own_partitions().iter().cloned()).collect();
    // What is in a folder that has failed cannot be closed, and does not keep the others from it.
    let here: Vec<_> = partitions.into_iter().filter(|partition| !is_lost(broker, partition)).collect();
    let clean = Partition::close_all(&here);
    broker.metadata.close().map_err(data)?;
    partition_dirs::write_recovery_points(&broker.dirs, &topics).map_err(data)?;
    partition_dirs::write_log_starts(&broker.dirs, &topics).map_err(data)?;
    partition_dirs::write_high_watermarks(&broker.dirs, &topics).map_err(data)?;
    partition_dirs::write_first_dirty(&broker.dirs, &topics).map_err(data)?;
    let works = |folder: &&DataDir| broker.dirs.find(folder.path()).is_none_or(|dir| dir.is_online());
    if clean {
        data_dirs.iter().filter(works).try_for_each(DataDir::mark_clean_shutdown).map_err(data)?;
    }
    Ok(())
}

/// Returns whether the data folder of a replica has failed, or is not there.
fn is_lost(broker: &Broker, partition: &Partition) -> bool {
    let dir = partition.data_dir().and_then(|path| broker.dirs.find(path));
    partition.is_replica() && dir.is_none_or(|dir| !dir.is_online())
}
