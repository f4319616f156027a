//! Commits and fetches the offsets of the group. A consumer without a subscription commits with generation -1.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_wire::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponse,
};
use millstream_wire::{ErrorCode, Str};

use super::Group;
use crate::consumer::Inner;
use crate::consumer::record::{CommittedOffset, TopicPartition};
use crate::error::Error;
use crate::net::{Cluster, Lane};

/// The last version of both requests with topic names; later ones have topic ids.
const LAST_WITH_NAMES: i16 = 9;
/// The first version of OffsetFetch with several groups.
const FIRST_WITH_GROUPS: i16 = 8;
/// The first version of OffsetFetch that can exclude offsets of open transactions.
const FIRST_WITH_STABLE: i16 = 7;

/// Commits, with retries.
pub(crate) async fn commit(
    inner: &Inner,
    group: &Group,
    offsets: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<(), Error> {
    if offsets.is_empty() {
        return Ok(());
    }
    let limit = inner.config.client.default_api_timeout;
    let mut retry = inner.cluster.retry(limit, "the commit of offsets");
    loop {
        if retry.attempt(commit_once(inner, group, offsets)).await?.is_some() {
            return Ok(());
        }
    }
}

async fn commit_once(
    inner: &Inner,
    group: &Group,
    offsets: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<(), Error> {
    let mut topics: BTreeMap<Arc<str>, OffsetCommitRequestTopic> = BTreeMap::new();
    for (TopicPartition { topic, partition }, committed) in offsets {
        let topic = topics.entry(topic.clone()).or_insert_with(|| OffsetCommitRequestTopic {
            name: Str::from(&**topic),
            ..OffsetCommitRequestTopic::default()
        });
        topic.partitions.push(OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: committed.offset,
            committed_leader_epoch: committed.leader_epoch,
            committed_metadata: Some(Str::from(committed.metadata.as_str())),
        });
    }
    let membership = group.membership();
    let request = OffsetCommitRequest {
        group_id: group.id.clone(),
        generation_id_or_member_epoch: membership.generation,
        member_id: membership.member_id.clone(),
        group_instance_id: group.instance_id.clone(),
        topics: topics.into_values().collect(),
        ..OffsetCommitRequest::default()
    };
    let connection = group.coordinator.connect(&inner.cluster, Lane::Main).await?;
    let response = connection.send_up_to(&request, LAST_WITH_NAMES)?.wait(inner.config.client.request_timeout).await;
    let response = group.coordinator.watch(response)?;
    for topic in &response.topics {
        for part in &topic.partitions {
            let what = || format!("commit the offset of {}-{}", &*topic.name, part.partition_index);
            group.check(what, part.error_code, None)?;
        }
    }
    Ok(())
}

/// Returns the committed offsets of those partitions that have one. `stable`: waits for open transactions that may
/// change them.
pub(crate) async fn committed(
    cluster: &Cluster,
    group: &Group,
    partitions: &[TopicPartition],
    stable: bool,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
    let limit = cluster.config().default_api_timeout;
    let mut retry = cluster.retry(limit, "the lookup of committed offsets");
    loop {
        if let Some(found) = retry.attempt(committed_once(cluster, group, partitions, stable)).await? {
            return Ok(found);
        }
    }
}

async fn committed_once(
    cluster: &Cluster,
    group: &Group,
    partitions: &[TopicPartition],
    stable: bool,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
    let mut by_topic: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
    for TopicPartition { topic, partition } in partitions {
        by_topic.entry(topic).or_default().push(*partition);
    }
    let connection = group.coordinator.connect(cluster, Lane::Main).await?;
    let version = connection.version::<OffsetFetchRequest>()?.min(LAST_WITH_NAMES);
    let mut request =
        OffsetFetchRequest { require_stable: stable && version >= FIRST_WITH_STABLE, ..OffsetFetchRequest::default() };
    if version >= FIRST_WITH_GROUPS {
        let topics = by_topic.into_iter().map(|(topic, partition_indexes)| OffsetFetchRequestTopics {
            name: Str::from(&**topic),
            partition_indexes,
            ..OffsetFetchRequestTopics::default()
        });
        request.groups = vec![OffsetFetchRequestGroup {
            group_id: group.id.clone(),
            topics: Some(topics.collect()),
            ..OffsetFetchRequestGroup::default()
        }];
    } else {
        request.group_id = group.id.clone();
        let topics = by_topic
            .into_iter()
            .map(|(topic, partition_indexes)| OffsetFetchRequestTopic { name: Str::from(&**topic), partition_indexes });
        request.topics = Some(topics.collect());
    }
    let response = connection.send_up_to(&request, version)?.wait(cluster.config().request_timeout).await;
    read_committed_offsets(group, group.coordinator.watch(response)?)
}

/// Reads the offsets from either form of the response.
fn read_committed_offsets(
    group: &Group,
    response: OffsetFetchResponse,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
    let what = || format!("look up the offsets of group {}", &*group.id);
    group.check(what, response.error_code, None)?;
    let mut found = BTreeMap::new();
    let mut take = |topic: &Str, partition: i32, offset: i64, leader_epoch: i32, metadata: &Option<Str>| {
        if offset >= 0 {
            let metadata = metadata.as_deref().unwrap_or_default().to_owned();
            let committed = CommittedOffset { offset, leader_epoch, metadata };
            found.insert(TopicPartition::new(&**topic, partition), committed);
        }
    };
    for topic in &response.topics {
        for part in &topic.partitions {
            group.check(what, part.error_code, None)?;
            take(&topic.name, part.partition_index, part.committed_offset, part.committed_leader_epoch, &part.metadata);
        }
    }
    for group_offsets in &response.groups {
        group.check(what, group_offsets.error_code, None)?;
        for topic in &group_offsets.topics {
            for part in &topic.partitions {
                group.check(what, part.error_code, None)?;
                take(
                    &topic.name,
                    part.partition_index,
                    part.committed_offset,
                    part.committed_leader_epoch,
                    &part.metadata,
                );
            }
        }
    }
    Ok(found)
}

/// Returns whether an error of a commit means that the membership has changed.
pub(crate) fn lost_membership(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION | ErrorCode::REBALANCE_IN_PROGRESS)
}
