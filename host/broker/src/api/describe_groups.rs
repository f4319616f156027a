//! DescribeGroups: state and members.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::{GroupError, MemberSnapshot};
use millstream_wire::messages::{DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext, UNKNOWN_BYTES};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType, allowed_operations};

/// The state of a group that does not exist.
const DEAD: &str = "Dead";

/// The version from which a group that does not exist is an error.
const NOT_FOUND_FROM: i16 = 6;

pub(super) struct DescribeGroups;

impl Handler for DescribeGroups {
    type Request = DescribeGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Group));

    fn response_bytes(_: &Broker, _: &RequestContext, _: &DescribeGroupsRequest) -> usize {
        UNKNOWN_BYTES
    }

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: DescribeGroupsRequest,
    ) -> DescribeGroupsResponse {
        let authorized_operations = allowed_operations(request.include_authorized_operations, AclOperation::GROUP);
        let groups = request.groups.into_iter().map(|group_id| {
            let described = describe(broker, context.version, group_id);
            DescribedGroup { authorized_operations, ..described }
        });
        DescribeGroupsResponse { groups: groups.collect(), ..Default::default() }
    }
}

fn describe(broker: &Arc<Broker>, version: i16, group_id: Str) -> DescribedGroup {
    match broker.groups.describe(&group_id) {
        Ok(group) => DescribedGroup {
            group_id,
            group_state: Str::from_static(group.state),
            protocol_type: Str::from(&*group.protocol_type),
            protocol_data: Str::from(&*group.protocol),
            members: group.members.into_iter().map(member).collect(),
            ..Default::default()
        },
        Err(error @ GroupError::GroupIdNotFound) => DescribedGroup {
            error_code: if version >= NOT_FOUND_FROM { error.into() } else { ErrorCode::NONE },
            error_message: Some(Str::from(format!("Group {} not found.", group_id.as_str()))),
            group_id,
            group_state: Str::from_static(DEAD),
            ..Default::default()
        },
        Err(error) => DescribedGroup {
            error_code: error.into(),
            error_message: Some(Str::from(error.to_string())),
            group_id,
            ..Default::default()
        },
    }
}

fn member(member: MemberSnapshot) -> DescribedGroupMember {
    DescribedGroupMember {
        member_id: Str::from(&*member.member_id),
        group_instance_id: member.instance_id.as_deref().map(Str::from),
        client_id: Str::from(&*member.client_id),
        client_host: Str::from(&*member.client_host),
        member_metadata: member.subscription,
        member_assignment: member.assignment,
    }
}
