//! DeleteGroups: removes empty groups with their offsets.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
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
        // All at once, so that one fsync commits many deletions.
        let deletions: Vec<_> = groups
            .into_iter()
            .map(|group_id| {
                let coordinator = Arc::clone(&broker.groups);
                let id = group_id.to_string();
                (group_id, tokio::spawn(async move { coordinator.delete_group(&id).await }))
            })
            .collect();
        let mut results = Vec::with_capacity(deletions.len());
        for (group_id, deletion) in deletions {
            let error_code = deletion.await.map_or(ErrorCode::UNKNOWN_SERVER_ERROR, code);
            results.push(DeletableGroupResult { group_id, error_code, error_message: None });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    }
}
