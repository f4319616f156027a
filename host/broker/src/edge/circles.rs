//! Rejects configs that would send records in a circle.
//!
//! Records flow from a topic to its views, and from a topic with stages to its dead letter topic. If a path of such
//! steps led back to its start, one record that a filter cannot read would make endless dead letters, only by reading.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use millstream_wire::ErrorCode;

use crate::config::TopicOverrides;
use crate::error::ApiError;
use millstream_metadata::MetadataImage;

/// The config that names a topic for dead letters.
const DEAD_LETTER_TOPIC: &str = "stage.dead.letter.topic";

/// The config that makes a topic a view.
const VIEW_OF: &str = "view.of";

/// One step of a record, from topic to topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    /// The second topic is a view of the first.
    View(&'a str, &'a str),
    /// The first topic sends its dead letters to the second.
    DeadLetters(&'a str, &'a str),
}

impl<'a> Step<'a> {
    fn target(self) -> &'a str {
        match self {
            Step::View(_, target) | Step::DeadLetters(_, target) => target,
        }
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::View(from, view) => write!(formatter, "{view} is a view of {from}"),
            Step::DeadLetters(from, to) => write!(formatter, "{from} sends its dead letters to {to}"),
        }
    }
}

/// Checks that with these configs no record returns to the topic.
///
/// # Errors
/// `INVALID_CONFIG` names the path.
pub(crate) fn check(image: &MetadataImage, name: &str, configs: &TopicOverrides) -> Result<(), ApiError> {
    if dead_letter_topic(configs).is_none() && source(configs).is_none() {
        // Every new circle contains a step that the configs of this topic make.
        return Ok(());
    }
    if dead_letter_topic(configs) == Some(name) {
        // The rules for dead letter topics have a better message for that.
        return Ok(());
    }
    let Some(circle) = circle(image, name, configs) else { return Ok(()) };
    let path: Vec<String> = circle.iter().map(ToString::to_string).collect();
    let message =
        format!("topic {name}: {VIEW_OF} and {DEAD_LETTER_TOPIC}: records would flow in a circle: {}", path.join(", "));
    Err(ApiError::new(ErrorCode::INVALID_CONFIG, message))
}

fn source(configs: &TopicOverrides) -> Option<&str> {
    configs.get(VIEW_OF).map(String::as_str).filter(|topic| !topic.is_empty())
}

/// Returns the topic to which configs send dead letters.
pub(super) fn dead_letter_topic(configs: &TopicOverrides) -> Option<&str> {
    configs.get(DEAD_LETTER_TOPIC).map(String::as_str).filter(|topic| !topic.is_empty())
}

