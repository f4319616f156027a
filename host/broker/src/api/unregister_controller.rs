//! UnregisterController: forgets a controller that will not come back.
//!
//! The controllers here are the voters of the quorum, which only RemoveRaftVoter takes out.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{UnregisterControllerRequest, UnregisterControllerResponse};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct UnregisterController;

impl Handler for UnregisterController {
    type Request = UnregisterControllerRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Cluster));
    const NEEDS_TOPICS: bool = false;

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: UnregisterControllerRequest,
    ) -> UnregisterControllerResponse {
        let (active, voters) = match &broker.cluster {
            Some(cluster) => (cluster.leadership().leader, cluster.voters().into_iter().map(|(id, _)| id).collect()),
            None => (Some(broker.config.node_id), Vec::new()),
        };
        let error = why_not(active, &voters, request.controller_id);
        UnregisterControllerResponse { error_code: error.code, error_message: error.text(), ..Default::default() }
    }
}

/// Returns why a controller cannot be unregistered.
fn why_not(active: Option<i32>, voters: &[i32], id: i32) -> ApiError {
    if Some(id) == active {
        let message = "Controller cannot unregister itself while it is active.";
        return ApiError::new(ErrorCode::INVALID_REQUEST, message);
    }
    if voters.contains(&id) {
        let message = format!("Controller ID {id} is a voter of the quorum: remove it with RemoveRaftVoter.");
        return ApiError::new(ErrorCode::INVALID_REQUEST, message);
    }
    let message = format!("Controller ID {id} is not currently registered.");
    ApiError::new(ErrorCode::CONTROLLER_ID_NOT_REGISTERED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_active_controller_and_voters_stay() {
        for (id, code, part) in [
            (1, ErrorCode::INVALID_REQUEST, "while it is active"),
            (2, ErrorCode::INVALID_REQUEST, "RemoveRaftVoter"),
            (3, ErrorCode::CONTROLLER_ID_NOT_REGISTERED, "not currently registered"),
        ] {
            let error = why_not(Some(1), &[1, 2], id);
            assert_eq!(error.code, code, "{id}");
            assert!(error.message.contains(part), "{id}: {error}");
        }
    }
}
