//! AlterConfigs: replaces all configs of a topic, or those of a broker that can be changed while it runs. The change is
//! in force at once.

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
use millstream_metadata::CORDONED_LOG_DIRS;
use millstream_metadata::controller::{ConfigChange, ConfigEdit, ConfigOperation, Request};

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

/// Makes the request of a change of a topic or a broker. An empty name stands for all brokers.
pub(super) fn request(resource_type: i8, name: &str, change: ConfigChange) -> Result<Request, ApiError> {
    let invalid = |message| ApiError::new(ErrorCode::INVALID_REQUEST, message);
    match ConfigResourceType::try_from(resource_type) {
        Ok(ConfigResourceType::Topic) => Ok(Request::AlterTopic { name: name.to_owned(), change }),
        Ok(ConfigResourceType::Broker) if name.is_empty() => Ok(Request::AlterBroker { broker: None, change }),
        Ok(ConfigResourceType::Broker) => {
            let id = name.parse();
            let id =
                id.map_err(|_| invalid(format!("Unexpected broker id, expected a number, but received {name}")))?;
            Ok(Request::AlterBroker { broker: Some(id), change })
        }
        Ok(_) | Err(_) => {
            Err(invalid(format!("Unsupported resource type {resource_type}: only topics and brokers can be altered.")))
        }
    }
}

/// Checks the folders that a change of a broker cordons. Only the broker itself knows its folders.
pub(super) fn check_cordons(broker: &Broker, request: &Request) -> Result<(), ApiError> {
    let Request::AlterBroker { broker: id, change } = request else { return Ok(()) };
    let values: Vec<&String> = match change {
        ConfigChange::Replace(configs) => configs.get(CORDONED_LOG_DIRS).into_iter().collect(),
        ConfigChange::Edit(edits) => edits.iter().filter_map(cordoned_by).collect(),
    };
    for folders in values.into_iter().filter(|folders| !folders.is_empty() && folders.trim() != "*") {
        if *id != Some(broker.config.node_id) {
            let id = id.map_or("each broker".to_owned(), |id| format!("broker {id}"));
            let message = format!("{CORDONED_LOG_DIRS} names folders, which only {id} knows: send the request there.");
            return Err(ApiError::new(ErrorCode::INVALID_REQUEST, message));
        }
        broker.config.check_cordoned_folders(folders)?;
    }
    Ok(())
}

fn cordoned_by(edit: &ConfigEdit) -> Option<&String> {
    match &edit.operation {
        ConfigOperation::Set(folders) | ConfigOperation::Append(folders) if edit.name == CORDONED_LOG_DIRS => {
            Some(folders)
        }
        _ => None,
    }
}

async fn replace(broker: &Arc<Broker>, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), ApiError> {
    // A missing value asks for the default, which is also what a config that is not named gets.
    let set =
        resource.configs.iter().filter_map(|config| Some((config.name.as_str(), config.value.as_ref()?.as_str())));
    let configs = set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let request = request(resource.resource_type, &resource.resource_name, ConfigChange::Replace(configs))?;
    check_cordons(broker, &request)?;
    broker.controller.submit_one(request, validate_only).await.map(drop)
}
