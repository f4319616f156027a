//! The admin client: topics, their configs and offsets, groups, brokers. Retriable errors are retried for up to
//! `default.api.timeout.ms`.

mod brokers;
mod groups;
mod per_broker;
mod plugin_stats;
mod quorum;
mod reassignments;
mod records;
mod topics;
mod transactions;
mod views;

use std::sync::Arc;
use std::time::Duration;

use millstream_wire::{ErrorCode, Request};

use crate::config::ClientConfig;
use crate::error::Error;
use crate::net::{Cluster, Lane, Retry};

pub use brokers::{BrokerDescription, ClusterDescription};
pub use groups::{GroupDescription, GroupListing, GroupMember};
pub use per_broker::PerBroker;
pub use quorum::{QuorumDescription, QuorumReplica};
pub use reassignments::{ElectionType, Reassignment};
pub use records::{LogDirDescription, ReplicaLog};
pub use topics::{ConfigEntry, NewTopic, PartitionDescription, TopicDescription, TopicListing};
pub use transactions::{ProducerDescription, TransactionDescription, TransactionFilter, TransactionListing};
pub use views::View;

/// Manages topics and groups. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    cluster: Arc<Cluster>,
    /// How long a call may take with its retries.
    limit: Duration,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("servers", &self.cluster.config().bootstrap_servers).finish()
    }
}

impl Admin {
    /// Creates a client. It connects when it is first used.
    ///
    /// # Errors
    /// A config is invalid.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        config.validate()?;
        let limit = config.default_api_timeout;
        Ok(Self { cluster: Arc::new(Cluster::new(config, false)), limit })
    }

    /// Starts the attempts of a call.
    fn retry<'a>(&'a self, what: &'a str) -> Retry<'a> {
        self.cluster.retry(self.limit, what)
    }

    /// Connects to a broker.
    async fn connect(&self, id: i32) -> Result<(), Error> {
        let what = format!("the connection to broker {id}");
        let mut retry = self.retry(&what);
        while retry.attempt(self.cluster.broker(id, Lane::Main)).await?.is_none() {}
        Ok(())
    }

    /// Sends a request to the controller until `check` accepts the response.
    async fn ask_controller<R: Request>(
        &self,
        what: &str,
        request: &R,
        check: impl Fn(&R::Response) -> Result<(), Error>,
    ) -> Result<R::Response, Error> {
        let mut retry = self.retry(what);
        loop {
            let attempt = async {
                let response = self.ask_controller_once(request).await?;
                check(&response).map(|()| response)
            };
            if let Some(response) = retry.attempt(attempt).await? {
                return Ok(response);
            }
        }
    }

    async fn ask_controller_once<R: Request>(&self, request: &R) -> Result<R::Response, Error> {
        let mut metadata = self.cluster.metadata();
        if metadata.controller.is_none() {
            metadata = self.cluster.refresh(metadata.generation).await?;
        }
        match metadata.controller {
            Some(controller) => self.cluster.ask_leader(controller, request).await,
            None => Err(Error::broker("find the controller", ErrorCode::COORDINATOR_NOT_AVAILABLE, None)),
        }
    }

    /// Closes the connections.
    pub fn close(&self) {
        self.cluster.close();
    }
}
