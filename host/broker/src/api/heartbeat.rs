//! Heartbeat: a member lives, and learns of a rebalance.

use std::sync::Arc;

use millstream_wire::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{RequestContext, code};
use crate::broker::Broker;
use crate::group::Caller;

pub(super) async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let caller = Caller { member_id: &request.member_id, instance_id: request.group_instance_id.as_deref() };
    let answer = broker.groups.heartbeat(&request.group_id, caller, request.generation_id);
    HeartbeatResponse { error_code: code(answer), ..Default::default() }
}
