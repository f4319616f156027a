//! DescribeConfigs: the configs of resources, and where their values come from.

use crate::{ErrorCode, Message, Str};

/// Asks for the configs of resources.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeConfigs, response = DescribeConfigsResponse, versions = 1..=4, flexible = 4)]
pub struct DescribeConfigsRequest {
    pub resources: Vec<DescribeConfigsResource>,
    pub include_synonyms: bool,
    #[wire(versions = 3..)]
    pub include_documentation: bool,
}

/// Names one resource.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeConfigsResource {
    /// A [`ConfigResourceType`](crate::ConfigResourceType) as a number.
    pub resource_type: i8,
    pub resource_name: Str,
    /// Null for all configs.
    pub configuration_keys: Option<Vec<Str>>,
}

/// Describes the configs of each resource.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=4, flexible = 4)]
pub struct DescribeConfigsResponse {
    pub throttle_time_ms: i32,
    pub results: Vec<DescribeConfigsResult>,
}

/// Describes the configs of one resource.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeConfigsResult {
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub resource_type: i8,
    pub resource_name: Str,
    pub configs: Vec<DescribeConfigsResourceResult>,
}

/// Describes one config.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeConfigsResourceResult {
    pub name: Str,
    pub value: Option<Str>,
    pub read_only: bool,
    /// 1 the topic, 2 the broker at run time, 3 all brokers at run time, 4 the broker's file, 5 the default.
    #[wire(default = -1)]
    pub config_source: i8,
    pub is_sensitive: bool,
    pub synonyms: Vec<DescribeConfigsSynonym>,
    /// 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password.
    #[wire(versions = 3..)]
    pub config_type: i8,
    #[wire(versions = 3..)]
    pub documentation: Option<Str>,
}

/// Names one place that sets the value; the first one in the list wins.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeConfigsSynonym {
    pub name: Str,
    pub value: Option<Str>,
    pub source: i8,
}
