//! ListPartitionReassignments: none, since every partition has one replica.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct ListPartitionReassignments;

impl Handler for ListPartitionReassignments {
    type Request = ListPartitionReassignmentsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));

    async fn handle(
        _: &Arc<Broker>,
        _: &RequestContext,
        _: ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        ListPartitionReassignmentsResponse::default()
    }
}
