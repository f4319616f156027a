//! ListGroups, all or those of some states and types.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::CLASSIC;
use millstream_wire::Str;
use millstream_wire::messages::{ListGroupsRequest, ListGroupsResponse, ListedGroup};

use super::handler::{Handler, RequestContext, UNKNOWN_BYTES};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct ListGroups;

impl Handler for ListGroups {
    type Request = ListGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));

    fn response_bytes(_: &Broker, _: &RequestContext, _: &ListGroupsRequest) -> usize {
        UNKNOWN_BYTES
    }

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
        let groups = match broker.groups.list() {
            Ok(groups) => groups,
            Err(error) => return ListGroupsResponse { error_code: error.into(), ..Default::default() },
        };
        let wanted = groups
            .into_iter()
            .filter(|group| passes(&request.states_filter, group.state) && passes(&request.types_filter, CLASSIC));
        let listed = wanted.map(|group| ListedGroup {
            group_id: Str::from(&*group.id),
            protocol_type: Str::from(&*group.protocol_type),
            group_state: Str::from_static(group.state),
            group_type: Str::from_static(CLASSIC),
        });
        ListGroupsResponse { groups: listed.collect(), ..Default::default() }
    }
}

/// Returns whether a filter has a value. An empty filter accepts every value; case does not matter, as in Kafka.
fn passes(filter: &[Str], value: &str) -> bool {
    filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
}
