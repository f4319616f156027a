//! IncrementalAlterConfigs: sets, deletes, appends to or subtracts from single configs of a topic. The change is in force
//! at once.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource, IncrementalAlterConfigsResponse,
    IncrementalAlterableConfig,
};

use super::alter_configs::{check_type, resource_response};
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::config::{Kind, TopicOverrides, inherited as inherited_from, list, topic_key};
use crate::controller;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

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
    check_type(resource.resource_type)?;
    let configs = &resource.configs;
    for (place, config) in configs.iter().enumerate() {
        if configs[..place].iter().any(|before| before.name == config.name) {
            let message = format!("Error due to duplicate config keys: {}", config.name.as_str());
            return Err(ApiError::new(ErrorCode::INVALID_REQUEST, message));
        }
    }
    let inherited = |name: &str| {
        let key = topic_key(name)?;
        inherited_from(key, &|name| broker.config.explicit(name).map(str::to_owned))
    };
    let apply = |today: &TopicOverrides| {
        let mut wanted = today.clone();
        for config in configs {
            apply_one(&mut wanted, config, &inherited)?;
        }
        Ok(wanted)
    };
    controller::alter_topic(broker, &resource.resource_name, apply, validate_only).await
}

fn apply_one(
    wanted: &mut TopicOverrides,
    config: &IncrementalAlterableConfig,
    inherited: &dyn Fn(&str) -> Option<String>,
) -> Result<(), ApiError> {
    let name = config.name.as_str();
    if config.config_operation == DELETE {
        wanted.remove(name);
        return Ok(());
    }
    let value = config
        .value
        .as_deref()
        .ok_or_else(|| ApiError::new(ErrorCode::INVALID_REQUEST, format!("Null value not supported for : {name}")))?;
    if config.config_operation == SET {
        wanted.insert(name.to_owned(), value.to_owned());
        return Ok(());
    }
    let is_list = topic_key(name).is_some_and(|key| key.kind == Kind::List);
    if !is_list {
        let message = format!("Config value append/subtract is not allowed for config key: {name}");
        return Err(ApiError::new(ErrorCode::INVALID_CONFIG, message));
    }
    let current = wanted.get(name).cloned().or_else(|| inherited(name)).unwrap_or_default();
    let mut elements = list(&current);
    let given = list(value);
    match config.config_operation {
        APPEND => {
            for element in given {
                if !elements.contains(&element) {
                    elements.push(element);
                }
            }
        }
        SUBTRACT => elements.retain(|element| !given.contains(element)),
        other => {
            let message = format!("Unknown operation type {other} for {name}");
            return Err(ApiError::new(ErrorCode::INVALID_REQUEST, message));
        }
    }
    let joined = elements.join(",");
    wanted.insert(name.to_owned(), joined);
    Ok(())
}
