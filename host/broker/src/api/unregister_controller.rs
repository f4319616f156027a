//! UnregisterController: removes a controller that will not come back. This node is the only one, and active.

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
        let error = why_not(broker.config.node_id, request.controller_id);
        UnregisterControllerResponse { error_code: error.code, error_message: error.text(), ..Default::default() }
    }
}

/// Returns why a controller cannot be unregistered.
fn why_not(active: i32, id: i32) -> ApiError {
    if id == active {
        let message = "Controller cannot unregister itself while it is active.";
        return ApiError::new(ErrorCode::INVALID_REQUEST, message);
    }
    let message = format!("Controller ID {id} is not currently registered.");
    ApiError::new(ErrorCode::CONTROLLER_ID_NOT_REGISTERED, message)
}
