//! The dead letter topic of another topic: the rules for it, and the partition to write to.

use std::fmt::Display;
use std::sync::Arc;

use millstream_metadata::check_name;
use millstream_partition::Partition;
use millstream_stage::spec::CHAIN_MAX;
use millstream_wire::{ErrorCode, Str};

use super::context::{Edge, MetadataChanges};
use crate::config::TopicConfig;
use crate::error::ApiError;
use crate::topics::is_internal;

/// Why a topic cannot take the dead letters of another one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeadLetterTopicError {
    /// It is the topic itself.
    #[error("it names the topic itself")]
    Itself,
    /// The name is not a valid topic name.
    #[error("{name:?} is not a topic name: {error}")]
    Name { name: String, error: ApiError },
    /// It is an internal topic of the broker.
    #[error("{0} belongs to the broker")]
    Internal(String),
    /// It is a view, which stores nothing.
    #[error("{0} is a view, which stores nothing")]
    View(String),
    /// Records of the source would not fit.
    #[error(
        "max.message.bytes of {topic} is {limit}, and records of up to {source_limit} bytes may become dead letters: \
         {remedy}"
    )]
    TooSmall { topic: String, limit: i32, source_limit: i32, remedy: &'static str },
}

/// Checks that a topic's dead letters may go to another one.
///
/// # Errors
/// The other topic cannot take them.
pub(crate) fn check_topic(edge: &Edge, source: &str, target: &str) -> Result<(), DeadLetterTopicError> {
    if target == source {
        return Err(DeadLetterTopicError::Itself);
    }
    check_name(target).map_err(|error| DeadLetterTopicError::Name { name: target.to_owned(), error: error.into() })?;
    if is_internal(target) {
        return Err(DeadLetterTopicError::Internal(target.to_owned()));
    }
    match edge.metadata.image().topic(target) {
        Some(topic) if topic.configs.contains_key("view.of") => Err(DeadLetterTopicError::View(target.to_owned())),
        _ => Ok(()),
    }
}

/// Checks that every record of a topic with these configs fits into its dead letter topic. The log leaves room for the
/// headers; see [`TopicConfig::DEAD_LETTER_OVERHEAD_MAX`].
///
/// # Errors
/// `max.message.bytes` of the dead letter topic is too low.
pub(crate) fn check_size(edge: &Edge, config: &TopicConfig, target: &str) -> Result<(), DeadLetterTopicError> {
    let image = edge.metadata.image();
    let limit_of = |topic: &str| {
        let configs = image.topic(topic).and_then(|topic| edge.config.topic_config(&topic.configs).ok());
        configs.map(|config| config.max_message_bytes)
    };
    // The records of a view are in the first topic on its path that is not a view.
    let mut stored_in = config.view_of.clone();
    for _ in 0..CHAIN_MAX {
        let next = stored_in.as_deref().and_then(|of| image.topic(of)).and_then(|of| of.configs.get("view.of"));
        match next {
            Some(of) => stored_in = Some(of.clone()),
            None => break,
        }
    }
    let source_limit = stored_in.as_deref().and_then(limit_of).unwrap_or(config.max_message_bytes);
    let (limit, remedy) = match limit_of(target) {
        Some(limit) => (limit, "raise it"),
        None => (edge.config.topic_defaults.max_message_bytes, "create the topic first, with a higher value"),
    };
    if limit < source_limit {
        return Err(DeadLetterTopicError::TooSmall { topic: target.to_owned(), limit, source_limit, remedy });
    }
    Ok(())
}

/// Returns the partition of the dead letter topic for a source partition. It is always the same one, so that dead
/// letters keep their order. Creates the topic if it does not exist.
///
/// # Errors
/// The topic cannot be created, or can no longer take dead letters.
pub(super) async fn target(
    edge: &Edge,
    changes: &dyn MetadataChanges,
    name: Option<&Str>,
    source: &str,
    partition: i32,
) -> Result<Arc<Partition>, ApiError> {
    let Some(name) = name else { return Err(failed("stage.dead.letter.topic is not set")) };
    let is_missing = edge.topics.load().by_name(name).is_none();
    if is_missing {
        changes.ensure_topic(name).await?;
    }
    // The topic may have changed so that the configs would be rejected now.
    check_topic(edge, source, name).map_err(failed)?;
    let topics = edge.topics.load();
    let topic = topics.by_name(name).ok_or_else(ApiError::unknown_topic)?;
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX).max(1);
    topic.partition(partition % count).cloned().ok_or_else(ApiError::unknown_topic)
}

/// Returns the error for a batch that is rejected because one of its records cannot become a dead letter. Nothing is
/// lost.
pub(super) fn failed(problem: impl Display) -> ApiError {
    ApiError::new(ErrorCode::INVALID_RECORD, format!("a record cannot be kept as a dead letter: {problem}"))
}
