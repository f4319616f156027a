//! The counters of plug-in versions, and of producers that stages reject.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_registry::{FormatError, REJECTED_PRODUCERS_CONFIG, RejectedProducer, STATS_CONFIG, VersionStats};
use serde::de::DeserializeOwned;

use super::Admin;
use crate::plugins::PluginError;

/// The time for the response of one broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

/// The counters of the brokers of a cluster.
#[derive(Debug, Clone)]
pub struct BrokerCounters<T> {
    /// The counters of each broker that was reached, by node id.
    pub of: BTreeMap<i32, Vec<T>>,
    /// The brokers that were not reached, each with the reason.
    pub not_reached: BTreeMap<i32, String>,
}

impl<T> BrokerCounters<T> {
    /// Returns the counters of all brokers that were reached, one broker after the other.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.of.values().flatten()
    }
}

impl Admin {
    /// Returns the counters of all versions at all brokers. A cluster without such counters returns none.
    ///
    /// # Errors
    /// The cluster cannot be reached, or a broker returns malformed counters.
    pub async fn plugin_stats(&self) -> Result<BrokerCounters<VersionStats>, PluginError> {
        self.counters(STATS_CONFIG).await
    }

    /// Returns the producers whose batches stages rejected, of all brokers. Empty at a cluster without such counts.
    ///
    /// # Errors
    /// The cluster cannot be reached, or the response of a broker is not valid.
    pub async fn rejected_producers(&self) -> Result<BrokerCounters<RejectedProducer>, PluginError> {
        self.counters(REJECTED_PRODUCERS_CONFIG).await
    }

    /// Returns the JSON lists that a config holds at all brokers. A broker that is down has none.
    async fn counters<T: DeserializeOwned>(&self, key: &str) -> Result<BrokerCounters<T>, PluginError> {
        let mut counters = BrokerCounters { of: BTreeMap::new(), not_reached: BTreeMap::new() };
        for broker in self.describe_cluster().await?.brokers {
            let id = broker.id;
            if broker.fenced {
                counters.not_reached.insert(id, "it is fenced".to_owned());
                continue;
            }
            let configs = match tokio::time::timeout(BROKER_TIMEOUT, self.describe_broker_configs(id, &[key])).await {
                Ok(Ok(configs)) => configs,
                Ok(Err(error)) => {
                    counters.not_reached.insert(id, error.to_string());
                    continue;
                }
                Err(_) => {
                    counters.not_reached.insert(id, format!("no response in {} s", BROKER_TIMEOUT.as_secs()));
                    continue;
                }
            };
            let value = configs.into_iter().find(|config| config.name == key).and_then(|config| config.value);
            let Some(value) = value else { continue };
            let list =
                serde_json::from_str(&value).map_err(|error| FormatError(format!("{key} of broker {id}: {error}")))?;
            counters.of.insert(id, list);
        }
        Ok(counters)
    }
}
