//! CreatePartitions: topics grow and never shrink.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};
use millstream_coordinator::group::CONSUMER_OFFSETS;
use millstream_coordinator::transaction::TRANSACTION_STATE;
use millstream_metadata::controller::Request;

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
        let accepted = |topic: &&CreatePartitionsTopic| check(&request, topic).is_ok();
        let requests = request.topics.iter().filter(accepted).map(|topic| Request::AddPartitions {
            name: topic.name.as_str().to_owned(),
            count: topic.count,
            assignments: topic.assignments.as_ref().map(|all| all.iter().map(|one| one.broker_ids.clone()).collect()),
        });
        let mut grown = broker.controller.submit(requests.collect(), request.validate_only).await.into_iter();
        let results = request.topics.iter().map(|topic| {
            let checked = check(&request, topic);
            let grown = checked.and_then(|()| grown.next().unwrap_or_else(|| Ok(Vec::new())));
            let (error_code, error_message) = match grown {
                Ok(_) => (ErrorCode::NONE, None),
                Err(error) => (error.code, error.text()),
            };
            CreatePartitionsTopicResult { name: topic.name.clone(), error_code, error_message }
        });
        CreatePartitionsResponse { results: results.collect(), ..Default::default() }
    }
}

/// Checks a topic before the controller does.
fn check(request: &CreatePartitionsRequest, topic: &CreatePartitionsTopic) -> Result<(), ApiError> {
    if request.topics.iter().filter(|other| other.name == topic.name).count() > 1 {
        return Err(ApiError::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name."));
    }
    if topic.name.as_str() == CONSUMER_OFFSETS {
        // Kafka's tool rejects it too. The number decides in which partition a group has its offsets.
        let message = "The number of partitions for the offsets topic cannot be changed: groups would lose their \
                       committed offsets. Set offsets.topic.num.partitions before the first group is used.";
        return Err(ApiError::new(ErrorCode::INVALID_PARTITIONS, message));
    }
    if topic.name.as_str() == TRANSACTION_STATE {
        let message = "The number of partitions for the transaction topic cannot be changed: producers would lose \
                       their transactional ids. Set transaction.state.log.num.partitions before the first one is used.";
        return Err(ApiError::new(ErrorCode::INVALID_PARTITIONS, message));
    }
    Ok(())
}
