//! ConsumerGroupDescribe: the consumer protocol (KIP-848) is not served, see `consumer_group_heartbeat.rs`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribedConsumerGroup};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct ConsumerGroupDescribe;

impl Handler for ConsumerGroupDescribe {
    type Request = ConsumerGroupDescribeRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Group));

    async fn handle(
        _: &Arc<Broker>,
        _: &RequestContext,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        let groups = request.group_ids.into_iter().map(|group_id| DescribedConsumerGroup {
            error_code: ErrorCode::UNSUPPORTED_VERSION,
            group_id,
            ..Default::default()
        });
        ConsumerGroupDescribeResponse { groups: groups.collect(), ..Default::default() }
    }
}