/// Returns the shortest path from a topic back to itself.
fn circle<'a>(image: &'a MetadataImage, name: &'a str, configs: &'a TopicOverrides) -> Option<Vec<Step<'a>>> {
    let others = image.topics().filter(|topic| topic.name != name).map(|topic| (topic.name.as_str(), &topic.configs));
    let mut steps: HashMap<&str, Vec<Step<'_>>> = HashMap::new();
    for (topic, configs) in others.chain([(name, configs)]) {
        if let Some(from) = source(configs) {
            steps.entry(from).or_default().push(Step::View(from, topic));
        }
        if let Some(to) = dead_letter_topic(configs) {
            steps.entry(topic).or_default().push(Step::DeadLetters(topic, to));
        }
    }
    // A breadth-first search; `came_by` has the step by which each topic was first reached.
    let mut came_by: HashMap<&str, Step<'_>> = HashMap::new();
    let mut queue = VecDeque::from([name]);
    while let Some(topic) = queue.pop_front() {
        for &step in steps.get(topic).into_iter().flatten() {
            if step.target() == name {
                let mut path = vec![step];
                let mut at = topic;
                while at != name {
                    let before = came_by[at];
                    path.push(before);
                    at = match before {
                        Step::View(from, _) | Step::DeadLetters(from, _) => from,
                    };
                }
                path.reverse();
                return Some(path);
            }
            if !came_by.contains_key(step.target()) {
                came_by.insert(step.target(), step);
                queue.push_back(step.target());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_metadata::MetadataRecord;

    fn configs(pairs: &[(&str, &str)]) -> TopicOverrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn image(topics: &[(&str, &[(&str, &str)])]) -> MetadataImage {
        let mut image = MetadataImage::new(0);
        for (name, pairs) in topics {
            let (name, id, configs) = ((*name).to_owned(), uuid::Uuid::new_v4(), configs(pairs));
            let created = MetadataRecord::TopicCreated { name, id, partitions: 1, configs, replicas: Vec::new() };
            image.apply(&created).expect("created");
        }
        image
    }

    /// Returns the path of the circle that a topic with these configs would close.
    fn path(image: &MetadataImage, name: &str, pairs: &[(&str, &str)]) -> Option<String> {
        let error = check(image, name, &configs(pairs)).err()?;
        assert_eq!(error.code, ErrorCode::INVALID_CONFIG);
        let (_, path) = error.message.split_once("in a circle: ").expect("a path");
        Some(path.to_owned())
    }

    #[test]
    fn two_views_with_dead_letters_in_each_others_sources_form_a_circle() {
        let image = image(&[("a", &[]), ("b", &[]), ("va", &[(VIEW_OF, "a"), (DEAD_LETTER_TOPIC, "b")])]);
        assert_eq!(
            path(&image, "vb", &[(VIEW_OF, "b"), (DEAD_LETTER_TOPIC, "a")]).as_deref(),
            Some(
                "vb sends its dead letters to a, va is a view of a, va sends its dead letters to b, vb is a view of b"
            )
        );
        assert_eq!(path(&image, "vb", &[(VIEW_OF, "b"), (DEAD_LETTER_TOPIC, "c")]), None);
    }

    #[test]
    fn a_view_with_dead_letters_in_its_source_forms_a_circle() {
        let image = image(&[("a", &[]), ("v", &[(VIEW_OF, "a")])]);
        assert!(path(&image, "w", &[(VIEW_OF, "a"), (DEAD_LETTER_TOPIC, "a")]).is_some());
        // The records of a view of a view are in the source of the first one.
        let over = path(&image, "w", &[(VIEW_OF, "v"), (DEAD_LETTER_TOPIC, "a")]);
        assert_eq!(over.as_deref(), Some("w sends its dead letters to a, v is a view of a, w is a view of v"));
    }

    #[test]
    fn dead_letters_of_admission_are_part_of_circles() {
        let image = image(&[
            ("a", &[(DEAD_LETTER_TOPIC, "b")]),
            ("b", &[]),
            ("c", &[(DEAD_LETTER_TOPIC, "a")]),
            ("vb", &[(VIEW_OF, "b")]),
        ]);
        assert_eq!(
            path(&image, "vb", &[(VIEW_OF, "b"), (DEAD_LETTER_TOPIC, "c")]).as_deref(),
            Some(
                "vb sends its dead letters to c, c sends its dead letters to a, a sends its dead letters to b, vb is a \
                 view of b"
            )
        );
        assert!(path(&image, "b", &[(DEAD_LETTER_TOPIC, "a")]).is_some());
    }

    #[test]
    fn a_topic_may_close_a_circle_when_it_is_created() {
        let image = image(&[("a", &[]), ("va", &[(VIEW_OF, "a"), (DEAD_LETTER_TOPIC, "later")])]);
        assert!(path(&image, "later", &[(DEAD_LETTER_TOPIC, "a")]).is_some());
        assert_eq!(path(&image, "later", &[]), None);
    }

    #[test]
    fn a_change_that_breaks_the_circle_is_accepted() {
        let image = image(&[("a", &[(DEAD_LETTER_TOPIC, "b")]), ("b", &[(DEAD_LETTER_TOPIC, "a")])]);
        assert!(path(&image, "a", &[(DEAD_LETTER_TOPIC, "b"), ("retention.ms", "1")]).is_some());
        assert_eq!(path(&image, "a", &[]), None);
        assert_eq!(path(&image, "a", &[(DEAD_LETTER_TOPIC, "c")]), None);
    }

    #[test]
    fn chains_and_shared_dead_letter_topics_are_no_circles() {
        let image = image(&[
            ("a", &[(DEAD_LETTER_TOPIC, "dead")]),
            ("b", &[(DEAD_LETTER_TOPIC, "dead")]),
            ("va", &[(VIEW_OF, "a"), (DEAD_LETTER_TOPIC, "dead")]),
            ("dead", &[]),
        ]);
        assert_eq!(path(&image, "vd", &[(VIEW_OF, "dead"), (DEAD_LETTER_TOPIC, "deader")]), None);
    }
}
