//! OffsetFetch: one group up to version 7, many from version 8; topics by id from version 10.
//!
//! With `require_stable`, an offset that an open transaction may still change is an error that clients retry.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::{CommittedOffset, FetchedOffsets, GroupError, own};
use millstream_wire::messages::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use super::handler::{Handler, RequestContext, UNKNOWN_BYTES};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

/// The version from which one request has many groups.
const BATCHED_FROM: i16 = 8;

/// The version from which topics are named by their ids.
const BY_ID_FROM: i16 = 10;

/// The version from which the response has an error for the whole group.
const GROUP_ERROR_FROM: i16 = 2;

/// The partitions whose offsets an open transaction may still change.
type Unstable = BTreeSet<(Arc<str>, i32)>;

pub(super) struct OffsetFetch;

impl Handler for OffsetFetch {
    type Request = OffsetFetchRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=10;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Group));

    fn response_bytes(_: &Broker, _: &RequestContext, request: &OffsetFetchRequest) -> usize {
        let is_one = request.groups.is_empty() && request.topics.is_none();
        let all = request.groups.iter().filter(|group| group.topics.is_none()).count();
        UNKNOWN_BYTES * (all + usize::from(is_one))
    }

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: OffsetFetchRequest,
    ) -> OffsetFetchResponse {
        if context.version >= BATCHED_FROM {
            let by_id = context.version >= BY_ID_FROM;
            let groups =
                request.groups.into_iter().map(|group| fetch(broker, group, by_id, request.require_stable)).collect();
            return OffsetFetchResponse { groups, ..Default::default() };
        }
        // The old form is converted to the new one with one group.
        let named = |topic: millstream_wire::messages::OffsetFetchRequestTopic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        };
        let topics = request.topics.map(|topics| topics.into_iter().map(named).collect::<Vec<_>>());
        let asked = topics.clone().unwrap_or_default();
        let group = OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() };
        let mut fetched = fetch(broker, group, false, request.require_stable);
        if context.version < GROUP_ERROR_FROM && fetched.error_code != ErrorCode::NONE {
            let refused = |topic| answer_all(topic, fetched.error_code);
            fetched.topics = asked.into_iter().map(refused).collect();
        }
        let topics = fetched.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic.partitions.into_iter().map(old_partition).collect(),
        });
        OffsetFetchResponse { topics: topics.collect(), error_code: fetched.error_code, ..Default::default() }
    }
}

fn fetch(
    broker: &Arc<Broker>,
    group: OffsetFetchRequestGroup,
    by_id: bool,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let id = &group.group_id;
    // What is unstable comes first: a transaction that ends in between makes its offsets stable.
    let unstable = if require_stable { broker.groups.unstable_offsets(id) } else { Ok(Unstable::new()) };
    let topics = unstable.and_then(|unstable| match group.topics {
        Some(topics) => some(broker, id, topics, by_id, &unstable),
        None => all(broker, id, by_id, &unstable),
    });
    let (topics, error_code) = match topics {
        Ok(topics) => (topics, ErrorCode::NONE),
        Err(error) => (Vec::new(), error.into()),
    };
    OffsetFetchResponseGroup { group_id: group.group_id, topics, error_code }
}

fn some(
    broker: &Arc<Broker>,
    group_id: &str,
    asked: Vec<OffsetFetchRequestTopics>,
    by_id: bool,
    unstable: &Unstable,
) -> Result<Vec<OffsetFetchResponseTopics>, GroupError> {
    // A deleted topic may still have committed offsets.
    let table = broker.topics.load();
    let name = |topic: &OffsetFetchRequestTopics| match by_id {
        true => table.by_id(topic.topic_id).map(|topic| own(&topic.name)),
        false => Some(own(&topic.name)),
    };
    let names: Vec<_> = asked.iter().map(name).collect();
    let wanted = asked.iter().zip(&names).filter_map(|(topic, name)| Some((name.as_ref()?, &topic.partition_indexes)));
    let wanted: Vec<_> = wanted.flat_map(|(name, of)| of.iter().map(|index| (Arc::clone(name), *index))).collect();
    let found = broker.groups.fetch_offsets(group_id, &wanted)?;
    let topics = asked.into_iter().zip(names).map(|(topic, name)| match name {
        Some(name) => answer_found(topic, &name, &found, unstable),
        None => answer_all(topic, ErrorCode::UNKNOWN_TOPIC_ID),
    });
    Ok(topics.collect())
}

fn all(
    broker: &Arc<Broker>,
    group_id: &str,
    by_id: bool,
    unstable: &Unstable,
) -> Result<Vec<OffsetFetchResponseTopics>, GroupError> {
    let found = broker.groups.fetch_all_offsets(group_id)?;
    let table = broker.topics.load();
    let topics = found.into_iter().filter_map(|(name, partitions)| {
        let topic_id = if by_id { table.by_name(&name)?.id } else { Uuid::nil() };
        let found = partitions.iter().map(|(index, committed)| {
            let is_unstable = unstable.contains(&(Arc::clone(&name), *index));
            if is_unstable { unstable_partition(*index) } else { partition(*index, Some(committed)) }
        });
        let partitions = found.collect();
        Some(OffsetFetchResponseTopics { name: Str::from(&*name), topic_id, partitions })
    });
    Ok(topics.collect())
}

fn answer_found(
    topic: OffsetFetchRequestTopics,
    name: &Arc<str>,
    found: &FetchedOffsets,
    unstable: &Unstable,
) -> OffsetFetchResponseTopics {
    let committed = found.get(name);
    let partitions = topic.partition_indexes.iter().map(|index| {
        if unstable.contains(&(Arc::clone(name), *index)) {
            return unstable_partition(*index);
        }
        let committed = committed.and_then(|partitions| partitions.get(index));
        partition(*index, committed)
    });
    OffsetFetchResponseTopics { partitions: partitions.collect(), name: topic.name, topic_id: topic.topic_id }
}

fn answer_all(topic: OffsetFetchRequestTopics, error_code: ErrorCode) -> OffsetFetchResponseTopics {
    let refused = |index: &i32| OffsetFetchResponsePartitions { error_code, ..partition(*index, None) };
    let partitions = topic.partition_indexes.iter().map(refused).collect();
    OffsetFetchResponseTopics { partitions, name: topic.name, topic_id: topic.topic_id }
}

/// Returns the committed offset of a partition; -1 and an empty text if there is none.
fn partition(partition_index: i32, committed: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: committed.map_or(-1, |committed| committed.offset),
        committed_leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: Some(committed.map_or(Str::EMPTY, |committed| Str::from(&*committed.metadata))),
        error_code: ErrorCode::NONE,
    }
}

/// Returns the error for an offset that an open transaction may still change.
fn unstable_partition(partition_index: i32) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions { error_code: ErrorCode::UNSTABLE_OFFSET_COMMIT, ..partition(partition_index, None) }
}

fn old_partition(partition: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    }
}
