//! DescribeAcls: lists access control entries.

use crate::{ErrorCode, Message, Str};

/// Asks for the entries that match a filter.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeAcls, response = DescribeAclsResponse, versions = 1..=3, flexible = 2)]
pub struct DescribeAclsRequest {
    pub resource_type_filter: i8,
    /// Null for any.
    pub resource_name_filter: Option<Str>,
    /// 3 matches literal names.
    #[wire(default = 3)]
    pub pattern_type_filter: i8,
    /// Null for any.
    pub principal_filter: Option<Str>,
    /// Null for any.
    pub host_filter: Option<Str>,
    pub operation: i8,
    pub permission_type: i8,
}

/// Lists the entries by resource.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=3, flexible = 2)]
pub struct DescribeAclsResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub resources: Vec<DescribeAclsResource>,
}

/// Lists the entries of one resource.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeAclsResource {
    pub resource_type: i8,
    pub resource_name: Str,
    #[wire(default = 3)]
    pub pattern_type: i8,
    pub acls: Vec<AclDescription>,
}

/// Describes one entry.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AclDescription {
    pub principal: Str,
    pub host: Str,
    pub operation: i8,
    pub permission_type: i8,
}
