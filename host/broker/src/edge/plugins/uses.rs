//! Who needs a version of a plug-in: what somebody needs is not deleted.

use millstream_registry::format::Version;
use millstream_stage::{Source, StageSpec};

use crate::broker::Broker;
use crate::config::StageOptions;
use crate::edge::{Decoders, Leaving};

/// Makes sure that no topic is pinned to a version.
///
/// # Errors
/// Which one is, and what to do.
pub(super) fn check_unpinned(broker: &Broker, name: &str, version: &Version) -> Result<(), String> {
    let (number, own) = (version.number.to_string(), &version.version);
    // As the library reads a pin: the number, or the leading numbers of the version's own text.
    let is_meant =
        |pin: &str| pin == number || own.strip_prefix(pin).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let pinned = |source: &Source| matches!(source, Source::Name { name: used, version: Some(pin) } if used == name && is_meant(pin));
    match user(broker, pinned) {
        None => Ok(()),
        Some(user) => Err(format!("{name}@{number} is used by {user}: change that first")),
    }
}

/// Makes sure that no stored data needs a version to be read, and none on its way to a log; nothing comes to need it while the
/// answer lives. Blocks for the disk.
///
/// # Errors
/// Who needs it, and what to do.
pub(super) fn check_unneeded<'b>(broker: &'b Broker, name: &str, version: &Version) -> Result<Leaving<'b>, String> {
    let number = version.number;
    let leaving = broker.decoders.leave(&version.digest);
    let leaving = leaving.ok_or_else(|| format!("{name}@{number} is at work on a batch: try again"))?;
    match Decoders::needed_by(broker, &version.digest) {
        Ok(None) => Ok(leaving),
        Ok(Some(topic)) => Err(format!(
            "{name}@{number} is needed to read what topic {topic} holds: wait until retention has removed it, or delete the topic"
        )),
        Err(error) => Err(format!("cannot tell whether {name}@{number} is needed to read what is stored: {error}")),
    }
}

/// Makes sure that no topic follows a name of which nothing would serve.
///
/// # Errors
/// Who follows it, and what to do.
pub(super) fn check_unfollowed(broker: &Broker, name: &str) -> Result<(), String> {
    let follows = |source: &Source| matches!(source, Source::Name { name: used, .. } if used == name);
    match user(broker, follows) {
        None => Ok(()),
        Some(user) => Err(format!(
            "plug-in {name} is used by {user}, and without it nothing would serve there: change that first"
        )),
    }
}

/// The first stage of a topic that is made of such a plug-in: `topic orders, stage.admit`.
fn user(broker: &Broker, is_meant: impl Fn(&Source) -> bool) -> Option<String> {
    let table = broker.topics.load();
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

/// The stages of a topic as they are written, with the keys of their options.
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
