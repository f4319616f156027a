//! Creating and deleting topics.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::placement::place;
use super::{ControllerError, PARTITIONS_PER_REQUEST_MAX, TopicDraft, TopicRules};
use crate::image::source_of;
use crate::topic_name::check_name;
use crate::{FeatureLevel, MetadataImage, MetadataRecord, TopicConfigs};

/// A topic to be created.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewTopic {
    /// Chosen by the caller, so that the decision itself is not random.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// `None` takes the cluster's default, or for a view the number of its source.
    pub partitions: Option<i32>,
    /// The replicas of each partition.
    pub replication: Replication,
    /// The brokers of each partition, if the client assigns them. Then `partitions` is `None`.
    pub assignments: Vec<Assignment>,
    /// The configs that it sets itself.
    pub configs: TopicConfigs,
}

/// The number of replicas of each partition of a new topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replication {
    /// The cluster's default.
    Default,
    /// Exactly this many, or the topic is not created.
    Exactly(i32),
    /// This number, or the number of brokers if that is lower.
    UpTo(i32),
}

/// The brokers that a client assigns to one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The index of the partition.
    pub partition: i32,
    /// Its brokers, the leader first.
    pub replicas: Vec<i32>,
}

impl NewTopic {
    /// Returns a topic with the cluster's defaults.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            id: Uuid::new_v4(),
            name: name.into(),
            partitions: None,
            replication: Replication::Default,
            assignments: Vec::new(),
            configs: TopicConfigs::new(),
        }
    }
}

/// Creates a topic.
pub(crate) fn create<R: TopicRules>(
    image: &MetadataImage,
    topic: &NewTopic,
    rules: &R,
) -> Result<Vec<MetadataRecord>, R::Error> {
    let NewTopic { id, name, configs, .. } = topic;
    check_name(name).map_err(ControllerError::from)?;
    if image.topic(name).is_some() {
        return Err(ControllerError::TopicExists(name.clone()).into());
    }
    if let Some(other) = collision(image, name) {
        return Err(ControllerError::NameCollision { name: name.clone(), other }.into());
    }
    let mut factor = 1;
    let partitions = if topic.assignments.is_empty() {
        factor = replication_factor(image, topic.replication, rules)?;
        let of_source =
            || source_of(configs).and_then(|source| image.topic(source)).map(|topic| topic.partition_count());
        topic.partitions.or_else(of_source).unwrap_or_else(|| rules.default_partitions())
    } else {
        assigned(image, topic)?
    };
    if partitions < 1 {
        return Err(ControllerError::NonPositivePartitions(partitions).into());
    }
    if partitions as usize > PARTITIONS_PER_REQUEST_MAX {
        return Err(ControllerError::TooManyPartitions(partitions as usize).into());
    }
    rules.check_partitions(name, partitions)?;
    rules.check(image, &TopicDraft { name, partitions, before: None, configs })?;
    let replicas = match &topic.assignments[..] {
        [] => place(image, *id, 0..partitions, factor)?,
        assignments => by_index(assignments),
    };
    Ok(vec![MetadataRecord::TopicCreated {
        name: name.clone(),
        id: *id,
        partitions,
        configs: configs.clone(),
        replicas: at_level(image, replicas),
    }])
}

/// Deletes a topic.
pub(crate) fn delete<R: TopicRules>(
    image: &MetadataImage,
    id: Uuid,
    rules: &R,
) -> Result<Vec<MetadataRecord>, R::Error> {
    let topic = image.topic_by_id(id).ok_or(ControllerError::UnknownTopic)?;
    rules.check_deletion(image, topic)?;
    Ok(vec![MetadataRecord::TopicDeleted { id }])
}

/// Returns a topic whose name differs only in `.` and `_`. Kafka rejects such a pair, since its metrics merge them.
fn collision(image: &MetadataImage, name: &str) -> Option<String> {
    if !name.contains(['.', '_']) {
        return None;
    }
    let plain = |name: &str| name.replace('.', "_");
    let wanted = plain(name);
    image.topics().find(|topic| plain(&topic.name) == wanted).map(|topic| topic.name.clone())
}

