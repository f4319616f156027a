//! One configuration option as a row of a table, and the look-up over all tables.

use super::value::{self, Kind, Valid};
use super::{broker_keys::BROKER_KEYS, inert_keys::INERT_KEYS, topic_keys::TOPIC_KEYS};

/// One option.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Key {
    /// Kafka's name for it.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The default as text; `None` is Kafka's null.
    pub(crate) default: Option<&'static str>,
    pub(crate) valid: Valid,
    /// What it does, as DescribeConfigs tells it.
    pub(crate) doc: &'static str,
    /// For a topic's option: the broker's keys that set its default, strongest first, each with the factor that turns
    /// its unit into the topic's (1 for keys that are no numbers).
    pub(crate) broker_synonyms: &'static [(&'static str, i64)],
}

impl Key {
    /// Whether Kafka keeps the option to itself: it is listed only where it is set.
    pub(crate) fn is_internal(&self) -> bool {
        self.name.starts_with("internal.")
    }

    /// Checks a value. The error names the key, the value and what was expected; a password is not repeated.
    pub(crate) fn check(&self, text: &str) -> Result<(), String> {
        value::check(self.kind, self.valid, text).map_err(|expected| match self.kind {
            Kind::Password => format!("bad value for {}: {expected}", self.name),
            _ => format!("bad value `{text}` for {}: {expected}", self.name),
        })
    }
}

/// Builds a table: one row an option.
macro_rules! keys {
    ($(#[$meta:meta])* $table:ident:
     $($name:literal $kind:ident = $default:tt, $valid:expr, [$($synonym:literal * $factor:literal),*], $doc:literal;)*) => {
        $(#[$meta])*
        pub(in crate::config) const $table: &[$crate::config::key::Key] = &[$($crate::config::key::Key {
            name: $name,
            kind: $crate::config::value::Kind::$kind,
            default: $crate::config::key::default_text!($default),
            valid: $valid,
            doc: $doc,
            broker_synonyms: &[$(($synonym, $factor)),*],
        }),*];
    };
}

macro_rules! default_text {
    (null) => {
        None
    };
    ($text:literal) => {
        Some($text)
    };
}

pub(in crate::config) use {default_text, keys};

/// What plug-ins have done, as an option that nobody sets. See `millstream_registry::VersionStats`.
pub(crate) static PLUGIN_STATS: Key = Key {
    name: "plugin.stats",
    kind: Kind::String,
    default: None,
    valid: Valid::Any,
    doc: "What each version of a plug-in has done since the broker's start, as JSON. Read-only, and told only when it is asked for by its name.",
    broker_synonyms: &[],
};

/// The producers whose batches stages rejected, as a config that is never set. See
/// `millstream_registry::RejectedProducer`.
pub(crate) static REJECTED_PRODUCERS: Key = Key {
    name: millstream_registry::REJECTED_PRODUCERS_CONFIG,
    kind: Kind::String,
    default: None,
    valid: Valid::Any,
    doc: "The producers whose batches stages rejected since the broker's start, as JSON. \
          Read-only, and returned only when it is requested by name.",
    broker_synonyms: &[],
};

/// An option of the broker that takes effect.
pub(crate) fn broker_key(name: &str) -> Option<&'static Key> {
    BROKER_KEYS.iter().find(|key| key.name == name)
}

/// A valid option of Kafka's broker that has no meaning here.
pub(crate) fn inert_key(name: &str) -> Option<&'static Key> {
    INERT_KEYS.iter().find(|key| key.name == name)
}

/// An option of a topic.
pub(crate) fn topic_key(name: &str) -> Option<&'static Key> {
    TOPIC_KEYS.iter().find(|key| key.name == name)
}

/// Every option of a broker, those without effect too, as DescribeConfigs lists them.
pub(crate) fn all_broker_keys() -> impl Iterator<Item = &'static Key> {
    BROKER_KEYS.iter().chain(INERT_KEYS)
}

/// Every option of a topic.
pub(crate) fn all_topic_keys() -> impl Iterator<Item = &'static Key> {
    TOPIC_KEYS.iter()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_default_passes_its_own_check_and_no_name_comes_twice() {
        for table in [BROKER_KEYS.iter().chain(INERT_KEYS), TOPIC_KEYS.iter().chain(&[])] {
            let mut seen = HashSet::new();
            for key in table {
                assert!(seen.insert(key.name), "{} comes twice", key.name);
                if let Some(default) = key.default {
                    assert_eq!(key.check(default), Ok(()));
                }
                assert!(!key.doc.is_empty(), "{} has no words", key.name);
            }
        }
    }

    #[test]
    fn synonyms_exist_and_agree_on_the_default() {
        for key in all_topic_keys() {
            for (name, factor) in key.broker_synonyms {
                let broker = broker_key(name).unwrap_or_else(|| panic!("{name} of {}", key.name));
                let scaled = broker.default.map(|text| match text.parse::<i64>() {
                    Ok(number) if *factor != 1 => (number * factor).to_string(),
                    _ => text.to_owned(),
                });
                if let Some(scaled) = scaled {
                    assert_eq!(Some(scaled.as_str()), key.default, "{name}");
                }
            }
        }
    }
}
