//! Changes of the metadata: each decides on the current image, is written as one batch, and is then put into force.
//!
//! The order is always: look, commit (durable), act on disk, publish. A stop in between is repaired at the next start:
//! partitions that the metadata names are created, folders that it does not name are set aside.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millstream_coordinator::group::CONSUMER_OFFSETS;
use millstream_partition::{Partition, PartitionSpec};
use millstream_wire::{ErrorCode, Str};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use crate::blocking::blocking;
use crate::broker::Broker;
use crate::config::{TopicConfig, TopicOverrides};
use crate::edge::TopicDecoders;
use crate::edge::plugins;
use crate::edge::topic_stages::{Attached, Attachments, attach};
use crate::edge::view::link::{self, Sealed, View};
use crate::edge::view::rules;
use crate::error::ApiError;
use crate::metadata::{MetadataError, MetadataImage, MetadataRecord, TopicImage};
use crate::partition_dirs::{self, Checkpoints};
use crate::topics::{Topic, TopicTable, check_name};

/// The most partitions that one request may create, as in Kafka: more would hold up every other change.
pub(crate) const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// The right to change the metadata, from the look at the image to the publication of the topics.
pub(crate) async fn changing(broker: &Broker) -> OwnedMutexGuard<()> {
    Arc::clone(&broker.changes).lock_owned().await
}

/// Runs a metadata change on a blocking thread. The lock guard moves with it, so that dropping the request's future (the
/// client disconnected) does not release the lock before the change is complete.
pub(crate) async fn carry_out<T: Send + 'static>(
    broker: &Arc<Broker>,
    changing: OwnedMutexGuard<()>,
    work: impl FnOnce(&Arc<Broker>) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let broker = Arc::clone(broker);
    blocking(move || {
        let _changing = changing;
        work(&broker).inspect_err(|error| {
            if error.is_storage_fault() {
                tracing::error!("a change of the metadata failed: {error}");
            }
        })
    })
    .await?
}

/// A topic that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct NewTopic {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) configs: TopicOverrides,
}

/// Creates topics; each succeeds or fails by itself. With `validate_only` nothing is created and the ids are nil.
pub(crate) async fn create_topics(
    broker: &Arc<Broker>,
    wanted: Vec<NewTopic>,
    validate_only: bool,
) -> Vec<Result<Uuid, ApiError>> {
    let changing = changing(broker).await;
    let count = wanted.len();
    let created = carry_out(broker, changing, move |broker| Ok(plan_and_create(broker, wanted, validate_only)));
    created.await.unwrap_or_else(|error| vec![Err(error); count])
}

fn plan_and_create(broker: &Broker, wanted: Vec<NewTopic>, validate_only: bool) -> Vec<Result<Uuid, ApiError>> {
    // As it will be once all of them are there: a view may be created together with its source.
    let mut image = MetadataImage::clone(&broker.metadata.image());
    let mut records = Vec::new();
    let mut stages = HashMap::new();
    let mut results = Vec::with_capacity(wanted.len());
    for topic in wanted {
        let planned = plan_topic(broker, &mut image, topic);
        results.push(planned.map(|Planned { id, record, attachments }| {
            stages.insert(id, attachments);
            records.push(record);
            if validate_only { Uuid::nil() } else { id }
        }));
    }
    if validate_only || records.is_empty() {
        return results;
    }
    match broker.metadata.commit(&records) {
        Ok(_) => open_created(broker, &records, stages),
        Err(error) => {
            tracing::error!("the new topics cannot be committed to the metadata: {error}");
            let error = ApiError::from(error);
            for result in results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(error.clone());
            }
        }
    }
    results
}

/// A topic that can be created.
struct Planned {
    id: Uuid,
    record: MetadataRecord,
    attachments: Option<Arc<Attachments>>,
}

