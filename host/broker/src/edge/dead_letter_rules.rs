//! The rules for dead letter topics: such a topic stores records, keeps all of them, and has room for the largest.
//!
//! A change is checked from both sides: the dead letter topic that a topic names, and the topics that name it.

use millstream_metadata::controller::TopicDraft;
use millstream_metadata::{MetadataImage, TopicNameError, check_name};
use millstream_wire::ErrorCode;

use super::circles::dead_letter_topic;
use super::view::rules::Ways;
use crate::config::{BrokerConfig, TopicConfig, TopicOverrides, set_for_all};
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
    Name { name: String, error: TopicNameError },
    /// It is an internal topic of the broker.
    #[error("{0} belongs to the broker")]
    Internal(String),
    /// It is a view.
    #[error("{path}, and a view stores nothing: use different topics")]
    View { path: String },
    /// Compaction would remove dead letters.
    #[error(
        "{target} is compacted, and {sender} sends its dead letters to {target}: compaction would remove some, and \
         those without a key would be rejected: {remedy}"
    )]
    Compacted { target: String, sender: String, remedy: &'static str },
    /// Records of the source would not fit.
    #[error(
        "max.message.bytes of {target} is {limit}, and records of {sender} of up to {source_limit} bytes may become \
         dead letters: {remedy}"
    )]
    TooSmall { target: String, limit: i32, sender: String, source_limit: i32, remedy: &'static str },
}

/// Checks the dead letter topics that a change of a topic affects: its own, the topic itself if others send their dead
/// letters to it, and those of its views. `after` has the configs after the change.
///
/// # Errors
/// `INVALID_CONFIG` names the topics.
pub(crate) fn check(
    config: &BrokerConfig,
    image: &MetadataImage,
    draft: &TopicDraft<'_>,
    after: &TopicConfig,
) -> Result<(), ApiError> {
    let name = draft.name;
    let ways = Ways { image, changed: Some((name, draft.configs)) };
    let others = image.topics().filter(|topic| topic.name != name).map(|topic| (topic.name.as_str(), &topic.configs));
    for (sender, configs) in others.chain([(name, draft.configs)]) {
        let Some(target) = dead_letter_topic(configs) else { continue };
        let pair = Pair { config, ways, sender, target };
        let is_part = sender == name || target == name;
        let checked = match is_part {
            true => pair.check_kind(),
            false if ways.from(sender).contains(&name) => Ok(()),
            false => continue,
        };
        let checked = checked.and_then(|()| match changes_storage(config, image, draft, after) {
            true if is_part => pair.check_compaction().and_then(|()| pair.check_size()),
            true => pair.check_size(),
            false => Ok(()),
        });
        checked.map_err(|error| {
            let option = if sender == name { "stage.dead.letter.topic: " } else { "" };
            ApiError::new(ErrorCode::INVALID_CONFIG, format!("topic {name}: {option}{error}"))
        })?;
    }
    Ok(())
}

/// Checks that the metadata still allow a topic to send its dead letters to another one.
///
/// # Errors
/// The other topic cannot take them. Configs that an older version accepted can be the reason.
pub(super) fn check_stored(
    config: &BrokerConfig,
    image: &MetadataImage,
    sender: &str,
    target: &str,
) -> Result<(), DeadLetterTopicError> {
    Pair { config, ways: Ways { image, changed: None }, sender, target }.check_kind()
}

/// Returns whether a change affects the size of records, or where they are stored. Other changes are accepted even if
/// an older version stored configs that do not fit together.
fn changes_storage(config: &BrokerConfig, image: &MetadataImage, draft: &TopicDraft<'_>, after: &TopicConfig) -> bool {
    let Some(Ok(before)) = draft.before.map(|before| config.topic_config(&set_for_all(image), before)) else {
        return true;
    };
    before.max_message_bytes != after.max_message_bytes
        || before.compact != after.compact
        || before.view_of != after.view_of
        || before.stages.dead_letter_topic != after.stages.dead_letter_topic
}

/// A topic that sends its dead letters to another one.
struct Pair<'a> {
    config: &'a BrokerConfig,
    ways: Ways<'a>,
    sender: &'a str,
    target: &'a str,
}

