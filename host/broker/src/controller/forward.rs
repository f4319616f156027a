//! In a cluster: changes that another node decides, and what the others decided.

use std::sync::Arc;
use std::time::Duration;

use millstream_wire::ErrorCode;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Controller, NEW_PLUGIN_WAIT, Outcome, altered, has_stages};
use crate::apply::{self, Prepared};
use crate::blocking::blocking;
use crate::cluster::{Call, Changed, Cluster, PeerError, Reply};
use crate::error::ApiError;
use crate::partition_dirs::Checkpoints;
use crate::placement::PlacementError;
use millstream_metadata::MetadataImage;
use millstream_metadata::controller::{BrokerState, Heartbeat, Request, decide};
use millstream_partition::now_ms;

/// The time for which a change is sent again while no controller takes it.
const CONTROLLER_WAIT: Duration = Duration::from_secs(10);

/// The time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for which a change that was committed may be missing on this node.
const APPLY_WAIT: Duration = Duration::from_secs(2);

/// The pause before a change is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Why a change was not made.
enum NotMade {
    /// It may be sent again.
    NoController,
    /// The outcome is not known, or it is rejected.
    Failed(ApiError),
}

impl Controller {
    /// Makes changes through the controller of the cluster, which may be this node.
    pub(super) async fn submit_to_controller(
        self: &Arc<Self>,
        cluster: &Arc<Cluster>,
        requests: Vec<Request>,
        validate_only: bool,
    ) -> Vec<Outcome> {
        let deadline = Instant::now() + CONTROLLER_WAIT;
        loop {
            let made = if cluster.is_controller() {
                self.decide_here(requests.clone(), validate_only).await
            } else {
                self.forward(cluster, requests.clone(), validate_only).await
            };
            match made {
                Ok(outcomes) => return outcomes,
                Err(NotMade::NoController) if Instant::now() < deadline => sleep(RETRY_AFTER).await,
                Err(NotMade::NoController) => {
                    let error = ApiError::new(ErrorCode::REQUEST_TIMED_OUT, "the cluster has no controller now");
                    return vec![Err(error); requests.len()];
                }
                Err(NotMade::Failed(error)) => return vec![Err(error); requests.len()],
            }
        }
    }

    /// Makes changes on this node. They are made as a whole, or not at all if the node is no longer the controller.
    async fn decide_here(
        self: &Arc<Self>,
        requests: Vec<Request>,
        validate_only: bool,
    ) -> Result<Vec<Outcome>, NotMade> {
        if self.metadata.version() == 0 {
            return Err(NotMade::NoController);
        }
        let outcomes = self.submit_here(requests, validate_only).await;
        let is_late = |outcome: &Outcome| matches!(outcome, Err(error) if error.code == ErrorCode::NOT_CONTROLLER);
        if outcomes.iter().any(is_late) { Err(NotMade::NoController) } else { Ok(outcomes) }
    }

    /// Starts the stages of requests on this node if the controller is not a broker and has none. Returns an error
    /// for each request with stages that do not start.
    async fn check_stages(self: &Arc<Self>, cluster: &Cluster, requests: &[Request]) -> Vec<Option<ApiError>> {
        let leader = cluster.leadership().leader;
        let is_broker = leader.is_none_or(|leader| self.metadata.image().broker(leader).is_some());
        if is_broker || !requests.iter().any(has_stages) {
            return vec![None; requests.len()];
        }
        let mut errors = Vec::new();
        // The plug-in may be new, and on its way from the broker that has stored it.
        for pause in [NEW_PLUGIN_WAIT, Duration::ZERO] {
            let (controller, started) = (Arc::clone(self), requests.to_vec());
            let start = move || {
                let mut draft = controller.metadata.draft(now_ms());
                let start_one = |request: &Request| {
                    // The controller returns the error of a request that it cannot decide.
                    let records = decide(draft.image(), request, &controller.rules()).ok()?;
                    let about = altered(draft.image(), request);
                    draft.add_if(&records, about, |delta| apply::prepare_stages(&controller.node, delta)).err()
                };
                started.iter().map(start_one).collect::<Vec<_>>()
            };
            errors = blocking(start).await.unwrap_or_else(|error| vec![Some(error); requests.len()]);
            if errors.iter().all(Option::is_none) {
                break;
            }
            sleep(pause).await;
        }
        errors
    }

    async fn forward(
        self: &Arc<Self>,
        cluster: &Cluster,
        requests: Vec<Request>,
        validate_only: bool,
    ) -> Result<Vec<Outcome>, NotMade> {
        let errors = self.check_stages(cluster, &requests).await;
        let sent = requests.into_iter().zip(&errors).filter(|(_, error)| error.is_none()).map(|(request, _)| request);
        let call = Call::Change { requests: sent.collect(), validate_only };
        match cluster.call_controller(&call, CALL_TIMEOUT).await {
            Ok(Reply::Changed(Changed { outcomes, version })) => {
                self.wait_for(version).await;
                let mut outcomes = outcomes.into_iter().map(|outcome| outcome.map_err(ApiError::from));
                let outcome = |error: Option<ApiError>| error.map_or_else(|| outcomes.next(), |error| Some(Err(error)));
                Ok(errors.into_iter().filter_map(outcome).collect())
            }
            Ok(_) | Err(PeerError::NoController | PeerError::NotSent { .. }) => Err(NotMade::NoController),
            Err(error @ PeerError::NoResponse { .. }) => Err(NotMade::Failed(ApiError::new(
                ErrorCode::REQUEST_TIMED_OUT,
                format!("{error}; the change may have been made"),
            ))),
            Err(PeerError::Rejected { error, .. }) => Err(NotMade::Failed(error)),
        }
    }

