//! ListConfigResources: lists the resources that have configs (KIP-1142).

use crate::{ErrorCode, Message, Str};

/// Asks for the resources of some types.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = ListConfigResources, response = ListConfigResourcesResponse, versions = 0..=1, flexible = 0)]
pub struct ListConfigResourcesRequest {
    /// [`ConfigResourceType`](crate::ConfigResourceType) as numbers; empty for all. Version 0 lists client metrics.
    #[wire(versions = 1..)]
    pub resource_types: Vec<i8>,
}

/// Lists the resources.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1, flexible = 0)]
pub struct ListConfigResourcesResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub config_resources: Vec<ListedConfigResource>,
}

/// Names one resource: `ConfigResource` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ListedConfigResource {
    pub resource_name: Str,
    /// 16, client metrics, in version 0.
    #[wire(versions = 1.., default = 16)]
    pub resource_type: i8,
}
