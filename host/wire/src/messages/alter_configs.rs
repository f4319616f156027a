//! AlterConfigs: replaces all configurations of a resource. What is not named goes back to its default.

use crate::{ErrorCode, Message, Str};

/// Resources to configure.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = AlterConfigs, response = AlterConfigsResponse, versions = 0..=2, flexible = 2)]
pub struct AlterConfigsRequest {
    pub resources: Vec<AlterConfigsResource>,
    pub validate_only: bool,
}

/// All configurations that the resource shall have.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterConfigsResource {
    pub resource_type: i8,
    pub resource_name: Str,
    pub configs: Vec<AlterableConfig>,
}

/// One configuration.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterableConfig {
    pub name: Str,
    /// Null to take the default.
    pub value: Option<Str>,
}

/// What became of each resource.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=2, flexible = 2)]
pub struct AlterConfigsResponse {
    pub throttle_time_ms: i32,
    pub responses: Vec<AlterConfigsResourceResponse>,
}

/// What became of one resource.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterConfigsResourceResponse {
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub resource_type: i8,
    pub resource_name: Str,
}
