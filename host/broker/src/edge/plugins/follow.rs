//! Follows the versions that other brokers of the cluster have stored. Each broker has a replica of the topic.

use std::sync::Arc;
use std::time::Duration;

use millstream_partition::{Partition, PartitionError};
use millstream_registry::TOPIC;
use millstream_registry::image::PluginImage;
use millstream_stage::{EMBEDDED_NUMBER, Origin};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::blocking::blocking;
use crate::edge::context::Edge;

/// The time for which a new version may be unknown to this broker.
const PERIOD: Duration = Duration::from_millis(100);

/// Applies what other brokers commit, until the broker stops.
pub(super) async fn run(edge: Arc<Edge>, mut stop: watch::Receiver<bool>) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let Ok(partition) = edge.partition(TOPIC, 0) else { continue };
        if !partition.is_replica() || !is_behind(&edge, &partition) {
            continue;
        }
        let turn = edge.plugins.turn().await;
        let owner = Arc::clone(&edge);
        let followed = blocking(move || {
            let _turn = turn;
            follow(&owner, &partition)
        });
        match followed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("the versions of plug-ins cannot be followed: {error}"),
            Err(error) => tracing::error!("the versions of plug-ins cannot be followed: {error}"),
        }
    }
}

fn is_behind(edge: &Edge, partition: &Arc<Partition>) -> bool {
    let store = edge.plugins.store();
    !store.serves(partition) || store.lacks(partition)
}

/// Applies the committed records that this broker lacks. Blocks for the disk and the compiler.
fn follow(edge: &Edge, partition: &Arc<Partition>) -> Result<(), PartitionError> {
    let store = edge.plugins.store();
    if !store.serves(partition) {
        store.open(partition);
        edge.plugins.changed().notify_one();
        return Ok(());
    }
    let before = store.image();
    let Some((image, end)) = store.committed(partition)? else { return Ok(()) };
    // The library reads the bytes of the new versions from the store.
    store.set_image(image, end);
    activate_changes(edge, &before);
    edge.plugins.changed().notify_one();
    Ok(())
}

/// Lets stages use the versions that are active now. One that does not start here leaves its stages as they are.
fn activate_changes(edge: &Edge, before: &PluginImage) {
    // Without a stage there is nothing to activate: the first one reads the store.
    let Some(library) = edge.plugins.library_if_started() else { return };
    let after = edge.plugins.store().image();
    let names = before.plugins().chain(after.plugins()).map(|manifest| manifest.name.clone());
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let active = |image: &PluginImage| image.plugin(&name).map_or(EMBEDDED_NUMBER, |manifest| manifest.active);
        let number = active(&after);
        if number == active(before) {
            continue;
        }
        let origin = if number == EMBEDDED_NUMBER { Origin::Embedded } else { Origin::Store { number } };
        let activated = match library.version(&name, number) {
            Err(_) if number == EMBEDDED_NUMBER => {
                library.forget(&name);
                continue;
            }
            Err(error) => Err(error.to_string()),
            Ok(plugin) => library.prepare(&plugin, origin).map_err(|error| error.to_string()),
        };
        match activated {
            Ok(activation) => {
                let published = activation.commit();
                let (version, stages) = (published.plugin.version().to_owned(), published.swapped.len());
                tracing::info!(plugin = name, number, version, stages, "active");
            }
            Err(error) => tracing::error!(plugin = name, number, "a version does not start on this broker: {error}"),
        }
    }
}
