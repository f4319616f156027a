//! AlterConfigs and IncrementalAlterConfigs: options of topics, in force at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_wire::messages::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource, IncrementalAlterConfigsResponse,
    IncrementalAlterableConfig,
};
use millstream_wire::{ErrorCode, Str};

use super::RequestContext;
use super::describe_configs::{BROKER, TOPIC};
use crate::broker::Broker;
use crate::config::{Kind, TopicOverrides, inherited as inherited_from, list, topic_key};
use crate::controller;
use crate::error::ApiError;

/// What an incremental change does.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// The whole of a topic's options is replaced: what is not named goes back to its default.
pub(super) async fn handle(
    broker: &Arc<Broker>,
    _: &RequestContext,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let altered = replace(broker, &resource, request.validate_only).await;
        responses.push(answer(resource.resource_type, resource.resource_name, altered));
    }
    AlterConfigsResponse { responses, ..Default::default() }
}

/// Single options are set, taken off, or changed as lists; all others stay.
pub(super) async fn handle_incremental(
    broker: &Arc<Broker>,
    _: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let altered = change(broker, &resource, request.validate_only).await;
        responses.push(answer(resource.resource_type, resource.resource_name, altered));
    }
    IncrementalAlterConfigsResponse { responses, ..Default::default() }
}

fn answer(resource_type: i8, resource_name: Str, altered: Result<(), ApiError>) -> AlterConfigsResourceResponse {
    let (error_code, error_message) = match altered {
        Ok(()) => (ErrorCode::NONE, None),
        Err(error) => (error.code, error.text()),
    };
    AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
}

fn check_type(resource_type: i8) -> Result<(), ApiError> {
    let message = match resource_type {
        TOPIC => return Ok(()),
        BROKER => {
            "The options of a broker cannot be changed at run time: set them in its file and restart it.".to_owned()
        }
        other => format!("Unsupported resource type {other}: only topics can be altered."),
    };
    Err(ApiError::new(ErrorCode::INVALID_REQUEST, message))
}

async fn replace(broker: &Arc<Broker>, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), ApiError> {
    check_type(resource.resource_type)?;
    let mut wanted: TopicOverrides = BTreeMap::new();
    for config in &resource.configs {
        // No value asks for the default, which is what an option has that is not named.
        if let Some(value) = &config.value {
            wanted.insert(config.name.as_str().to_owned(), value.as_str().to_owned());
        }
    }
    controller::alter_topic(broker, &resource.resource_name, |_| Ok(wanted), validate_only).await
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
