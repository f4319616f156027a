//! The keys of a broker that can be changed while it runs.

use std::collections::BTreeMap;

use millstream_metadata::CORDONED_LOG_DIRS;

use super::ConfigError;
use super::broker_keys as keys;
use super::cleaner::{self, CleanerConfig};
use super::tables::broker_key;

/// `leader.replication.throttled.rate`
pub(crate) const LEADER_RATE: &str = keys::LEADER_REPLICATION_THROTTLED_RATE.row.name;

/// `follower.replication.throttled.rate`
pub(crate) const FOLLOWER_RATE: &str = keys::FOLLOWER_REPLICATION_THROTTLED_RATE.row.name;

/// The throttle of moves between the data folders of a broker.
const ALTER_LOG_DIRS_RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";

/// Returns whether a key can be changed while the broker runs.
pub(crate) fn is_dynamic(name: &str) -> bool {
    [LEADER_RATE, FOLLOWER_RATE, CORDONED_LOG_DIRS].contains(&name) || cleaner::DYNAMIC.contains(&name)
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
    CleanerConfig::from_values(&BTreeMap::new(), &|name| configs.get(name).cloned()).map(drop)
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
