//! IncrementalAlterConfigs: sets, deletes, appends to or subtracts from single configs of a topic or a broker. The
//! change is in force at once.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource, IncrementalAlterConfigsResponse,
    IncrementalAlterableConfig,
};

use super::alter_configs::{check_cordons, request, resource_response};
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};
use millstream_metadata::controller::{ConfigChange, ConfigEdit, ConfigOperation};

/// The operations of an incremental change.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) struct IncrementalAlterConfigs;

impl Handler for IncrementalAlterConfigs {
    type Request = IncrementalAlterConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::AlterConfigs, ResourceType::Topic));

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let altered = change(broker, &resource, request.validate_only).await;
            responses.push(resource_response(resource.resource_type, resource.resource_name, altered));
        }
        IncrementalAlterConfigsResponse { responses, ..Default::default() }
    }
}

async fn change(
    broker: &Arc<Broker>,
    resource: &IncrementalAlterConfigsResource,
    validate_only: bool,
) -> Result<(), ApiError> {
    let configs = &resource.configs;
    for (place, config) in configs.iter().enumerate() {
        if configs[..place].iter().any(|before| before.name == config.name) {
            let message = format!("Error due to duplicate config keys: {}", config.name.as_str());
            return Err(ApiError::new(ErrorCode::INVALID_REQUEST, message));
        }
    }
    let edits = configs.iter().map(edit).collect::<Result<_, _>>()?;
    let request = request(resource.resource_type, &resource.resource_name, ConfigChange::Edit(edits))?;
    check_cordons(broker, &request)?;
    broker.controller.submit_one(request, validate_only).await.map(drop)
}

fn edit(config: &IncrementalAlterableConfig) -> Result<ConfigEdit, ApiError> {
    let name = config.name.as_str();
    let value = || {
        let null = || ApiError::new(ErrorCode::INVALID_REQUEST, format!("Null value not supported for : {name}"));
        config.value.as_deref().map(str::to_owned).ok_or_else(null)
    };
    let operation = match config.config_operation {
        SET => ConfigOperation::Set(value()?),
        DELETE => ConfigOperation::Delete,
        APPEND => ConfigOperation::Append(value()?),
        SUBTRACT => ConfigOperation::Subtract(value()?),
        other => {
            let message = format!("Unknown operation type {other} for {name}");
            return Err(ApiError::new(ErrorCode::INVALID_REQUEST, message));
        }
    };
    Ok(ConfigEdit { name: name.to_owned(), operation })
}
