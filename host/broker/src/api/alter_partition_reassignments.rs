//! AlterPartitionReassignments: moves partitions to other brokers.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_metadata::controller::{Reassignment, Request};
use millstream_metadata::{MetadataImage, MetadataRecord};
use millstream_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopic, ReassignableTopicResponse,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct AlterPartitionReassignments;

impl Handler for AlterPartitionReassignments {
    type Request = AlterPartitionReassignmentsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Cluster));

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse {
        let allow_replication_factor_change = request.allow_replication_factor_change;
        let image = broker.metadata.image();
        let requests =
            request.topics.iter().filter_map(|topic| requests(&image, topic, allow_replication_factor_change));
        let requests = requests.flatten().collect();
        let mut outcomes = broker.controller.submit(requests, false).await.into_iter();
        let responses = request.topics.into_iter().map(|topic| {
            let is_known = image.topic(&topic.name).is_some();
            let partitions = topic.partitions.iter().map(|partition| {
                let outcome = match is_known {
                    true => outcomes.next().unwrap_or_else(|| Ok(Vec::new())),
                    false => Err(unknown_topic(&topic.name)),
                };
                response(partition.partition_index, outcome)
            });
            ReassignableTopicResponse { partitions: partitions.collect(), name: topic.name }
        });
        AlterPartitionReassignmentsResponse {
            allow_replication_factor_change,
            responses: responses.collect(),
            ..Default::default()
        }
    }
}

/// Returns one request for each partition; `None` if there is no such topic.
fn requests<'a>(
    image: &MetadataImage,
    topic: &'a ReassignableTopic,
    allow_replication_factor_change: bool,
) -> Option<impl Iterator<Item = Request> + use<'a>> {
    let id = image.topic(&topic.name)?.id;
    Some(topic.partitions.iter().map(move |ReassignablePartition { partition_index, replicas }| {
        Request::Reassign(Reassignment {
            topic: id,
            partition: *partition_index,
            target: replicas.clone(),
            allow_replication_factor_change,
        })
    }))
}

fn unknown_topic(name: &Str) -> ApiError {
    ApiError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("Unable to find a topic named {name}."))
}

fn response(partition_index: i32, outcome: Result<Vec<MetadataRecord>, ApiError>) -> ReassignablePartitionResponse {
    match outcome {
        Ok(_) => ReassignablePartitionResponse { partition_index, ..Default::default() },
        Err(error) => {
            ReassignablePartitionResponse { partition_index, error_code: error.code, error_message: error.text() }
        }
    }
}
