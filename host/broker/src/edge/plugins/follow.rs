//! Follows the versions that other brokers of the cluster have stored. Each broker has a replica of the topic.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millstream_metadata::NO_LEADER;
use millstream_partition::{Acks, Partition, PartitionError, WriteEnd};
use millstream_registry::TOPIC;
use millstream_registry::image::PluginImage;
use millstream_stage::{EMBEDDED_NUMBER, Origin};
use millstream_wire::ErrorCode;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::blocking::blocking;
use crate::cluster::{EdgeCall, EdgeReply};
use crate::edge::context::{Edge, MetadataChanges};
use crate::edge::stage_repair::{broken_stages, restart_broken};
use crate::error::ApiError;

/// The time for which a new version may be unknown to this broker if its leader does not announce it.
const PERIOD: Duration = Duration::from_millis(100);

/// The time for a record that the leader of the topic has to be committed here.
const COMMIT_WAIT: Duration = Duration::from_secs(10);

/// The pause between looks at the topic.
const LOOK_AFTER: Duration = Duration::from_millis(5);

/// The time for which a broker that starts may be behind before it is unfenced all the same.
const CATCH_UP_WAIT: Duration = Duration::from_secs(30);

/// The time for a call to the leader of the topic.
const CALL_WAIT: Duration = Duration::from_secs(2);

/// The pause between attempts to catch up.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Applies what other brokers commit, until the broker stops.
pub(super) async fn run(edge: Arc<Edge>, mut stop: watch::Receiver<bool>) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        edge.plugins.held().expire();
        let Ok(partition) = edge.partition(TOPIC, 0) else { continue };
        if let Err(error) = catch_up(&edge, &partition).await {
            tracing::error!("the versions of plug-ins cannot be followed: {error}");
        }
    }
}

/// Applies the committed records that this broker lacks. Waits for the lock of the store if there are any.
async fn catch_up(edge: &Arc<Edge>, partition: &Arc<Partition>) -> Result<(), ApiError> {
    if !partition.is_replica() || !is_behind(edge, partition) {
        return Ok(());
    }
    let turn = edge.plugins.turn().await;
    let (owner, partition) = (Arc::clone(edge), Arc::clone(partition));
    let follow = move || {
        let _turn = turn;
        follow(&owner, &partition)
    };
    Ok(blocking(follow).await??)
}

/// Applies all records of the topic that this broker leads, before it adds to them. The caller holds the lock of the
/// store.
///
/// # Errors
/// Another broker leads, or the topic cannot be read.
pub(super) async fn lead(edge: &Arc<Edge>, partition: &Arc<Partition>) -> Result<(), ApiError> {
    if edge.cluster.is_none() {
        edge.plugins.store().serve(partition);
        return Ok(());
    }
    edge.plugins.held().clear();
    // The leader before may have left records that are not committed yet.
    let end = WriteEnd { offset: partition.log_end_offset()?, leader_epoch: partition.leader_epoch() };
    partition.committed(end, Acks::All).await?;
    if is_behind(edge, partition) {
        let (owner, partition) = (Arc::clone(edge), Arc::clone(partition));
        blocking(move || follow(&owner, &partition)).await??;
    }
    Ok(())
}

fn is_behind(edge: &Edge, partition: &Arc<Partition>) -> bool {
    let store = edge.plugins.store();
    !store.serves(partition) || store.lacks(partition)
}

/// Applies the committed records that this broker lacks. Blocks for the disk and the compiler.
fn follow(edge: &Edge, partition: &Arc<Partition>) -> Result<(), PartitionError> {
    let store = edge.plugins.store();
    let before = store.image();
    if store.serves(partition) {
        let Some((image, end)) = store.committed(partition)? else { return Ok(()) };
        // The library reads the bytes of the new versions from the store.
        store.set_image(image, end);
    } else {
        store.open(partition);
    }
    activate_changes(edge, &before);
    edge.plugins.changed().notify_one();
    Ok(())
}