fn plan_topic(broker: &Broker, image: &mut MetadataImage, topic: NewTopic) -> Result<Planned, ApiError> {
    let NewTopic { name, partitions, configs } = topic;
    check_name(&name)?;
    if image.topic(&name).is_some() {
        return Err(ApiError::new(ErrorCode::TOPIC_ALREADY_EXISTS, format!("Topic '{name}' already exists.")));
    }
    if let Some(other) = collision(&broker.metadata.image(), &name) {
        let message = format!("Topic '{name}' collides with existing topic: {other}");
        return Err(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message));
    }
    if partitions < 1 {
        let message = format!("Number of partitions was set to an invalid non-positive value {partitions}.");
        return Err(ApiError::new(ErrorCode::INVALID_PARTITIONS, message));
    }
    if partitions as usize > PARTITIONS_PER_REQUEST_MAX {
        let message = format!("Excessively large number of partitions per request: {partitions}.");
        return Err(ApiError::new(ErrorCode::POLICY_VIOLATION, message));
    }
    let config = broker.topic_config(&configs)?;
    check_for_plugins(&name, partitions, config.compact && !config.delete)?;
    rules::check(image, &name, partitions, None, &configs)?;
    let attachments = attach(broker, &name, &config)?;
    let id = Uuid::new_v4();
    let record = MetadataRecord::TopicCreated { name, id, partitions, configs };
    image.apply(&record).map_err(MetadataError::Change)?;
    Ok(Planned { id, record, attachments })
}

fn check_for_plugins(name: &str, partitions: i32, is_compacted_only: bool) -> Result<(), ApiError> {
    let checked = plugins::check_topic(name, partitions, is_compacted_only);
    checked.map_err(|problem| ApiError::new(ErrorCode::POLICY_VIOLATION, problem))
}

/// A topic whose name differs only in `.` and `_`: Kafka refuses those two side by side, since its metrics merge them.
fn collision(image: &MetadataImage, name: &str) -> Option<String> {
    if !name.contains(['.', '_']) {
        return None;
    }
    let plain = |name: &str| name.replace('.', "_");
    let wanted = plain(name);
    image.topics().find(|topic| plain(&topic.name) == wanted).map(|topic| topic.name.clone())
}

fn open_created(broker: &Broker, records: &[MetadataRecord], stages: HashMap<Uuid, Option<Arc<Attachments>>>) {
    let image = broker.metadata.image();
    let mut table = TopicTable::clone(&broker.topics.load());
    let created = records.iter().filter_map(|record| match record {
        MetadataRecord::TopicCreated { id, .. } => image.topic_by_id(*id),
        _ => None,
    });
    open_topics(broker, created, image.leader_epoch, &Checkpoints::default(), stages, &mut table);
    broker.topics.store(Arc::new(table));
}

/// Opens topics into the table, their partitions side by side. `stages` has those that were made already, by topic.
pub(crate) fn open_topics<'a>(
    broker: &Broker,
    topics: impl Iterator<Item = &'a Arc<TopicImage>>,
    leader_epoch: i32,
    checkpoints: &Checkpoints,
    mut stages: HashMap<Uuid, Option<Arc<Attachments>>>,
    table: &mut TopicTable,
) {
    let mut specs = Vec::new();
    let mut opening = Vec::new();
    for topic in topics {
        let (name, config) = (Str::from(topic.name.as_str()), stored_config(broker, topic));
        let partition_config = broker.partition_config(&config);
        let view = rules::source(&topic.configs).map(View::of);
        let own = if view.is_some() { 0 } else { topic.partitions };
        specs.extend((0..own).map(|index| {
            let key = (topic.name.clone(), index);
            let spec = PartitionSpec {
                topic: Arc::from(topic.name.as_str()),
                topic_id: topic.id,
                index,
                leader_epoch,
                recovery_point: checkpoints.recovery_points.get(&key).copied().unwrap_or(0),
                log_start_offset: checkpoints.log_starts.get(&key).copied().unwrap_or(0),
                clean_shutdown: checkpoints.clean_shutdown,
            };
            (spec, partition_config.clone())
        }));
        opening.push((topic, name, config, view, own));
    }
    let opened = Partition::open_all(&broker.data_dir, &broker.fsync_queue, specs);
    // Stages of the others may be made of plug-ins that lie in it.
    if let Some(stored) = opened.iter().find(|partition| partition.topic() == plugins::TOPIC) {
        broker.plugins.open(stored);
    }
    let mut opened = opened.into_iter();
    for (topic, name, config, view, own) in opening {
        let partitions: Vec<Arc<Partition>> = opened.by_ref().take(own as usize).collect();
        let stages = match stages.remove(&topic.id) {
            Some(made) => made.map(Ok),
            None => stored_stages(broker, &topic.name, &config),
        };
        let decoders = TopicDecoders::new(&topic.decoders, &partitions);
        let view = view.map(Arc::new);
        table.insert(Topic { name, id: topic.id, config, stages, decoders, partitions, view });
    }
    link::link(table);
}

