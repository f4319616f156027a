//! Prepares a change of the plug-ins on every broker of the cluster, before it is appended.
//!
//! The leader of the topic asks each broker that is alive. A broker checks the batch as the leader does and starts the
//! versions that it activates, for its own stages. It holds them until the batch is committed. If a broker cannot, the
//! leader rejects the batch, and nothing changes anywhere. A broker that is fenced meanwhile is left out. It starts the
//! versions when it comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_registry::TOPIC;
use millstream_registry::image::PluginImage;
use millstream_stage::{Activation, EMBEDDED_NUMBER};
use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::follow;
use super::write::{Checked, Ready};
use crate::blocking::blocking;
use crate::cluster::{Cluster, EdgeCall, EdgeReply, NotPrepared};
use crate::edge::context::{Edge, MetadataChanges};
use crate::error::ApiError;

/// The time for all brokers to prepare a change. One that is alive and takes longer is reported.
const PREPARE_WAIT: Duration = Duration::from_secs(25);

/// The time for which a broker holds a prepared change that is not committed.
const HELD_MAX: Duration = Duration::from_secs(60);

/// The time for all brokers to activate a committed change. One that takes longer does so later.
const FOLLOW_WAIT: Duration = Duration::from_secs(2);

/// The pause before a broker is asked again, and between looks at whether it is fenced.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The change that this broker has prepared for the leader of the topic.
#[derive(Default)]
pub(super) struct Held(Mutex<Option<Prepared>>);

struct Prepared {
    /// The offset at which the batch will be appended.
    begin: i64,
    since: Instant,
    ready: Ready,
}

impl Held {
    /// Drops a change that was not committed in time.
    pub(super) fn expire(&self) {
        self.drop_if(|held| held.since.elapsed() > HELD_MAX);
    }

    /// Drops a change that would begin at this offset or later: it was rejected.
    pub(super) fn drop_from(&self, offset: i64) {
        self.drop_if(|held| held.begin >= offset);
    }

    /// Drops the change, because this broker makes one itself.
    pub(super) fn clear(&self) {
        self.drop_if(|_| true);
    }

    fn drop_if(&self, is_over: impl Fn(&Prepared) -> bool) {
        let dropped = self.0.lock().take_if(|held| is_over(held));
        // Dropped without the lock.
        drop(dropped);
    }

    /// Returns the change if the records before `end` include it.
    pub(super) fn take_before(&self, end: i64) -> Option<Ready> {
        self.0.lock().take_if(|held| held.begin < end).map(|held| held.ready)
    }

    fn set(&self, begin: i64, ready: Ready) {
        let before = self.0.lock().replace(Prepared { begin, since: Instant::now(), ready });
        drop(before);
    }
}

impl Ready {
    /// Removes and returns the activation of a plug-in's active version, if it was prepared.
    pub(super) fn take_activation(&mut self, name: &str, image: &PluginImage) -> Option<Activation> {
        let active = image.plugin(name).map_or(EMBEDDED_NUMBER, |manifest| manifest.active);
        let digest = image.plugin(name).and_then(|manifest| manifest.version(active)).map(|version| version.digest);
        let is_meant = |number: u32, activation: &Activation| {
            number == active && digest.is_none_or(|digest| digest == activation.plugin().digest())
        };
        let (number, activation) = self.activations.remove(name)?;
        is_meant(number, &activation).then_some(activation)
    }
}

/// Prepares a batch on this broker for the leader of the topic. Waits for the records before the batch.
///
/// # Errors
/// This broker does not have the records before the batch, or has others.
pub(in crate::edge) async fn here(
    edge: &Arc<Edge>,
    changes: &Arc<dyn MetadataChanges>,
    begin: i64,
    batch: Bytes,
) -> Result<Result<(), NotPrepared>, ApiError> {
    follow::up_to(edge, begin).await?;
    let turn = edge.plugins.turn().await;
    let no_changes = changes.hold().await;
    let owner = Arc::clone(edge);
    let work = move || {
        let (_turn, _no_changes) = (turn, no_changes);
        owner.plugins.held().clear();
        let applied = owner.plugins.store().applied();
        if applied != begin {
            let message = format!("{TOPIC} ends at {applied} on this broker, and at {begin} on the one that asks");
            return Err(ApiError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER, message));
        }
        let checked = Checked::of(Arc::clone(&owner), begin, &batch).map_err(|error| {
            let index = error.records.first().map_or(0, |(index, _)| *index as usize);
            NotPrepared { index, message: error.message }
        });
        let prepared = checked.and_then(|checked| {
            let ready = checked.prepare();
            ready.map_err(|rejected| NotPrepared { index: rejected.index, message: rejected.error.to_string() })
        });
        Ok(match prepared {
            Ok(ready) => {
                owner.plugins.held().set(begin, ready);
                Ok(())
            }
            Err(error) => {
                tracing::warn!("a change of the plug-ins cannot be prepared: {}", error.message);
                Err(error)
            }
        })
    };
    blocking(work).await?
}

