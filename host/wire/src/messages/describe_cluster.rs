//! DescribeCluster: the brokers of the cluster (KIP-700).

use crate::{ErrorCode, Message, Str};

/// Asks for the brokers.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeCluster, response = DescribeClusterResponse, versions = 0..=2, flexible = 0)]
pub struct DescribeClusterRequest {
    pub include_cluster_authorized_operations: bool,
    /// 1 for brokers, 2 for controllers.
    #[wire(versions = 1.., default = 1)]
    pub endpoint_type: i8,
    #[wire(versions = 2..)]
    pub include_fenced_brokers: bool,
}

/// Describes the cluster.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=2, flexible = 0)]
pub struct DescribeClusterResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    #[wire(versions = 1.., default = 1)]
    pub endpoint_type: i8,
    pub cluster_id: Str,
    #[wire(default = -1)]
    pub controller_id: i32,
    pub brokers: Vec<DescribeClusterBroker>,
    #[wire(default = i32::MIN)]
    pub cluster_authorized_operations: i32,
}

/// Describes one broker.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeClusterBroker {
    pub broker_id: i32,
    pub host: Str,
    pub port: i32,
    pub rack: Option<Str>,
    #[wire(versions = 2..)]
    pub is_fenced: bool,
}
