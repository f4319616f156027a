//! TxnOffsetCommit: responds when the offsets are durable. They count once their transaction is committed.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::{Caller, GroupError, OffsetToCommit, own};
use millstream_coordinator::transaction::{Producer, TransactionVersion};
use millstream_wire::messages::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic, TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use super::handler::{Handler, RequestContext};
use super::offsets_topic;
use crate::broker::Broker;
use crate::produce::verifier::VerifyPartitions;
use crate::security::{AclOperation, Permission, ResourceType};
use crate::topics::Topic;

/// The version from which topics are named by their ids, and errors of groups have their own codes.
const BY_ID_FROM: i16 = 6;

/// The version from which the group's partition joins the transaction by itself.
const ADDS_FROM: i16 = 5;

/// The version from which a transaction that has to be aborted has its own error code.
const ABORTABLE_FROM: i16 = 4;

/// How often the coordinator is asked, if a marker comes each time. Clients retry after that.
const VERIFICATIONS_MAX: usize = 5;

pub(super) struct TxnOffsetCommit;

impl Handler for TxnOffsetCommit {
    type Request = TxnOffsetCommitRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Read, ResourceType::Group));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: TxnOffsetCommitRequest,
    ) -> TxnOffsetCommitResponse {
        let by_id = context.version >= BY_ID_FROM;
        let mut offsets = Vec::new();
        let checked = request.topics.iter().map(|topic| check_topic(broker, topic, by_id, &mut offsets));
        let mut topics: Vec<_> = checked.collect();
        if !offsets.is_empty() {
            let error_code = match commit(broker, context.version, &request, offsets).await {
                Ok(()) => ErrorCode::NONE,
                Err(GroupError::RecordTooLarge) => ErrorCode::INVALID_COMMIT_OFFSET_SIZE,
                Err(GroupError::GroupIdNotFound) if !by_id => ErrorCode::ILLEGAL_GENERATION,
                Err(error) => error.into(),
            };
            let all = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            all.filter(|partition| partition.error_code == ErrorCode::NONE)
                .for_each(|partition| partition.error_code = error_code);
        }
        TxnOffsetCommitResponse { topics, ..Default::default() }
    }
}

async fn commit(
    broker: &Arc<Broker>,
    version: i16,
    request: &TxnOffsetCommitRequest,
    offsets: Vec<OffsetToCommit>,
) -> Result<(), GroupError> {
    offsets_topic::ensure(broker).await?;
    let producer = Producer { id: request.producer_id, epoch: request.producer_epoch };
    let mut commit = broker.groups.begin_commit_in_transaction(&request.group_id, producer, offsets)?;
    let mut attempts = 0..VERIFICATIONS_MAX;
    while let Some((topic, partition)) = commit.to_verify() {
        if attempts.next().is_none() {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let asked = VerifyPartitions {
            transactional_id: request.transactional_id.clone(),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            adds: (version >= ADDS_FROM).then_some(TransactionVersion::V2),
            required: None,
            partitions: vec![(Str::from(&*topic), partition)],
        };
        for verified in broker.verifier.verify(asked).await {
            verified.map_err(|error| GroupError::NotInTransaction(code(error.code, version)))?;
        }
        // The marker of the transaction before may have come meanwhile.
        if broker.groups.renew_commit_in_transaction(&mut commit)? {
            break;
        }
    }
    let caller = Caller { member_id: &request.member_id, instance_id: request.group_instance_id.as_deref() };
    broker.groups.commit_in_transaction(commit, caller, request.generation_id_or_member_epoch).await
}

/// Returns the code for a transaction that its coordinator does not confirm. What passes has a code by which every
/// client sends the request again, without looking for the group's coordinator.
fn code(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        ErrorCode::PRODUCER_FENCED => ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::TRANSACTION_ABORTABLE if version < ABORTABLE_FROM => ErrorCode::INVALID_TXN_STATE,
        ErrorCode::CONCURRENT_TRANSACTIONS if version >= ADDS_FROM => code,
        ErrorCode::CONCURRENT_TRANSACTIONS
        | ErrorCode::NETWORK_EXCEPTION
        | ErrorCode::NOT_COORDINATOR
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        code => code,
    }
}

/// Checks a topic before the commit and returns its response so far. Adds the valid offsets to `offsets`.
fn check_topic(
    broker: &Broker,
    asked: &TxnOffsetCommitRequestTopic,
    by_id: bool,
    offsets: &mut Vec<OffsetToCommit>,
) -> TxnOffsetCommitResponseTopic {
    let table = broker.topics.load();
    let topic = table.resolve(by_id, &asked.name, asked.topic_id);
    let owned = topic.as_ref().map_or_else(|_| Arc::default(), |topic| own(&topic.name));
    let topic_id = topic.as_ref().map_or(Uuid::nil(), |topic| topic.id);
    let partitions = asked.partitions.iter().map(|partition| {
        let checked = match &topic {
            Ok(topic) => check_partition(broker, topic, partition),
            Err(error) => Err(error.code),
        };
        if checked.is_ok() {
            offsets.push(OffsetToCommit {
                topic: Arc::clone(&owned),
                topic_id,
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: own(partition.committed_metadata.as_ref().unwrap_or(&Str::EMPTY)),
            });
        }
        TxnOffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: checked.err().unwrap_or(ErrorCode::NONE),
        }
    });
    let partitions = partitions.collect();
    TxnOffsetCommitResponseTopic { name: asked.name.clone(), topic_id: asked.topic_id, partitions }
}

fn check_partition(broker: &Broker, topic: &Topic, asked: &TxnOffsetCommitRequestPartition) -> Result<(), ErrorCode> {
    if topic.partition(asked.partition_index).is_none() {
        return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    match &asked.committed_metadata {
        Some(metadata) if !broker.groups.fits_metadata(metadata) => Err(ErrorCode::OFFSET_METADATA_TOO_LARGE),
        _ => Ok(()),
    }
}
