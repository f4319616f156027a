//! DescribeCluster: the brokers, and fenced ones if they are requested (KIP-700, KIP-1073).

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse};
use millstream_wire::{ErrorCode, Str};

use super::cluster_view::ClusterView;
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType, allowed_operations};

/// The endpoint type that asks for brokers; the other one, controllers, has no listener here.
const BROKERS: i8 = 1;

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
            cluster_id: Str::from(view.image.cluster_id.as_str()),
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
