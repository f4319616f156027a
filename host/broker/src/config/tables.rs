//! Lookups over all tables of keys.

use super::broker_keys::BROKER_KEYS;
use super::inert_keys::INERT_KEYS;
use super::key::{Key, Role};
use super::topic_keys::TOPIC_KEYS;
use super::value::{Kind, Valid};

/// The counters of plug-ins, as a read-only key. See `VersionStats` in the plug-in registry.
pub(crate) static PLUGIN_STATS: Key = Key {
    name: "plugin.stats",
    kind: Kind::String,
    default: None,
    valid: Valid::Any,
    doc: "The counters of each version of a plug-in since the broker's start, as JSON. Read-only; returned only if it \
    is requested by name.",
    broker_synonyms: &[],
    role: Role::Acts,
};

/// The producers whose batches stages rejected, as a read-only key. See `RejectedProducer` in the plug-in registry.
pub(crate) static REJECTED_PRODUCERS: Key = Key {
    name: millstream_registry::REJECTED_PRODUCERS_CONFIG,
    kind: Kind::String,
    default: None,
    valid: Valid::Any,
    doc: "The producers whose batches stages rejected since the broker's start, as JSON. Read-only; returned only if \
    it is requested by name.",
    broker_synonyms: &[],
    role: Role::Acts,
};

/// Returns a key of the broker, with or without effect.
pub(crate) fn broker_key(name: &str) -> Option<&'static Key> {
    all_broker_keys().find(|key| key.name == name)
}

/// Returns a config of topics.
pub(crate) fn topic_key(name: &str) -> Option<&'static Key> {
    TOPIC_KEYS.iter().find(|key| key.name == name)
}

/// Returns every broker key, with or without effect, for DescribeConfigs.
pub(crate) fn all_broker_keys() -> impl Iterator<Item = &'static Key> {
    BROKER_KEYS.iter().chain(INERT_KEYS)
}

/// Returns every config of topics.
pub(crate) fn all_topic_keys() -> impl Iterator<Item = &'static Key> {
    TOPIC_KEYS.iter()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_default_passes_its_own_check_and_names_are_unique() {
        for table in [BROKER_KEYS.iter().chain(INERT_KEYS), TOPIC_KEYS.iter().chain(&[])] {
            let mut seen = HashSet::new();
            for key in table {
                assert!(seen.insert(key.name), "{} is listed twice", key.name);
                if let Some(default) = key.default {
                    assert_eq!(key.check(default), Ok(()));
                }
                assert!(!key.doc.is_empty(), "{} has no doc", key.name);
            }
        }
    }

    #[test]
    fn synonyms_agree_on_the_default() {
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

    /// What does not act is part of what is not there, or of the JVM; and what is not there cannot be turned on. Keys
    /// of older versions have no default.
    #[test]
    fn the_configs_of_storage_act_or_are_rejected() {
        let of_storage =
            ["log.", "compression.", "flush.", "file.", "segment.", "retention.", "delete.", "min.", "max."];
        let inert = INERT_KEYS.iter().filter(|key| key.default.is_some()).map(|key| key.name);
        let inert: Vec<_> = inert.filter(|name| of_storage.iter().any(|part| name.starts_with(part))).collect();
        let expected = [
            "delete.records.purgatory.purge.interval.requests",
            "log.dir.failure.timeout.ms",
            "log.local.retention.bytes",
            "log.local.retention.ms",
            "max.connection.creation.rate",
            "max.connections.per.ip.overrides",
            "max.request.partition.size.limit",
        ];
        assert_eq!(inert, expected);
        for (name, value) in [("remote.log.storage.system.enable", "true"), ("compression.lz4.level", "3")] {
            assert!(broker_key(name).expect("a key").check(value).is_err(), "{name}");
        }
        for (name, value) in [("remote.storage.enable", "true"), ("compression.lz4.level", "3")] {
            assert!(topic_key(name).expect("a key").check(value).is_err(), "{name}");
        }
    }

    #[test]
    fn a_key_without_effect_is_documented_as_such() {
        assert!(BROKER_KEYS.iter().all(|key| key.role == Role::Acts));
        for key in INERT_KEYS {
            let expected = match key.role {
                Role::Acts => panic!("{} acts", key.name),
                Role::Inert => "Accepted without effect: ",
                Role::Absent => "Not supported: ",
            };
            assert!(key.doc.starts_with(expected), "{}: {}", key.name, key.doc);
        }
    }

    /// Another value than the default would change what Kafka does, so it is rejected and not ignored.
    #[test]
    fn a_key_of_a_missing_part_is_rejected_unless_it_is_the_default() {
        for key in INERT_KEYS.iter().filter(|key| key.role == Role::Absent) {
            assert_eq!(key.check(key.default.unwrap_or_default()), Ok(()), "{}", key.name);
            let other = match key.kind {
                Kind::Boolean => (key.default != Some("true")).to_string(),
                Kind::Short | Kind::Int | Kind::Long => "31".to_owned(),
                Kind::Double => "0.4".to_owned(),
                Kind::String | Kind::List | Kind::Class | Kind::Password => "another".to_owned(),
            };
            let error = key.check(&other).expect_err(key.name);
            assert!(error.contains(key.name) && error.contains("remove it"), "{error}");
            assert!(key.kind != Kind::Password || !error.contains(&other), "{error}");
        }
    }
}
