//! The automatic rollback: a version that traps again and again, or fails for most of its records, gives its place
//! to the last good one, by a record in the topic like every other change.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_client::plugins::format::Key;
use millstream_client::plugins::image::PluginImage;
use millstream_stage::{EMBEDDED_NUMBER, Library, Spike};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::write::{NewRecord, write_own};
use crate::broker::Broker;
use crate::time::now_ms;

/// How often each version was rolled back since the start.
#[derive(Debug, Default)]
pub(super) struct Rollbacks(Mutex<BTreeMap<(String, u32), u64>>);

impl Rollbacks {
    /// How often this version was rolled back.
    pub(super) fn of(&self, name: &str, number: u32) -> u64 {
        self.0.lock().get(&(name.to_owned(), number)).copied().unwrap_or(0)
    }

    fn add(&self, name: &str, number: u32) {
        *self.0.lock().entry((name.to_owned(), number)).or_default() += 1;
    }
}

/// Takes back what goes wrong, until the broker stops.
pub(super) async fn run(
    broker: Arc<Broker>,
    mut spikes: mpsc::UnboundedReceiver<Spike>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let spike = tokio::select! {
            spike = spikes.recv() => spike,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match spike {
            Some(spike) => roll_back(&broker, spike).await,
            None => return,
        }
    }
}

async fn roll_back(broker: &Arc<Broker>, spike: Spike) {
    let name = spike.plugin.clone();
    // Whatever is not of the store the library has taken back itself.
    let Some(number) = spike.number.filter(|number| *number != EMBEDDED_NUMBER) else {
        if spike.rolled_back_to.is_some() {
            broker.plugins.rollbacks.add(&name, spike.number.unwrap_or(EMBEDDED_NUMBER));
        }
        return;
    };
    let reason = spike.reason.to_string();
    let because = reason.clone();
    let wrote = write_own(broker, move |image, library| plan(image, library, &spike.plugin, number, &because)).await;
    match wrote {
        Ok(true) => {
            let serving = broker.plugins.store().image().plugin(&name).map_or(EMBEDDED_NUMBER, |known| known.active);
            broker.plugins.rollbacks.add(&name, number);
            tracing::warn!(plugin = name, version = number, serving, "rolled back: {reason}");
        }
        // It is pinned, or was not active any more.
        Ok(false) => {}
        Err(error) => {
            tracing::error!(plugin = name, version = number, "{reason}, and there is no rollback: {error}");
        }
    }
}

fn plan(
    image: &PluginImage,
    library: &Library,
    name: &str,
    number: u32,
    reason: &str,
) -> Result<Vec<NewRecord>, String> {
    // Somebody was faster.
    if image.plugin(name).is_none_or(|known| known.active != number) {
        return Ok(Vec::new());
    }
    let embedded = library.version(name, EMBEDDED_NUMBER).is_ok();
    let plan = image.plan_rollback(name, reason, embedded, now_ms()).map_err(|error| error.to_string())?;
    let manifest = plan.manifest.map(|manifest| (Key::Plugin(name.to_owned()), Some(manifest.to_bytes())));
    Ok(manifest.into_iter().collect())
}
