//! Metadata: brokers, topics and the leaders of their partitions. Creates requested topics that do not exist.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::edge::{ServedTopic, ServedTopics};
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType, allowed_operations};
use crate::topics::Topic;
use millstream_metadata::{MetadataImage, check_name};

pub(super) struct Metadata;

impl Handler for Metadata {
    type Request = MetadataRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Topic));

    async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
        let operations = request.include_topic_authorized_operations;
        let topics = match request.topics {
            Some(requested) if !(requested.is_empty() && context.version == 0) => {
                let create = request.allow_auto_topic_creation && broker.config.auto_create_topics;
                let failed = if create { create_missing(broker, &requested).await } else { HashMap::new() };
                let (table, image) = (broker.topics.load(), broker.metadata.image());
                let one = |topic| one(&table, &image, topic, &failed, operations);
                requested.into_iter().map(one).collect()
            }
            _ => {
                // The table is loaded first: its topics are in every later image, unless they are deleted meanwhile.
                let (table, image) = (broker.topics.load(), broker.metadata.image());
                table.iter().filter_map(|topic| describe(&image, topic, operations)).collect()
            }
        };
        let (host, port) = broker.advertised(&context.connection);
        let node_id = broker.config.node_id;
        let rack = broker.config.rack.as_deref().map(Str::from);
        MetadataResponse {
            brokers: vec![MetadataResponseBroker { node_id, host, port, rack }],
            cluster_id: Some(Str::from(broker.metadata.image().cluster_id.as_str())),
            controller_id: node_id,
            topics,
            cluster_authorized_operations: allowed_operations(
                request.include_cluster_authorized_operations,
                AclOperation::CLUSTER,
            ),
            ..Default::default()
        }
    }
}

/// Creates the topics that are requested by name and do not exist, all at once. Returns why some could not be created.
async fn create_missing(broker: &Arc<Broker>, requested: &[MetadataRequestTopic]) -> HashMap<Str, ApiError> {
    let table = broker.topics.load_full();
    let names = requested.iter().filter(|topic| !is_by_id(topic)).filter_map(|topic| topic.name.clone());
    let missing: Vec<Str> = names.filter(|name| check_name(name).is_ok() && table.by_name(name).is_none()).collect();
    let wanted = missing.iter().map(|name| name.as_str().to_owned()).collect();
    let created = broker.controller.ensure_topics(wanted).await;
    missing.into_iter().zip(created).filter_map(|(name, created)| Some((name, created.err()?))).collect()
}

/// Returns whether a topic is requested by id: Java's Admin sends an empty name with it.
fn is_by_id(topic: &MetadataRequestTopic) -> bool {
    topic.name.is_none() || !topic.topic_id.is_nil()
}

fn one(
    table: &ServedTopics,
    image: &MetadataImage,
    requested: MetadataRequestTopic,
    failed: &HashMap<Str, ApiError>,
    operations: bool,
) -> MetadataResponseTopic {
    let by_id = is_by_id(&requested);
    let name = requested.name.clone().unwrap_or_default();
    let found = find(table, by_id, &name, requested.topic_id);
    let found = found.map_err(|error| failed.get(&name).cloned().unwrap_or(error));
    let described = found.and_then(|topic| describe(image, &topic, operations).ok_or_else(ApiError::unknown_topic));
    described.unwrap_or_else(|error| MetadataResponseTopic {
        error_code: error.code,
        name: requested.name.filter(|_| !by_id),
        topic_id: requested.topic_id,
        ..Default::default()
    })
}

fn find(table: &ServedTopics, by_id: bool, name: &str, id: Uuid) -> Result<Arc<ServedTopic>, ApiError> {
    if !by_id {
        check_name(name)?;
    }
    table.resolve(by_id, name, id).cloned()
}

/// Describes a topic of the image; `None` if it was deleted meanwhile.
fn describe(image: &MetadataImage, topic: &Topic, operations: bool) -> Option<MetadataResponseTopic> {
    let stored = image.topic_by_id(topic.id)?;
    let partitions = (0..).zip(image.partitions_of(stored)).map(|(index, stored)| {
        // This broker leads every partition. One can be offline, or not open yet.
        let led = topic.partition(index).is_some_and(|partition| partition.is_online());
        MetadataResponsePartition {
            error_code: if led { ErrorCode::NONE } else { ErrorCode::LEADER_NOT_AVAILABLE },
            partition_index: index,
            leader_id: if led { stored.leader } else { -1 },
            leader_epoch: stored.leader_epoch,
            replica_nodes: stored.replicas.to_vec(),
            isr_nodes: stored.isr.to_vec(),
            offline_replicas: if led { Vec::new() } else { stored.replicas.to_vec() },
        }
    });
    Some(MetadataResponseTopic {
        error_code: ErrorCode::NONE,
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        topic_authorized_operations: allowed_operations(operations, AclOperation::TOPIC),
    })
}