/// Starts the stages of a topic as it is stored. They worked when they were stored. If a plug-in or a file is missing
/// now, only this topic is out of service, until they can be started ([`restart_stages`]).
fn stored_stages(broker: &Broker, topic: &str, config: &TopicConfig) -> Attached {
    let attached = attach(broker, topic, config).transpose()?;
    Some(attached.map_err(|error| {
        tracing::error!(topic, %error, "a stage cannot be started: the topic is out of service until it can");
        out_of_service(error)
    }))
}

/// Makes an error that clients retry: the config was valid, and the stages may start later.
fn out_of_service(error: ApiError) -> ApiError {
    ApiError::new(ErrorCode::KAFKA_STORAGE_ERROR, error.message)
}

/// Starts the stages of a topic that could not be started before, if they can be started now.
pub(crate) async fn restart_stages(broker: &Arc<Broker>, id: Uuid) {
    let changing = changing(broker).await;
    let done = carry_out(broker, changing, move |broker| {
        let image = broker.metadata.image();
        let topics = broker.topics.load();
        let Some(topic) = topics.by_id(id) else { return Ok(()) };
        let Some(Err(before)) = &topic.stages else { return Ok(()) };
        let name = topic.name.as_str();
        let stages = match attach(broker, name, &topic.config) {
            Ok(stages) => {
                tracing::info!(topic = name, "the stages are started: the topic is in service again");
                stages.map(Ok)
            }
            Err(error) => {
                if error.message != before.message {
                    tracing::warn!(topic = name, %error, "a stage still cannot be started");
                }
                Some(Err(out_of_service(error)))
            }
        };
        republish(broker, &image, id, Some(stages));
        Ok(())
    });
    if let Err(error) = done.await {
        tracing::error!(%error, "cannot start the stages of a topic");
    }
}

/// The options of a topic as they are stored. They were checked before they were stored, by this version or another one.
fn stored_config(broker: &Broker, topic: &TopicImage) -> TopicConfig {
    broker.topic_config(&topic.configs).unwrap_or_else(|error| {
        tracing::error!(topic = topic.name, "a stored option is not valid, the defaults are used: {error}");
        broker.config.topic_defaults.clone()
    })
}

/// Deletes a topic. Its files go after `file.delete.delay.ms`, so that fetches under way can end.
pub(crate) async fn delete_topic(broker: &Arc<Broker>, id: Uuid) -> Result<(), ApiError> {
    let changing = changing(broker).await;
    let image = broker.metadata.image();
    let topic = image.topic_by_id(id).ok_or_else(ApiError::unknown_topic)?;
    if topic.name == plugins::TOPIC {
        let message =
            format!("{} keeps the broker's plug-ins and cannot be deleted; delete plug-ins instead", topic.name);
        return Err(ApiError::new(ErrorCode::POLICY_VIOLATION, message));
    }
    rules::check_deletion(&image, &topic.name)?;
    carry_out(broker, changing, move |broker| {
        broker.metadata.commit(&[MetadataRecord::TopicDeleted { id }])?;
        let mut table = TopicTable::clone(&broker.topics.load());
        let topic = table.remove(id);
        broker.topics.store(Arc::new(table));
        let Some(topic) = topic else { return Ok(()) };
        let folders = partition_dirs::set_aside(&broker.data_dir, &topic);
        broker.groups.topic_deleted(&topic.name);
        let delay = u64::try_from(topic.config.file_delete_delay_ms).unwrap_or(0);
        partition_dirs::remove_later(folders, std::time::Duration::from_millis(delay));
        Ok(())
    })
    .await
}

