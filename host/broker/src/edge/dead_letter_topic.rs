//! The partition to which the dead letters of a partition are written.

use std::fmt::Display;

use millstream_wire::{ErrorCode, Str};

use super::context::{Edge, MetadataChanges};
use super::dead_letter_rules::{DeadLetterTopicError, check_stored};
use crate::error::ApiError;

/// A partition with dead letters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The topic whose stages made them. It may be a view.
    pub(super) sender: &'a str,
    /// The topic that stores the records.
    pub(super) source: &'a str,
    pub(super) partition: i32,
}

/// A partition that takes dead letters.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) topic: Str,
    pub(super) partition: i32,
    /// The most bytes of a batch.
    pub(super) batch_bytes_max: usize,
}

/// Returns the partition of the dead letter topic for a partition. It is always the same one, so that dead letters keep
/// their order. Creates the topic if it does not exist.
///
/// # Errors
/// The topic cannot be created, or can no longer take dead letters.
pub(super) async fn target(
    edge: &Edge,
    changes: &dyn MetadataChanges,
    name: Option<&Str>,
    origin: Origin<'_>,
) -> Result<Target, ApiError> {
    let Some(name) = name else { return Err(failed("stage.dead.letter.topic is not set")) };
    let is_missing = edge.topics.load().by_name(name).is_none();
    if is_missing {
        changes.ensure_dead_letter_topic(name, origin.source).await.map_err(|error| match error.code {
            ErrorCode::INVALID_CONFIG => failed(error),
            _ => error,
        })?;
    }
    // An older version may have stored configs that are rejected now.
    if name.as_str() == origin.source {
        return Err(failed(DeadLetterTopicError::Itself));
    }
    check_stored(&edge.config, &edge.metadata.image(), origin.sender, name).map_err(failed)?;
    let topics = edge.topics.load();
    let topic = topics.by_name(name).ok_or_else(ApiError::unknown_topic)?;
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX).max(1);
    let batch_bytes_max = usize::try_from(topic.config.stored_batch_bytes_max()).unwrap_or(usize::MAX);
    Ok(Target { topic: topic.name.clone(), partition: origin.partition % count, batch_bytes_max })
}

/// Returns the error for a batch that is rejected because one of its records cannot become a dead letter. Nothing is
/// lost.
pub(super) fn failed(problem: impl Display) -> ApiError {
    ApiError::new(ErrorCode::INVALID_RECORD, format!("a record cannot be kept as a dead letter: {problem}"))
}
