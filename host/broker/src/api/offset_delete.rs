//! OffsetDelete: removes committed offsets of topics that the group does not subscribe to.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};
use millstream_coordinator::group::own;

pub(super) struct OffsetDelete;

impl Handler for OffsetDelete {
    type Request = OffsetDeleteRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Delete, ResourceType::Group));

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
        if request.group_id.is_empty() {
            return OffsetDeleteResponse { error_code: ErrorCode::INVALID_GROUP_ID, ..Default::default() };
        }
        let table = broker.topics.load_full();
        let asked: Vec<_> = request
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|partition| (&topic.name, partition.partition_index)))
            .filter(|(topic, partition)| table.partition(topic, *partition).is_some())
            .map(|(topic, partition)| (own(topic), partition))
            .collect();
        let results = match broker.groups.delete_offsets(&request.group_id, &asked).await {
            Ok(results) => results,
            Err(error) => return OffsetDeleteResponse { error_code: error.into(), ..Default::default() },
        };
        let mut results = results.into_iter();
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let partition_index = partition.partition_index;
                let error_code = match table.partition(&topic.name, partition_index) {
                    Some(_) => results.next().map_or(ErrorCode::UNKNOWN_SERVER_ERROR, super::code),
                    None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                };
                OffsetDeleteResponsePartition { partition_index, error_code }
            });
            OffsetDeleteResponseTopic { partitions: partitions.collect(), name: topic.name }
        });
        OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
    }
}
