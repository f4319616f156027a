//! ListConfigResources: lists topics and brokers, which have configs. Groups and client metrics have none here.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse, ListedConfigResource};
use millstream_wire::{ConfigResourceType, ErrorCode, Str};

use super::handler::{Handler, RequestContext, UNKNOWN_BYTES};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct ListConfigResources;

impl Handler for ListConfigResources {
    type Request = ListConfigResourcesRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::DescribeConfigs, ResourceType::Cluster));

    fn response_bytes(_: &Broker, _: &RequestContext, _: &ListConfigResourcesRequest) -> usize {
        UNKNOWN_BYTES
    }

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: ListConfigResourcesRequest,
    ) -> ListConfigResourcesResponse {
        // Version 0 lists only client metrics.
        let all = if context.version == 0 { &[][..] } else { ConfigResourceType::ALL };
        let asked: Result<BTreeSet<_>, _> = match &request.resource_types[..] {
            [] => Ok(all.iter().copied().collect()),
            types => types.iter().map(|&number| ConfigResourceType::try_from(number)).collect(),
        };
        match asked {
            Ok(types) => {
                let config_resources = types.into_iter().flat_map(|kind| list(broker, kind)).collect();
                ListConfigResourcesResponse { config_resources, ..Default::default() }
            }
            Err(_) => ListConfigResourcesResponse { error_code: ErrorCode::UNSUPPORTED_VERSION, ..Default::default() },
        }
    }
}

fn list(broker: &Broker, kind: ConfigResourceType) -> Vec<ListedConfigResource> {
    let names: Vec<Str> = match kind {
        ConfigResourceType::Topic => broker.topics.load().iter().map(|topic| topic.name.clone()).collect(),
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => {
            vec![Str::from(broker.config.node_id.to_string())]
        }
        ConfigResourceType::ClientMetrics | ConfigResourceType::Group => Vec::new(),
    };
    let resource_type = kind.into();
    names.into_iter().map(|resource_name| ListedConfigResource { resource_name, resource_type }).collect()
}
