//! Brokers come and go: registration, fencing, controlled shutdown (KIP-631, KIP-966).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cluster::{edit_partitions, partitions};
use super::partition_edit::{PartitionEdit, without};
use super::{ClusterError, TopicRules};
use crate::{BrokerImage, BrokerRegistration, FeatureLevel, MetadataImage, MetadataRecord, PartitionImage};

/// A broker that starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registration {
    /// The cluster that its data belongs to.
    pub cluster_id: String,
    /// What it says of itself.
    pub broker: BrokerRegistration,
    /// What its logs hold of the records that it has confirmed.
    pub kept: Kept,
}

/// What the logs of a broker that starts hold of the records that it has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// All of them: it stopped cleanly, or confirms only what is synced.
    All,
    /// The last ones may be missing.
    Most,
    /// None: its folder is new. Another folder may have been in its place before.
    None,
}

/// What a broker says at regular intervals.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Its id.
    pub id: i32,
    /// The epoch of its registration.
    pub epoch: i64,
    /// It has applied the metadata up to its own registration.
    pub caught_up: bool,
    /// It wants to be fenced.
    pub want_fence: bool,
    /// It wants to stop.
    pub want_shutdown: bool,
}

/// The state that a broker is in after its heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerState {
    /// It is fenced.
    pub fenced: bool,
    /// It leads nothing any more and may stop.
    pub may_stop: bool,
}

/// Registers a broker, fenced. Returns the epoch of the registration.
///
/// Its replicas leave the in-sync sets: after a start nothing is known of its logs. The same process can register
/// again, and keeps its epoch.
///
/// # Errors
/// - The broker has the data of another cluster.
/// - Another process with the id is alive.
/// - The program of the broker does not know the feature level.
pub fn register<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    registration: &Registration,
) -> Result<(i64, Vec<MetadataRecord>), ClusterError> {
    let Registration { cluster_id, broker, kept } = registration;
    require_cluster(image)?;
    if *cluster_id != image.cluster_id {
        let (theirs, ours) = (cluster_id.clone(), image.cluster_id.clone());
        return Err(ClusterError::OtherCluster { theirs, ours });
    }
    if !broker.knows(image.feature_level) {
        let (min, max) = (broker.level_min, broker.level_max);
        return Err(ClusterError::UnknownLevel { id: broker.id, level: image.feature_level.number(), min, max });
    }
    let known = image.broker(broker.id);
    if let Some(same) = known.filter(|known| known.registration.incarnation == broker.incarnation) {
        let record = MetadataRecord::BrokerRegistered { broker: broker.clone(), epoch: same.epoch };
        return Ok((same.epoch, vec![record]));
    }
    // The broker of a log without registrations is this process itself, or one that is gone.
    let unnamed = |known: &BrokerImage| known.registration.incarnation == Uuid::nil();
    if let Some(alive) = known.filter(|known| known.is_active() && !unnamed(known)) {
        return Err(ClusterError::IdInUse { id: broker.id, incarnation: alive.registration.incarnation });
    }
    let epoch = image.next_broker_epoch;
    let mut records = vec![MetadataRecord::BrokerRegistered { broker: broker.clone(), epoch }];
    records.extend(leave(image, rules, broker.id, *kept));
    Ok((epoch, records))
}

/// Decides a heartbeat: unfences a broker that has caught up, or lets it go.
///
/// # Errors
/// The broker is not registered, or registered again since.
pub fn heartbeat<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    heartbeat: Heartbeat,
) -> Result<(BrokerState, Vec<MetadataRecord>), ClusterError> {
    let Heartbeat { id, epoch, caught_up, want_fence, want_shutdown } = heartbeat;
    let broker = registered(image, id, epoch)?;
    let leads = || partitions(image).any(|partition| partition.leader == id);
    if want_shutdown {
        let records = match broker.is_active() {
            true => shut_down(image, rules, broker),
            false => Vec::new(),
        };
        // The records move leaderships away. The next heartbeat sees whether all could be moved.
        let may_stop = broker.fenced || (records.is_empty() && !leads());
        return Ok((BrokerState { fenced: broker.fenced, may_stop }, records));
    }
    let records = match (broker.fenced, want_fence) {
        (false, true) => fence(image, rules, id, epoch)?,
        (true, false) if caught_up => unfence(image, rules, broker),
        _ => Vec::new(),
    };
    // Records change the state to the other one.
    let fenced = broker.fenced == records.is_empty();
    Ok((BrokerState { fenced, may_stop: false }, records))
}

