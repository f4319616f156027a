//! OffsetForLeaderEpoch: returns where an epoch ended, so that clients detect that their position is gone (KIP-320).

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct OffsetForLeaderEpoch;

impl Handler for OffsetForLeaderEpoch {
    type Request = OffsetForLeaderEpochRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=4;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Topic));

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                one(broker, &topic.topic, asked).unwrap_or_else(|error| EpochEndOffset {
                    error_code: error.code,
                    partition: asked.partition,
                    ..Default::default()
                })
            });
            OffsetForLeaderTopicResult { partitions: partitions.collect(), topic: topic.topic }
        });
        OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
    }
}

fn one(broker: &Broker, topic: &Str, asked: &OffsetForLeaderPartition) -> Result<EpochEndOffset, ApiError> {
    let partition = broker.partition(topic, asked.partition)?;
    partition.check_leader(asked.current_leader_epoch)?;
    let end = if asked.leader_epoch == partition.leader_epoch() {
        // The current epoch continues: it ends at the log's end, even before its first record.
        Some((asked.leader_epoch, partition.log_end_offset()?))
    } else {
        partition.with_log(|log| log.end_offset_for_epoch(asked.leader_epoch))?
    };
    let (leader_epoch, end_offset) = end.unwrap_or((-1, -1));
    Ok(EpochEndOffset { error_code: ErrorCode::NONE, partition: asked.partition, leader_epoch, end_offset })
}
