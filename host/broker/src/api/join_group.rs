//! JoinGroup: responds when the rebalance that it takes part in ends.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use millstream_coordinator::group::{JoinRejected, JoinRequest, JoinedMember, Protocol, own, own_option};
use millstream_wire::Str;
use millstream_wire::messages::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};

use super::handler::{Handler, RequestContext};
use super::offsets_topic;
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct JoinGroup;

impl Handler for JoinGroup {
    type Request = JoinGroupRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=9;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Read, ResourceType::Group));

    async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
        // Copied: the wait may be long, and a slice would keep the whole request in memory.
        let group_id = own(&request.group_id);
        let join = join_request(context, request);
        let joined = match offsets_topic::ensure(broker).await {
            Ok(()) => broker.groups.join(&group_id, join).await,
            Err(error) => Err(JoinRejected { error, member_id: join.member_id }),
        };
        match joined {
            Ok(joined) => JoinGroupResponse {
                generation_id: joined.generation,
                protocol_type: joined.protocol_type.as_deref().map(Str::from),
                protocol_name: joined.protocol.as_deref().map(Str::from),
                leader: Str::from(&*joined.leader),
                skip_assignment: joined.skip_assignment,
                member_id: Str::from(&*joined.member_id),
                members: joined.members.into_iter().map(member).collect(),
                ..Default::default()
            },
            Err(JoinRejected { error, member_id }) => {
                JoinGroupResponse { error_code: error.into(), member_id: Str::from(&*member_id), ..Default::default() }
            }
        }
    }
}

fn join_request(context: &RequestContext, request: JoinGroupRequest) -> JoinRequest {
    let JoinGroupRequest { session_timeout_ms, rebalance_timeout_ms, protocols, .. } = request;
    let protocols = protocols.into_iter();
    JoinRequest {
        member_id: own(&request.member_id),
        instance_id: own_option(request.group_instance_id.as_ref()),
        client_id: own_option(context.client_id.as_ref()).unwrap_or_default(),
        // The form in which Java prints an InetAddress without a name.
        client_host: Arc::from(format!("/{}", context.connection.peer.ip())),
        session_timeout_ms,
        rebalance_timeout_ms: if context.version == 0 { session_timeout_ms } else { rebalance_timeout_ms },
        protocol_type: own(&request.protocol_type),
        protocols: protocols
            .map(|protocol| Protocol {
                name: own(&protocol.name),
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect(),
        requires_known_member_id: context.version >= 4,
        supports_skip_assignment: context.version >= 9,
    }
}

fn member(member: JoinedMember) -> JoinGroupResponseMember {
    JoinGroupResponseMember {
        member_id: Str::from(&*member.member_id),
        group_instance_id: member.instance_id.as_deref().map(Str::from),
        metadata: member.metadata,
    }
}
