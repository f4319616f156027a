//! The effects of a metadata change on this node: logs, folders, stages, the table of topics.
//!
//! Nothing here decides. [`prepare`] runs everything that can fail before the change is committed. [`apply`] acts on a
//! committed change, and cannot fail as a whole: a partition that cannot be opened is offline, and the rest is served.
//! A start applies the whole image in the same way; see [`open_all`].

mod moves;
mod prepare;
mod topics;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use millstream_coordinator::group::GroupCoordinator;
use millstream_coordinator::transaction::{TRANSACTION_STATE, TransactionCoordinator};
use millstream_partition::{FsyncQueue, PartitionConfig, ReplicaFault};
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use moves::{finish_move, take_over};
pub(crate) use prepare::{Prepared, prepare, prepare_committed, prepare_stages};
pub(crate) use topics::restart_stages;

use crate::config::{BrokerConfig, ConfigError, PRODUCER_ID_EXPIRATION_MS, TopicConfig, TopicOverrides};
use crate::edge::view::link;
use crate::edge::{Edge, ServedTopics};
use crate::log_dirs::{LogDir, LogDirs};
use crate::partition_dirs::{self, Checkpoints};
use crate::placement::Placement;
use crate::topics::Topic;
use millstream_metadata::{AllBrokerConfigs, MetadataDelta, MetadataImage, NO_LEADER, PartitionImage, broker_config};

/// The parts of this node that a change affects.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Arc<BrokerConfig>,
    /// The configs of brokers that were set while they run, as of the last change that was applied.
    pub(crate) broker_configs: ArcSwap<AllBrokerConfigs>,
    pub(crate) dirs: Arc<LogDirs>,
    pub(crate) placement: Placement,
    pub(crate) topics: Arc<ArcSwap<ServedTopics>>,
    pub(crate) fsync_queue: Arc<FsyncQueue>,
    pub(crate) groups: Arc<GroupCoordinator>,
    pub(crate) transactions: Arc<TransactionCoordinator>,
    pub(crate) edge: Arc<Edge>,
    /// Rises after partitions have taken new roles.
    pub(crate) roles: watch::Sender<u64>,
}

impl Node {
    /// Returns the configs of a topic that sets `overrides` itself, with the defaults of this broker now.
    ///
    /// # Errors
    /// A config is unknown, a value is bad, or values contradict each other.
    pub(crate) fn topic_config(&self, overrides: &TopicOverrides) -> Result<TopicConfig, ConfigError> {
        let all = self.broker_configs.load();
        self.config.topic_config(&|name| self.set(&all, name).map(str::to_owned), overrides)
    }

    /// Returns the configs of a topic that its partitions use.
    pub(crate) fn partition_config(&self, config: &TopicConfig) -> PartitionConfig {
        let all = self.broker_configs.load();
        let set = self.set(&all, PRODUCER_ID_EXPIRATION_MS).and_then(|text| text.parse().ok());
        let of_file = || i64::try_from(self.config.producer_id_expiration.as_millis()).unwrap_or(i64::MAX);
        PartitionConfig {
            log: Arc::new(config.log_config(set.unwrap_or_else(of_file))),
            flush_messages: config.flush_messages,
            flush_ms: config.flush_ms,
        }
    }

    fn set<'a>(&self, all: &'a AllBrokerConfigs, name: &str) -> Option<&'a str> {
        broker_config(all, self.config.node_id, name)
    }

    /// Tells all that follow the roles of partitions that these have changed.
    fn roles_changed(&self) {
        self.roles.send_modify(|changes| *changes += 1);
        self.groups.roles_changed();
        self.transactions.roles_changed();
    }
}

/// Applies a committed change. Blocks for the disk.
pub(crate) fn apply(node: &Node, delta: &MetadataDelta, mut prepared: Prepared) {
    node.broker_configs.store(Arc::clone(&delta.broker_configs));
    let mut table = ServedTopics::clone(&node.topics.load());
    if !delta.deleted.is_empty() {
        delete(node, &mut table, delta);
    }
    for change in &delta.changed {
        topics::update(node, &mut table, &change.after, &mut prepared);
    }
    topics::open(node, &mut table, &delta.created, &Checkpoints::default(), &mut prepared);
    link::link(&mut table);
    node.topics.store(Arc::new(table));
    node.roles_changed();
    for emptied in &prepared.views {
        let folders = set_aside(node, emptied.topic());
        partition_dirs::remove_later(folders, Duration::ZERO);
    }
}

