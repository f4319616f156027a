//! SyncGroup: responds when the leader's assignment is durable.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use millstream_coordinator::group::{SyncRequest, own, own_option};
use millstream_wire::messages::{SyncGroupRequest, SyncGroupResponse};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

/// The version from which the protocol has to be named (KIP-559).
const NAMES_FROM: i16 = 5;

pub(super) struct SyncGroup;

impl Handler for SyncGroup {
    type Request = SyncGroupRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Read, ResourceType::Group));

    async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
        let named = request.protocol_type.is_some() && request.protocol_name.is_some();
        if context.version >= NAMES_FROM && !named {
            return SyncGroupResponse { error_code: ErrorCode::INCONSISTENT_GROUP_PROTOCOL, ..Default::default() };
        }
        let group_id = own(&request.group_id);
        let given = request.assignments.iter();
        let sync = SyncRequest {
            member_id: own(&request.member_id),
            instance_id: own_option(request.group_instance_id.as_ref()),
            generation: request.generation_id,
            protocol_type: own_option(request.protocol_type.as_ref()),
            protocol: own_option(request.protocol_name.as_ref()),
            assignments: given.map(|to| (own(&to.member_id), Bytes::copy_from_slice(&to.assignment))).collect(),
        };
        drop(request);
        match broker.groups.sync(&group_id, sync).await {
            Ok(synced) => SyncGroupResponse {
                protocol_type: synced.protocol_type.as_deref().map(Str::from),
                protocol_name: synced.protocol.as_deref().map(Str::from),
                assignment: synced.assignment,
                ..Default::default()
            },
            Err(error) => SyncGroupResponse { error_code: error.into(), ..Default::default() },
        }
    }
}