/// Grows a topic to `count` partitions.
pub(crate) async fn add_partitions(
    broker: &Arc<Broker>,
    name: &str,
    count: i32,
    validate_only: bool,
) -> Result<(), ApiError> {
    let changing = changing(broker).await;
    let image = broker.metadata.image();
    let topic = image.topic(name).ok_or_else(ApiError::unknown_topic)?;
    if let Some(of) = rules::source(&topic.configs) {
        let message = format!("{name} is a view: it gets its partitions from {of}, add them there.");
        return Err(ApiError::new(ErrorCode::INVALID_PARTITIONS, message));
    }
    if count <= topic.partitions {
        let message = match count == topic.partitions {
            true => format!("Topic already has {count} partition(s)."),
            false => format!(
                "The topic {name} currently has {} partition(s); {count} would not be an increase.",
                topic.partitions
            ),
        };
        return Err(ApiError::new(ErrorCode::INVALID_PARTITIONS, message));
    }
    if (count - topic.partitions) as usize > PARTITIONS_PER_REQUEST_MAX {
        let message = format!("Excessively large number of partitions per request: {count}.");
        return Err(ApiError::new(ErrorCode::POLICY_VIOLATION, message));
    }
    check_for_plugins(name, count, true)?;
    if validate_only {
        return Ok(());
    }
    let id = topic.id;
    let grown = rules::views_of(&image, name).map(|view| view.id).chain([id]);
    let records: Vec<_> = grown.map(|id| MetadataRecord::PartitionsAdded { id, partitions: count }).collect();
    carry_out(broker, changing, move |broker| {
        let image = broker.metadata.commit(&records)?;
        republish(broker, &image, id, None);
        Ok(())
    })
    .await
}

/// Puts the stored state of a topic into force: its options, stages if there are others, and partitions that are new.
fn republish(broker: &Broker, image: &MetadataImage, id: Uuid, stages: Option<Attached>) {
    let Some(stored) = image.topic_by_id(id) else { return };
    let mut table = TopicTable::clone(&broker.topics.load());
    let Some(old) = table.by_id(id).cloned() else { return };
    let config = stored_config(broker, stored);
    let view = rules::source(&stored.configs).map(|of| old.view.clone().unwrap_or_else(|| Arc::new(View::of(of))));
    let partitions = match &view {
        // They are its source's.
        Some(_) => Vec::new(),
        None => grow(broker, image.leader_epoch, &old, stored.partitions, &config),
    };
    let stages = stages.unwrap_or_else(|| old.stages.clone());
    let decoders = TopicDecoders::new(&stored.decoders, &partitions);
    table.insert(Topic { name: old.name.clone(), id, config, stages, decoders, partitions, view });
    link::link(&mut table);
    broker.topics.store(Arc::new(table));
}

/// The partitions of a topic under its new options: those that are open stay open, the rest of `count` is added.
fn grow(broker: &Broker, leader_epoch: i32, topic: &Topic, count: i32, config: &TopicConfig) -> Vec<Arc<Partition>> {
    let partition_config = broker.partition_config(config);
    let mut partitions = topic.partitions.clone();
    for partition in &partitions {
        partition.set_config(&partition_config);
    }
    let added = (partitions.len() as i32..count).map(|index| {
        let spec = PartitionSpec {
            topic: Arc::from(topic.name.as_str()),
            topic_id: topic.id,
            index,
            leader_epoch,
            recovery_point: 0,
            log_start_offset: 0,
            clean_shutdown: false,
        };
        (spec, partition_config.clone())
    });
    partitions.extend(Partition::open_all(&broker.data_dir, &broker.fsync_queue, added.collect()));
    partitions
}

/// Notes that batches of a topic may need the plug-in of this digest, before the first of them is there.
pub(crate) async fn add_decoder(broker: &Arc<Broker>, id: Uuid, digest: String) -> Result<(), ApiError> {
    let changing = changing(broker).await;
    let image = broker.metadata.image();
    let topic = image.topic_by_id(id).ok_or_else(ApiError::unknown_topic)?;
    if topic.decoders.contains(&digest) {
        return Ok(());
    }
    carry_out(broker, changing, move |broker| {
        let image = broker.metadata.commit(&[MetadataRecord::DecoderNeeded { id, digest }])?;
        republish(broker, &image, id, None);
        Ok(())
    })
    .await
}

