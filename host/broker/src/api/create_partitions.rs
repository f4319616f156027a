//! CreatePartitions: topics grow and never shrink.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};

use super::create_topics::check_assignment;
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::controller;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct CreatePartitions;

impl Handler for CreatePartitions {
    type Request = CreatePartitionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=3;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Topic));

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: CreatePartitionsRequest,
    ) -> CreatePartitionsResponse {
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let duplicate = request.topics.iter().filter(|other| other.name == topic.name).count() > 1;
            let grown = match duplicate {
                true => Err(ApiError::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name.")),
                false => grow(broker, topic, request.validate_only).await,
            };
            let (error_code, error_message) = match grown {
                Ok(()) => (ErrorCode::NONE, None),
                Err(error) => (error.code, error.text()),
            };
            results.push(CreatePartitionsTopicResult { name: topic.name.clone(), error_code, error_message });
        }
        CreatePartitionsResponse { results, ..Default::default() }
    }
}

async fn grow(broker: &Arc<Broker>, topic: &CreatePartitionsTopic, validate_only: bool) -> Result<(), ApiError> {
    let today = broker.topics.load().by_name(&topic.name).map(|found| found.partitions.len());
    if let (Some(assignments), Some(today)) = (&topic.assignments, today) {
        let added = usize::try_from(topic.count).unwrap_or(0).saturating_sub(today);
        if assignments.len() != added {
            let message = format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(ApiError::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message));
        }
        for assignment in assignments {
            check_assignment(broker, &assignment.broker_ids)?;
        }
    }
    controller::add_partitions(broker, &topic.name, topic.count, validate_only).await
}
