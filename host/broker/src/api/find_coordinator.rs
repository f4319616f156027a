//! FindCoordinator: the broker that leads the partition of `__consumer_offsets` for a group.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_coordinator::group::{CONSUMER_OFFSETS, partition_of};
use millstream_metadata::MetadataImage;
use millstream_wire::messages::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use super::offsets_topic;
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// The version from which one request has many keys.
const BATCHED_FROM: i16 = 4;

/// The last version that librdkafka speaks.
const LIBRDKAFKA_MAX: i16 = 2;

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
        let found = find(broker, request.key_type, context.version).await;
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

/// Returns the metadata in which the coordinators are looked up.
async fn find(broker: &Arc<Broker>, key_type: i8, version: i16) -> Result<Arc<MetadataImage>, ApiError> {
    match key_type {
        GROUP => {
            offsets_topic::ensure(broker).await?;
            Ok(broker.metadata.image())
        }
        // "Not available" would make a producer retry until it gives up. This code ends initTransactions at once, with
        // the reason. With any other code librdkafka retries for ever, and Java omits the reason.
        TRANSACTION => {
            let code = if version <= LIBRDKAFKA_MAX {
                ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            } else {
                ErrorCode::INVALID_REQUEST
            };
            Err(ApiError::new(code, "this broker does not support transactions yet"))
        }
        other => {
            let message = format!("this broker has no coordinators of type {other}");
            Err(ApiError::new(ErrorCode::INVALID_REQUEST, message))
        }
    }
}

fn coordinator(
    broker: &Broker,
    context: &RequestContext,
    found: &Result<Arc<MetadataImage>, ApiError>,
    key: Str,
) -> Coordinator {
    let image = match found {
        Ok(image) => image,
        Err(error) => return failed(key, error),
    };
    let located = leader(image, &key).and_then(|id| Some((id, broker.endpoint(&context.connection, id)?)));
    let Some((node_id, (host, port))) = located else {
        let message = "The coordinator is not available.";
        return failed(key, &ApiError::new(ErrorCode::COORDINATOR_NOT_AVAILABLE, message));
    };
    Coordinator { key, node_id, host, port, error_code: ErrorCode::NONE, error_message: None }
}

/// Returns the broker that leads the partition of a group, if it is not fenced.
fn leader(image: &MetadataImage, group_id: &str) -> Option<i32> {
    let topic = image.topic(CONSUMER_OFFSETS)?;
    let partition = partition_of(group_id, topic.partition_count());
    let leader = image.partition(topic.id, partition)?.leader;
    image.broker(leader).filter(|broker| !broker.fenced).map(|_| leader)
}

fn failed(key: Str, error: &ApiError) -> Coordinator {
    let (error_code, error_message) = (error.code, error.text());
    Coordinator { key, node_id: -1, host: Str::EMPTY, port: -1, error_code, error_message }
}