/// Lets stages use the versions that are active now. One that does not start here leaves its stages as they are.
fn activate_changes(edge: &Edge, before: &PluginImage) {
    let mut held = edge.plugins.held().take_before(edge.plugins.store().applied());
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
        let prepared = held.as_mut().and_then(|held| held.take_activation(&name, &after));
        let activated = match (prepared, library.version(&name, number)) {
            (Some(prepared), _) => Ok(prepared),
            (None, Err(_)) if number == EMBEDDED_NUMBER => {
                library.forget(&name);
                continue;
            }
            (None, Err(error)) => Err(error.to_string()),
            (None, Ok(plugin)) => library.prepare(&plugin, origin).map_err(|error| error.to_string()),
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

/// Applies the topic up to `end` once that is committed here. Drops what was prepared for that offset or a later one.
/// Returns the offset up to which the topic is committed.
///
/// # Errors
/// The records do not come in time, or the topic cannot be read.
pub(in crate::edge) async fn up_to(edge: &Arc<Edge>, end: i64) -> Result<i64, ApiError> {
    let deadline = Instant::now() + COMMIT_WAIT;
    let partition = loop {
        match edge.partition(TOPIC, 0) {
            Ok(partition) if partition.is_replica() && partition.high_watermark() >= end => break partition,
            _ if Instant::now() < deadline => sleep(LOOK_AFTER).await,
            found => {
                let has = found.map_or(0, |partition| partition.high_watermark());
                let message = format!("this broker has {TOPIC} up to offset {has} and not {end}");
                return Err(ApiError::new(ErrorCode::REQUEST_TIMED_OUT, message));
            }
        }
    };
    // The leader applies its own records. A call must not wait for a change that it is making.
    if partition.check_leader(-1).is_err() {
        catch_up(edge, &partition).await?;
        if end > 0 {
            edge.plugins.held().drop_from(end);
        }
    }
    Ok(partition.high_watermark())
}

/// Applies the plug-ins of the cluster and starts the stages that wait for them. A broker that starts does so before it
/// is unfenced and leads partitions.
pub(crate) async fn catch_up_at_start(edge: &Arc<Edge>, changes: &Arc<dyn MetadataChanges>) {
    let deadline = Instant::now() + CATCH_UP_WAIT;
    while let Err(error) = catch_up_with_leader(edge).await {
        if Instant::now() >= deadline {
            tracing::error!("this broker is behind with the plug-ins of the cluster: {error}");
            break;
        }
        sleep(RETRY_AFTER).await;
    }
    restart_broken(edge, changes).await;
    for (topic, error) in broken_stages(edge) {
        tracing::error!(topic, %error, "a stage cannot be started: the topic is out of service until it can");
    }
    edge.plugins.caught_up.store(true, Ordering::Release);
}

async fn catch_up_with_leader(edge: &Arc<Edge>) -> Result<(), ApiError> {
    let leader = {
        let image = edge.metadata.image();
        let Some(topic) = image.topic(TOPIC) else { return Ok(()) };
        let has_replica = topic.partitions.first().is_some_and(|one| one.replicas.contains(&edge.config.node_id));
        if image.is_cordoned(edge.config.node_id) && !has_replica {
            // It was drained, and gets no partitions with stages.
            return Ok(());
        }
        topic.partitions.first().map_or(NO_LEADER, |partition| partition.leader)
    };
    let partition = edge.partition(TOPIC, 0)?;
    let Some(cluster) = edge.cluster.as_ref().filter(|_| leader != NO_LEADER && leader != edge.config.node_id) else {
        // Without a leader nothing can be missed.
        return catch_up(edge, &partition).await;
    };
    if let EdgeReply::Follows { end } = cluster.call_edge(leader, EdgeCall::Follow { end: 0 }, &[], CALL_WAIT).await? {
        up_to(edge, end).await?;
    }
    Ok(())
}

/// Waits until this broker is unfenced.
pub(super) async fn unfenced(edge: &Edge) {
    while !edge.metadata.image().is_active(edge.config.node_id) {
        sleep(PERIOD).await;
    }
}
