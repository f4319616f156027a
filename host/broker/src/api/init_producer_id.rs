//! InitProducerId, for producers that are idempotent and not transactional.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct InitProducerId;

impl Handler for InitProducerId {
    type Request = InitProducerIdRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::IdempotentWrite, ResourceType::Cluster));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: InitProducerIdRequest,
    ) -> InitProducerIdResponse {
        let refused = |error_code| InitProducerIdResponse { error_code, producer_epoch: -1, ..Default::default() };
        if let Some(id) = &request.transactional_id {
            if id.is_empty() {
                return refused(ErrorCode::INVALID_REQUEST);
            }
            let client = context.client_id.as_deref().unwrap_or_default();
            tracing::warn!(
                client,
                transactional_id = id.as_str(),
                "rejected: transactions are not supported by this broker"
            );
            return refused(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
        }
        // An idempotent producer that asks again, with or without an epoch, gets a new id.
        match broker.producer_ids.next(|| broker.controller.allocate_producer_ids()).await {
            Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
            Err(error) => refused(error.code),
        }
    }
}
