//! The automatic rollback: a version that traps repeatedly, or fails for most of its records, is replaced by the last
//! good one. Like every other change, this is a record in the topic.
//!
//! In a cluster each broker watches the versions in its own stages. The first one that finds a version to fail asks the
//! leader of the topic, which rolls the version back for all brokers. If several ask, the version is rolled back once.
//! `failures.rs` adds up the failures of several brokers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_partition::now_ms;
use millstream_registry::TOPIC;
use millstream_registry::format::{EventKind, Key};
use millstream_registry::plan::{good_versions, rolled_back};
use millstream_stage::{EMBEDDED_NUMBER, Spike};
use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::own::Own;
use crate::blocking::blocking;
use crate::cluster::{EdgeCall, EdgeReply};
use crate::edge::context::{Edge, MetadataChanges};
use crate::edge::leaders;
use crate::error::ApiError;

/// The time for which a rollback is tried while the topic has no leader.
const ROLLBACK_WAIT: Duration = Duration::from_secs(60);

/// The number of rollbacks of each version that this broker has made since the start.
#[derive(Debug, Default)]
pub(super) struct Rollbacks(Mutex<BTreeMap<(String, u32), u64>>);

impl Rollbacks {
    /// Returns the number of rollbacks of this version.
    pub(super) fn of(&self, name: &str, number: u32) -> u64 {
        self.0.lock().get(&(name.to_owned(), number)).copied().unwrap_or(0)
    }

    fn add(&self, name: &str, number: u32) {
        *self.0.lock().entry((name.to_owned(), number)).or_default() += 1;
    }
}

/// Rolls back versions that fail, until the broker stops.
pub(super) async fn run(
    edge: Arc<Edge>,
    changes: Arc<dyn MetadataChanges>,
    mut spikes: mpsc::UnboundedReceiver<Spike>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let spike = tokio::select! {
            spike = spikes.recv() => spike,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match spike {
            Some(spike) => roll_back(&edge, &changes, spike).await,
            None => return,
        }
    }
}

async fn roll_back(edge: &Arc<Edge>, changes: &Arc<dyn MetadataChanges>, spike: Spike) {
    let name = spike.plugin.clone();
    // The library has rolled back versions that are not from the store.
    let Some(number) = spike.number.filter(|number| *number != EMBEDDED_NUMBER) else {
        if spike.rolled_back_to.is_some() {
            edge.plugins.rollbacks.add(&name, spike.number.unwrap_or(EMBEDDED_NUMBER));
        }
        return;
    };
    let mut reason = spike.reason.to_string();
    if edge.cluster.is_some() {
        reason = format!("{reason} on broker {}", edge.config.node_id);
    }
    let call = EdgeCall::RollBack { plugin: name.clone(), number, reason: reason.clone() };
    let asked = async {
        changes.ensure_topic(TOPIC).await?;
        leaders::ask(edge, changes, TOPIC, (call, Bytes::new()), ROLLBACK_WAIT).await
    };
    match asked.await {
        Ok(EdgeReply::RolledBack { active: Some(active) }) => {
            tracing::warn!(plugin = name, version = number, serving = active, "rolled back: {reason}");
        }
        // It is pinned, or is no longer active.
        Ok(_) => {}
        Err(error) => {
            tracing::error!(plugin = name, version = number, "{reason}, and there is no rollback: {error}");
        }
    }
}

/// Rolls back a version, as the leader of the topic. Returns the version that is active now, or `None` if the other one
/// was not active.
///
/// # Errors
/// Another broker leads, or no other version works.
pub(in crate::edge) async fn here(
    edge: &Arc<Edge>,
    changes: &Arc<dyn MetadataChanges>,
    name: &str,
    number: u32,
    reason: &str,
) -> Result<Option<u32>, ApiError> {
    let active = go_back(&Own::lock(edge, changes).await?, name, number, reason).await?;
    if active.is_some() {
        edge.plugins.rollbacks.add(name, number);
    }
    Ok(active)
}

/// Activates the best version that works for everything that follows the name. Returns its number, or `None` if `bad`
/// is not active. If there is none, that is an error, and is recorded in the plug-in's history.
async fn go_back(own: &Own, name: &str, bad: u32, reason: &str) -> Result<Option<u32>, ApiError> {
    let image = own.image();
    // Another change came first.
    let Some(known) = image.plugin(name).filter(|known| known.active == bad) else { return Ok(None) };
    let (edge, plugin) = (Arc::clone(own.edge()), name.to_owned());
    let embedded =
        blocking(move || Ok::<_, ApiError>(edge.plugins.library()?.version(&plugin, EMBEDDED_NUMBER).is_ok()))
            .await??;
    for number in good_versions(known).into_iter().chain(embedded.then_some(EMBEDDED_NUMBER)) {
        // A rejected version has left a note in the history.
        let image = own.image();
        let Some(known) = image.plugin(name) else { return Ok(None) };
        let manifest = rolled_back(known, number, reason, now_ms());
        match own.write(&Key::Plugin(name.to_owned()), Some(&manifest.to_bytes())).await {
            Ok(()) => return Ok(Some(number)),
            Err(error) if error.code == ErrorCode::INVALID_RECORD => {}
            Err(error) => return Err(error),
        }
    }
    let problem = "no other version works for all that use it";
    own.note(name, EventKind::NotRolledBack, bad, &format!("{reason}, and {problem}")).await;
    Err(ApiError::new(ErrorCode::INVALID_RECORD, problem))
}
