//! Changes of the metadata: decided, made durable and applied, in this order.
//!
//! A change is checked against the image ([`decide`]) and against this node ([`apply::prepare`]: do its stages start?).
//! Its records are committed, and only then applied ([`apply::apply`]). A stop in between is repaired at the next
//! start, which applies the whole image. Changes that arrive while others are being committed wait, and are then
//! committed together with one fsync.
//!
//! | File | Subject |
//! |---|---|
//! | `mod.rs` | changes that this node decides |
//! | `auto_create.rs`, `rules.rs` | topics that are created by their use, and the rules for topics |
//! | `forward.rs` | in a cluster: changes that another node decides, and what the others decided |
//! | `failing_folders.rs` | data folders of this broker that fail |
//! | `failing_replicas.rs` | in a cluster: replicas of this broker whose disk fails |
//! | `moving_replicas.rs` | replicas of this broker that move to another data folder |
//! | `sessions.rs` | in a cluster: which brokers are alive, while this node is the controller |

mod auto_create;
mod failing_folders;
mod failing_replicas;
mod forward;
mod moving_replicas;
mod rules;
mod sessions;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, oneshot, watch};
use tokio::time::sleep;
use uuid::Uuid;

pub(crate) use rules::BrokerRules;

use crate::apply::{self, Node, Prepared};
use crate::blocking::blocking_or_log;
use crate::cluster::{Cluster, CommitError};
use crate::edge::{BoxFuture, MetadataChanges};
use crate::error::ApiError;
use crate::log_dirs::LogDir;
use crate::partition_dirs::Checkpoints;
use millstream_metadata::controller::{FeatureUpdates, NewTopic, PRODUCER_ID_BLOCK, Request, decide};
use millstream_metadata::{Draft, MetadataDelta, MetadataImage, MetadataRecord, MetadataStore};
use millstream_partition::now_ms;

/// The time for which the plug-ins of a cluster may be behind on this node.
const NEW_PLUGIN_WAIT: Duration = Duration::from_millis(300);

/// Larger ids of producers are not from a broker: half of all ids are left for those.
const PRODUCER_ID_MAX: i64 = 1 << 62;

type Outcome = Result<Vec<MetadataRecord>, ApiError>;

/// Makes the changes of the metadata.
#[derive(Debug)]
pub(crate) struct Controller {
    metadata: Arc<MetadataStore>,
    node: Node,
    /// The changes that wait.
    waiting: Mutex<Vec<Waiting>>,
    /// Held from reading the image until the change is in force.
    changes: Arc<tokio::sync::Mutex<()>>,
    /// `None` for a broker that is alone.
    cluster: Option<Arc<Cluster>>,
    /// In a cluster: the image that this node has applied; `None` before its partitions are open.
    applied: Mutex<Option<Arc<MetadataImage>>>,
    /// The version of that image.
    applied_version: watch::Sender<u64>,
    sessions: sessions::Sessions,
    /// The replicas that move to another data folder.
    moves: moving_replicas::Moves,
    /// Orders what the edge does while it holds changes back. In a cluster other nodes make changes all the same.
    held: Arc<tokio::sync::Mutex<()>>,
}

/// The requests of one client that belong together. Each succeeds or fails by itself, on top of the earlier ones.
#[derive(Debug)]
struct Waiting {
    requests: Vec<Request>,
    validate_only: bool,
    outcomes: oneshot::Sender<Vec<Outcome>>,
}

impl Controller {
    pub(crate) fn new(metadata: Arc<MetadataStore>, node: Node, cluster: Option<Arc<Cluster>>) -> Self {
        let sessions = sessions::Sessions::default();
        let (waiting, changes, applied) = (Mutex::default(), Arc::default(), Mutex::default());
        let applied_version = watch::Sender::default();
        let (held, moves) = (Arc::default(), Default::default());
        Self { metadata, node, waiting, changes, cluster, applied, applied_version, sessions, moves, held }
    }

