//! The failures of a version on all brokers of a cluster, added up for an automatic rollback.
//!
//! A broker on which a version fails asks the leader of the topic to check. The leader asks every broker for its recent
//! failures, so nothing has to be kept or moved when another broker leads. Versions that do not fail cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_registry::TOPIC;
use millstream_stage::Failures;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{prepare, rollback};
use crate::cluster::{EdgeCall, EdgeReply};
use crate::edge::context::{Edge, MetadataChanges};
use crate::edge::leaders;
use crate::error::ApiError;

/// The pause between two checks that a broker asks for. A version that fails may do so for every batch.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The time for a check. The next failure asks for another one.
const CHECK_WAIT: Duration = Duration::from_secs(5);

/// The time for the response of one broker.
const BROKER_WAIT: Duration = Duration::from_secs(2);

/// A plug-in and the number of a version.
type Version = (String, u32);

/// The versions that have failed on this broker since the last check.
#[derive(Debug, Clone, Default)]
pub(super) struct Failing(Arc<Failed>);

#[derive(Debug, Default)]
struct Failed {
    versions: Mutex<BTreeSet<Version>>,
    is_new: Notify,
}

impl Failing {
    pub(super) fn add(&self, plugin: &str, number: u32) {
        if self.0.versions.lock().insert((plugin.to_owned(), number)) {
            self.0.is_new.notify_one();
        }
    }

    async fn next(&self) -> BTreeSet<Version> {
        self.0.is_new.notified().await;
        sleep(CHECK_INTERVAL).await;
        std::mem::take(&mut *self.0.versions.lock())
    }
}

/// When the rollback of a version was last tried in vain.
#[derive(Debug, Default)]
pub(super) struct InVain(Mutex<BTreeMap<Version, Instant>>);

impl InVain {
    fn has(&self, plugin: &str, number: u32, window: Duration) -> bool {
        let mut tried = self.0.lock();
        tried.retain(|_, at| at.elapsed() < window);
        tried.contains_key(&(plugin.to_owned(), number))
    }

    fn add(&self, plugin: &str, number: u32) {
        self.0.lock().insert((plugin.to_owned(), number), Instant::now());
    }
}

/// Asks for checks of the versions that fail here, until the broker stops.
pub(super) async fn run(edge: Arc<Edge>, changes: Arc<dyn MetadataChanges>, mut stop: watch::Receiver<bool>) {
    loop {
        let failing = tokio::select! {
            failing = edge.plugins.failing.next() => failing,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        for (plugin, number) in failing {
            let call = EdgeCall::CheckFailures { plugin: plugin.clone(), number };
            if let Err(error) = leaders::ask(&edge, &changes, TOPIC, (call, Bytes::new()), CHECK_WAIT).await {
                tracing::debug!(plugin, version = number, "the failures of a version are not added up: {error}");
            }
        }
    }
}

/// Adds up the failures of a version on all brokers, as the leader of the topic. Rolls it back if they are too many.
///
/// # Errors
/// Another broker leads, or the version cannot be rolled back.
pub(in crate::edge) async fn check_here(
    edge: &Arc<Edge>,
    changes: &Arc<dyn MetadataChanges>,
    plugin: &str,
    number: u32,
) -> Result<(), ApiError> {
    edge.partition(TOPIC, 0)?.check_leader(-1)?;
    let limits = edge.plugins.limits;
    if edge.plugins.in_vain.has(plugin, number, limits.window) {
        return Ok(());
    }
    let of_brokers = failures_by_broker(edge, plugin, number).await;
    let mut sum = Failures::default();
    of_brokers.values().for_each(|failures| sum.add(*failures));
    let Some(reason) = limits.exceeded_by(sum) else { return Ok(()) };
    let failing = of_brokers.iter().filter(|(_, failures)| failures.traps + failures.bad > 0);
    let brokers: Vec<String> = failing.map(|(id, _)| id.to_string()).collect();
    let brokers = format!("broker{} {}", if brokers.len() == 1 { "" } else { "s" }, brokers.join(", "));
    let reason = format!("{reason} on {brokers}");
    let outcome = rollback::here(edge, changes, plugin, number, &reason).await;
    match &outcome {
        Ok(Some(active)) => {
            tracing::warn!(plugin, version = number, serving = *active, "rolled back: {reason}");
        }
        Ok(None) => edge.plugins.in_vain.add(plugin, number),
        Err(error) => {
            tracing::error!(plugin, version = number, "{reason}, and there is no rollback: {error}");
            edge.plugins.in_vain.add(plugin, number);
        }
    }
    outcome.map(drop)
}

/// Returns the recent failures of a version on each broker that responds.
async fn failures_by_broker(edge: &Arc<Edge>, plugin: &str, number: u32) -> BTreeMap<i32, Failures> {
    let mut calls = JoinSet::new();
    if let Some(cluster) = &edge.cluster {
        for broker in prepare::others(edge) {
            let (cluster, call) = (Arc::clone(cluster), EdgeCall::Failures { plugin: plugin.to_owned(), number });
            calls.spawn(async move { (broker, cluster.call_edge(broker, call, &[], BROKER_WAIT).await) });
        }
    }
    let responded = calls.join_all().await.into_iter().filter_map(|(broker, reply)| match reply {
        Ok(EdgeReply::Failures { traps, bad, records }) => Some((broker, Failures { traps, bad, records })),
        _ => None,
    });
    let own = (edge.config.node_id, edge.plugins.failures_of(plugin, number));
    responded.chain([own]).collect()
}
