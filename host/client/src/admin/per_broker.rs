//! Requests to all brokers at the same time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Admin, BrokerDescription};
use crate::error::Error;

/// What each broker of a cluster has responded.
#[derive(Debug, Clone)]
pub struct PerBroker<T> {
    /// The responses, by node id.
    pub of: BTreeMap<i32, T>,
    /// The brokers that were not reached, each with the reason.
    pub not_reached: BTreeMap<i32, String>,
}

impl<T> PerBroker<Vec<T>> {
    /// Returns the items of all brokers that were reached, one broker after the other.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.of.values().flatten()
    }
}

impl Admin {
    /// Connects to each of these brokers. A broker gets at most `limit`.
    pub async fn reach(&self, brokers: &[BrokerDescription], limit: Duration) -> PerBroker<()> {
        let brokers = brokers.iter().map(|broker| broker.id);
        self.ask_each(brokers, limit, |admin, id| async move { admin.connect(id).await }).await
    }

    /// Runs `ask` for each broker, with an admin client whose calls take at most `limit`.
    pub(super) async fn ask_each<T: Send + 'static, F>(
        &self,
        brokers: impl Iterator<Item = i32>,
        limit: Duration,
        ask: impl Fn(Admin, i32) -> F,
    ) -> PerBroker<T>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for id in brokers {
            let asked = ask(Admin { limit, ..self.clone() }, id);
            // A call may use another limit than that of its client.
            tasks.spawn(async move { (id, timeout(limit, asked).await) });
        }
        let mut found = PerBroker { of: BTreeMap::new(), not_reached: BTreeMap::new() };
        for (id, asked) in tasks.join_all().await {
            let reason = match asked {
                Ok(Ok(response)) => {
                    found.of.insert(id, response);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no response in {} s", limit.as_secs()),
            };
            found.not_reached.insert(id, reason);
        }
        found
    }
}
