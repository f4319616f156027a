//! DeleteGroups: removes empty groups with their offsets.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};

use super::code;
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct DeleteGroups;

impl Handler for DeleteGroups {
    type Request = DeleteGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=3;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Delete, ResourceType::Group));

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
        // A group that is named twice gets one result, as in Kafka.
        let groups: BTreeSet<_> = request.groups_names.into_iter().collect();
        // All tombstones are appended before the first fsync is awaited.
        let deletions: Vec<_> =
            groups.into_iter().map(|group_id| (broker.groups.delete_group(&group_id), group_id)).collect();
        let mut results = Vec::with_capacity(deletions.len());
        for (deletion, group_id) in deletions {
            let deleted = match deletion {
                Ok(durable) => durable.await,
                Err(error) => Err(error),
            };
            results.push(DeletableGroupResult { group_id, error_code: code(deleted), error_message: None });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    }
}
