//! DeleteTopics, by name or by id.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::ErrorCode;
use millstream_wire::messages::{DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::edge::ServedTopic;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};
use millstream_metadata::controller::Request;

pub(super) struct DeleteTopics;

impl Handler for DeleteTopics {
    type Request = DeleteTopicsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=6;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Delete, ResourceType::Topic));

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let old =
            request.topic_names.into_iter().map(|name| DeleteTopicState { name: Some(name), ..Default::default() });
        let topics: Vec<_> = request.topics.into_iter().chain(old).map(|topic| (find(broker, &topic), topic)).collect();
        let requests =
            topics.iter().filter_map(|(found, _)| Some(Request::DeleteTopic { id: found.as_ref().ok()?.id }));
        let mut deleted = broker.controller.submit(requests.collect(), false).await.into_iter();
        let responses = topics.into_iter().map(|(found, asked)| {
            let name = found.as_ref().map_or(asked.name, |topic| Some(topic.name.clone()));
            let topic_id = found.as_ref().map_or(asked.topic_id, |topic| topic.id);
            match found.and_then(|_| deleted.next().unwrap_or_else(|| Ok(Vec::new()))) {
                Ok(_) => DeletableTopicResult { name, topic_id, ..Default::default() },
                Err(error) => {
                    DeletableTopicResult { name, topic_id, error_code: error.code, error_message: error.text() }
                }
            }
        });
        DeleteTopicsResponse { responses: responses.collect(), ..Default::default() }
    }
}

fn find(broker: &Broker, asked: &DeleteTopicState) -> Result<Arc<ServedTopic>, ApiError> {
    if !broker.config.delete_topic_enable {
        return Err(ApiError::new(ErrorCode::TOPIC_DELETION_DISABLED, "delete.topic.enable is false"));
    }
    if asked.name.is_some() && !asked.topic_id.is_nil() {
        let message = "You may not specify both topic name and topic id.";
        return Err(ApiError::new(ErrorCode::INVALID_REQUEST, message));
    }
    let table = broker.topics.load();
    let name = asked.name.as_deref().unwrap_or_default();
    table.resolve(asked.name.is_none(), name, asked.topic_id).cloned()
}
