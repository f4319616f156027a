//! A broker in its cluster: taking its place at the start, registration, heartbeats, the controlled shutdown.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millstream_log::DataDir;
use millstream_metadata::controller::{BrokerState, Heartbeat, Kept, Registration, Request};
use millstream_metadata::{BrokerImage, BrokerRegistration, FeatureLevel, MetadataImage, MetadataStore};
use millstream_partition::FlushMode;
use millstream_wire::ErrorCode;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{StartError, data};
use crate::background;
use crate::broker::Broker;
use crate::cluster::{Cluster, Place, Standing};
use crate::edge::plugins;
use crate::error::ApiError;
use crate::partition_dirs::Checkpoints;

/// The folder of the metadata log of a broker that is alone.
pub(super) const OWN_LOG: &str = "__cluster_metadata-0";

/// The marker of a data folder that is new in its cluster, until its broker is registered. The broker may have been in
/// the cluster before with another disk.
const NEW_MEMBER: &str = "new-member";

/// The marker of a node that is to vote, until it does. It follows the metadata and serves its clients first: a node
/// that fails while it starts must not be needed by the others.
const NEW_VOTER: &str = "new-voter";

/// The pause between attempts to register, and between the heartbeats of a broker that is fenced.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The time for moving leaderships away before a stop.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(30);

/// The time that clients have to learn of the new leaders: some round trips.
const FAREWELL: Duration = Duration::from_millis(50);

/// The time for which a stop looks for a controller.
const CONTROLLER_WAIT: Duration = Duration::from_secs(1);

/// Takes the place of this node in its cluster. Returns the data folder, which is locked.
pub(super) async fn take_place(cluster: &Cluster, folder: &Path, node_id: i32) -> Result<DataDir, StartError> {
    let open = |cluster_id: Option<String>| {
        let folder = folder.to_path_buf();
        async move {
            let opened = move || DataDir::open(&folder, cluster_id.as_deref(), node_id);
            tokio::task::spawn_blocking(opened).await.map_err(data)?.map_err(data)
        }
    };
    if Cluster::is_in(folder) {
        let data_dir = open(None).await?;
        cluster.open(folder, data_dir.meta().cluster_id.as_str()).await.map_err(data)?;
        match cluster.standing().await.map_err(data)? {
            // It stopped before it had its place.
            Standing::Member | Standing::Stranger if is_new(folder) => {
                cluster.join_quorum(false).await.map_err(data)?;
                return Ok(data_dir);
            }
            Standing::Member => return Ok(data_dir),
            Standing::Stranger => return Err(data(cluster.removed())),
            // It may have stopped before its first entry.
            Standing::OnlyVoter => {
                form(cluster, &data_dir).await?;
                return Ok(data_dir);
            }
            Standing::None => {}
        }
        // It stopped before it was a member.
        match cluster.find_place().await.map_err(data)? {
            Place::First => form(cluster, &data_dir).await?,
            Place::Joins(_) => cluster.join_quorum(false).await.map_err(data)?,
        }
        return Ok(data_dir);
    }
    let place = cluster.find_place().await.map_err(data)?;
    let data_dir = match &place {
        Place::First => open(None).await?,
        Place::Joins(cluster_id) => {
            let data_dir = open(Some(cluster_id.clone())).await?;
            mark(folder, NEW_MEMBER).map_err(data)?;
            if cluster.config.votes {
                mark(folder, NEW_VOTER).map_err(data)?;
            }
            data_dir
        }
    };
    cluster.open(folder, data_dir.meta().cluster_id.as_str()).await.map_err(data)?;
    match place {
        Place::First => form(cluster, &data_dir).await?,
        Place::Joins(cluster_id) => {
            tracing::info!(cluster_id, "joining the cluster");
            cluster.join_quorum(false).await.map_err(data)?;
        }
    }
    Ok(data_dir)
}

/// Returns whether a data folder is new in its cluster.
fn is_new(folder: &Path) -> bool {
    folder.join(NEW_MEMBER).exists()
}

