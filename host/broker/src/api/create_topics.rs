//! CreateTopics: each topic succeeds or fails by itself.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use super::describe_configs::topic_entries;
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};
use millstream_metadata::controller::{
    Assignment, ControllerError, NewTopic, PARTITIONS_PER_REQUEST_MAX, Replication, Request,
};
use millstream_metadata::{MetadataRecord, TopicConfigs};

pub(super) struct CreateTopics;

impl Handler for CreateTopics {
    type Request = CreateTopicsRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=7;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Create, ResourceType::Cluster));

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let mut times: HashMap<Str, usize> = HashMap::new();
        for topic in &request.topics {
            *times.entry(topic.name.clone()).or_default() += 1;
        }
        let wanted: Vec<_> = request.topics.iter().map(|topic| new_topic(topic, times[&topic.name])).collect();
        let partitions: usize = request.topics.iter().map(|topic| partitions(broker, topic)).sum();
        if partitions > PARTITIONS_PER_REQUEST_MAX {
            let error = ApiError::from(ControllerError::TooManyPartitions(partitions));
            let topics = request.topics.iter().map(|topic| rejected(topic, &error)).collect();
            return CreateTopicsResponse { topics, ..Default::default() };
        }
        let requests = wanted.iter().flatten().cloned().map(Request::CreateTopic).collect();
        let mut created = broker.controller.submit(requests, request.validate_only).await.into_iter();
        let topics = request.topics.iter().zip(wanted).map(|(topic, wanted)| {
            let records = wanted.and_then(|_| created.next().unwrap_or_else(|| Ok(Vec::new())));
            match records {
                Ok(records) => created_topic(broker, topic, &records, request.validate_only),
                Err(error) => rejected(topic, &error),
            }
        });
        CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
    }
}

/// Returns the number of requested partitions, as Kafka counts them against the limit of one request.
fn partitions(broker: &Broker, topic: &CreatableTopic) -> usize {
    match topic.num_partitions {
        -1 if topic.assignments.is_empty() => usize::try_from(broker.config.num_partitions).unwrap_or(0),
        -1 => topic.assignments.len(),
        count => usize::try_from(count).unwrap_or(0),
    }
}

fn new_topic(topic: &CreatableTopic, times: usize) -> Result<NewTopic, ApiError> {
    if times > 1 {
        return Err(ApiError::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name."));
    }
    let mut configs = TopicConfigs::new();
    for config in &topic.configs {
        let value = config.value.as_ref().ok_or_else(|| {
            let message = format!("Null value not supported for topic configs: {}", config.name.as_str());
            ApiError::new(ErrorCode::INVALID_CONFIG, message)
        })?;
        configs.insert(config.name.as_str().to_owned(), value.as_str().to_owned());
    }
    let assignment = |given: &CreatableReplicaAssignment| Assignment {
        partition: given.partition_index,
        replicas: given.broker_ids.clone(),
    };
    Ok(NewTopic {
        partitions: Some(topic.num_partitions).filter(|&count| count != -1),
        replication: match topic.replication_factor {
            -1 => Replication::Default,
            factor => Replication::Exactly(factor.into()),
        },
        assignments: topic.assignments.iter().map(assignment).collect(),
        configs,
        ..NewTopic::new(topic.name.as_str())
    })
}

/// Describes a topic that was created, or would be.
fn created_topic(
    broker: &Broker,
    topic: &CreatableTopic,
    records: &[MetadataRecord],
    validate_only: bool,
) -> CreatableTopicResult {
    let [MetadataRecord::TopicCreated { id, partitions, configs, replicas, .. }] = records else {
        return rejected(topic, &ApiError::unknown_topic());
    };
    let image = broker.metadata.image();
    let configs = topic_entries(broker, &image, configs).map(|entry| CreatableTopicConfigs {
        name: Str::from_static(entry.key.name),
        value: entry.value.as_deref().map(Str::from),
        read_only: false,
        config_source: entry.source as i8,
        is_sensitive: false,
    });
    CreatableTopicResult {
        name: topic.name.clone(),
        topic_id: if validate_only { Uuid::nil() } else { *id },
        num_partitions: *partitions,
        // Without assignments the one broker of the cluster has every partition.
        replication_factor: replicas.first().map_or(1, |replicas| i16::try_from(replicas.len()).unwrap_or(i16::MAX)),
        configs: Some(configs.collect()),
        ..Default::default()
    }
}

fn rejected(topic: &CreatableTopic, error: &ApiError) -> CreatableTopicResult {
    CreatableTopicResult {
        name: topic.name.clone(),
        error_code: error.code,
        error_message: error.text(),
        ..Default::default()
    }
}
