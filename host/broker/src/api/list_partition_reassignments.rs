//! ListPartitionReassignments: the partitions that are being moved to other brokers.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_metadata::{PartitionImage, TopicImage};
use millstream_wire::Str;
use millstream_wire::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, OngoingPartitionReassignment,
    OngoingTopicReassignment,
};

use super::handler::{Handler, RequestContext, UNKNOWN_BYTES};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct ListPartitionReassignments;

impl Handler for ListPartitionReassignments {
    type Request = ListPartitionReassignmentsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));

    fn response_bytes(_: &Broker, _: &RequestContext, _: &ListPartitionReassignmentsRequest) -> usize {
        UNKNOWN_BYTES
    }

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        let image = broker.metadata.image();
        let topics: Vec<_> = match request.topics {
            None => image.topics().map(|topic| ongoing(topic, |_| true)).collect(),
            // Topics and partitions that do not exist are left out, as in Kafka.
            Some(topics) => {
                let known = topics.iter().filter_map(|topic| Some((topic, image.topic(&topic.name)?)));
                known.map(|(topic, stored)| ongoing(stored, |index| topic.partition_indexes.contains(&index))).collect()
            }
        };
        let topics = topics.into_iter().filter(|topic| !topic.partitions.is_empty()).collect();
        ListPartitionReassignmentsResponse { topics, ..Default::default() }
    }
}

/// Returns the wanted partitions of a topic that are being moved.
fn ongoing(topic: &TopicImage, wanted: impl Fn(i32) -> bool) -> OngoingTopicReassignment {
    let partitions = (0..).zip(&topic.partitions);
    let moving = partitions.filter(|(index, stored)| stored.is_reassigning() && wanted(*index));
    let describe = |(partition_index, stored): (i32, &PartitionImage)| OngoingPartitionReassignment {
        partition_index,
        replicas: stored.replicas.to_vec(),
        adding_replicas: stored.adding.to_vec(),
        removing_replicas: stored.removing.to_vec(),
    };
    OngoingTopicReassignment { name: Str::from(topic.name.as_str()), partitions: moving.map(describe).collect() }
}