impl Pair<'_> {
    fn check_kind(&self) -> Result<(), DeadLetterTopicError> {
        let Self { ways, sender, target, .. } = *self;
        if target == sender {
            return Err(DeadLetterTopicError::Itself);
        }
        check_name(target).map_err(|error| DeadLetterTopicError::Name { name: target.to_owned(), error })?;
        if is_internal(target) {
            return Err(DeadLetterTopicError::Internal(target.to_owned()));
        }
        let way = ways.from(target);
        if way.len() > 1 {
            let views = way.windows(2).map(|step| format!(", {} is a view of {}", step[0], step[1]));
            let path = format!("{sender} sends its dead letters to {target}{}", views.collect::<String>());
            return Err(DeadLetterTopicError::View { path });
        }
        Ok(())
    }

    fn check_compaction(&self) -> Result<(), DeadLetterTopicError> {
        let (compact, remedy) = match self.stored(self.target) {
            Some(config) => (config.compact, "set cleanup.policy=delete"),
            None => (self.defaults().compact, "create the topic first, with cleanup.policy=delete"),
        };
        if compact {
            let (target, sender) = (self.target.to_owned(), self.sender.to_owned());
            return Err(DeadLetterTopicError::Compacted { target, sender, remedy });
        }
        Ok(())
    }

    /// Checks that every record fits. The log leaves room for the headers; see
    /// [`TopicConfig::DEAD_LETTER_OVERHEAD_MAX`].
    fn check_size(&self) -> Result<(), DeadLetterTopicError> {
        // The records of a view are in the last topic on its path.
        let Some(source) = self.ways.from(self.sender).last().and_then(|source| self.stored(source)) else {
            return Ok(());
        };
        let source_limit = source.max_message_bytes;
        let (limit, remedy) = match self.stored(self.target) {
            Some(config) => (config.max_message_bytes, "raise it"),
            None => (self.defaults().max_message_bytes, "create the topic first, with a higher value"),
        };
        if limit < source_limit {
            let (target, sender) = (self.target.to_owned(), self.sender.to_owned());
            return Err(DeadLetterTopicError::TooSmall { target, limit, sender, source_limit, remedy });
        }
        Ok(())
    }

    /// Returns the configs of a topic, if it exists.
    fn stored(&self, topic: &str) -> Option<TopicConfig> {
        self.config.topic_config(&set_for_all(self.ways.image), self.ways.options(topic)?).ok()
    }

    /// Returns the configs of a topic that is created without any.
    fn defaults(&self) -> TopicConfig {
        let defaults = self.config.topic_config(&set_for_all(self.ways.image), &TopicOverrides::new());
        defaults.unwrap_or_else(|_| self.config.topic_defaults.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;
    use millstream_metadata::MetadataRecord;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    const VIEW_OF: &str = "view.of";
    const DEAD_LETTER_TOPIC: &str = "stage.dead.letter.topic";
    const MAX_BYTES: &str = "max.message.bytes";

    fn configs(pairs: Pairs<'_>) -> TopicOverrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Returns the error for a topic with these configs beside the stored `topics`; an empty text for none.
    fn error(topics: &[(&str, Pairs<'_>)], name: &str, pairs: Pairs<'_>) -> String {
        let mut image = MetadataImage::new(0);
        for (name, pairs) in topics {
            let (name, id, configs) = ((*name).to_owned(), uuid::Uuid::new_v4(), configs(pairs));
            let created = MetadataRecord::TopicCreated { name, id, partitions: 1, configs, replicas: Vec::new() };
            image.apply(&created).expect("created");
        }
        let config = RawConfig::default().check().expect("valid defaults");
        let configs = configs(pairs);
        let before = image.topic(name).map(|topic| &topic.configs);
        let after = config.topic_config(&|_| None, &configs).expect("valid configs");
        let draft = TopicDraft { name, partitions: 1, before, configs: &configs };
        match check(&config, &image, &draft, &after) {
            Ok(()) => String::new(),
            Err(error) => {
                assert_eq!(error.code, ErrorCode::INVALID_CONFIG);
                error.message
            }
        }
    }

    #[test]
    fn a_dead_letter_topic_is_no_view_whichever_is_made_last() {
        let sender: Pairs<'_> = &[(VIEW_OF, "a"), (DEAD_LETTER_TOPIC, "dead")];
        let path = |view: &str| format!("v sends its dead letters to dead, dead is a view of {view}");
        for (source, view) in [("a", [(VIEW_OF, "a")]), ("v", [(VIEW_OF, "v")]), ("b", [(VIEW_OF, "b")])] {
            let made = error(&[("a", &[]), ("b", &[]), ("v", sender)], "dead", &view);
            assert!(made.starts_with("topic dead: ") && made.contains(&path(source)), "{made}");
            let altered = error(&[("a", &[]), ("b", &[]), ("dead", &[]), ("v", sender)], "dead", &view);
            assert_eq!(altered, made);
            let named = error(&[("a", &[]), ("b", &[]), ("dead", &view)], "v", sender);
            assert!(
                named.starts_with("topic v: stage.dead.letter.topic: ") && named.contains(&path(source)),
                "{named}"
            );
        }
        let admission: Pairs<'_> = &[(DEAD_LETTER_TOPIC, "dead")];
        let made = error(&[("a", admission)], "dead", &[(VIEW_OF, "a")]);
        assert!(made.contains("a sends its dead letters to dead, dead is a view of a"), "{made}");
        assert_eq!(error(&[("a", &[]), ("v", sender)], "dead", &[]), "");
        assert_eq!(error(&[("a", &[]), ("v", sender), ("dead", &[])], "dead-view", &[(VIEW_OF, "dead")]), "");
    }

    #[test]
    fn names_that_cannot_take_dead_letters_are_rejected() {
        let named = |target| error(&[("a", &[])], "a", &[(DEAD_LETTER_TOPIC, target)]);
        assert!(named("a").contains("it names the topic itself"));
        assert!(named("a/b").contains("is not a topic name"));
        assert!(named("__consumer_offsets").contains("belongs to the broker"));
        assert_eq!(named(""), "");
    }

    #[test]
    fn a_dead_letter_topic_has_room_for_every_record() {
        let sender: Pairs<'_> = &[(DEAD_LETTER_TOPIC, "dead")];
        let problem =
            "max.message.bytes of dead is 1000, and records of a of up to 1048588 bytes may become dead letters";
        let small: Pairs<'_> = &[(MAX_BYTES, "1000")];
        for (topics, name, pairs) in [
            (vec![("dead", small)], "a", sender),
            (vec![("a", sender)], "dead", small),
            (vec![("a", sender), ("dead", &[])], "dead", small),
        ] {
            let message = error(&topics, name, pairs);
            assert!(message.contains(problem), "{name}: {message}");
        }
        let large: Pairs<'_> = &[(DEAD_LETTER_TOPIC, "dead"), (MAX_BYTES, "2000000")];
        let message = error(&[("a", sender), ("dead", &[])], "a", large);
        assert!(message.contains("of dead is 1048588, and records of a of up to 2000000"), "{message}");
        assert!(error(&[], "a", large).contains("create the topic first"));
        assert!(error(&[("a", large)], "dead", &[]).contains("raise it"));
        assert_eq!(error(&[("a", large)], "dead", &[(MAX_BYTES, "2000000")]), "");
    }

    #[test]
    fn the_records_of_a_view_are_as_large_as_those_of_its_source() {
        let view: Pairs<'_> = &[(VIEW_OF, "v")];
        let over: Pairs<'_> = &[(VIEW_OF, "v"), (DEAD_LETTER_TOPIC, "dead")];
        let topics = [("a", &[] as Pairs<'_>), ("v", &[(VIEW_OF, "a")]), ("w", over), ("dead", &[])];
        let message = error(&topics, "a", &[(MAX_BYTES, "2000000")]);
        assert!(message.starts_with("topic a: max.message.bytes of dead is 1048588, and records of w"), "{message}");
        assert_eq!(error(&topics, "a", &[(MAX_BYTES, "1000")]), "");
        assert_eq!(error(&topics, "x", view), "");
        assert!(error(&topics, "dead", &[(MAX_BYTES, "1000")]).contains("records of w of up to 1048588"));
    }

    #[test]
    fn a_dead_letter_topic_is_not_compacted() {
        let sender: Pairs<'_> = &[(DEAD_LETTER_TOPIC, "dead")];
        for policy in ["compact", "compact,delete"] {
            let compacted: Pairs<'_> = &[("cleanup.policy", policy)];
            for (topics, name, pairs) in [
                (vec![("dead", compacted)], "a", sender),
                (vec![("a", sender)], "dead", compacted),
                (vec![("a", sender), ("dead", &[])], "dead", compacted),
            ] {
                assert!(error(&topics, name, pairs).contains("dead is compacted, and a sends"), "{name}");
            }
        }
    }

    #[test]
    fn stored_configs_that_do_not_fit_allow_other_changes() {
        let sender: Pairs<'_> = &[(DEAD_LETTER_TOPIC, "dead")];
        let dead: Pairs<'_> = &[(MAX_BYTES, "1000"), ("cleanup.policy", "compact")];
        let topics = [("a", sender), ("dead", dead)];
        assert_eq!(error(&topics, "a", &[(DEAD_LETTER_TOPIC, "dead"), ("retention.ms", "1")]), "");
        assert_eq!(error(&topics, "dead", &[dead, &[("retention.ms", "1")]].concat()), "");
        assert_eq!(error(&topics, "a", &[]), "");
        assert_ne!(error(&topics, "dead", &[("cleanup.policy", "compact")]), "");
        // A view that is a dead letter topic can only be deleted, or the name of the dead letter topic changed.
        let topics = [("a", &[(DEAD_LETTER_TOPIC, "v")] as Pairs<'_>), ("v", &[(VIEW_OF, "a")])];
        assert_eq!(error(&topics, "a", sender), "");
        assert_eq!(error(&topics, "other", &[(VIEW_OF, "a")]), "");
    }
}
