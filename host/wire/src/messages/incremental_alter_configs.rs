//! IncrementalAlterConfigs: changes single configs (KIP-339).

use super::alter_configs::AlterConfigsResourceResponse;
use crate::{Message, Str};

/// Changes configs of resources.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = IncrementalAlterConfigs, response = IncrementalAlterConfigsResponse, versions = 0..=1, flexible = 1)]
pub struct IncrementalAlterConfigsRequest {
    pub resources: Vec<IncrementalAlterConfigsResource>,
    pub validate_only: bool,
}

/// Lists the changes of one resource: `AlterConfigsResource` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct IncrementalAlterConfigsResource {
    pub resource_type: i8,
    pub resource_name: Str,
    pub configs: Vec<IncrementalAlterableConfig>,
}

/// Describes one change: `AlterableConfig` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct IncrementalAlterableConfig {
    pub name: Str,
    /// 0 set, 1 delete, 2 append to a list, 3 subtract from it.
    pub config_operation: i8,
    pub value: Option<Str>,
}

/// Reports the result for each resource.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1, flexible = 1)]
pub struct IncrementalAlterConfigsResponse {
    pub throttle_time_ms: i32,
    pub responses: Vec<AlterConfigsResourceResponse>,
}