/// Asks every other broker to prepare a batch that will be appended at `begin`.
///
/// # Errors
/// Names the brokers that cannot, each with its reason.
pub(super) async fn on_all(edge: &Arc<Edge>, begin: i64, batch: &Bytes) -> Result<(), NotPrepared> {
    let Some(cluster) = &edge.cluster else { return Ok(()) };
    let deadline = Instant::now() + PREPARE_WAIT;
    let mut asked = BTreeSet::new();
    // Brokers may come while others prepare.
    loop {
        let new: Vec<i32> = others(edge).into_iter().filter(|broker| asked.insert(*broker)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut calls = JoinSet::new();
        for broker in new {
            let (edge, cluster, batch) = (Arc::clone(edge), Arc::clone(cluster), batch.clone());
            calls.spawn(async move { (broker, on_one(&edge, &cluster, broker, begin, batch, deadline).await) });
        }
        let outcomes: BTreeMap<i32, _> = calls.join_all().await.into_iter().collect();
        let failed: Vec<(i32, NotPrepared)> =
            outcomes.into_iter().filter_map(|(broker, outcome)| Some((broker, outcome.err()?))).collect();
        if let Some((_, first)) = failed.first() {
            let index = first.index;
            let reasons = failed.iter().map(|(broker, error)| format!("broker {broker}: {}", error.message));
            return Err(NotPrepared { index, message: reasons.collect::<Vec<_>>().join("; ") });
        }
    }
}

async fn on_one(
    edge: &Edge,
    cluster: &Cluster,
    broker: i32,
    begin: i64,
    batch: Bytes,
    deadline: Instant,
) -> Result<(), NotPrepared> {
    let mut problem = ApiError::new(ErrorCode::REQUEST_TIMED_OUT, "it does not respond");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NotPrepared { index: 0, message: problem.message });
        }
        tokio::select! {
            reply = cluster.call_edge(broker, EdgeCall::Prepare { begin }, &batch, left) => match reply {
                Ok(EdgeReply::Prepared(prepared)) => return prepared,
                Ok(_) => {}
                Err(error) => problem = error,
            },
            () = fenced(edge, broker) => {
                tracing::info!(broker, "the broker is fenced: a change of the plug-ins does not wait for it");
                return Ok(());
            }
        }
        sleep(RETRY_AFTER).await;
    }
}

/// Waits until a broker is fenced, or is stopping.
async fn fenced(edge: &Edge, broker: i32) {
    while edge.metadata.image().is_active(broker) {
        sleep(RETRY_AFTER).await;
    }
}

/// Returns the other brokers that are alive.
pub(super) fn others(edge: &Edge) -> Vec<i32> {
    let (image, own) = (edge.metadata.image(), edge.config.node_id);
    let active = image.brokers().filter(|broker| broker.is_active()).map(|broker| broker.registration.id);
    active.filter(|broker| *broker != own).collect()
}

/// Asks the other brokers to apply the topic up to `end`. Waits a short time: each follows the topic by itself.
pub(super) async fn announce(edge: &Arc<Edge>, end: i64) {
    let Some(cluster) = &edge.cluster else { return };
    let mut calls = JoinSet::new();
    for broker in others(edge) {
        let cluster = Arc::clone(cluster);
        calls.spawn(async move { cluster.call_edge(broker, EdgeCall::Follow { end }, &[], FOLLOW_WAIT).await });
    }
    let _ = timeout(FOLLOW_WAIT, calls.join_all()).await;
}
