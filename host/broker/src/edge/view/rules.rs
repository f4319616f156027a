//! The rules for views: read-only topics that show what filters keep of another topic.
//!
//! A view has exactly the partitions of its source. Offsets, lookups by time, waiting fetches and the high watermark
//! are therefore those of the source. It has no folder and no log. The config `view.of` makes a topic a view;
//! everything else follows from that at each start and at each change.

use millstream_stage::StageSpec;
use millstream_stage::spec::CHAIN_MAX;
use millstream_wire::ErrorCode;

use crate::config::TopicOverrides;
use crate::edge::circles;
use crate::error::ApiError;
use crate::topics::is_internal;
use millstream_metadata::{MetadataImage, source_of};

/// The config that makes a topic a view.
pub(crate) const VIEW_OF: &str = "view.of";

/// The config with its filters.
const FILTER: &str = "stage.filter";

const DEAD_LETTER_TOPIC: &str = "stage.dead.letter.topic";

/// The configs that apply to a topic without storage that takes no records.
const OPTIONS: [&str; 5] = [VIEW_OF, FILTER, "stage.filter.failure.policy", DEAD_LETTER_TOPIC, "stage.serializer"];

/// Rejects the deletion of a topic that has views.
pub(crate) fn check_deletion(image: &MetadataImage, name: &str) -> Result<(), ApiError> {
    let views: Vec<&str> = image.views_of(name).map(|view| view.name.as_str()).collect();
    if views.is_empty() {
        return Ok(());
    }
    let message =
        format!("Topic {name} is the source of the view {}: delete the view first.", views.join(", the view "));
    Err(ApiError::new(ErrorCode::INVALID_REQUEST, message))
}

/// Checks the configs of a topic: whether it can be a view with them, and whether its records would flow in a circle.
/// `before` has the configs of an existing topic.
///
/// # Errors
/// The error names the config, and what to do.
pub(crate) fn check(
    image: &MetadataImage,
    name: &str,
    partitions: i32,
    before: Option<&TopicOverrides>,
    options: &TopicOverrides,
) -> Result<(), ApiError> {
    check_view(image, name, partitions, before, options)?;
    circles::check(image, name, options)
}

fn check_view(
    image: &MetadataImage,
    name: &str,
    partitions: i32,
    before: Option<&TopicOverrides>,
    options: &TopicOverrides,
) -> Result<(), ApiError> {
    let refused = |code, problem: String| Err(ApiError::new(code, format!("topic {name}: {problem}")));
    let was = before.and_then(source_of);
    let of = match (was, source_of(options)) {
        (None, None) => return Ok(()),
        (Some(was), of) if of != Some(was) => {
            let problem =
                format!("it is a view of {was} for as long as it lives: delete it instead of changing view.of");
            return refused(ErrorCode::INVALID_CONFIG, problem);
        }
        (_, of) => of.unwrap_or_default(),
    };
    if let Some(option) = options.keys().find(|option| !OPTIONS.contains(&option.as_str())) {
        let problem = format!(
            "{option} has no meaning for a view, which has no storage of its own and takes no records: set it on {of}, \
             and take it off here"
        );
        return refused(ErrorCode::INVALID_CONFIG, problem);
    }
    if let Some(internal) = [of, name].into_iter().find(|name| is_internal(name)) {
        return refused(
            ErrorCode::INVALID_CONFIG,
            format!("{internal} belongs to the broker: it has no views and is none"),
        );
    }
    let ways = Ways { image, changed: Some((name, options)) };
    ways.check(name)?;
    let Some(source) = image.topic(of) else {
        return refused(ErrorCode::INVALID_CONFIG, format!("view.of={of}: there is no such topic"));
    };
    if partitions != source.partition_count() {
        let problem = format!(
            "a view has the partitions of its source: {of} has {}, and here it would be {partitions}",
            source.partition_count()
        );
        return refused(ErrorCode::INVALID_PARTITIONS, problem);
    }
    image.views_of(name).try_for_each(|view| ways.check(&view.name))
}

/// The paths from views to records, as they are or as they would be with one topic changed.
#[derive(Clone, Copy)]
pub(in crate::edge) struct Ways<'a> {
    pub(in crate::edge) image: &'a MetadataImage,
    pub(in crate::edge) changed: Option<(&'a str, &'a TopicOverrides)>,
}