/// Fences a broker that is gone. It leaves the in-sync sets, and its partitions get other leaders.
///
/// # Errors
/// The broker is not registered, or registered again since.
pub fn fence<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    id: i32,
    epoch: i64,
) -> Result<Vec<MetadataRecord>, ClusterError> {
    let broker = registered(image, id, epoch)?;
    if broker.fenced {
        return Ok(Vec::new());
    }
    let mut records = vec![changed(broker, Some(true), None)];
    records.extend(leave(image, rules, id, Kept::All));
    Ok(records)
}

/// Removes a broker from the cluster.
///
/// # Errors
/// The broker is not registered, or it is the only one.
pub fn unregister<R: TopicRules>(
    image: &MetadataImage,
    rules: &R,
    id: i32,
) -> Result<Vec<MetadataRecord>, ClusterError> {
    let broker = image.broker(id).ok_or(ClusterError::NotRegistered(id))?;
    if image.brokers().len() == 1 {
        return Err(ClusterError::LastBroker(id));
    }
    let mut records = leave(image, rules, id, Kept::All);
    records.push(MetadataRecord::BrokerUnregistered { id, epoch: broker.epoch });
    Ok(records)
}

/// Returns an error in a log of one broker that registers nothing.
pub(crate) fn require_cluster(image: &MetadataImage) -> Result<(), ClusterError> {
    match image.feature_level >= FeatureLevel::CLUSTER {
        true => Ok(()),
        false => Err(ClusterError::LevelTooLow { level: image.feature_level.number() }),
    }
}

/// Returns a broker if the registration of this epoch is its newest.
pub(crate) fn registered(image: &MetadataImage, id: i32, epoch: i64) -> Result<&BrokerImage, ClusterError> {
    let broker = image.broker(id).ok_or(ClusterError::NotRegistered(id))?;
    match broker.epoch == epoch {
        true => Ok(broker),
        false => Err(ClusterError::StaleBrokerEpoch { id, epoch, newest: broker.epoch }),
    }
}

fn changed(broker: &BrokerImage, fenced: Option<bool>, shutting_down: Option<bool>) -> MetadataRecord {
    MetadataRecord::BrokerChanged { id: broker.registration.id, epoch: broker.epoch, fenced, shutting_down }
}

/// Lets a broker lead again: partitions without a leader get one.
fn unfence<R: TopicRules>(image: &MetadataImage, rules: &R, broker: &BrokerImage) -> Vec<MetadataRecord> {
    let id = broker.registration.id;
    let stopped = broker.shutting_down.then_some(false);
    let mut records = vec![changed(broker, Some(false), stopped)];
    let active = |other| other == id || image.is_active(other);
    records.extend(edit_partitions(image, rules, active, |partition, configs| {
        let waits = partition.leader < 0 && partition.replicas.contains(&id);
        waits.then(|| PartitionEdit { election: configs.online(), ..PartitionEdit::of(partition) })
    }));
    records
}

/// Begins a controlled shutdown: the broker leaves the in-sync sets in the same step as its leaderships move.
fn shut_down<R: TopicRules>(image: &MetadataImage, rules: &R, broker: &BrokerImage) -> Vec<MetadataRecord> {
    let mut records = vec![changed(broker, None, Some(true))];
    records.extend(leave(image, rules, broker.registration.id, Kept::All));
    records
}

/// Takes a broker out of all in-sync sets. One with logs that may lack records is not eligible as a leader any more.
/// One without any leads only where no other replica can have records.
fn leave<R: TopicRules>(image: &MetadataImage, rules: &R, id: i32, kept: Kept) -> Vec<MetadataRecord> {
    let active = |other| other != id && image.is_active(other);
    let lossy = kept != Kept::All;
    let is_forgotten = |partition: &PartitionImage| {
        kept == Kept::None && partition.last_known_elr.contains(&id) && partition.replicas.len() > 1
    };
    let concerns = |partition: &PartitionImage| {
        let eligible = lossy && partition.elr.contains(&id);
        partition.isr.contains(&id) || partition.leader == id || eligible || is_forgotten(partition)
    };
    edit_partitions(image, rules, active, |partition, configs| {
        concerns(partition).then(|| PartitionEdit {
            isr: without(&partition.isr, &[id]),
            lossy: if lossy { vec![id] } else { Vec::new() },
            last_known_elr: if is_forgotten(partition) { Vec::new() } else { partition.last_known_elr.to_vec() },
            election: configs.online(),
            ..PartitionEdit::of(partition)
        })
    })
}