/// Changes the options of a topic: `change` makes the new values from those of today. They are in force at once.
pub(crate) async fn alter_topic(
    broker: &Arc<Broker>,
    name: &str,
    change: impl FnOnce(&TopicOverrides) -> Result<TopicOverrides, ApiError>,
    validate_only: bool,
) -> Result<(), ApiError> {
    let changing = changing(broker).await;
    let image = broker.metadata.image();
    let topic = image.topic(name).ok_or_else(ApiError::unknown_topic)?;
    let wanted = change(&topic.configs)?;
    let config = broker.topic_config(&wanted)?;
    check_for_plugins(name, topic.partitions, config.compact && !config.delete)?;
    rules::check(&image, name, topic.partitions, Some(&topic.configs), &wanted)?;
    let becomes_view = rules::source(&topic.configs).is_none() && rules::source(&wanted).is_some();
    let id = topic.id;
    let records = config_changes(id, &topic.configs, &wanted);
    let name = name.to_owned();
    carry_out(broker, changing, move |broker| {
        let served = broker.topics.load().by_id(id).cloned();
        // Stages that stay as they are go on as they are, with what they know and have counted.
        let is_other = served
            .as_ref()
            .is_none_or(|topic| topic.config.stages != config.stages || topic.config.view_of != config.view_of);
        let is_broken = served.as_ref().is_some_and(|topic| matches!(topic.stages, Some(Err(_))));
        let stages = match (is_other || is_broken).then(|| attach(broker, &name, &config)) {
            // Stages that could not be started, and still cannot, do not stand in the way of other configs.
            Some(Err(_)) if !is_other && !records.is_empty() => None,
            stages => stages.transpose()?,
        };
        let emptied = served.filter(|_| becomes_view).map(|topic| Sealed::new(&topic)).transpose()?;
        if validate_only || (records.is_empty() && stages.is_none()) {
            return Ok(());
        }
        // Stages that can be started now go into service, even if no config changes.
        let image = if records.is_empty() { image } else { broker.metadata.commit(&records)? };
        republish(broker, &image, id, stages.map(|stages| stages.map(Ok)));
        if let Some(emptied) = emptied {
            let folders = partition_dirs::set_aside(&broker.data_dir, &emptied.keep());
            partition_dirs::remove_later(folders, std::time::Duration::ZERO);
        }
        Ok(())
    })
    .await
}

fn config_changes(id: Uuid, old: &TopicOverrides, new: &TopicOverrides) -> Vec<MetadataRecord> {
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name, None));
    let set = new.iter().filter(|(name, value)| old.get(*name) != Some(value)).map(|(name, value)| (name, Some(value)));
    gone.chain(set)
        .map(|(name, value)| MetadataRecord::TopicConfigChanged { id, name: name.clone(), value: value.cloned() })
        .collect()
}

/// What a topic gets that is created because somebody asked for it.
pub(crate) fn on_demand(broker: &Broker, name: &str) -> NewTopic {
    if let Some(topic) = plugins::topic(name) {
        return topic;
    }
    if name != CONSUMER_OFFSETS {
        let partitions = broker.config.num_partitions;
        return NewTopic { name: name.to_owned(), partitions, configs: BTreeMap::new() };
    }
    let group = &broker.config.group;
    let segment_bytes = group.offsets_topic_segment_bytes.to_string();
    // Below the public bound only the internal name of the option is allowed.
    let segment_key =
        if group.offsets_topic_segment_bytes < 1 << 20 { "internal.segment.bytes" } else { "segment.bytes" };
    let configs = [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "producer".to_owned()),
        (segment_key, segment_bytes),
    ];
    let configs = configs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    NewTopic { name: name.to_owned(), partitions: group.offsets_topic_partitions, configs }
}

/// Makes sure that a topic is there, with the options that creation on demand gives it.
pub(crate) async fn ensure_topic(broker: &Arc<Broker>, name: &str) -> Result<(), ApiError> {
    if broker.topics.load().by_name(name).is_some() {
        return Ok(());
    }
    let created = create_topics(broker, vec![on_demand(broker, name)], false).await;
    match created.into_iter().next() {
        Some(Err(error)) if error.code != ErrorCode::TOPIC_ALREADY_EXISTS => Err(error),
        _ => Ok(()),
    }
}