    /// Makes changes. Each succeeds or fails by itself; with `validate_only` nothing changes.
    pub(crate) async fn submit(self: &Arc<Self>, requests: Vec<Request>, validate_only: bool) -> Vec<Outcome> {
        match &self.cluster {
            None => self.submit_here(requests, validate_only).await,
            Some(cluster) => self.submit_to_controller(cluster, requests, validate_only).await,
        }
    }

    /// Makes changes that this node decides.
    async fn submit_here(self: &Arc<Self>, requests: Vec<Request>, validate_only: bool) -> Vec<Outcome> {
        let count = requests.len();
        if self.is_broker()
            && requests.iter().any(has_stages)
            && !self.warm_up(requests.clone()).await
            && self.cluster.is_some()
        {
            // The plug-in may be new, and on its way from the broker that has stored it.
            sleep(NEW_PLUGIN_WAIT).await;
        }
        let (outcomes, done) = oneshot::channel();
        self.waiting.lock().push(Waiting { requests, validate_only, outcomes });
        // A separate task: a client that disconnects drops only its own wait, not the change.
        tokio::spawn(Arc::clone(self).carry_out_waiting());
        let failed = || ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, "the broker failed to carry the change out");
        done.await.unwrap_or_else(|_| vec![Err(failed()); count])
    }

    /// Makes one change.
    pub(crate) async fn submit_one(self: &Arc<Self>, request: Request, validate_only: bool) -> Outcome {
        let outcomes = self.submit(vec![request], validate_only).await;
        outcomes.into_iter().next().unwrap_or_else(|| Ok(Vec::new()))
    }

    /// Allocates a block of producer ids.
    pub(crate) async fn allocate_producer_ids(self: &Arc<Self>) -> Result<Range<i64>, ApiError> {
        let records = self.submit_one(Request::AllocateProducerIds, false).await?;
        let next = records.iter().find_map(|record| match record {
            MetadataRecord::ProducerIdsAllocated { next } => Some(*next),
            _ => None,
        });
        let next =
            next.ok_or_else(|| ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, "no producer ids were allocated"))?;
        Ok(next - PRODUCER_ID_BLOCK..next)
    }

    async fn carry_out_waiting(self: Arc<Self>) {
        let changes = Arc::clone(&self.changes).lock_owned().await;
        let waiting = std::mem::take(&mut *self.waiting.lock());
        if waiting.is_empty() {
            // Another task has taken them all.
            return;
        }
        // The guard moves to the blocking thread: the lock is released when the work is done, not when this future is
        // dropped.
        let work = move || {
            let _changes = changes;
            self.carry_out(waiting);
        };
        blocking_or_log("a change of the metadata failed", work).await;
    }

    fn carry_out(&self, waiting: Vec<Waiting>) {
        let (mut draft, version) = self.metadata.draft_of_version(now_ms());
        let mut prepared = Prepared::default();
        let mut decided = Vec::with_capacity(waiting.len());
        for Waiting { requests, validate_only, outcomes } in waiting {
            if validate_only {
                let done = self.plan(&mut draft.trial(), &mut Prepared::default(), requests);
                reply(outcomes, done);
            } else {
                decided.push((outcomes, self.plan(&mut draft, &mut prepared, requests)));
            }
        }
        let committed = match &self.cluster {
            None => self.commit(&draft, prepared),
            Some(cluster) => self.commit_in(cluster, version, &draft, prepared),
        };
        for (outcomes, done) in decided {
            let done = done.into_iter().map(|outcome| outcome.and_then(|records| committed.clone().map(|()| records)));
            reply(outcomes, done.collect());
        }
    }

    /// Commits and applies a draft. If that fails, partitions that were frozen for it accept records again.
    fn commit(&self, draft: &Draft, prepared: Prepared) -> Result<(), ApiError> {
        self.metadata.commit(draft).map_err(ApiError::from).inspect_err(|error| {
            tracing::error!("a change of the metadata cannot be committed: {error}");
        })?;
        apply::apply(&self.node, &draft.delta(), prepared);
        Ok(())
    }

    /// Does the same through the quorum.
    fn commit_in(&self, cluster: &Cluster, version: u64, draft: &Draft, prepared: Prepared) -> Result<(), ApiError> {
        if draft.is_empty() {
            self.follow(prepared);
            return Ok(());
        }
        // This thread may block, and the quorum's tasks are on others.
        match tokio::runtime::Handle::current().block_on(cluster.commit(version, draft)) {
            Ok(_) => {
                self.follow(prepared);
                Ok(())
            }
            Err(CommitError::NotController | CommitError::Overtaken) => {
                Err(ApiError::new(ErrorCode::NOT_CONTROLLER, "another node is the controller now"))
            }
            Err(CommitError::Unknown(reason)) => Err(ApiError::new(ErrorCode::REQUEST_TIMED_OUT, reason)),
        }
    }

    /// Applies what has changed since the image that this node applied last. The caller holds the lock of changes.
    fn follow(&self, prepared: Prepared) {
        let mut applied = self.applied.lock();
        let Some(before) = applied.as_ref() else { return };
        let (image, version) = self.metadata.image_of_version();
        if Arc::ptr_eq(before, &image) && prepared.is_empty() {
            return;
        }
        if self.is_broker() {
            let delta = MetadataDelta::between_images(before, &image);
            apply::apply(&self.node, &delta, apply::prepare_committed(&self.node, &delta, prepared));
        }
        *applied = Some(image);
        self.applied_version.send_replace(version);
    }

    fn plan(&self, draft: &mut Draft, prepared: &mut Prepared, requests: Vec<Request>) -> Vec<Outcome> {
        let plan_one = |request: Request| {
            let request = self.with_members(request);
            let records = decide(draft.image(), &request, &self.rules())?;
            let about = altered(draft.image(), &request);
            prepared.extend(draft.add_if(&records, about, |delta| match self.is_broker() {
                true => apply::prepare(&self.node, delta),
                // The broker that has sent the request has started its stages.
                false => Ok(Prepared::default()),
            })?);
            Ok(records)
        };
        requests.into_iter().map(plan_one).collect()
    }

    /// Adds to a change of features what this node knows of the other members of the quorum.
    fn with_members(&self, request: Request) -> Request {
        match (request, &self.cluster) {
            (Request::UpdateFeatures(updates), Some(cluster)) => {
                Request::UpdateFeatures(FeatureUpdates { members: cluster.member_levels(), ..updates })
            }
            (request, _) => request,
        }
    }

    /// Starts the stages of requests and drops them again, without the lock. Their plug-ins are compiled now, so that
    /// this does not delay other changes. Returns whether all of them start.
    async fn warm_up(self: &Arc<Self>, requests: Vec<Request>) -> bool {
        let controller = Arc::clone(self);
        let work = move || {
            let mut draft = controller.metadata.draft(now_ms());
            let mut all_start = true;
            for request in requests {
                let Ok(records) = decide(draft.image(), &request, &controller.rules()) else { continue };
                let about = altered(draft.image(), &request);
                // The same errors appear again under the lock.
                let started = draft.add_if(&records, about, |delta| apply::prepare_stages(&controller.node, delta));
                all_start &= started.is_ok();
            }
            all_start
        };
        blocking_or_log("cannot start the stages of a change", work).await.unwrap_or(false)
    }

    /// Opens every topic of an image, at the start of a broker that is alone. Blocks for the disk.
    ///
    /// # Errors
    /// The leader epoch cannot be raised.
    pub(crate) fn open_all(&self, image: &MetadataImage, checkpoints: &Checkpoints) -> Result<(), ApiError> {
        apply::open_all(&self.node, image, checkpoints);
        self.catch_up_with_logs(image)
    }

    /// Raises the leader epoch and the next producer id above those of the logs. A folder that was moved here has those
    /// of another broker. The epochs of a log must not go back, and a producer must not get the id of another one.
    fn catch_up_with_logs(&self, image: &MetadataImage) -> Result<(), ApiError> {
        let table = self.node.topics.load();
        let (mut epoch, mut producer) = (None, None);
        for partition in table.iter().flat_map(|topic| topic.own_partitions()) {
            let of_log = partition.with_log(|log| (log.latest_epoch(), log.newest_producer_id()));
            let Ok((latest, newest)) = of_log else { continue };
            epoch = epoch.max(latest.filter(|latest| *latest > partition.leader_epoch()));
            // A client may have made one up.
            producer = producer.max(newest.filter(|id| (image.next_producer_id..PRODUCER_ID_MAX).contains(id)));
        }
        let mut records = Vec::new();
        records.extend(epoch.map(|epoch| MetadataRecord::LeaderEpochRaised { epoch }));
        records.extend(producer.map(|id| MetadataRecord::ProducerIdsAllocated { next: id + 1 }));
        if records.is_empty() {
            return Ok(());
        }
        tracing::info!(epoch, producer, "a log from another broker has a later leader epoch or producer id");
        let mut draft = self.metadata.draft(now_ms());
        draft.add(&records)?;
        self.commit(&draft, Prepared::default())
    }

    /// Notes in which data folder a replica is to be created.
    pub(crate) fn prefer_folder(&self, topic: &str, index: i32, dir: &LogDir) {
        self.node.placement.prefer(topic, index, dir);
    }

    /// Lets the fetchers look at the roles of partitions again.
    #[cfg(test)]
    pub(crate) fn roles_changed(&self) {
        self.node.roles.send_modify(|changes| *changes += 1);
    }

    /// Returns whether this node stores records. A node that is only a controller has no partitions and no stages.
    fn is_broker(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.config.is_broker)
    }

    fn rules(&self) -> BrokerRules<'_> {
        BrokerRules { config: &self.node.config }
    }
}