    /// Waits until this node has applied a version of the metadata, so that a client finds what it has changed.
    async fn wait_for(&self, version: u64) {
        let mut applied = self.applied_version.subscribe();
        if *applied.borrow() == 0 {
            // The partitions are not open yet.
            return;
        }
        // A node that is behind serves what it has.
        let _ = timeout(APPLY_WAIT, applied.wait_for(|applied| *applied >= version)).await;
    }

    fn is_current(&self, applied: Option<&Arc<MetadataImage>>) -> bool {
        applied.is_some_and(|applied| Arc::ptr_eq(applied, &self.metadata.image()))
    }

    /// Sends a heartbeat of this broker to the controller.
    pub(crate) async fn send_heartbeat(
        self: &Arc<Self>,
        cluster: &Cluster,
        heartbeat: Heartbeat,
    ) -> Result<BrokerState, ApiError> {
        // One that is lost leaves time for others.
        let limit = cluster.config.session_timeout / 3;
        if cluster.is_controller() {
            let late = || ApiError::new(ErrorCode::REQUEST_TIMED_OUT, "no majority of the voters responds");
            return timeout(limit, self.heartbeat_here(heartbeat)).await.unwrap_or_else(|_| Err(late()));
        }
        match cluster.call_controller(&Call::Heartbeat(heartbeat), limit).await {
            Ok(Reply::State(state)) => state.map_err(ApiError::from),
            Ok(_) => Err(ApiError::new(ErrorCode::NOT_CONTROLLER, "another node is the controller now")),
            Err(error) => Err(ApiError::new(ErrorCode::REQUEST_TIMED_OUT, error.to_string())),
        }
    }

    /// Lets partitions with other replicas take no records, since another broker may lead them by now; or lets them
    /// take records again.
    pub(crate) fn suspend(&self, is_suspended: bool) {
        let topics = self.node.topics.load();
        let led = topics.iter().flat_map(|topic| topic.own_partitions()).filter(|one| one.has_followers());
        led.for_each(|partition| partition.suspend(is_suspended));
    }

    /// Processes changes that another node sends. `None` if this node is not the controller.
    pub(super) async fn change_for_node(
        self: &Arc<Self>,
        requests: Vec<Request>,
        validate_only: bool,
    ) -> Option<Changed> {
        let cluster = self.cluster.as_ref().filter(|cluster| cluster.is_controller())?;
        debug_assert_eq!(cluster.node_id, self.node.config.node_id);
        let outcomes = self.decide_here(requests, validate_only).await.or_else(|error| match error {
            NotMade::NoController => Err(()),
            NotMade::Failed(error) => Ok(vec![Err(error)]),
        });
        let outcomes = outcomes.ok()?.into_iter().map(|outcome| outcome.map_err(Into::into)).collect();
        Some(Changed { outcomes, version: self.metadata.version() })
    }

    /// Waits until the partitions are open. Returns false if they are not in time.
    pub(crate) async fn has_opened(&self, limit: Duration) -> bool {
        if self.cluster.is_none() {
            return true;
        }
        let mut applied = self.applied_version.subscribe();
        if *applied.borrow() > 0 {
            return true;
        }
        timeout(limit, applied.wait_for(|applied| *applied > 0)).await.is_ok_and(|waited| waited.is_ok())
    }

    /// Finds the partitions of this node in its data folders.
    pub(crate) async fn settle_partitions(self: &Arc<Self>) -> Result<Result<(), PlacementError>, ApiError> {
        let controller = Arc::clone(self);
        let node_id = self.node.config.node_id;
        blocking(move || controller.node.placement.settle(&controller.metadata.image(), node_id)).await
    }

    /// Opens the partitions of the current image. From then on this node applies what the quorum commits.
    pub(crate) async fn open_partitions(self: &Arc<Self>, checkpoints: Checkpoints) -> Result<(), ApiError> {
        let changes = Arc::clone(&self.changes).lock_owned().await;
        let controller = Arc::clone(self);
        blocking(move || {
            let _changes = changes;
            let (image, version) = controller.metadata.image_of_version();
            if controller.is_broker() {
                apply::open_all(&controller.node, &image, &checkpoints);
            }
            *controller.applied.lock() = Some(image);
            controller.applied_version.send_replace(version);
            controller.node.roles.send_modify(|changes| *changes += 1);
        })
        .await
    }

    /// Applies what the quorum commits, until `stop` says so.
    pub(crate) async fn follow_quorum(
        self: Arc<Self>,
        mut committed: watch::Receiver<u64>,
        mut stop: watch::Receiver<bool>,
    ) {
        committed.mark_changed();
        loop {
            tokio::select! {
                changed = committed.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let changes = Arc::clone(&self.changes).lock_owned().await;
            if self.is_current(self.applied.lock().as_ref()) {
                continue;
            }
            let controller = Arc::clone(&self);
            let followed = blocking(move || {
                let _changes = changes;
                controller.follow(Prepared::default());
            });
            if let Err(error) = followed.await {
                tracing::error!("a change of the metadata cannot be applied: {error}");
            }
        }
    }
}
