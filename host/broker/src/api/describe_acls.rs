//! DescribeAcls: there is no authorizer. The response is that of Kafka without one.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{DescribeAclsRequest, DescribeAclsResponse};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct DescribeAcls;

impl Handler for DescribeAcls {
    type Request = DescribeAclsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));
    const NEEDS_TOPICS: bool = false;

    async fn handle(_: &Arc<Broker>, _: &RequestContext, _: DescribeAclsRequest) -> DescribeAclsResponse {
        DescribeAclsResponse {
            error_code: ErrorCode::SECURITY_DISABLED,
            error_message: Some(Str::from_static("No Authorizer is configured on the broker")),
            ..Default::default()
        }
    }
}
