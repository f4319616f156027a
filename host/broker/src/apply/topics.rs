//! Opening and updating topics in the table.

use std::sync::Arc;

use millstream_log::LogConfig;
use millstream_wire::Str;

use super::Prepared;
use crate::broker::Broker;
use crate::config::TopicConfig;
use crate::edge::TopicDecoders;
use crate::edge::plugins;
use crate::edge::topic_stages::{Attached, attach};
use crate::edge::view::link::View;
use crate::partition::{Partition, PartitionSpec};
use crate::partition_dirs::Checkpoints;
use crate::topics::{Topic, TopicTable};
use millstream_metadata::TopicImage;

/// Opens topics into the table, the partitions of all of them side by side.
pub(super) fn open(
    broker: &Broker,
    table: &mut TopicTable,
    topics: &[Arc<TopicImage>],
    checkpoints: &Checkpoints,
    prepared: &mut Prepared,
) {
    let mut specs = Vec::new();
    let mut opening = Vec::new();
    for topic in topics {
        let config = stored_config(broker, topic);
        let log_config = Arc::new(broker.config.log_config(&config));
        let view = topic.view_of().map(View::of);
        let own = if view.is_some() { 0 } else { topic.partitions.len() };
        specs.extend((0..own).map(|index| (spec(topic, index, checkpoints), Arc::clone(&log_config))));
        opening.push((topic, config, view, own));
    }
    let opened = open_partitions(broker, specs);
    // The stages of the other topics may be made of the plug-ins that this topic holds.
    if let Some(stored) = opened.iter().find(|partition| partition.topic.as_str() == plugins::TOPIC) {
        broker.plugins.open(stored);
    }
    let mut opened = opened.into_iter();
    for (topic, config, view, own) in opening {
        let partitions: Vec<Arc<Partition>> = opened.by_ref().take(own).collect();
        let made = prepared.stages.remove(&topic.id);
        let stages = made.unwrap_or_else(|| stored_stages(broker, &topic.name, &config));
        let decoders = TopicDecoders::new(&topic.decoders, &partitions);
        let (name, view) = (Str::from(topic.name.as_str()), view.map(Arc::new));
        table.insert(Topic { name, id: topic.id, config, stages, decoders, partitions, view });
    }
}

/// Updates a topic in the table to its stored state: configs, new partitions, and stages where others were prepared.
pub(super) fn update(broker: &Broker, table: &mut TopicTable, stored: &TopicImage, prepared: &mut Prepared) {
    let Some(old) = table.by_id(stored.id).cloned() else { return };
    let config = stored_config(broker, stored);
    let view = stored.view_of().map(|of| old.view.clone().unwrap_or_else(|| Arc::new(View::of(of))));
    let partitions = match &view {
        // It has those of its source.
        Some(_) => Vec::new(),
        None => grown(broker, &old, stored, &config),
    };
    let stages = prepared.stages.remove(&stored.id).unwrap_or_else(|| old.stages.clone());
    let decoders = TopicDecoders::new(&stored.decoders, &partitions);
    table.insert(Topic { name: old.name.clone(), id: stored.id, config, stages, decoders, partitions, view });
}

/// Returns the partitions of a topic under its new configs: those that are open, and those that are added.
fn grown(broker: &Broker, old: &Topic, stored: &TopicImage, config: &TopicConfig) -> Vec<Arc<Partition>> {
    let log_config = Arc::new(broker.config.log_config(config));
    let mut partitions = old.partitions.clone();
    for partition in &partitions {
        partition.set_config(&log_config);
    }
    let added = partitions.len()..stored.partitions.len();
    let checkpoints = Checkpoints::default();
    let specs = added.map(|index| (spec(stored, index, &checkpoints), Arc::clone(&log_config)));
    partitions.extend(open_partitions(broker, specs.collect()));
    partitions
}

fn open_partitions(broker: &Broker, specs: Vec<(PartitionSpec, Arc<LogConfig>)>) -> Vec<Arc<Partition>> {
    Partition::open_all(&broker.data_dir, specs)
}

fn spec(topic: &TopicImage, index: usize, checkpoints: &Checkpoints) -> PartitionSpec {
    // A name and an index of 10,000 partitions at most: the index fits.
    let key = (topic.name.clone(), index as i32);
    PartitionSpec {
        topic: Str::from(topic.name.as_str()),
        topic_id: topic.id,
        index: key.1,
        leader_epoch: topic.partitions[index].leader_epoch,
        recovery_point: checkpoints.recovery_points.get(&key).copied().unwrap_or(0),
        log_start_offset: checkpoints.log_starts.get(&key).copied().unwrap_or(0),
        clean_shutdown: checkpoints.clean_shutdown,
    }
}

/// Makes the stages of a topic as it is stored. They worked when they were stored; if a plug-in has gone since, the topic is
/// out of service, and nothing else.
fn stored_stages(broker: &Broker, topic: &str, config: &TopicConfig) -> Attached {
    let attached = attach(broker, topic, config).transpose()?;
    Some(attached.inspect_err(|error| {
        tracing::error!(topic, "a stage cannot be started, the topic is not served: {error}");
    }))
}

/// Returns the configs of a topic as they are stored. They were checked before, by this version or another one.
fn stored_config(broker: &Broker, topic: &TopicImage) -> TopicConfig {
    broker.config.topic_config(&topic.configs).unwrap_or_else(|error| {
        tracing::error!(topic = topic.name, "a stored config is not valid, the defaults are used: {error}");
        broker.config.topic_defaults.clone()
    })
}
