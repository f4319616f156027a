//! EndTxn: responds when the outcome is durable. The markers follow.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::transaction::{Outcome, Producer, TransactionVersion};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{EndTxnRequest, EndTxnResponse};

use super::handler::{Handler, RequestContext};
use super::transaction_topic::fenced_code;
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

/// The version from which the producer gets a new epoch.
const RAISES_EPOCH_FROM: i16 = 5;

/// The version from which a fenced producer has its own error code.
const PRODUCER_FENCED_FROM: i16 = 2;

pub(super) struct EndTxn;

impl Handler for EndTxn {
    type Request = EndTxnRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Write, ResourceType::TransactionalId));

    async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: EndTxnRequest) -> EndTxnResponse {
        let producer = Producer { id: request.producer_id, epoch: request.producer_epoch };
        let outcome = if request.committed { Outcome::Commit } else { Outcome::Abort };
        let version = match context.version {
            ..RAISES_EPOCH_FROM => TransactionVersion::V0,
            _ => TransactionVersion::V2,
        };
        let ended = broker.transactions.end(&request.transactional_id, producer, outcome, version).await;
        let (next, error_code) = match ended {
            Ok(next) => (next, ErrorCode::NONE),
            Err(error) if context.version < PRODUCER_FENCED_FROM => (Producer::NONE, fenced_code(error.into())),
            Err(error) => (Producer::NONE, error.into()),
        };
        EndTxnResponse { error_code, producer_id: next.id, producer_epoch: next.epoch, ..Default::default() }
    }
}