/// Writes a marker durably.
fn mark(folder: &Path, name: &str) -> std::io::Result<()> {
    File::create(folder.join(name))?;
    File::open(folder)?.sync_all()
}

/// Removes a marker.
fn unmark(folder: &Path, name: &str) -> Result<(), StartError> {
    match std::fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(data(error)),
        _ => Ok(()),
    }
}

/// Forms a cluster. What a broker that was alone has stored becomes the first state of the cluster.
async fn form(cluster: &Cluster, data_dir: &DataDir) -> Result<(), StartError> {
    if cluster.metadata.version() > 0 {
        return Ok(());
    }
    let mut image = MetadataImage::of_new_cluster(data_dir.meta().cluster_id.as_str());
    if data_dir.path().join(OWN_LOG).is_dir() {
        let own = MetadataStore::open(data_dir.path(), cluster.node_id).map_err(data)?;
        let stored = own.image();
        if !stored.cluster_id.is_empty() {
            image = MetadataImage::clone(&stored).with_newest_features();
            tracing::info!(topics = image.topics().count(), "this node becomes the first node of a cluster");
        }
    }
    cluster.form(&image).await.map_err(data)
}

/// The broker of this node, as a part of its cluster.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pub(super) broker: Arc<Broker>,
    pub(super) cluster: Arc<Cluster>,
}