/// The changes that the edge requests.
impl MetadataChanges for Arc<Controller> {
    fn ensure_topic<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(Controller::ensure_topic(self, name))
    }

    fn ensure_dead_letter_topic<'a>(&'a self, name: &'a str, source: &'a str) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(Controller::ensure_dead_letter_topic(self, name, source))
    }

    fn add_decoder(&self, topic: Uuid, digest: String) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async move { self.submit_one(Request::AddDecoder { id: topic, digest }, false).await.map(drop) })
    }

    fn restart_stages(&self, topic: Uuid) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let changes = Arc::clone(&self.changes).lock_owned().await;
            let controller = Arc::clone(self);
            let work = move || {
                let _changes = changes;
                apply::restart_stages(&controller.node, &controller.metadata.image(), topic);
            };
            blocking_or_log("cannot start the stages of a topic", work).await;
        })
    }

    fn hold(&self) -> BoxFuture<'_, OwnedMutexGuard<()>> {
        // In a cluster the commit of a record may need a change of the metadata, such as a smaller in-sync set.
        let lock = if self.cluster.is_some() { &self.held } else { &self.changes };
        Box::pin(Arc::clone(lock).lock_owned())
    }
}

/// Returns the topic of an alteration. The alteration is applied even if the configs stay the same: broken stages are
/// retried.
fn altered(image: &MetadataImage, request: &Request) -> Option<Uuid> {
    match request {
        Request::AlterTopic { name, .. } => image.topic(name).map(|topic| topic.id),
        _ => None,
    }
}

fn reply(outcomes: oneshot::Sender<Vec<Outcome>>, done: Vec<Outcome>) {
    // The client may have disconnected.
    let _ = outcomes.send(done);
}

fn has_stages(request: &Request) -> bool {
    use millstream_metadata::controller::{ConfigChange, ConfigEdit};
    let is_stage = |name: &String| name.starts_with("stage.");
    match request {
        Request::CreateTopic(NewTopic { configs, .. })
        | Request::AlterTopic { change: ConfigChange::Replace(configs), .. } => configs.keys().any(is_stage),
        Request::AlterTopic { change: ConfigChange::Edit(edits), .. } => {
            edits.iter().any(|ConfigEdit { name, .. }| is_stage(name))
        }
        _ => false,
    }
}
