//! ConsumerGroupHeartbeat: the consumer protocol (KIP-848) is not served. The API is still advertised, as Kafka does
//! with the protocol off: librdkafka reports this error, and without the API it would look for a broker that has it for
//! ever.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct ConsumerGroupHeartbeat;

impl Handler for ConsumerGroupHeartbeat {
    type Request = ConsumerGroupHeartbeatRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Read, ResourceType::Group));

    async fn handle(
        _: &Arc<Broker>,
        _: &RequestContext,
        _: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        ConsumerGroupHeartbeatResponse { error_code: ErrorCode::UNSUPPORTED_VERSION, ..Default::default() }
    }
}
