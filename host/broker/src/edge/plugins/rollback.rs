//! The automatic rollback: a version that traps repeatedly, or fails for most of its records, is replaced by the last
//! good one. Like every other change, this is a record in the topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_partition::now_ms;
use millstream_registry::format::{EventKind, Key};
use millstream_registry::plan::{good_versions, rolled_back};
use millstream_stage::{EMBEDDED_NUMBER, Spike};
use millstream_wire::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::own::Own;
use crate::blocking::blocking;
use crate::edge::context::{Edge, MetadataChanges};
use crate::error::ApiError;

/// The number of rollbacks of each version since the start.
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
    let reason = spike.reason.to_string();
    let gone_back = async { go_back(&Own::lock(edge, changes).await?, &name, number, &reason).await };
    match gone_back.await {
        Ok(Some(serving)) => {
            edge.plugins.rollbacks.add(&name, number);
            tracing::warn!(plugin = name, version = number, serving, "rolled back: {reason}");
        }
        // It is pinned, or is no longer active.
        Ok(None) => {}
        Err(error) => {
            tracing::error!(plugin = name, version = number, "{reason}, and there is no rollback: {error}");
        }
    }
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
