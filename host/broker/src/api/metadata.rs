//! Metadata: brokers, topics and who leads their partitions. Creates topics that are asked for and not there.

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
use crate::controller;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType, allowed_operations};
use crate::topics::{Topic, TopicTable, check_name};

pub(super) struct Metadata;

impl Handler for Metadata {
    type Request = MetadataRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Topic));

    async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
        let operations = request.include_topic_authorized_operations;
        let create = request.allow_auto_topic_creation && broker.config.auto_create_topics;
        let mut topics = Vec::new();
        match request.topics {
            Some(asked) if !(asked.is_empty() && context.version == 0) => {
                for topic in asked {
                    topics.push(one(broker, topic, create, operations).await);
                }
            }
            _ => topics.extend(broker.topics.load().iter().map(|topic| describe(broker, topic, operations))),
        }
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

async fn one(
    broker: &Arc<Broker>,
    asked: MetadataRequestTopic,
    create: bool,
    operations: bool,
) -> MetadataResponseTopic {
    // Java's Admin asks by id with an empty name.
    let by_id = asked.name.is_none() || !asked.topic_id.is_nil();
    let name = asked.name.clone().unwrap_or_default();
    let found = find(&broker.topics.load(), by_id, &name, asked.topic_id);
    let found = match found {
        Err(error) if error.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION && create => {
            let created = controller::ensure_topic(broker, &name).await;
            created.and_then(|()| find(&broker.topics.load(), by_id, &name, asked.topic_id))
        }
        found => found,
    };
    match found {
        Ok(topic) => describe(broker, &topic, operations),
        Err(error) => MetadataResponseTopic {
            error_code: error.code,
            name: asked.name.filter(|_| !by_id),
            topic_id: asked.topic_id,
            ..Default::default()
        },
    }
}

fn find(table: &TopicTable, by_id: bool, name: &str, id: Uuid) -> Result<Arc<Topic>, ApiError> {
    if !by_id {
        check_name(name)?;
    }
    table.resolve(by_id, name, id).cloned()
}

fn describe(broker: &Broker, topic: &Topic, operations: bool) -> MetadataResponseTopic {
    let node_id = broker.config.node_id;
    let partitions = topic.partitions.iter().map(|partition| {
        let online = partition.is_online();
        MetadataResponsePartition {
            error_code: if online { ErrorCode::NONE } else { ErrorCode::LEADER_NOT_AVAILABLE },
            partition_index: partition.index(),
            leader_id: if online { node_id } else { -1 },
            leader_epoch: partition.leader_epoch(),
            replica_nodes: vec![node_id],
            isr_nodes: vec![node_id],
            offline_replicas: if online { Vec::new() } else { vec![node_id] },
        }
    });
    MetadataResponseTopic {
        error_code: ErrorCode::NONE,
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        topic_authorized_operations: allowed_operations(operations, AclOperation::TOPIC),
    }
}
