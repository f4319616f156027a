//! Opening and updating topics in the table.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millstream_log::Offsets;
use millstream_partition::replica::LeaderView;
use millstream_partition::{Assignment, Partition, PartitionConfig, PartitionSpec, ReplicaFault};
use millstream_wire::{ErrorCode, Str};

use super::{Node, Prepared, Repair};
use crate::config::TopicConfig;
use crate::edge::plugins;
use crate::edge::topic_stages::{TopicStages, attach};
use crate::edge::view::link::{self, View};
use crate::edge::{EdgeTopic, ServedTopics, TopicDecoders};
use crate::error::ApiError;
use crate::partition_dirs::{self, Checkpoints};
use crate::placement::{Place, Wanted};
use crate::topics::{Topic, is_internal};
use millstream_metadata::{MetadataImage, TopicImage};
use uuid::Uuid;

/// Opens topics and adds them to the table. The partitions of all of them are opened in parallel.
pub(super) fn open(
    node: &Node,
    table: &mut ServedTopics,
    topics: &[Arc<TopicImage>],
    checkpoints: &Checkpoints,
    prepared: &mut Prepared,
) {
    let mut specs = Vec::new();
    let mut opening = Vec::new();
    for topic in topics {
        let config = stored_config(node, topic);
        let partition_config = node.partition_config(&config);
        let view = topic.view_of().map(View::of);
        let own = if view.is_some() { 0 } else { topic.partitions.len() };
        specs.extend((0..own).map(|index| {
            let assignment = assignment(node, topic, index, &config);
            Opening {
                spec: spec(node, topic, index, assignment),
                config: partition_config.clone(),
                is_replica: is_replica(node, topic, index),
            }
        }));
        opening.push((topic, config, view, own));
    }
    let opened = open_partitions(node, specs, checkpoints);
    // The stages of the other topics may use the plug-ins that this topic stores.
    if let Some(stored) = opened.iter().find(|partition| partition.topic() == plugins::TOPIC) {
        node.edge.plugins.open(stored);
    }
    let mut opened = opened.into_iter();
    for (topic, config, view, own) in opening {
        let partitions: Vec<Arc<Partition>> = opened.by_ref().take(own).collect();
        let made = prepared.stages.remove(&topic.id);
        let stages = made.unwrap_or_else(|| stored_stages(node, &topic.name, &config));
        let decoders = TopicDecoders::new(&topic.decoders);
        let (name, shared_from) = (Str::from(topic.name.as_str()), view.as_ref().map(|view| view.of.clone()));
        let edge = EdgeTopic::new(&name, &config, stages, decoders, view.map(Arc::new), &partitions, None);
        table.insert(Topic { name, id: topic.id, config, partitions, shared_from }, edge);
    }
}

/// Updates a topic in the table to its stored state: configs, new partitions, and prepared stages.
pub(super) fn update(node: &Node, table: &mut ServedTopics, stored: &TopicImage, prepared: &mut Prepared) {
    let Some(old) = table.by_id(stored.id).cloned() else { return };
    let config = stored_config(node, stored);
    let view = stored.view_of().map(|of| old.edge.view.clone().unwrap_or_else(|| Arc::new(View::of(of))));
    let partitions = match &view {
        // A view has the partitions of its source.
        Some(_) => Vec::new(),
        None => grown(node, &old, stored, &config),
    };
    let stages = prepared.stages.remove(&stored.id).unwrap_or_else(|| old.edge.stages.clone());
    let decoders = TopicDecoders::new(&stored.decoders);
    let (name, shared_from) = (old.name.clone(), view.as_ref().map(|view| view.of.clone()));
    let edge = EdgeTopic::new(&name, &config, stages, decoders, view, &partitions, Some(&old.edge));
    table.insert(Topic { name, id: stored.id, config, partitions, shared_from }, edge);
}

/// Replaces a damaged replica by an empty one, which copies the records of its leader. The damaged log is set aside.
///
/// # Errors
/// The disk fails, or the process has no file descriptor left. The replica stays a damaged one, and the caller may
/// retry.
pub(super) fn copy_again(
    node: &Node,
    table: &mut ServedTopics,
    stored: &TopicImage,
    index: usize,
) -> std::io::Result<Repair> {
    let Some(old) = table.by_id(stored.id).cloned() else { return Ok(Repair::Nothing) };
    let Some(damaged) = old.partitions.get(index) else { return Ok(Repair::Nothing) };
    let set_aside = partition_dirs::set_aside_damaged(&node.dirs, damaged, table)?;
    if damaged.data_dir().is_none() {
        node.placement.forget(damaged.topic(), damaged.index());
    }
    let (spec, config) = (spec_of(node, stored, index), partition_config_of(node, stored));
    let opening = Opening { spec, config, is_replica: true };
    if let Some(copy) = open_partitions(node, vec![opening], &Checkpoints::default()).pop() {
        if let Some(ReplicaFault::Offline(reason)) = copy.fault() {
            partition_dirs::remove_new(&copy);
            return Err(std::io::Error::other(format!("the new log is not open: {reason}")));
        }
        replace_partition(node, table, stored, index, copy);
    }
    Ok(Repair::Copying(set_aside))
}

