//! Finds the uses of a plug-in's version: a version in use is not deleted.

use millstream_registry::format::Version;
use millstream_stage::{Source, StageSpec};

use crate::config::StageOptions;
use crate::edge::context::Edge;
use crate::edge::decoders::Leaving;
use crate::error::ApiError;

/// Why a version cannot be deleted.
#[derive(Debug, thiserror::Error)]
pub(super) enum UseError {
    /// A stage is pinned to it.
    #[error("{name}@{number} is used by {user}: change that first")]
    Pinned { name: String, number: u32, user: String },
    /// A stage follows the name, and no version would be left.
    #[error("plug-in {name} is used by {user}, and no version of it would be left: change that first")]
    Followed { name: String, user: String },
    /// A batch that it packed is about to be appended.
    #[error("{name}@{number} is packing a batch: retry later")]
    Packing { name: String, number: u32 },
    /// Stored batches need it to be read.
    #[error(
        "{name}@{number} is needed to read what topic {topic} holds: wait until retention has removed it, or delete \
         the topic"
    )]
    Needed { name: String, number: u32, topic: String },
    /// The stored batches cannot be searched.
    #[error("cannot find out whether stored batches need {name}@{number}: {error}")]
    Unknown { name: String, number: u32, error: ApiError },
}

/// Checks that no topic is pinned to a version.
///
/// # Errors
/// A topic is.
pub(super) fn check_unpinned(edge: &Edge, name: &str, version: &Version) -> Result<(), UseError> {
    let (number, own) = (version.number.to_string(), &version.version);
    // The library reads a pin in the same way: the number, or the leading numbers of the version's text.
    let is_meant =
        |pin: &str| pin == number || own.strip_prefix(pin).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let pinned = |source: &Source| match source {
        Source::Name { name: used, version: Some(pin) } => used == name && is_meant(pin),
        _ => false,
    };
    match user(edge, pinned) {
        None => Ok(()),
        Some(user) => Err(UseError::Pinned { name: name.to_owned(), number: version.number, user }),
    }
}

/// Checks that no batch needs a version, neither stored nor about to be appended. No batch can come to need it while
/// the returned guard lives. Blocks for the disk.
///
/// # Errors
/// A batch needs it.
pub(super) fn check_unneeded(edge: &Edge, name: &str, version: &Version) -> Result<Leaving, UseError> {
    let (name, number) = (name.to_owned(), version.number);
    let Some(leaving) = edge.decoders.leave(&version.digest) else {
        return Err(UseError::Packing { name, number });
    };
    match edge.needed_by(&version.digest) {
        Ok(None) => Ok(leaving),
        Ok(Some(topic)) => Err(UseError::Needed { name, number, topic }),
        Err(error) => Err(UseError::Unknown { name, number, error }),
    }
}

/// Checks that no topic follows a name without remaining versions.
///
/// # Errors
/// A topic does.
pub(super) fn check_unfollowed(edge: &Edge, name: &str) -> Result<(), UseError> {
    let follows = |source: &Source| matches!(source, Source::Name { name: used, .. } if used == name);
    match user(edge, follows) {
        None => Ok(()),
        Some(user) => Err(UseError::Followed { name: name.to_owned(), user }),
    }
}

/// Returns the first stage of a topic with such a plug-in, for example `topic orders, stage.admit`.
fn user(edge: &Edge, is_meant: impl Fn(&Source) -> bool) -> Option<String> {
    let table = edge.topics.load();
    let mut topics: Vec<_> = table.iter().collect();
    topics.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
    topics.into_iter().find_map(|topic| {
        let (key, _) = texts(&topic.config.stages).find(|(_, text)| {
            let chain = StageSpec::parse_chain(text).unwrap_or_default();
            chain.iter().any(|spec| is_meant(&spec.source))
        })?;
        Some(format!("topic {}, {key}", topic.name.as_str()))
    })
}

/// Returns the texts of a topic's stages, with the names of their configs.
fn texts(options: &StageOptions) -> impl Iterator<Item = (&'static str, &str)> {
    let texts = [
        ("stage.admit", &options.admit),
        ("stage.compressor", &options.compressor),
        ("stage.filter", &options.filter),
        ("stage.partitioner", &options.partitioner),
        ("stage.serializer", &options.serializer),
    ];
    texts.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)))
}