/// Returns the assignments in the form of the log's feature level: below the level with assignments, the one broker has
/// every partition.
pub(crate) fn at_level(image: &MetadataImage, replicas: Vec<Vec<i32>>) -> Vec<Vec<i32>> {
    if image.feature_level >= FeatureLevel::ASSIGNMENTS { replicas } else { Vec::new() }
}

fn by_index(assignments: &[Assignment]) -> Vec<Vec<i32>> {
    let mut sorted: Vec<&Assignment> = assignments.iter().collect();
    sorted.sort_unstable_by_key(|assignment| assignment.partition);
    sorted.into_iter().map(|assignment| assignment.replicas.clone()).collect()
}

fn replication_factor<R: TopicRules>(
    image: &MetadataImage,
    replication: Replication,
    rules: &R,
) -> Result<usize, ControllerError> {
    let brokers = image.brokers().filter(|broker| !image.is_cordoned(broker.registration.id)).count();
    let factor = match replication {
        Replication::Default => rules.default_replication_factor(),
        Replication::Exactly(factor) => factor,
        Replication::UpTo(factor) => factor.min(i32::try_from(brokers).unwrap_or(i32::MAX)),
    };
    match usize::try_from(factor) {
        Err(_) | Ok(0) => Err(ControllerError::NonPositiveReplicationFactor),
        Ok(wanted) if wanted > brokers => Err(ControllerError::TooFewBrokers { factor, brokers }),
        Ok(wanted) => Ok(wanted),
    }
}

/// Returns the number of partitions that a manual assignment makes.
fn assigned(image: &MetadataImage, topic: &NewTopic) -> Result<i32, ControllerError> {
    if topic.partitions.is_some() || topic.replication != Replication::Default {
        return Err(ControllerError::AssignmentWithCounts);
    }
    let mut indexes: Vec<i32> = topic.assignments.iter().map(|assignment| assignment.partition).collect();
    indexes.sort_unstable();
    if let Some(twice) = indexes.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(ControllerError::AssignmentTwice(twice[0]));
    }
    check_assignments(image, topic.assignments.iter().map(|one| (one.partition, &one.replicas[..])), None)?;
    if !indexes.iter().copied().eq(0..i32::try_from(indexes.len()).unwrap_or(i32::MAX)) {
        return Err(ControllerError::AssignmentIndexes);
    }
    Ok(i32::try_from(indexes.len()).unwrap_or(i32::MAX))
}

/// Checks the brokers that a client assigns to new partitions. `factor` is the number of replicas of the topic's other
/// partitions.
pub(crate) fn check_assignments<'a>(
    image: &MetadataImage,
    assignments: impl Iterator<Item = (i32, &'a [i32])>,
    mut factor: Option<usize>,
) -> Result<(), ControllerError> {
    for (partition, replicas) in assignments {
        check_replicas(image, replicas)?;
        let (found, expected) = (replicas.len(), *factor.get_or_insert(replicas.len()));
        if found != expected {
            return Err(ControllerError::AssignmentFactor { found, expected });
        }
        if !replicas.iter().any(|id| image.is_active(*id)) {
            return Err(ControllerError::AssignmentInactive(partition));
        }
    }
    Ok(())
}

/// Checks the brokers that a client assigns to one partition.
pub(crate) fn check_replicas(image: &MetadataImage, replicas: &[i32]) -> Result<(), ControllerError> {
    if replicas.is_empty() {
        return Err(ControllerError::AssignmentEmpty);
    }
    for (place, broker) in replicas.iter().enumerate() {
        if image.broker(*broker).is_none() {
            return Err(ControllerError::AssignmentUnknownBroker(*broker));
        }
        if replicas[..place].contains(broker) {
            return Err(ControllerError::AssignmentRepeatsBroker(*broker));
        }
    }
    Ok(())
}
