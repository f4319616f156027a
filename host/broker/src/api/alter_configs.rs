//! AlterConfigs: replaces all configs of a topic. The change is in force at once.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};
use millstream_wire::{ConfigResourceType, ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};
use millstream_metadata::controller::{ConfigChange, Request};

pub(super) struct AlterConfigs;

impl Handler for AlterConfigs {
    type Request = AlterConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::AlterConfigs, ResourceType::Topic));

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let altered = replace(broker, &resource, request.validate_only).await;
            responses.push(resource_response(resource.resource_type, resource.resource_name, altered));
        }
        AlterConfigsResponse { responses, ..Default::default() }
    }
}

pub(super) fn resource_response(
    resource_type: i8,
    resource_name: Str,
    altered: Result<(), ApiError>,
) -> AlterConfigsResourceResponse {
    let (error_code, error_message) = match altered {
        Ok(()) => (ErrorCode::NONE, None),
        Err(error) => (error.code, error.text()),
    };
    AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
}

pub(super) fn check_type(resource_type: i8) -> Result<(), ApiError> {
    let message = match ConfigResourceType::try_from(resource_type) {
        Ok(ConfigResourceType::Topic) => return Ok(()),
        Ok(ConfigResourceType::Broker) => {
            "Configs of a broker cannot be changed while it runs: set them in its file and restart it.".to_owned()
        }
        Ok(_) | Err(_) => format!("Unsupported resource type {resource_type}: only topics can be altered."),
    };
    Err(ApiError::new(ErrorCode::INVALID_REQUEST, message))
}

async fn replace(broker: &Arc<Broker>, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), ApiError> {
    check_type(resource.resource_type)?;
    // A missing value asks for the default, which is also what a config that is not named gets.
    let set =
        resource.configs.iter().filter_map(|config| Some((config.name.as_str(), config.value.as_ref()?.as_str())));
    let configs = set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    alter(broker, &resource.resource_name, ConfigChange::Replace(configs), validate_only).await
}

pub(super) async fn alter(
    broker: &Arc<Broker>,
    topic: &str,
    change: ConfigChange,
    validate_only: bool,
) -> Result<(), ApiError> {
    let request = Request::AlterTopic { name: topic.to_owned(), change };
    broker.controller.submit_one(request, validate_only).await.map(drop)
}
