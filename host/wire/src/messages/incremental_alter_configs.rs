//! IncrementalAlterConfigs: changes the configurations that are named (KIP-339).

use super::alter_configs::AlterConfigsResourceResponse;
use crate::{Message, Str};

/// Resources to change.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = IncrementalAlterConfigs, response = IncrementalAlterConfigsResponse, versions = 0..=1, flexible = 1)]
pub struct IncrementalAlterConfigsRequest {
    pub resources: Vec<IncrementalAlterConfigsResource>,
    pub validate_only: bool,
}

/// What to change in one resource. `AlterConfigsResource` in Kafka's schema, as is the next `AlterableConfig`.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct IncrementalAlterConfigsResource {
    pub resource_type: i8,
    pub resource_name: Str,
    pub configs: Vec<IncrementalAlterableConfig>,
}

/// One change.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct IncrementalAlterableConfig {
    pub name: Str,
    /// 0 set, 1 delete, 2 append to a list, 3 subtract from it.
    pub config_operation: i8,
    pub value: Option<Str>,
}

/// What became of each resource.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1, flexible = 1)]
pub struct IncrementalAlterConfigsResponse {
    pub throttle_time_ms: i32,
    pub responses: Vec<AlterConfigsResourceResponse>,
}
