//! OffsetCommit: responds when the offsets are durable.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::{Caller, CommitRequest, GroupError, OffsetToCommit, own};
use millstream_wire::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use super::code;
use super::handler::{Handler, RequestContext};
use super::offsets_topic;
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};
use crate::topics::Topic;

/// The version from which topics are named by their ids.
const BY_ID_FROM: i16 = 10;

/// The version from which an unknown group has its own error code.
const NOT_FOUND_FROM: i16 = 9;

pub(super) struct OffsetCommit;

impl Handler for OffsetCommit {
    type Request = OffsetCommitRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=10;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Read, ResourceType::Group));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: OffsetCommitRequest,
    ) -> OffsetCommitResponse {
        let by_id = context.version >= BY_ID_FROM;
        let mut offsets = Vec::new();
        let checked = request.topics.iter().map(|topic| check_topic(broker, topic, by_id, &mut offsets));
        let mut topics: Vec<_> = checked.collect();
        if !offsets.is_empty() {
            let commit = CommitRequest {
                caller: Caller { member_id: &request.member_id, instance_id: request.group_instance_id.as_deref() },
                generation: request.generation_id_or_member_epoch,
                retention_ms: (request.retention_time_ms >= 0).then_some(request.retention_time_ms),
                offsets,
            };
            let committed = match offsets_topic::ensure(broker).await {
                Ok(()) => broker.groups.commit(&request.group_id, commit).await,
                Err(error) => Err(error),
            };
            let error_code = match committed {
                // The offsets with their metadata exceed the largest batch; for a group's record another code is used.
                Err(GroupError::RecordTooLarge) => ErrorCode::INVALID_COMMIT_OFFSET_SIZE,
                // Older clients have no other error code for a group that does not know them.
                Err(GroupError::GroupIdNotFound) if context.version < NOT_FOUND_FROM => ErrorCode::ILLEGAL_GENERATION,
                answer => code(answer),
            };
            let all = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            all.filter(|partition| partition.error_code == ErrorCode::NONE)
                .for_each(|partition| partition.error_code = error_code);
        }
        OffsetCommitResponse { topics, ..Default::default() }
    }
}

/// Checks a topic before the commit and returns its response so far. Adds the valid offsets to `offsets`.
fn check_topic(
    broker: &Broker,
    asked: &OffsetCommitRequestTopic,
    by_id: bool,
    offsets: &mut Vec<OffsetToCommit>,
) -> OffsetCommitResponseTopic {
    let table = broker.topics.load();
    let topic = table.resolve(by_id, &asked.name, asked.topic_id);
    let owned = topic.as_ref().map_or_else(|_| Arc::default(), |topic| own(&topic.name));
    let partitions = asked.partitions.iter().map(|partition| {
        let checked = match &topic {
            Ok(topic) => check_partition(broker, topic, partition),
            Err(error) => Err(error.code),
        };
        if checked.is_ok() {
            offsets.push(to_commit(
                Arc::clone(&owned),
                topic.as_ref().map_or(Uuid::nil(), |topic| topic.id),
                partition,
            ));
        }
        OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: checked.err().unwrap_or(ErrorCode::NONE),
        }
    });
    let partitions = partitions.collect();
    OffsetCommitResponseTopic { name: asked.name.clone(), topic_id: asked.topic_id, partitions }
}

fn check_partition(broker: &Broker, topic: &Topic, asked: &OffsetCommitRequestPartition) -> Result<(), ErrorCode> {
    if topic.partition(asked.partition_index).is_none() {
        return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    match &asked.committed_metadata {
        Some(metadata) if !broker.groups.fits_metadata(metadata) => Err(ErrorCode::OFFSET_METADATA_TOO_LARGE),
        _ => Ok(()),
    }
}

fn to_commit(topic: Arc<str>, topic_id: Uuid, asked: &OffsetCommitRequestPartition) -> OffsetToCommit {
    OffsetToCommit {
        topic,
        topic_id,
        partition: asked.partition_index,
        offset: asked.committed_offset,
        leader_epoch: asked.committed_leader_epoch,
        metadata: own(asked.committed_metadata.as_ref().unwrap_or(&Str::EMPTY)),
    }
}
