//! DescribeTopicPartitions: topics and partitions, page by page, in the order of the names.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_partition::Partition;
use millstream_wire::messages::{
    DescribeTopicPartitionsCursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType, allowed_operations};
use crate::topics::Topic;
use millstream_metadata::check_name;

/// The most partitions of one response: the default of Kafka's `max.request.partition.size.limit`.
const PARTITIONS_MAX: i32 = 2000;

pub(super) struct DescribeTopicPartitions;

impl Handler for DescribeTopicPartitions {
    type Request = DescribeTopicPartitionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Topic));

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: DescribeTopicPartitionsRequest,
    ) -> DescribeTopicPartitionsResponse {
        let names: BTreeSet<Str> = if request.topics.is_empty() {
            broker.topics.load().iter().map(|topic| topic.name.clone()).collect()
        } else {
            request.topics.iter().map(|topic| topic.name.clone()).collect()
        };
        if !is_valid(request.cursor.as_ref(), &names, request.topics.is_empty()) {
            return invalid(&request);
        }
        page(broker, names, &request)
    }
}

/// Returns whether a page can start there: at a partition, and at a requested topic.
fn is_valid(cursor: Option<&DescribeTopicPartitionsCursor>, names: &BTreeSet<Str>, all: bool) -> bool {
    cursor.is_none_or(|cursor| cursor.partition_index >= 0 && (all || names.contains(&cursor.topic_name)))
}

/// Responds to a bad cursor with an error for each topic, as Kafka does: the response has no other place for one.
fn invalid(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::INVALID_REQUEST,
        name: Some(topic.name.clone()),
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

fn page(
    broker: &Broker,
    names: BTreeSet<Str>,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let table = broker.topics.load();
    let first = request.cursor.as_ref();
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = usize::try_from(request.response_partition_limit.clamp(1, PARTITIONS_MAX)).unwrap_or(1);
    for name in names.into_iter().filter(|name| first.is_none_or(|cursor| *name >= cursor.topic_name)) {
        let start = first.filter(|cursor| cursor.topic_name == name).map_or(0, |cursor| cursor.partition_index);
        if left == 0 {
            response.next_cursor = Some(DescribeTopicPartitionsCursor { topic_name: name, partition_index: 0 });
            break;
        }
        let Some(topic) = table.by_name(&name) else {
            // The topic was deleted meanwhile. It is missing only if it was requested by name.
            response.topics.extend((!request.topics.is_empty()).then(|| absent(name)));
            continue;
        };
        let start = usize::try_from(start).unwrap_or(0);
        let end = topic.partitions.len().min(start.saturating_add(left));
        let partitions = topic.partitions.get(start..end).unwrap_or_default();
        left -= partitions.len();
        response.topics.push(describe(broker, topic, partitions));
        if end < topic.partitions.len() {
            let partition_index = i32::try_from(end).unwrap_or(i32::MAX);
            response.next_cursor = Some(DescribeTopicPartitionsCursor { topic_name: name, partition_index });
            break;
        }
    }
    response
}

fn absent(name: Str) -> DescribeTopicPartitionsResponseTopic {
    let error_code =
        check_name(&name).map_or_else(|error| ApiError::from(error).code, |()| ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    DescribeTopicPartitionsResponseTopic {
        error_code,
        topic_authorized_operations: allowed_operations(true, AclOperation::TOPIC),
        name: Some(name),
        ..Default::default()
    }
}

fn describe(broker: &Broker, topic: &Topic, partitions: &[Arc<Partition>]) -> DescribeTopicPartitionsResponseTopic {
    let node_id = broker.config.node_id;
    let partitions = partitions.iter().map(|partition| {
        let online = partition.is_online();
        DescribeTopicPartitionsResponsePartition {
            error_code: ErrorCode::NONE,
            partition_index: partition.index(),
            leader_id: if online { node_id } else { -1 },
            leader_epoch: partition.leader_epoch(),
            replica_nodes: vec![node_id],
            isr_nodes: vec![node_id],
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            offline_replicas: if online { Vec::new() } else { vec![node_id] },
        }
    });
    DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::NONE,
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        topic_authorized_operations: allowed_operations(true, AclOperation::TOPIC),
    }
}
