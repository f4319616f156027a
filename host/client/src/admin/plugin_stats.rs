//! The counters of plug-in versions, and of producers that stages reject.

use millstream_registry::{FormatError, REJECTED_PRODUCERS_CONFIG, RejectedProducer, STATS_CONFIG, VersionStats};
use serde::de::DeserializeOwned;

use super::Admin;
use crate::plugins::PluginError;

impl Admin {
    /// Returns the counters of all versions at all brokers. A cluster without such counters returns none.
    ///
    /// # Errors
    /// A broker cannot be reached, or returns malformed counters.
    pub async fn plugin_stats(&self) -> Result<Vec<VersionStats>, PluginError> {
        self.lists(STATS_CONFIG).await
    }

    /// Returns the producers whose batches stages rejected, of all brokers. Empty at a cluster without such counts.
    ///
    /// # Errors
    /// A broker cannot be reached, or its response is not valid.
    pub async fn rejected_producers(&self) -> Result<Vec<RejectedProducer>, PluginError> {
        self.lists(REJECTED_PRODUCERS_CONFIG).await
    }

    /// Returns the JSON lists that a config holds at all brokers, one after the other.
    async fn lists<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, PluginError> {
        let mut all = Vec::new();
        for broker in self.describe_cluster().await?.brokers {
            let configs = self.describe_broker_configs(broker.id, &[key]).await?;
            let value = configs.into_iter().find(|config| config.name == key).and_then(|config| config.value);
            let Some(value) = value else { continue };
            let list: Vec<T> = serde_json::from_str(&value)
                .map_err(|error| FormatError(format!("{key} of broker {}: {error}", broker.id)))?;
            all.extend(list);
        }
        Ok(all)
    }
}
