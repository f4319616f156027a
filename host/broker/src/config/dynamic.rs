//! The keys of a broker that can be changed while it runs.

use std::collections::BTreeMap;

use millstream_metadata::{CORDONED_LOG_DIRS, MetadataImage};

use super::broker_keys as keys;
use super::cleaner::{self, CleanerConfig};
use super::tables::{all_topic_keys, broker_key};
use super::{ConfigError, TopicConfig};

/// `leader.replication.throttled.rate`
pub(crate) const LEADER_RATE: &str = keys::LEADER_REPLICATION_THROTTLED_RATE.row.name;

/// `follower.replication.throttled.rate`
pub(crate) const FOLLOWER_RATE: &str = keys::FOLLOWER_REPLICATION_THROTTLED_RATE.row.name;

/// The throttle of moves between the data folders of a broker.
const ALTER_LOG_DIRS_RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";

/// `producer.id.expiration.ms`
pub(crate) const PRODUCER_ID_EXPIRATION_MS: &str = keys::PRODUCER_ID_EXPIRATION_MS.row.name;

/// `min.insync.replicas`
pub(crate) const MIN_INSYNC_REPLICAS: &str = keys::MIN_INSYNC_REPLICAS.row.name;

/// Returns the keys that set defaults of topics. Of several units for the same time, Kafka changes only the finest
/// while the broker runs.
fn topic_defaults() -> impl Iterator<Item = &'static str> {
    all_topic_keys().filter_map(|key| key.broker_synonyms.first()).map(|(name, _)| *name)
}

/// Returns whether a key can be changed while the broker runs.
pub(crate) fn is_dynamic(name: &str) -> bool {
    [LEADER_RATE, FOLLOWER_RATE, CORDONED_LOG_DIRS, PRODUCER_ID_EXPIRATION_MS].contains(&name)
        || cleaner::DYNAMIC.contains(&name)
        || topic_defaults().any(|default| default == name)
}

/// Returns the lookup of the configs that are set for all brokers while they run. What is set for one of them does not
/// concern the metadata.
pub(crate) fn set_for_all(image: &MetadataImage) -> impl Fn(&str) -> Option<String> {
    |name| image.broker_configs(None)?.get(name).cloned()
}

/// Checks configs that are set for a broker while it runs.
///
/// # Errors
/// A key cannot be changed while the broker runs.
pub(crate) fn check_dynamic(configs: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    if configs.contains_key(ALTER_LOG_DIRS_RATE) {
        return Err(ConfigError(format!(
            "{ALTER_LOG_DIRS_RATE} is not supported: a replica that moves to another data folder is not throttled"
        )));
    }
    let fixed: Vec<&str> = configs.keys().map(String::as_str).filter(|name| !is_dynamic(name)).collect();
    if !fixed.is_empty() {
        return Err(ConfigError(format!(
            "Cannot update these configs dynamically: {}. Set them in the file of the broker and restart it.",
            fixed.join(", ")
        )));
    }
    Ok(())
}

/// Checks the value of a config that is set for a broker while it runs.
///
/// # Errors
/// The value is bad.
pub(crate) fn check_dynamic_value(name: &str, value: &str) -> Result<(), ConfigError> {
    broker_key(name).map_or(Ok(()), |key| key.check(value).map_err(ConfigError))
}

/// Checks the values of configs that are set for a broker together. Each of them was checked by itself.
///
/// # Errors
/// Values contradict each other.
pub(crate) fn check_dynamic_together(configs: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    // The file of the broker is not known here.
    let set = |name: &str| configs.get(name).cloned();
    CleanerConfig::from_values(&BTreeMap::new(), &set)?;
    TopicConfig::from_broker(&set).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_cordoned_while_it_runs() {
        assert_eq!(check_dynamic(&BTreeMap::from([("cordoned.log.dirs".to_owned(), "*".to_owned())])), Ok(()));
        assert_eq!(check_dynamic_value("cordoned.log.dirs", "*"), Ok(()));
        assert_eq!(check_dynamic_value("cordoned.log.dirs", "/data"), Ok(()));
    }
}
