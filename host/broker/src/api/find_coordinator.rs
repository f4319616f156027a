//! FindCoordinator: the broker that coordinates a group or a transactional id. It leads the partition of the internal
//! topic that has their state.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::CONSUMER_OFFSETS;
use millstream_coordinator::partition_of;
use millstream_coordinator::transaction::TRANSACTION_STATE;
use millstream_metadata::MetadataImage;
use millstream_wire::messages::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use super::{offsets_topic, transaction_topic};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// The version from which one request has many keys.
const BATCHED_FROM: i16 = 4;

pub(super) struct FindCoordinator;

impl Handler for FindCoordinator {
    type Request = FindCoordinatorRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Group));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: FindCoordinatorRequest,
    ) -> FindCoordinatorResponse {
        let found = find(broker, request.key_type).await;
        if context.version < BATCHED_FROM {
            let one = coordinator(broker, context, &found, request.key);
            return FindCoordinatorResponse {
                error_code: one.error_code,
                error_message: one.error_message,
                node_id: one.node_id,
                host: one.host,
                port: one.port,
                ..Default::default()
            };
        }
        let keys = request.coordinator_keys.into_iter();
        let coordinators = keys.map(|key| coordinator(broker, context, &found, key)).collect();
        FindCoordinatorResponse { coordinators, ..Default::default() }
    }
}

/// The metadata in which coordinators are looked up, and their topic.
type Found = (Arc<MetadataImage>, &'static str);

async fn find(broker: &Arc<Broker>, key_type: i8) -> Result<Found, ApiError> {
    match key_type {
        GROUP => {
            offsets_topic::ensure(broker).await?;
            Ok((broker.metadata.image(), CONSUMER_OFFSETS))
        }
        TRANSACTION => {
            transaction_topic::ensure(broker).await?;
            Ok((broker.metadata.image(), TRANSACTION_STATE))
        }
        other => {
            let message = format!("this broker has no coordinators of type {other}");
            Err(ApiError::new(ErrorCode::INVALID_REQUEST, message))
        }
    }
}

fn coordinator(broker: &Broker, context: &RequestContext, found: &Result<Found, ApiError>, key: Str) -> Coordinator {
    let (image, topic) = match found {
        Ok(found) => found,
        Err(error) => return failed(key, error),
    };
    let located = leader(image, topic, &key).and_then(|id| Some((id, broker.endpoint(&context.connection, id)?)));
    let Some((node_id, (host, port))) = located else {
        let message = "The coordinator is not available.";
        return failed(key, &ApiError::new(ErrorCode::COORDINATOR_NOT_AVAILABLE, message));
    };
    Coordinator { key, node_id, host, port, error_code: ErrorCode::NONE, error_message: None }
}

/// Returns the broker that leads the partition of a key, if it is not fenced.
fn leader(image: &MetadataImage, topic: &str, key: &str) -> Option<i32> {
    let topic = image.topic(topic)?;
    let partition = partition_of(key, topic.partition_count());
    let leader = image.partition(topic.id, partition)?.leader;
    image.broker(leader).filter(|broker| !broker.fenced).map(|_| leader)
}

fn failed(key: Str, error: &ApiError) -> Coordinator {
    let (error_code, error_message) = (error.code, error.text());
    Coordinator { key, node_id: -1, host: Str::EMPTY, port: -1, error_code, error_message }
}
