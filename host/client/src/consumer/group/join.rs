//! A rebalance: JoinGroup, the assignment of the partitions if this member leads the group, SyncGroup.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_wire::codec::{from_bytes, from_versioned_bytes, to_versioned_bytes};
use millstream_wire::messages::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, SyncGroupRequest, SyncGroupRequestAssignment,
};
use millstream_wire::records::{ConsumerProtocolAssignment, ConsumerProtocolSubscription, ConsumerTopicPartitions};
use millstream_wire::{ErrorCode, Str};

use super::assignor::{self, Assignment, Member};
use super::{Group, Membership};
use crate::consumer::Inner;
use crate::consumer::config::Assignor;
use crate::consumer::record::TopicPartition;
use crate::error::Error;
use crate::net::Lane;

const PROTOCOL_TYPE: Str = Str::from_static("consumer");

/// The version of the subscription that this member sends; every client reads it.
const SUBSCRIPTION_VERSION: i16 = 1;
/// The newest version of the subscription that this client reads; later ones only append fields.
const SUBSCRIPTION_VERSION_LAST: i16 = 3;
const ASSIGNMENT_VERSION: i16 = 0;

/// The extra wait for JoinGroup, whose response comes once all members have joined or their time has passed.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// Joins the group and returns this member's partitions.
pub(super) async fn join(inner: &Inner, group: &Group, topics: &[Arc<str>]) -> Result<Vec<TopicPartition>, Error> {
    let joined = loop {
        let response = send_join(inner, group, topics).await?;
        if response.error_code == ErrorCode::MEMBER_ID_REQUIRED {
            // The member joins again with the id it got (KIP-394).
            group.membership.lock().member_id = response.member_id.copied();
            continue;
        }
        group.check(|| format!("join group {}", &*group.id), response.error_code, None)?;
        break response;
    };
    let membership = Membership { member_id: joined.member_id.copied(), generation: joined.generation_id };
    *group.membership.lock() = membership.clone();
    let leads = joined.leader == joined.member_id && !joined.skip_assignment;
    let assignments = if leads { assign(inner, &joined).await? } else { Vec::new() };
    let request = SyncGroupRequest {
        group_id: group.id.clone(),
        generation_id: membership.generation,
        member_id: membership.member_id,
        group_instance_id: group.instance_id.clone(),
        protocol_type: Some(PROTOCOL_TYPE),
        protocol_name: joined.protocol_name.clone(),
        assignments,
    };
    let response = wait_long(inner, group, &request).await?;
    group.check(|| format!("get the assignment of group {}", &*group.id), response.error_code, None)?;
    read_assignment(group, response.assignment)
}

