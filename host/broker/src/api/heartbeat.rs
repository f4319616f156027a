//! Heartbeat: keeps a member alive, and informs it of a rebalance.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::Caller;
use millstream_wire::messages::{HeartbeatRequest, HeartbeatResponse};

use super::code;
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct Heartbeat;

impl Handler for Heartbeat {
    type Request = HeartbeatRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Read, ResourceType::Group));

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
        let caller = Caller { member_id: &request.member_id, instance_id: request.group_instance_id.as_deref() };
        let answer = broker.groups.heartbeat(&request.group_id, caller, request.generation_id);
        HeartbeatResponse { error_code: code(answer), ..Default::default() }
    }
}
