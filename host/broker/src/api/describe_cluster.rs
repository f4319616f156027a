//! DescribeCluster: the brokers, and fenced ones if they are requested (KIP-700, KIP-1073).

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse};
use millstream_wire::{ErrorCode, Str};

use super::cluster_view::ClusterView;
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::config::HostPort;
use crate::security::{AclOperation, Permission, ResourceType, allowed_operations};

/// The endpoint type that asks for brokers.
const BROKERS: i8 = 1;

/// The endpoint type that asks for the voters of the quorum, on the listener for nodes.
const CONTROLLERS: i8 = 2;

pub(super) struct DescribeCluster;

impl Handler for DescribeCluster {
    type Request = DescribeClusterRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));
    const NEEDS_TOPICS: bool = false;

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: DescribeClusterRequest,
    ) -> DescribeClusterResponse {
        let nodes = broker.config.cluster.as_ref().map(|cluster| cluster.listener);
        if request.endpoint_type == CONTROLLERS && nodes == Some(context.connection.listener) {
            return controllers(broker);
        }
        if request.endpoint_type != BROKERS {
            return DescribeClusterResponse {
                error_code: ErrorCode::MISMATCHED_ENDPOINT_TYPE,
                error_message: Some(Str::from_static("this listener is a broker's")),
                endpoint_type: BROKERS,
                ..Default::default()
            };
        }
        let view = ClusterView::new(broker, &context.connection);
        let listed = view.nodes().filter(|(_, node)| request.include_fenced_brokers || !node.is_fenced);
        let brokers = listed.map(|(broker_id, node)| DescribeClusterBroker {
            broker_id,
            host: node.host.clone(),
            port: node.port,
            rack: node.rack.clone(),
            is_fenced: node.is_fenced,
        });
        DescribeClusterResponse {
            cluster_id: Str::from(broker.cluster_id.as_str()),
            controller_id: broker.controller_id(),
            brokers: brokers.collect(),
            endpoint_type: BROKERS,
            cluster_authorized_operations: allowed_operations(
                request.include_cluster_authorized_operations,
                AclOperation::CLUSTER,
            ),
            ..Default::default()
        }
    }
}

/// Returns the voters of the quorum with their listeners for nodes.
fn controllers(broker: &Broker) -> DescribeClusterResponse {
    let voters = broker.cluster.as_ref().map_or_else(Vec::new, |cluster| cluster.voters());
    let voter = |(broker_id, address): (i32, HostPort)| DescribeClusterBroker {
        broker_id,
        host: Str::from(address.host.as_str()),
        port: i32::from(address.port),
        rack: None,
        is_fenced: false,
    };
    DescribeClusterResponse {
        cluster_id: Str::from(broker.cluster_id.as_str()),
        controller_id: broker.cluster.as_ref().and_then(|cluster| cluster.leadership().leader).unwrap_or(-1),
        brokers: voters.into_iter().map(voter).collect(),
        endpoint_type: CONTROLLERS,
        ..Default::default()
    }
}
