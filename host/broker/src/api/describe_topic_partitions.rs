//! DescribeTopicPartitions: topics and partitions, page by page, in the order of the names.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{
    DescribeTopicPartitionsCursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use millstream_wire::{ErrorCode, Str};

use super::cluster_view::{ClusterView, PartitionView};
use super::handler::{ENTRY_BYTES, Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType, allowed_operations};
use crate::topics::Topic;
use millstream_metadata::{PartitionImage, check_name};

/// The most partitions of one response: the default of Kafka's `max.request.partition.size.limit`.
const PARTITIONS_MAX: i32 = 2000;

pub(super) struct DescribeTopicPartitions;

impl Handler for DescribeTopicPartitions {
    type Request = DescribeTopicPartitionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Topic));

    fn response_bytes(broker: &Broker, _: &RequestContext, request: &DescribeTopicPartitionsRequest) -> usize {
        let asked = usize::try_from(request.response_partition_limit.clamp(1, PARTITIONS_MAX)).unwrap_or(1);
        ENTRY_BYTES * asked.min(broker.topics.load().entries())
    }

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
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
        page(broker, context, names, &request)
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
    context: &RequestContext,
    names: BTreeSet<Str>,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    // The table is loaded first: its topics are in every later image, unless they are deleted meanwhile.
    let table = broker.topics.load();
    let view = ClusterView::new(broker, &context.connection);
    let first = request.cursor.as_ref();
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = usize::try_from(request.response_partition_limit.clamp(1, PARTITIONS_MAX)).unwrap_or(1);
    for name in names.into_iter().filter(|name| first.is_none_or(|cursor| *name >= cursor.topic_name)) {
        let start = first.filter(|cursor| cursor.topic_name == name).map_or(0, |cursor| cursor.partition_index);
        if left == 0 {
            response.next_cursor = Some(DescribeTopicPartitionsCursor { topic_name: name, partition_index: 0 });
            break;
        }
        let topic = table.by_name(&name);
        let Some((topic, stored)) = topic.and_then(|topic| Some((topic, view.image.topic_by_id(topic.id)?))) else {
            // The topic was deleted meanwhile. It is missing only if it was requested by name.
            response.topics.extend((!request.topics.is_empty()).then(|| absent(name)));
            continue;
        };
        let start = usize::try_from(start).unwrap_or(0);
        let stored = view.image.partitions_of(stored);
        let end = stored.len().min(start.saturating_add(left));
        left -= end.saturating_sub(start);
        let partitions = (0..).zip(stored).take(end).skip(start);
        response.topics.push(describe(topic, partitions.map(|(index, stored)| partition(&view, topic, index, stored))));
        if end < stored.len() {
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

fn describe(
    topic: &Topic,
    partitions: impl Iterator<Item = DescribeTopicPartitionsResponsePartition>,
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::NONE,
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        topic_authorized_operations: allowed_operations(true, AclOperation::TOPIC),
    }
}

/// Describes a partition. Kafka sets no error here: a partition without a leader has the leader -1.
fn partition(
    view: &ClusterView,
    topic: &Topic,
    index: i32,
    stored: &PartitionImage,
) -> DescribeTopicPartitionsResponsePartition {
    let PartitionView { leader, offline, .. } = view.partition(topic, index, stored);
    DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode::NONE,
        partition_index: index,
        leader_id: leader,
        leader_epoch: stored.leader_epoch,
        replica_nodes: stored.replicas.to_vec(),
        isr_nodes: stored.isr.to_vec(),
        eligible_leader_replicas: Some(stored.elr.to_vec()),
        last_known_elr: Some(stored.last_known_elr.to_vec()),
        offline_replicas: offline,
    }
}
