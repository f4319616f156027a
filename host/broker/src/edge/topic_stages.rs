//! The stages of a topic: the texts of its configs, turned into live stages that follow their plug-ins.

use std::sync::Arc;

use millstream_stage::{Kind, Library, Stage};
use millstream_wire::{ErrorCode, Str};

use super::context::Edge;
use super::inline_policy::Pace;
use crate::compute_permits::ComputePermits;
use crate::config::{FailurePolicy, TopicConfig};
use crate::error::ApiError;
use crate::topics::is_internal;

/// The stages of one topic.
#[derive(Debug)]
pub(crate) struct ActiveStages {
    /// In the order of the chain.
    pub(crate) admit: Vec<Arc<Stage>>,
    pub(crate) admit_policy: FailurePolicy,
    pub(crate) compressor: Option<Arc<Stage>>,
    pub(crate) compressor_policy: FailurePolicy,
    pub(crate) filter: Vec<Arc<Stage>>,
    pub(crate) filter_policy: FailurePolicy,
    pub(crate) dead_letter_topic: Option<Str>,
    /// The permits for produced batches.
    pub(crate) permits: ComputePermits,
    /// The measured speed of the filters of `admit`.
    pub(crate) pace: Pace,
}

impl ActiveStages {
    /// Returns whether a stage processes produced batches.
    pub(crate) fn see_produce(&self) -> bool {
        !self.admit.is_empty() || self.compressor.is_some()
    }
}

/// The stages of a topic, if they could be started.
#[derive(Debug, Clone)]
pub(crate) enum TopicStages {
    /// The topic has no stages that the broker runs.
    None,
    /// They run.
    Ready(Arc<ActiveStages>),
    /// They cannot be started. The topic is out of service: a filter that is missing must not let every record through.
    Broken(ApiError),
}

/// Makes the stages of a topic's configs. Blocks, since a plug-in may have to be compiled.
///
/// # Errors
/// `INVALID_CONFIG` names the config and what is wrong with it.
pub(crate) fn attach(edge: &Edge, topic: &str, config: &TopicConfig) -> Result<TopicStages, ApiError> {
    let options = &config.stages;
    check(topic, config)?;
    let is_plain = [&options.admit, &options.compressor, &options.filter, &options.partitioner, &options.serializer]
        .iter()
        .all(|text| text.is_none());
    if is_plain {
        return Ok(TopicStages::None);
    }
    let library = edge.plugins.library()?;
    let chain = |key: &str, text: &Option<String>, kind| resolve(&library, topic, key, text.as_deref(), kind);
    // Stages of applications do not run here: this only checks that they can be made.
    single(topic, "stage.partitioner", chain("stage.partitioner", &options.partitioner, Kind::Partitioner)?)?;
    single(topic, "stage.serializer", chain("stage.serializer", &options.serializer, Kind::Serializer)?)?;
    let compressor = chain("stage.compressor", &options.compressor, Kind::Compressor)?;
    let stages = ActiveStages {
        admit: chain("stage.admit", &options.admit, Kind::Filter)?,
        admit_policy: options.admit_policy,
        compressor: single(topic, "stage.compressor", compressor)?,
        compressor_policy: options.compressor_policy,
        filter: chain("stage.filter", &options.filter, Kind::Filter)?,
        filter_policy: options.filter_policy,
        dead_letter_topic: options.dead_letter_topic.as_deref().map(Str::from),
        permits: ComputePermits::new(),
        pace: Pace::new(),
    };
    let runs = stages.see_produce() || !stages.filter.is_empty();
    Ok(if runs { TopicStages::Ready(Arc::new(stages)) } else { TopicStages::None })
}

/// Checks for configs that contradict each other.
fn check(topic: &str, config: &TopicConfig) -> Result<(), ApiError> {
    let options = &config.stages;
    if options.filter.is_some() && config.view_of.is_none() {
        let message = "stage.filter is for views: set view.of as well, or use stage.admit to reject records";
        return Err(refused(topic, message));
    }
    let uses_dead_letters = [("admit", options.admit_policy), ("filter", options.filter_policy)];
    for (stage, policy) in uses_dead_letters {
        if policy == FailurePolicy::DeadLetter && options.dead_letter_topic.is_none() {
            let message = format!("stage.{stage}.failure.policy=dead-letter needs stage.dead.letter.topic");
            return Err(refused(topic, &message));
        }
    }
    if is_internal(topic) && (options.admit.is_some() || options.compressor.is_some()) {
        return Err(refused(topic, "it belongs to the broker, and stages do not see what is written to it"));
    }
    Ok(())
}

fn resolve(
    library: &Library,
    topic: &str,
    key: &str,
    text: Option<&str>,
    kind: Kind,
) -> Result<Vec<Arc<Stage>>, ApiError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let attachment = format!("topic {topic}, {key}");
    library.resolve_chain_for(&attachment, text, kind).map_err(|error| refused(topic, &format!("{key}: {error}")))
}

/// Returns the only stage of a config that does not allow a chain.
fn single(topic: &str, key: &str, mut chain: Vec<Arc<Stage>>) -> Result<Option<Arc<Stage>>, ApiError> {
    match chain.len() {
        0 | 1 => Ok(chain.pop()),
        _ => Err(refused(topic, &format!("{key} takes one stage, not a chain"))),
    }
}

fn refused(topic: &str, problem: &str) -> ApiError {
    ApiError::new(ErrorCode::INVALID_CONFIG, format!("topic {topic}: {problem}"))
}
