//! AddOffsetsToTxn: adds the partition of `__consumer_offsets` that has the offsets of a group.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::{CONSUMER_OFFSETS, partition_of};
use millstream_coordinator::transaction::{Producer, TransactionVersion};
use millstream_wire::ErrorCode;
use millstream_wire::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::handler::{Handler, RequestContext};
use super::offsets_topic;
use super::transaction_topic::fenced_code;
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

/// The version from which a fenced producer has its own error code.
const PRODUCER_FENCED_FROM: i16 = 2;

pub(super) struct AddOffsetsToTxn;

impl Handler for AddOffsetsToTxn {
    type Request = AddOffsetsToTxnRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Write, ResourceType::TransactionalId));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: AddOffsetsToTxnRequest,
    ) -> AddOffsetsToTxnResponse {
        let error_code = match add(broker, &request).await {
            Ok(()) => ErrorCode::NONE,
            Err(code) if context.version < PRODUCER_FENCED_FROM => fenced_code(code),
            Err(code) => code,
        };
        AddOffsetsToTxnResponse { error_code, ..Default::default() }
    }
}

async fn add(broker: &Arc<Broker>, request: &AddOffsetsToTxnRequest) -> Result<(), ErrorCode> {
    offsets_topic::ensure(broker).await?;
    let image = broker.metadata.image();
    let count = image.topic(CONSUMER_OFFSETS).map_or(0, |topic| topic.partition_count());
    let partition = (Arc::from(CONSUMER_OFFSETS), partition_of(&request.group_id, count));
    let producer = Producer { id: request.producer_id, epoch: request.producer_epoch };
    let (id, version) = (request.transactional_id.as_str(), TransactionVersion::V0);
    Ok(broker.transactions.add_partitions(id, producer, &[partition], version).await?)
}
