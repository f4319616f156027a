//! Growing topics.

use super::placement::place;
use super::topics::{at_level, check_assignments};
use super::{ControllerError, PARTITIONS_PER_REQUEST_MAX, TopicRules};
use crate::{MetadataImage, MetadataRecord};

/// Grows a topic and its views to `count` partitions.
pub(crate) fn add<R: TopicRules>(
    image: &MetadataImage,
    name: &str,
    count: i32,
    assignments: Option<&[Vec<i32>]>,
    rules: &R,
) -> Result<Vec<MetadataRecord>, R::Error> {
    let topic = image.topic(name).ok_or(ControllerError::UnknownTopic)?;
    if let Some(source) = topic.view_of() {
        let (name, source_topic) = (name.to_owned(), source.to_owned());
        return Err(ControllerError::PartitionsOfView { name, source_topic }.into());
    }
    let before = topic.partition_count();
    if count == before {
        return Err(ControllerError::SamePartitions(count).into());
    }
    if count < before {
        return Err(ControllerError::FewerPartitions { name: name.to_owned(), count: before, asked: count }.into());
    }
    let added = (count - before).unsigned_abs() as usize;
    if added > PARTITIONS_PER_REQUEST_MAX {
        return Err(ControllerError::TooManyPartitions(added).into());
    }
    let replicas = match assignments {
        Some(assignments) => {
            if assignments.len() != added {
                return Err(ControllerError::AssignmentCount { added, given: assignments.len() }.into());
            }
            let factor = topic.partitions.first().map(|partition| partition.replicas.len());
            check_assignments(image, (before..).zip(assignments.iter().map(Vec::as_slice)), factor)?;
            assignments.to_vec()
        }
        None => {
            let factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
            place(image, topic.id, before..count, factor)?
        }
    };
    rules.check_partitions(name, count)?;
    let replicas = at_level(image, replicas);
    let grown = image.views_of(name).map(|view| view.id).chain([topic.id]);
    let added = |id| MetadataRecord::PartitionsAdded { id, partitions: count, replicas: replicas.clone() };
    Ok(grown.map(added).collect())
}