/// Puts another partition in the place of one of a topic.
pub(super) fn replace_partition(
    node: &Node,
    table: &mut ServedTopics,
    stored: &TopicImage,
    index: usize,
    partition: Arc<Partition>,
) {
    let Some(old) = table.by_id(stored.id).cloned() else { return };
    let config = stored_config(node, stored);
    let mut partitions = old.partitions.clone();
    partitions.splice(index..=index, [partition]);
    let (name, stages) = (old.name.clone(), old.edge.stages.clone());
    let decoders = TopicDecoders::new(&stored.decoders);
    let edge = EdgeTopic::new(&name, &config, stages, decoders, None, &partitions, Some(&old.edge));
    table.insert(Topic { name, id: stored.id, config, partitions, shared_from: None }, edge);
}

/// Returns what the metadata says of a partition.
pub(super) fn spec_of(node: &Node, topic: &TopicImage, index: usize) -> PartitionSpec {
    spec(node, topic, index, assignment(node, topic, index, &stored_config(node, topic)))
}

/// Returns the configs of a topic that its partitions use.
pub(super) fn partition_config_of(node: &Node, topic: &TopicImage) -> PartitionConfig {
    node.partition_config(&stored_config(node, topic))
}

/// Returns the partitions of a topic with its new configs: the open ones and the added ones.
fn grown(node: &Node, old: &Topic, stored: &TopicImage, config: &TopicConfig) -> Vec<Arc<Partition>> {
    let partition_config = node.partition_config(config);
    let mut partitions = old.partitions.clone();
    let mut opening = Vec::new();
    let mut places = Vec::new();
    for index in 0..stored.partitions.len() {
        let (assignment, is_replica) = (assignment(node, stored, index, config), is_replica(node, stored, index));
        if let Some(partition) = partitions.get(index) {
            if is_replica && partition.is_replica() {
                partition.set_config(&partition_config);
                // A partition that is offline has no role to take.
                let _ = partition.assign(assignment);
                continue;
            }
            if partition.is_replica() {
                remove_replica(node, old, partition);
            }
        }
        let spec = spec(node, stored, index, assignment);
        opening.push(Opening { spec, config: partition_config.clone(), is_replica });
        places.push(index);
    }
    for (index, opened) in places.into_iter().zip(open_partitions(node, opening, &Checkpoints::default())) {
        match partitions.get_mut(index) {
            Some(partition) => *partition = opened,
            None => partitions.push(opened),
        }
    }
    partitions
}

/// Takes a replica out of service that the metadata now has on other brokers only.
fn remove_replica(node: &Node, topic: &Topic, partition: &Arc<Partition>) {
    node.placement.forget(partition.topic(), partition.index());
    let folders = partition_dirs::set_aside_partitions(std::slice::from_ref(partition));
    let delay = u64::try_from(topic.config.file_delete_delay_ms).unwrap_or(0);
    partition_dirs::remove_later(folders, Duration::from_millis(delay));
}

/// A partition that is not in the table yet.
struct Opening {
    spec: PartitionSpec,
    config: PartitionConfig,
    is_replica: bool,
}

/// Returns the partitions in the order of `opening`. Only those with a replica on this broker have a log.
fn open_partitions(node: &Node, opening: Vec<Opening>, checkpoints: &Checkpoints) -> Vec<Arc<Partition>> {
    let cordoned = node.config.cordoned_log_dirs(&node.edge.metadata.image());
    let wanted =
        |one: &Opening| Wanted { key: (one.spec.topic.to_string(), one.spec.index), topic_id: one.spec.topic_id };
    let replicas: Vec<Wanted> = opening.iter().filter(|one| one.is_replica).map(wanted).collect();
    let mut placed = node.placement.place(&replicas, |dir| dir.is_named_in(&cordoned)).into_iter();
    let (mut here, mut places) = (Vec::new(), Vec::with_capacity(opening.len()));
    for Opening { mut spec, config, is_replica } in opening {
        places.push(match is_replica.then(|| placed.next()).flatten() {
            None => Some(Partition::elsewhere(spec, &config, &node.fsync_queue)),
            Some(Place::Nowhere(fault)) => Some(Partition::offline(spec, &config, &node.fsync_queue, fault)),
            Some(Place::In(data_dir)) => {
                continue_from(&mut spec, &data_dir, checkpoints);
                spec.data_dir = Some(data_dir);
                here.push((spec, config));
                None
            }
        });
    }
    let mut opened = Partition::open_all(&node.fsync_queue, here).into_iter();
    places.into_iter().filter_map(|elsewhere| elsewhere.or_else(|| opened.next())).collect()
}

