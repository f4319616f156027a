//! AlterConfigs: replaces all configs of a resource. A config that is not named returns to its default.

use crate::{ErrorCode, Message, Str};

/// Replaces the configs of resources.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = AlterConfigs, response = AlterConfigsResponse, versions = 0..=2, flexible = 2)]
pub struct AlterConfigsRequest {
    pub resources: Vec<AlterConfigsResource>,
    pub validate_only: bool,
}

/// Lists all configs of one resource.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterConfigsResource {
    pub resource_type: i8,
    pub resource_name: Str,
    pub configs: Vec<AlterableConfig>,
}

/// Holds one config.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterableConfig {
    pub name: Str,
    /// Null for the default.
    pub value: Option<Str>,
}

/// Reports the result for each resource.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=2, flexible = 2)]
pub struct AlterConfigsResponse {
    pub throttle_time_ms: i32,
    pub responses: Vec<AlterConfigsResourceResponse>,
}

/// Reports the result for one resource.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterConfigsResourceResponse {
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub resource_type: i8,
    pub resource_name: Str,
}
