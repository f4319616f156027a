//! InitProducerId, for producers that are idempotent or transactional.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::transaction::{InitRequest, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Producer};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::handler::{Handler, RequestContext};
use super::transaction_topic::fenced_code;
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

/// The version from which a fenced producer has its own error code.
const PRODUCER_FENCED_FROM: i16 = 4;

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
        let (producer, error_code) = match init(broker, &request).await {
            Ok(producer) => (producer, ErrorCode::NONE),
            Err(code) if context.version < PRODUCER_FENCED_FROM => (Producer::NONE, fenced_code(code)),
            Err(code) => (Producer::NONE, code),
        };
        let (producer_id, producer_epoch) = (producer.id, producer.epoch);
        InitProducerIdResponse { error_code, producer_id, producer_epoch, ..Default::default() }
    }
}

async fn init(broker: &Arc<Broker>, request: &InitProducerIdRequest) -> Result<Producer, ErrorCode> {
    let expected = match (request.producer_id, request.producer_epoch) {
        (NO_PRODUCER_ID, NO_PRODUCER_EPOCH) => None,
        (NO_PRODUCER_ID, _) | (_, NO_PRODUCER_EPOCH) => return Err(ErrorCode::INVALID_REQUEST),
        (id, epoch) => Some(Producer { id, epoch }),
    };
    match &request.transactional_id {
        Some(id) => {
            let request = InitRequest { timeout_ms: request.transaction_timeout_ms, expected };
            Ok(broker.transactions.init(id, request).await?)
        }
        // An idempotent producer that asks again, with or without an epoch, gets a new id.
        None => {
            let new_id = broker.producer_ids.next(|| broker.controller.allocate_producer_ids()).await;
            new_id.map(|id| Producer { id, epoch: 0 }).map_err(|error| error.code)
        }
    }
}