async fn send_join(inner: &Inner, group: &Group, topics: &[Arc<str>]) -> Result<JoinGroupResponse, Error> {
    let subscription = ConsumerProtocolSubscription {
        topics: topics.iter().map(|topic| Str::from(&**topic)).collect(),
        ..ConsumerProtocolSubscription::default()
    };
    let metadata = to_versioned_bytes(&subscription, SUBSCRIPTION_VERSION).map_err(|error| bad(group, &error))?;
    let protocol = |assignor: &Assignor| JoinGroupRequestProtocol {
        name: Str::from_static(assignor.name()),
        metadata: metadata.clone(),
    };
    let request = JoinGroupRequest {
        group_id: group.id.clone(),
        session_timeout_ms: millis(inner.config.session_timeout),
        rebalance_timeout_ms: millis(inner.config.max_poll_interval),
        member_id: group.membership().member_id,
        group_instance_id: group.instance_id.clone(),
        protocol_type: PROTOCOL_TYPE,
        protocols: inner.config.assignors.iter().map(protocol).collect(),
        ..JoinGroupRequest::default()
    };
    wait_long(inner, group, &request).await
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Sends a request whose response waits for the slowest member.
async fn wait_long<R: millstream_wire::Request>(
    inner: &Inner,
    group: &Group,
    request: &R,
) -> Result<R::Response, Error> {
    let connection = group.coordinator.connect(&inner.cluster, Lane::Group).await?;
    let limit = (inner.config.max_poll_interval + JOIN_GRACE).max(inner.config.client.request_timeout);
    group.coordinator.watch(connection.send(request)?.wait(limit).await)
}

fn bad(group: &Group, error: &impl std::fmt::Display) -> Error {
    Error::Invalid(format!("group {}: {error}", &*group.id).into())
}

/// Assigns the partitions of all subscribed topics.
async fn assign(inner: &Inner, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>, Error> {
    let name = joined.protocol_name.as_deref().unwrap_or_default();
    let assignor = Assignor::from_name(name)
        .ok_or_else(|| Error::Invalid(format!("the group chose the unknown assignor {name:?}").into()))?;
    let mut members = Vec::with_capacity(joined.members.len());
    for member in &joined.members {
        let subscription = read_subscription(&member.metadata).map_err(|error| {
            Error::Invalid(
                format!("member {} of the group sent an invalid subscription: {error}", &*member.member_id).into(),
            )
        })?;
        members.push(Member {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_deref().map(String::from),
            topics: subscription.topics.iter().map(|topic| topic.to_string()).collect(),
        });
    }
    let counts = partition_counts(inner, &members).await?;
    let encode = |(member_id, assignment): (String, Assignment)| {
        let assigned_partitions = assignment
            .into_iter()
            .map(|(topic, partitions)| ConsumerTopicPartitions { topic: Str::from(topic.as_str()), partitions })
            .collect();
        let assignment = ConsumerProtocolAssignment { assigned_partitions, user_data: None };
        let assignment = to_versioned_bytes(&assignment, ASSIGNMENT_VERSION)
            .map_err(|error| Error::Invalid(error.to_string().into()))?;
        Ok(SyncGroupRequestAssignment { member_id: Str::from(member_id.as_str()), assignment })
    };
    assignor::assign(assignor, members, &counts).into_iter().map(encode).collect()
}

/// Reads a subscription. A newer version is read as the newest known one.
fn read_subscription(metadata: &Bytes) -> Result<ConsumerProtocolSubscription, millstream_wire::WireError> {
    match metadata.first_chunk::<2>().map(|version| i16::from_be_bytes(*version)) {
        Some(version) if version > SUBSCRIPTION_VERSION_LAST => {
            from_bytes(metadata.slice(2..), SUBSCRIPTION_VERSION_LAST)
        }
        _ => from_versioned_bytes(metadata.clone()).map(|(_, subscription)| subscription),
    }
}

async fn partition_counts(inner: &Inner, members: &[Member]) -> Result<BTreeMap<String, i32>, Error> {
    let mut topics: Vec<Arc<str>> = Vec::new();
    members.iter().flat_map(|member| &member.topics).for_each(|topic| topics.push(topic.as_str().into()));
    inner.cluster.follow(topics.iter().cloned());
    let metadata = inner.cluster.refresh(inner.cluster.metadata().generation).await?;
    let count = |topic: &Arc<str>| {
        let partitions = metadata.topic(topic)?.partitions.len();
        Some((topic.to_string(), partitions as i32))
    };
    let counts: BTreeMap<String, i32> = topics.iter().filter_map(count).collect();
    *inner.assigned_counts.lock() = Some(counts.clone());
    Ok(counts)
}

fn read_assignment(group: &Group, assignment: Bytes) -> Result<Vec<TopicPartition>, Error> {
    // A member without partitions may get no bytes.
    if assignment.is_empty() {
        return Ok(Vec::new());
    }
    let (_, assignment): (i16, ConsumerProtocolAssignment) =
        from_versioned_bytes(assignment).map_err(|error| bad(group, &error))?;
    let mut partitions = Vec::new();
    for ConsumerTopicPartitions { topic, partitions: numbers } in &assignment.assigned_partitions {
        let topic: Arc<str> = (**topic).into();
        partitions.extend(numbers.iter().map(|number| TopicPartition::new(topic.clone(), *number)));
    }
    Ok(partitions)
}
