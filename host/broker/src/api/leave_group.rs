//! LeaveGroup: one member up to version 2, many from version 3.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::Caller;
use millstream_wire::messages::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse};

use super::code;
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct LeaveGroup;

impl Handler for LeaveGroup {
    type Request = LeaveGroupRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Read, ResourceType::Group));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        mut request: LeaveGroupRequest,
    ) -> LeaveGroupResponse {
        let alone = context.version <= 2;
        if alone {
            request.members = vec![MemberIdentity { member_id: request.member_id, ..Default::default() }];
        }
        let leaving: Vec<_> = request.members.iter().map(caller).collect();
        let answers = match broker.groups.leave(&request.group_id, &leaving) {
            Ok(answers) => answers,
            Err(error) => return LeaveGroupResponse { error_code: error.into(), ..Default::default() },
        };
        if alone {
            let answer = answers.into_iter().next().unwrap_or(Ok(()));
            return LeaveGroupResponse { error_code: code(answer), ..Default::default() };
        }
        let members = request.members.into_iter().zip(answers).map(|(member, answer)| MemberResponse {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            error_code: code(answer),
        });
        LeaveGroupResponse { members: members.collect(), ..Default::default() }
    }
}

fn caller(member: &MemberIdentity) -> Caller<'_> {
    Caller { member_id: &member.member_id, instance_id: member.group_instance_id.as_deref() }
}