impl Membership {
    /// Registers the broker, opens its partitions, and sends heartbeats until `stop` says so.
    pub(super) async fn run(self, checkpoints: Checkpoints, mut stop: watch::Receiver<bool>) {
        let stopped = stop.clone();
        let life = async {
            if let Err(error) = self.live(checkpoints, &stopped).await {
                self.cluster.fail(error.to_string());
            }
        };
        tokio::select! {
            () = life => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn live(&self, checkpoints: Checkpoints, stop: &watch::Receiver<bool>) -> Result<(), StartError> {
        let (broker, cluster) = (&self.broker, &self.cluster);
        tokio::spawn(Arc::clone(&broker.controller).supervise(Arc::clone(cluster), stop.clone()));
        tokio::spawn(Arc::clone(cluster).watch_nodes(stop.clone()));
        cluster.confirm_member().await.map_err(data)?;
        if !cluster.config.is_broker {
            return self.control(checkpoints, stop).await;
        }
        let is_new = is_new(broker.dirs.metadata());
        let keeps_logs = checkpoints.clean_shutdown || broker.config.flush_mode == FlushMode::Fsync;
        // A replica on a disk that was lost must not lead with an empty log.
        let kept = match (is_new, keeps_logs) {
            (true, _) => Kept::None,
            (false, true) => Kept::All,
            (false, false) => Kept::Most,
        };
        self.register(kept).await?;
        if is_new {
            unmark(broker.dirs.metadata(), NEW_MEMBER)?;
        }
        broker.controller.settle_partitions().await.map_err(data)?.map_err(data)?;
        broker.controller.open_partitions(checkpoints).await.map_err(data)?;
        tokio::spawn(Arc::clone(&broker.controller).follow_quorum(cluster.applied(), stop.clone()));
        tokio::spawn(Arc::clone(&broker.controller).watch_replicas(stop.clone()));
        tokio::spawn(Arc::clone(&broker.controller).watch_folders(stop.clone()));
        tokio::spawn(Arc::clone(&broker.controller).move_replicas(stop.clone()));
        background::start(broker, stop);
        broker.groups.start().await;
        broker.transactions.start().await;
        plugins::start(&broker.edge, &broker.changes, stop).await;
        tokio::spawn(self.clone().become_voter());
        let catch_up = async {
            plugins::catch_up_at_start(&broker.edge, &broker.changes).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = self.send_heartbeats() => ended,
            () = catch_up => Ok(()),
        }
    }

    /// Follows the metadata as a node that is a controller and not a broker.
    async fn control(&self, checkpoints: Checkpoints, stop: &watch::Receiver<bool>) -> Result<(), StartError> {
        let (broker, cluster) = (&self.broker, &self.cluster);
        unmark(broker.dirs.metadata(), NEW_MEMBER)?;
        let mut applied = cluster.applied();
        while broker.metadata.version() == 0 {
            applied.changed().await.map_err(data)?;
        }
        broker.controller.open_partitions(checkpoints).await.map_err(data)?;
        tokio::spawn(self.clone().become_voter());
        Arc::clone(&broker.controller).follow_quorum(cluster.applied(), stop.clone()).await;
        Ok(())
    }

    /// Becomes a voter, once the node does what it is there for.
    async fn become_voter(self) {
        let (folder, mut applied) = (self.broker.dirs.metadata(), self.cluster.applied());
        if !folder.join(NEW_VOTER).exists() {
            return;
        }
        while self.cluster.config.is_broker && !self.is_active() {
            if applied.changed().await.is_err() {
                return;
            }
        }
        let joined = self.cluster.join_quorum(true).await.map_err(data);
        match joined.and_then(|()| unmark(folder, NEW_VOTER)) {
            Ok(()) => tracing::info!("the node is a voter of the quorum"),
            Err(error) => self.cluster.fail(error.to_string()),
        }
    }

    /// Returns whether the broker of this process is neither fenced nor about to stop.
    fn is_active(&self) -> bool {
        let image = self.broker.metadata.image();
        self.epoch().is_some() && image.broker(self.broker.config.node_id).is_some_and(BrokerImage::is_active)
    }

    /// Registers the broker, and waits until this node has the registration.
    async fn register(&self, kept: Kept) -> Result<(), StartError> {
        let (broker, cluster) = (&self.broker, &self.cluster);
        let registration = Registration {
            cluster_id: cluster.id().to_owned(),
            broker: BrokerRegistration {
                id: broker.config.node_id,
                incarnation: cluster.incarnation,
                endpoints: broker.endpoints(),
                rack: broker.config.rack.clone(),
                level_min: FeatureLevel::INITIAL.number(),
                level_max: FeatureLevel::NEWEST.number(),
            },
            kept,
        };
        let begun = Instant::now();
        let mut reported = String::new();
        loop {
            let request = Request::RegisterBroker(registration.clone());
            match broker.controller.submit_one(request, false).await {
                Ok(_) => break,
                Err(error) if is_final(&error, begun.elapsed(), cluster.config.session_timeout) => {
                    return Err(StartError::Data(format!("the cluster rejects this broker: {error}")));
                }
                Err(error) if error.message != reported => {
                    tracing::info!("the broker is not registered yet: {error}");
                    reported = error.message;
                }
                Err(_) => {}
            }
            sleep(RETRY_AFTER).await;
        }
        let mut applied = cluster.applied();
        while self.epoch().is_none() {
            applied.changed().await.map_err(data)?;
        }
        Ok(())
    }

    /// Returns the epoch of this process's registration, if this node has it.
    fn epoch(&self) -> Option<i64> {
        let image = self.broker.metadata.image();
        let registered = image.broker(self.broker.config.node_id)?;
        (registered.registration.incarnation == self.cluster.incarnation).then_some(registered.epoch)
    }

    /// Sends a heartbeat.
    async fn heartbeat(&self, want_shutdown: bool) -> Result<BrokerState, ApiError> {
        let id = self.broker.config.node_id;
        let epoch = self.epoch().ok_or_else(|| {
            ApiError::new(ErrorCode::STALE_BROKER_EPOCH, "another process has registered with the id of this broker")
        })?;
        let caught_up = self.broker.edge.plugins.has_caught_up();
        let heartbeat = Heartbeat { id, epoch, caught_up, want_fence: false, want_shutdown };
        self.broker.controller.send_heartbeat(&self.cluster, heartbeat).await
    }

    async fn send_heartbeats(&self) -> Result<(), StartError> {
        let mut leaderships = self.cluster.leaderships();
        let session = &self.cluster.session;
        let (mut was_fenced, mut is_suspended) = (true, false);
        session.renew(Instant::now());
        loop {
            let sent = Instant::now();
            let heartbeat = tokio::select! {
                heartbeat = self.heartbeat(false) => Some(heartbeat),
                // The response may never come from the old controller.
                changed = leaderships.changed() => changed.map(|()| None).map_err(data)?,
            };
            let pause = match heartbeat {
                None => continue,
                Some(Ok(state)) => {
                    if state.fenced != was_fenced {
                        let fenced = state.fenced;
                        tracing::info!(fenced, "the state of this broker in the cluster has changed");
                        was_fenced = state.fenced;
                    }
                    session.renew(sent);
                    if state.fenced { RETRY_AFTER } else { self.cluster.config.heartbeat_interval }
                }
                Some(Err(error)) if error.code == ErrorCode::STALE_BROKER_EPOCH && self.epoch().is_none() => {
                    return Err(StartError::Data(format!("the broker cannot stay in the cluster: {error}")));
                }
                Some(Err(error)) => {
                    tracing::debug!("no heartbeat: {error}");
                    RETRY_AFTER
                }
            };
            let has_expired = session.has_expired();
            if has_expired != is_suspended {
                is_suspended = has_expired;
                let session_ms = self.cluster.config.session_timeout.as_millis();
                match is_suspended {
                    true => {
                        tracing::info!(session_ms, "no controller is reached: replicated partitions take no records")
                    }
                    false => tracing::info!("the controller is reached again"),
                }
                self.broker.controller.suspend(is_suspended);
            }
            let reserve = self.cluster.config.session_timeout / 10;
            let pause = pause.min(session.left().saturating_sub(reserve).max(RETRY_AFTER));
            let _ = timeout(pause, leaderships.changed()).await;
        }
    }

    /// Moves the leaderships of this broker away, and that of the quorum. A cluster without a controller cannot.
    ///
    /// Clients that are sending to this broker are given the time to learn of the new leaders from its responses.
    /// Otherwise the end of their connections would cost them a request and a pause.
    pub(super) async fn leave(&self) {
        let moved = async {
            self.move_leaders().await;
            let moved_at = Instant::now();
            // Without a majority of the others no node can take the quorum over.
            if !self.cluster.has_majority(false) {
                return;
            }
            if timeout(CONTROLLER_WAIT, self.cluster.resign()).await.is_err() {
                tracing::info!("no other node has become the controller: this one stops all the same");
            }
            sleep(FAREWELL.saturating_sub(moved_at.elapsed())).await;
        };
        tokio::select! {
            () = moved => {}
            () = self.cluster.majority_is_gone() => {
                tracing::info!("no majority of the voters is left: the node stops without another leader");
            }
        }
    }

    async fn move_leaders(&self) {
        let begun = Instant::now();
        let mut heard = begun;
        while begun.elapsed() < SHUTDOWN_WAIT && heard.elapsed() < CONTROLLER_WAIT && self.epoch().is_some() {
            match timeout(CONTROLLER_WAIT, self.heartbeat(true)).await {
                Ok(Ok(state)) if state.may_stop => return,
                Ok(Ok(_)) => heard = Instant::now(),
                Ok(Err(error)) => tracing::debug!("no heartbeat: {error}"),
                Err(_) => tracing::debug!("no heartbeat in time"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Returns whether a registration that fails like this would fail for ever.
fn is_final(error: &ApiError, elapsed: Duration, session_timeout: Duration) -> bool {
    match error.code {
        // The process before this one may have ended without a notice.
        ErrorCode::DUPLICATE_BROKER_REGISTRATION => elapsed > session_timeout * 2,
        ErrorCode::INCONSISTENT_CLUSTER_ID | ErrorCode::UNSUPPORTED_VERSION => true,
        _ => false,
    }
}
