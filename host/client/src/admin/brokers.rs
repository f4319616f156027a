//! The brokers of the cluster.

use std::sync::Arc;

use millstream_wire::messages::{DescribeClusterRequest, UnregisterBrokerRequest};

use super::Admin;
use crate::error::Error;
use crate::net::address_of;

/// The first version of DescribeCluster with fenced brokers.
const FIRST_WITH_FENCED: i16 = 2;

/// A broker of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerDescription {
    /// Its node id.
    pub id: i32,
    /// The advertised `host:port`.
    pub address: Arc<str>,
    /// Its `broker.rack`, if it has one.
    pub rack: Option<Arc<str>>,
    /// Whether it is fenced: it is down, or has not caught up yet.
    pub fenced: bool,
}

/// The cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The cluster's id, if any.
    pub cluster_id: Option<Arc<str>>,
    /// The node id of the controller, if it is known.
    pub controller: Option<i32>,
    /// The registered brokers, by node id.
    pub brokers: Vec<BrokerDescription>,
}

impl Admin {
    /// Returns the cluster's id and brokers.
    ///
    /// # Errors
    /// No broker can be reached.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        let mut retry = self.retry("the description of the cluster");
        loop {
            if let Some(description) = retry.attempt(self.describe_cluster_once()).await? {
                return Ok(description);
            }
        }
    }

    async fn describe_cluster_once(&self) -> Result<ClusterDescription, Error> {
        let connection = self.cluster.any().await?;
        let include_fenced_brokers = connection.version::<DescribeClusterRequest>()? >= FIRST_WITH_FENCED;
        let request = DescribeClusterRequest { include_fenced_brokers, ..Default::default() };
        let response = connection.send(&request)?.wait(self.cluster.config().request_timeout).await?;
        Error::check(|| "describe the cluster".to_owned(), response.error_code, response.error_message.as_deref())?;
        // Later requests to single brokers need their addresses.
        self.cluster.refresh(self.cluster.metadata().generation).await?;
        let brokers = response.brokers.iter().map(|broker| BrokerDescription {
            id: broker.broker_id,
            address: address_of(&broker.host, broker.port).into(),
            rack: broker.rack.as_deref().map(Arc::from),
            fenced: broker.is_fenced,
        });
        let mut brokers: Vec<_> = brokers.collect();
        brokers.sort_by_key(|broker| broker.id);
        Ok(ClusterDescription {
            cluster_id: Some(&*response.cluster_id).filter(|id| !id.is_empty()).map(Arc::from),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers,
        })
    }

    /// Removes the registration of a broker that will not come back.
    ///
    /// # Errors
    /// The cluster has no such broker, or cannot lose it.
    pub async fn unregister_broker(&self, id: i32) -> Result<(), Error> {
        let what = || format!("unregister broker {id}");
        self.ask_controller(&what(), &UnregisterBrokerRequest { broker_id: id }, |response| {
            Error::check(what, response.error_code, response.error_message.as_deref())
        })
        .await
        .map(drop)
    }
}
