//! DescribeConfigs: every configuration of a topic or a broker and where it comes from.

use crate::{ErrorCode, Message, Str};

/// Resources to describe.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeConfigs, response = DescribeConfigsResponse, versions = 1..=4, flexible = 4)]
pub struct DescribeConfigsRequest {
    pub resources: Vec<DescribeConfigsResource>,
    pub include_synonyms: bool,
    #[wire(versions = 3..)]
    pub include_documentation: bool,
}

/// A topic, a broker or another resource by its type and name.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeConfigsResource {
    /// 2 a topic, 4 a broker, 8 a broker logger, 32 a group.
    pub resource_type: i8,
    pub resource_name: Str,
    /// Null for all.
    pub configuration_keys: Option<Vec<Str>>,
}

/// The configurations of each resource.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=4, flexible = 4)]
pub struct DescribeConfigsResponse {
    pub throttle_time_ms: i32,
    pub results: Vec<DescribeConfigsResult>,
}

/// The configurations of one resource.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeConfigsResult {
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub resource_type: i8,
    pub resource_name: Str,
    pub configs: Vec<DescribeConfigsResourceResult>,
}

/// One configuration and where its value comes from.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeConfigsResourceResult {
    pub name: Str,
    pub value: Option<Str>,
    pub read_only: bool,
    /// 1 the topic, 2 the broker at run time, 3 the default of all brokers, 4 its file, 5 the default.
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

/// A place where the value could come from, the one in force first.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeConfigsSynonym {
    pub name: Str,
    pub value: Option<Str>,
    pub source: i8,
}
