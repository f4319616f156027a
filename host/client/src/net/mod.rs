//! Connections to brokers, and the metadata of the cluster.

mod cluster;
mod connection;
mod coordinator;
mod metadata;

pub(crate) use cluster::{Cluster, Lane, Retry};
pub(crate) use connection::{Connection, LATE_AFTER};
pub(crate) use coordinator::{Coordinator, CoordinatorOf};
pub(crate) use metadata::{Metadata, NewLeader, Partition, Topic, address_of};
