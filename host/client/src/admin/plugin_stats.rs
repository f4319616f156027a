//! The counters of plug-in versions, and of producers that stages reject.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_registry::{FormatError, REJECTED_PRODUCERS_CONFIG, RejectedProducer, STATS_CONFIG, VersionStats};
use serde::de::DeserializeOwned;

use super::{Admin, PerBroker};
use crate::plugins::PluginError;

/// The time for the response of one broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

impl Admin {
    /// Returns the counters of all versions at all brokers. A cluster without such counters returns none.
    ///
    /// # Errors
    /// The cluster cannot be reached, or a broker returns malformed counters.
    pub async fn plugin_stats(&self) -> Result<PerBroker<Vec<VersionStats>>, PluginError> {
        self.counters(STATS_CONFIG).await
    }

    /// Returns the producers whose batches stages rejected, of all brokers. Empty at a cluster without such counts.
    ///
    /// # Errors
    /// The cluster cannot be reached, or the response of a broker is not valid.
    pub async fn rejected_producers(&self) -> Result<PerBroker<Vec<RejectedProducer>>, PluginError> {
        self.counters(REJECTED_PRODUCERS_CONFIG).await
    }

    /// Returns the JSON lists that a config holds at all brokers. A broker that is down has none.
    async fn counters<T: DeserializeOwned>(&self, key: &'static str) -> Result<PerBroker<Vec<T>>, PluginError> {
        let (fenced, alive): (Vec<_>, Vec<_>) =
            self.describe_cluster().await?.brokers.into_iter().partition(|broker| broker.fenced);
        let ask = |admin: Admin, id| async move { admin.describe_broker_configs(id, &[key]).await };
        let configs = self.ask_each(alive.iter().map(|broker| broker.id), BROKER_TIMEOUT, ask).await;
        let mut counters = PerBroker { of: BTreeMap::new(), not_reached: configs.not_reached };
        counters.not_reached.extend(fenced.iter().map(|broker| (broker.id, "it is fenced".to_owned())));
        for (id, configs) in configs.of {
            let value = configs.into_iter().find(|config| config.name == key).and_then(|config| config.value);
            let Some(value) = value else { continue };
            let list =
                serde_json::from_str(&value).map_err(|error| FormatError(format!("{key} of broker {id}: {error}")))?;
            counters.of.insert(id, list);
        }
        Ok(counters)
    }
}