impl<'a> Ways<'a> {
    /// Returns the configs of a topic, if it exists.
    pub(in crate::edge) fn options(&self, topic: &str) -> Option<&'a TopicOverrides> {
        match self.changed {
            Some((changed, options)) if changed == topic => Some(options),
            _ => self.image.topic(topic).map(|topic| &topic.configs),
        }
    }

    /// Returns a topic, its source, the source of that and so on. A repeated name is the last.
    pub(in crate::edge) fn from(&self, topic: &'a str) -> Vec<&'a str> {
        let mut way = vec![topic];
        let mut last = topic;
        while let Some(of) = self.options(last).and_then(source_of) {
            let again = way.contains(&of);
            way.push(of);
            if again {
                break;
            }
            last = of;
        }
        way
    }

    /// Rejects a path in a circle, or one with too many filters.
    fn check(&self, topic: &'a str) -> Result<(), ApiError> {
        let way = self.from(topic);
        let refused = |problem: &str| {
            let message = format!("topic {topic}: {problem}: {}", way.join(" is a view of "));
            Err(ApiError::new(ErrorCode::INVALID_CONFIG, message))
        };
        let end = way.last();
        if way.iter().filter(|name| Some(*name) == end).count() > 1 {
            return refused("a view cannot show itself");
        }
        let chain = |name: &&str| self.options(name)?.get(FILTER).and_then(|text| StageSpec::parse_chain(text).ok());
        let stages: usize = way.iter().filter_map(chain).map(|chain| chain.len()).sum();
        if stages > CHAIN_MAX {
            return refused(&format!("its records would pass {stages} filters, and {CHAIN_MAX} is the most"));
        }
        if way.len() > CHAIN_MAX + 1 {
            return refused(&format!("{CHAIN_MAX} views on the way to the records are the most"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_metadata::MetadataRecord;

    fn options(pairs: &[(&str, &str)]) -> TopicOverrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn image(topics: &[(&str, &[(&str, &str)])]) -> MetadataImage {
        let mut image = MetadataImage::new(0);
        for (name, configs) in topics {
            let (name, id) = ((*name).to_owned(), uuid::Uuid::new_v4());
            let configs = options(configs);
            let created = MetadataRecord::TopicCreated { name, id, partitions: 3, configs, replicas: Vec::new() };
            image.apply(&created).expect("created");
        }
        image
    }

    fn refusal(image: &MetadataImage, name: &str, pairs: &[(&str, &str)]) -> String {
        let before = image.topic(name).map(|topic| &topic.configs);
        check(image, name, 3, before, &options(pairs)).expect_err("refused").message
    }

    #[test]
    fn invalid_views_are_rejected() {
        let image = image(&[("a", &[]), ("b", &[(VIEW_OF, "a")]), ("c", &[(VIEW_OF, "b"), (FILTER, "x | y | z")])]);
        assert!(refusal(&image, "v", &[(VIEW_OF, "none")]).contains("view.of=none: there is no such topic"));
        assert!(refusal(&image, "v", &[(VIEW_OF, "v")]).contains("cannot show itself: v is a view of v"));
        assert!(refusal(&image, "a", &[(VIEW_OF, "c")]).contains("a is a view of c is a view of b is a view of a"));
        assert!(refusal(&image, "b", &[]).contains("it is a view of a"));
        assert!(refusal(&image, "b", &[(VIEW_OF, "c")]).contains("it is a view of a"));
        assert!(refusal(&image, "v", &[(VIEW_OF, "__consumer_offsets")]).contains("belongs to the broker"));
        assert!(refusal(&image, "v", &[(VIEW_OF, "a"), ("retention.ms", "1")]).contains("retention.ms has no meaning"));
        let five = "a | b | c | d | e";
        assert!(check(&image, "v", 3, None, &options(&[(VIEW_OF, "c"), (FILTER, five)])).is_ok());
        assert!(refusal(&image, "v", &[(VIEW_OF, "c"), (FILTER, "a | b | c | d | e | f")]).contains("9 filters"));
        // Existing views count too.
        let six = [(VIEW_OF, "a"), (FILTER, "a | b | c | d | e | f")];
        assert!(refusal(&image, "b", &six).contains("c is a view of b is a view of a"));
        let other = check(&image, "v", 2, None, &options(&[(VIEW_OF, "a")])).expect_err("refused");
        assert_eq!(other.code, ErrorCode::INVALID_PARTITIONS);
    }

    #[test]
    fn a_source_is_not_deleted_while_it_has_views() {
        let image = image(&[("a", &[]), ("b", &[(VIEW_OF, "a")]), ("c", &[(VIEW_OF, "b")]), ("d", &[])]);
        assert!(check_deletion(&image, "a").expect_err("refused").message.contains("the view b, the view c"));
        assert!(check_deletion(&image, "c").is_ok());
    }
}
