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

use super::cluster_view::{ClusterView, PartitionView};
use super::handler::{ENTRY_BYTES, Handler, RequestContext};
use crate::broker::Broker;
use crate::edge::{ServedTopic, ServedTopics};
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType, allowed_operations};
use crate::topics::Topic;
use millstream_metadata::{PartitionImage, check_name};

/// The first version that names a missing listener instead of a missing leader.
const LISTENER_NOT_FOUND_SINCE: i16 = 6;

pub(super) struct Metadata;

impl Handler for Metadata {
    type Request = MetadataRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Topic));

    fn response_bytes(broker: &Broker, context: &RequestContext, request: &MetadataRequest) -> usize {
        let table = broker.topics.load();
        let entries = match &request.topics {
            Some(topics) if !is_for_all(context, topics) => topics
                .iter()
                .filter_map(|topic| match is_by_id(topic) {
                    true => table.by_id(topic.topic_id),
                    false => table.by_name(topic.name.as_deref().unwrap_or_default()),
                })
                .map(|topic| topic.entries())
                .sum(),
            _ => table.entries(),
        };
        ENTRY_BYTES * entries
    }

    async fn handle(broker: &Arc<Broker>, context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
        let create = request.allow_auto_topic_creation && broker.config.auto_create_topics;
        let requested = request.topics.filter(|requested| !is_for_all(context, requested));
        let failed = match &requested {
            Some(requested) if create => create_missing(broker, requested).await,
            _ => HashMap::new(),
        };
        // The table is loaded first: its topics are in every later image, unless they are deleted meanwhile.
        let table = broker.topics.load();
        let described = Described {
            view: ClusterView::new(broker, &context.connection),
            version: context.version,
            operations: request.include_topic_authorized_operations,
        };
        let topics = match requested {
            Some(requested) => requested.into_iter().map(|topic| described.one(&table, topic, &failed)).collect(),
            None => table.iter().filter_map(|topic| described.topic(topic)).collect(),
        };
        MetadataResponse {
            brokers: described.brokers(),
            cluster_id: Some(Str::from(broker.cluster_id.as_str())),
            controller_id: broker.controller_id(),
            topics,
            cluster_authorized_operations: allowed_operations(
                request.include_cluster_authorized_operations,
                AclOperation::CLUSTER,
            ),
            ..Default::default()
        }
    }
}

/// Returns whether a list of topics stands for all of them, as an empty one does in version 0.
fn is_for_all(context: &RequestContext, requested: &[MetadataRequestTopic]) -> bool {
    requested.is_empty() && context.version == 0
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

fn find(table: &ServedTopics, by_id: bool, name: &str, id: Uuid) -> Result<Arc<ServedTopic>, ApiError> {
    if !by_id {
        check_name(name)?;
    }
    table.resolve(by_id, name, id).cloned()
}

/// The cluster as a response of one version describes it.
struct Described {
    view: ClusterView,
    version: i16,
    /// Whether the response has the allowed operations of each topic.
    operations: bool,
}

impl Described {
    /// Returns the brokers that are not fenced.
    fn brokers(&self) -> Vec<MetadataResponseBroker> {
        let alive = self.view.nodes().filter(|(_, node)| !node.is_fenced);
        let broker = alive.map(|(node_id, node)| MetadataResponseBroker {
            node_id,
            host: node.host.clone(),
            port: node.port,
            rack: node.rack.clone(),
        });
        broker.collect()
    }

    fn one(
        &self,
        table: &ServedTopics,
        requested: MetadataRequestTopic,
        failed: &HashMap<Str, ApiError>,
    ) -> MetadataResponseTopic {
        let by_id = is_by_id(&requested);
        let name = requested.name.clone().unwrap_or_default();
        let found = find(table, by_id, &name, requested.topic_id);
        let found = found.map_err(|error| failed.get(&name).cloned().unwrap_or(error));
        let described = found.and_then(|topic| self.topic(&topic).ok_or_else(ApiError::unknown_topic));
        described.unwrap_or_else(|error| MetadataResponseTopic {
            error_code: error.code,
            name: requested.name.filter(|_| !by_id),
            topic_id: requested.topic_id,
            ..Default::default()
        })
    }

    /// Describes a topic of the image; `None` if it was deleted meanwhile.
    fn topic(&self, topic: &Topic) -> Option<MetadataResponseTopic> {
        let image = &self.view.image;
        let stored = image.partitions_of(image.topic_by_id(topic.id)?);
        Some(MetadataResponseTopic {
            error_code: ErrorCode::NONE,
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: topic.is_internal(),
            partitions: (0..).zip(stored).map(|(index, stored)| self.partition(topic, index, stored)).collect(),
            topic_authorized_operations: allowed_operations(self.operations, AclOperation::TOPIC),
        })
    }

    fn partition(&self, topic: &Topic, index: i32, stored: &PartitionImage) -> MetadataResponsePartition {
        let PartitionView { error_code, leader, offline } = self.view.partition(topic, index, stored);
        // Version 0 has no field for offline replicas: it leaves them out.
        let listed = |ids: &[i32]| -> Vec<i32> {
            ids.iter().copied().filter(|&id| self.version > 0 || self.view.is_reachable(id)).collect()
        };
        let (replica_nodes, isr_nodes) = (listed(&stored.replicas), listed(&stored.isr));
        let lacks_replicas = replica_nodes.len() < stored.replicas.len() || isr_nodes.len() < stored.isr.len();
        let error_code = match error_code {
            ErrorCode::NONE if lacks_replicas => ErrorCode::REPLICA_NOT_AVAILABLE,
            ErrorCode::LISTENER_NOT_FOUND if self.version < LISTENER_NOT_FOUND_SINCE => ErrorCode::LEADER_NOT_AVAILABLE,
            other => other,
        };
        MetadataResponsePartition {
            error_code,
            partition_index: index,
            leader_id: leader,
            leader_epoch: stored.leader_epoch,
            replica_nodes,
            isr_nodes,
            offline_replicas: offline,
        }
    }
}