/// Notes what the checkpoints of a data folder say about a partition in it.
fn continue_from(spec: &mut PartitionSpec, data_dir: &Path, checkpoints: &Checkpoints) {
    let Some(checkpoints) = checkpoints.of(data_dir) else { return };
    let key = (spec.topic.to_string(), spec.index);
    let offset = |offsets: &Offsets| offsets.get(&key).copied().unwrap_or(0);
    spec.high_watermark = offset(&checkpoints.high_watermarks);
    spec.recovery_point = offset(&checkpoints.recovery_points);
    spec.log_start_offset = checkpoints.log_starts.as_ref().map_or(0, offset);
    spec.log_start_is_lost = checkpoints.log_starts.is_none();
    spec.first_dirty_offset = offset(&checkpoints.first_dirty);
    spec.clean_shutdown = checkpoints.clean_shutdown;
}

fn is_replica(node: &Node, topic: &TopicImage, index: usize) -> bool {
    topic.partitions[index].replicas.contains(&node.config.node_id)
}

/// Returns what is known of a partition without its data folder.
fn spec(node: &Node, topic: &TopicImage, index: usize, assignment: Assignment) -> PartitionSpec {
    PartitionSpec {
        topic: Arc::from(topic.name.as_str()),
        topic_id: topic.id,
        // There are 10,000 partitions at most.
        index: index as i32,
        node_id: node.config.node_id,
        data_dir: None,
        assignment,
        high_watermark: 0,
        recovery_point: 0,
        log_start_offset: 0,
        log_start_is_lost: false,
        first_dirty_offset: 0,
        clean_shutdown: false,
    }
}

/// Returns the role of this node for a partition.
fn assignment(node: &Node, topic: &TopicImage, index: usize, config: &TopicConfig) -> Assignment {
    let partition = &topic.partitions[index];
    if partition.leader != node.config.node_id {
        return Assignment::Follower { leader: partition.leader, leader_epoch: partition.leader_epoch };
    }
    Assignment::Leader(LeaderView {
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.to_vec(),
        isr: partition.isr.to_vec(),
        min_isr: min_isr(&topic.name, partition.replicas.len(), config),
    })
}

/// Returns how many replicas have to be in sync for a write. An internal topic works with the replicas that it has:
/// those of a small cluster may be fewer than its config asks for.
fn min_isr(topic: &str, replicas: usize, config: &TopicConfig) -> usize {
    let configured = usize::try_from(config.min_insync_replicas).unwrap_or(1);
    if is_internal(topic) { configured.min(replicas) } else { configured }
}

/// Starts the stages of a stored topic. They worked when they were stored. If a plug-in or a file is missing now, only
/// this topic is out of service until they can be started ([`restart_stages`]).
fn stored_stages(node: &Node, topic: &str, config: &TopicConfig) -> TopicStages {
    attach(&node.edge, topic, config).unwrap_or_else(|error| {
        match node.edge.may_lack_plugins() {
            true => tracing::info!(topic, %error, "a stage waits for the plug-ins of the cluster"),
            false => {
                tracing::error!(topic, %error, "a stage cannot be started: the topic is out of service until it can");
            }
        }
        TopicStages::Broken(out_of_service(error))
    })
}

/// Starts the stages of a topic as it is stored.
pub(super) fn stored_stages_of(node: &Node, topic: &TopicImage) -> TopicStages {
    stored_stages(node, &topic.name, &stored_config(node, topic))
}

/// Returns an error that clients retry: the config was valid, and the stages may start later.
fn out_of_service(error: ApiError) -> ApiError {
    ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.message)
}

/// Starts the broken stages of a topic, if that works now. The caller holds the lock of changes. Blocks, since a
/// plug-in may have to be compiled.
pub(crate) fn restart_stages(node: &Node, image: &MetadataImage, id: Uuid) {
    let topics = node.topics.load();
    let Some(topic) = topics.by_id(id) else { return };
    let TopicStages::Broken(before) = &topic.edge.stages else { return };
    let name = topic.name.as_str();
    let stages = match attach(&node.edge, name, &topic.config) {
        Ok(stages) => {
            tracing::info!(topic = name, "the stages are started: the topic is in service again");
            stages
        }
        Err(error) => {
            if error.message != before.message {
                tracing::warn!(topic = name, %error, "a stage still cannot be started");
            }
            TopicStages::Broken(out_of_service(error))
        }
    };
    let Some(stored) = image.topic_by_id(id) else { return };
    let mut prepared = Prepared::default();
    prepared.stages.insert(id, stages);
    let mut table = ServedTopics::clone(&topics);
    update(node, &mut table, stored, &mut prepared);
    link::link(&mut table);
    node.topics.store(Arc::new(table));
}

/// Returns the configs of a topic as they are stored. They were checked before, by this version or another one. The
/// defaults may have changed since.
fn stored_config(node: &Node, topic: &TopicImage) -> TopicConfig {
    node.topic_config(&topic.configs)
        .or_else(|error| {
            tracing::error!(
                topic = topic.name,
                "its configs do not fit the defaults that were set for brokers, those of the file are used: {error}"
            );
            node.config.topic_config(&|_| None, &topic.configs)
        })
        .unwrap_or_else(|error| {
            tracing::error!(topic = topic.name, "a stored config is not valid, the defaults are used: {error}");
            node.config.topic_defaults.clone()
        })
}