/// Opens every topic of an image, at the start. Blocks for the disk.
pub(crate) fn open_all(node: &Node, image: &MetadataImage, checkpoints: &Checkpoints) {
    let mut table = ServedTopics::default();
    let delta = MetadataDelta::of_image(image);
    node.broker_configs.store(Arc::clone(&delta.broker_configs));
    topics::open(node, &mut table, &delta.created, checkpoints, &mut Prepared::default());
    link::link(&mut table);
    table.complete();
    node.topics.store(Arc::new(table));
}

/// What became of a damaged replica.
#[derive(Debug)]
pub(crate) enum Repair {
    /// It is not damaged any more, or no other replica is known to hold its records.
    Nothing,
    /// It is copied again. The damaged log is in this folder, unless its data folder is gone.
    Copying(Option<PathBuf>),
}

/// Copies a replica again that is damaged, from the leader that the image names. Blocks for the disk.
///
/// # Errors
/// The disk fails.
pub(crate) fn copy_again(node: &Node, image: &MetadataImage, topic: Uuid, index: usize) -> std::io::Result<Repair> {
    let mut table = ServedTopics::clone(&node.topics.load());
    let Some(stored) = image.topic_by_id(topic) else { return Ok(Repair::Nothing) };
    let (Some(partition), Some(open)) = (stored.partitions.get(index), table.by_id(topic)) else {
        return Ok(Repair::Nothing);
    };
    let fault = open.partitions.get(index).and_then(|open| open.fault());
    if !matches!(fault, Some(ReplicaFault::Damaged(_))) || !is_held_elsewhere(partition, node.config.node_id) {
        return Ok(Repair::Nothing);
    }
    let repair = topics::copy_again(node, &mut table, stored, index)?;
    link::link(&mut table);
    node.topics.store(Arc::new(table));
    node.roles_changed();
    Ok(repair)
}

/// Returns whether another broker leads, and a replica on this one is not needed to keep any committed record.
fn is_held_elsewhere(partition: &PartitionImage, id: i32) -> bool {
    let leads = partition.leader == id || partition.leader == NO_LEADER;
    !leads && !partition.isr.contains(&id) && !partition.elr.contains(&id)
}

/// Takes a data folder that has failed out of service, with its partitions. The caller holds the lock of changes.
pub(crate) fn fail_folder(node: &Node, dir: &LogDir, reason: &str) {
    if !node.dirs.fail(dir, reason) {
        return;
    }
    let Some(reason) = dir.failure() else { return };
    let topics = node.topics.load();
    let here = topics.iter().flat_map(|topic| topic.own_partitions()).filter(|one| one.data_dir() == Some(dir.path()));
    here.for_each(|partition| partition.fail(reason));
    node.roles_changed();
}

/// Takes the partitions of a topic out of service and renames their folders. Returns the new names.
fn set_aside(node: &Node, topic: &Topic) -> Vec<PathBuf> {
    topic.own_partitions().iter().for_each(|partition| node.placement.forget(partition.topic(), partition.index()));
    partition_dirs::set_aside(topic)
}

/// Takes deleted topics out of service. Their files are removed after `file.delete.delay.ms`, so that running fetches
/// can end.
fn delete(node: &Node, table: &mut ServedTopics, delta: &MetadataDelta) {
    let deleted: Vec<_> = delta.deleted.iter().filter_map(|topic| table.remove(topic.id)).collect();
    node.topics.store(Arc::new(table.clone()));
    for topic in deleted {
        let folders = set_aside(node, &topic);
        node.groups.topic_deleted(&topic.name);
        if topic.name.as_str() == TRANSACTION_STATE {
            node.transactions.roles_changed();
        }
        let delay = u64::try_from(topic.config.file_delete_delay_ms).unwrap_or(0);
        partition_dirs::remove_later(folders, Duration::from_millis(delay));
    }
}
