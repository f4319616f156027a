//! The counters of plug-in versions.

use millstream_registry::{FormatError, STATS_CONFIG, VersionStats};

use super::Admin;
use crate::plugins::PluginError;

impl Admin {
    /// Returns the counters of all versions at all brokers. A cluster without such counters returns none.
    ///
    /// # Errors
    /// A broker cannot be reached, or returns malformed counters.
    pub async fn plugin_stats(&self) -> Result<Vec<VersionStats>, PluginError> {
        let mut all = Vec::new();
        for broker in self.describe_cluster().await?.brokers {
            let configs = self.describe_broker_configs(broker.id, &[STATS_CONFIG]).await?;
            let value = configs.into_iter().find(|config| config.name == STATS_CONFIG).and_then(|config| config.value);
            let Some(value) = value else { continue };
            let counts: Vec<VersionStats> = serde_json::from_str(&value)
                .map_err(|error| FormatError(format!("{STATS_CONFIG} of broker {}: {error}", broker.id)))?;
            all.extend(counts);
        }
        Ok(all)
    }
}
