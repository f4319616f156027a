//! Consumer groups.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_wire::codec::from_versioned_bytes;
use millstream_wire::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, DescribedGroup, ListGroupsRequest, OffsetDeleteRequest,
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use millstream_wire::records::ConsumerProtocolAssignment;
use millstream_wire::{ErrorCode, Str};

use super::Admin;
use crate::consumer::group::{Group, commit};
use crate::consumer::record::{CommittedOffset, TopicPartition};
use crate::error::Error;
use crate::net::Lane;

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Its id.
    pub group_id: String,
    /// `consumer` for groups of consumers; empty if there are only committed offsets.
    pub protocol_type: String,
    /// Such as `Stable` or `Empty`; empty from an old broker.
    pub state: String,
}

/// A group with its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its id.
    pub group_id: String,
    /// Such as `Stable`, `Empty` or `Dead`.
    pub state: String,
    /// The assignor, such as `range`.
    pub assignor: String,
    /// The members, in the broker's order.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its member id.
    pub member_id: String,
    /// Its `client.id`.
    pub client_id: String,
    /// Its host.
    pub client_host: String,
    /// Its partitions; empty if the assignment cannot be decoded.
    pub partitions: Vec<TopicPartition>,
}

impl Admin {
    /// Returns the groups of all brokers, by id.
    ///
    /// # Errors
    /// A broker cannot be reached.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        let mut groups = BTreeMap::new();
        for broker in self.describe_cluster().await?.brokers {
            let mut retry = self.retry("the list of groups");
            let response = loop {
                let attempt = async {
                    let response = self.cluster.ask(broker.id, Lane::Main, &ListGroupsRequest::default()).await?;
                    Error::check(|| "list groups".into(), response.error_code, None).map(|()| response)
                };
                if let Some(response) = retry.attempt(attempt).await? {
                    break response;
                }
            };
            for group in &response.groups {
                let listing = GroupListing {
                    group_id: group.group_id.to_string(),
                    protocol_type: group.protocol_type.to_string(),
                    state: group.group_state.to_string(),
                };
                groups.insert(listing.group_id.clone(), listing);
            }
        }
        Ok(groups.into_values().collect())
    }

    /// Returns a group with its members. The state of an unknown group is `Dead`.
    ///
    /// # Errors
    /// Its coordinator cannot be reached.
    pub async fn describe_group(&self, group_id: &str) -> Result<GroupDescription, Error> {
        let group = Group::new(group_id, self.cluster.config().request_timeout);
        let request = DescribeGroupsRequest { groups: vec![Str::from(group_id)], ..DescribeGroupsRequest::default() };
        let mut retry = self.retry("the description of a group");
        loop {
            let attempt = async {
                let response = group.ask(&self.cluster, &request).await?;
                let Some(described) = response.groups.first() else {
                    return Err(Error::Invalid(format!("the response lacks group {group_id}").into()));
                };
                // The code of newer versions for an unknown group.
                if described.error_code != ErrorCode::GROUP_ID_NOT_FOUND {
                    let what = || format!("describe group {group_id}");
                    group.check(what, described.error_code, described.error_message.as_deref())?;
                }
                Ok(description(described))
            };
            if let Some(description) = retry.attempt(attempt).await? {
                return Ok(description);
            }
        }
    }

    /// Returns the offsets that the group has committed for these partitions.
    ///
    /// # Errors
    /// Its coordinator cannot be reached.
    pub async fn list_group_offsets(
        &self,
        group_id: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
        commit::committed(
            &self.cluster,
            &Group::new(group_id, self.cluster.config().request_timeout),
            partitions,
            false,
        )
        .await
    }

    /// Deletes a group with its committed offsets.
    ///
    /// # Errors
    /// The group does not exist, or it has members.
    pub async fn delete_group(&self, group_id: &str) -> Result<(), Error> {
        let group = Group::new(group_id, self.cluster.config().request_timeout);
        let request = DeleteGroupsRequest { groups_names: vec![Str::from(group_id)] };
        let mut retry = self.retry("the deletion of a group");
        loop {
            let attempt = async {
                let response = group.ask(&self.cluster, &request).await?;
                let Some(result) = response.results.first() else {
                    return Err(Error::Invalid(format!("the response lacks group {group_id}").into()));
                };
                let what = || format!("delete group {group_id}");
                group.check(what, result.error_code, result.error_message.as_deref())
            };
            if retry.attempt(attempt).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Deletes the offsets that the group has committed for these partitions.
    ///
    /// # Errors
    /// The group does not exist, or its members subscribe to one of the topics.
    pub async fn delete_group_offsets(&self, group_id: &str, partitions: &[TopicPartition]) -> Result<(), Error> {
        let group = Group::new(group_id, self.cluster.config().request_timeout);
        let mut by_topic: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for TopicPartition { topic, partition } in partitions {
            let partition = OffsetDeleteRequestPartition { partition_index: *partition };
            by_topic.entry(topic).or_default().push(partition);
        }
        let topics = by_topic
            .into_iter()
            .map(|(name, partitions)| OffsetDeleteRequestTopic { name: Str::from(name), partitions });
        let request = OffsetDeleteRequest { group_id: Str::from(group_id), topics: topics.collect() };
        let mut retry = self.retry("the deletion of offsets");
        loop {
            let attempt = async {
                let response = group.ask(&self.cluster, &request).await?;
                group.check(|| format!("delete offsets of group {group_id}"), response.error_code, None)?;
                for topic in &response.topics {
                    for result in &topic.partitions {
                        let partition = TopicPartition::new(&*topic.name, result.partition_index);
                        let what = || format!("delete the offset of group {group_id} for {partition}");
                        group.check(what, result.error_code, None)?;
                    }
                }
                Ok(())
            };
            if retry.attempt(attempt).await?.is_some() {
                return Ok(());
            }
        }
    }
}

fn description(described: &DescribedGroup) -> GroupDescription {
    let member = |member: &millstream_wire::messages::DescribedGroupMember| GroupMember {
        member_id: member.member_id.to_string(),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        partitions: read_partitions(member.member_assignment.clone()),
    };
    GroupDescription {
        group_id: described.group_id.to_string(),
        state: described.group_state.to_string(),
        assignor: described.protocol_data.to_string(),
        members: described.members.iter().map(member).collect(),
    }
}

/// Decodes an assignment. Groups of other protocols use other formats, which are ignored.
fn read_partitions(assignment: Bytes) -> Vec<TopicPartition> {
    let Ok((_, assignment)) = from_versioned_bytes::<ConsumerProtocolAssignment>(assignment) else { return Vec::new() };
    let topics = assignment.assigned_partitions.iter();
    topics.flat_map(|topic| topic.partitions.iter().map(|number| TopicPartition::new(&*topic.topic, *number))).collect()
}
