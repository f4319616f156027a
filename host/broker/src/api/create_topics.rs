//! CreateTopics: each topic succeeds or fails by itself.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use millstream_wire::{ErrorCode, Str};
use uuid::Uuid;

use super::describe_configs::topic_entries;
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::config::TopicOverrides;
use crate::controller::{self, NewTopic, PARTITIONS_PER_REQUEST_MAX};
use crate::edge::view::rules;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

/// One replica is all that one node can hold.
const REPLICATION_FACTOR: i16 = 1;

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
        let plans: Vec<_> = request.topics.iter().map(|topic| plan(broker, topic, times[&topic.name])).collect();
        let asked: usize = plans.iter().flatten().map(|topic| topic.partitions.max(0) as usize).sum();
        if asked > PARTITIONS_PER_REQUEST_MAX {
            let message = format!("Excessively large number of partitions per request: {asked}.");
            let error = ApiError::new(ErrorCode::POLICY_VIOLATION, message);
            let topics = request.topics.iter().map(|topic| refused(topic, &error)).collect();
            return CreateTopicsResponse { topics, ..Default::default() };
        }
        let wanted = plans.iter().flatten().cloned().collect();
        let mut created = controller::create_topics(broker, wanted, request.validate_only).await.into_iter();
        let topics = request.topics.iter().zip(plans).map(|(topic, plan)| {
            let made =
                plan.and_then(|plan| Ok((created.next().unwrap_or_else(|| Err(ApiError::unknown_topic()))?, plan)));
            match made {
                Ok((id, plan)) => described(broker, topic, id, &plan),
                Err(error) => refused(topic, &error),
            }
        });
        CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
    }
}

fn plan(broker: &Broker, topic: &CreatableTopic, times: usize) -> Result<NewTopic, ApiError> {
    if times > 1 {
        return Err(ApiError::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name."));
    }
    let mut configs: TopicOverrides = BTreeMap::new();
    for config in &topic.configs {
        let value = config.value.as_ref().ok_or_else(|| {
            let message = format!("Null value not supported for topic configs: {}", config.name.as_str());
            ApiError::new(ErrorCode::INVALID_CONFIG, message)
        })?;
        configs.insert(config.name.as_str().to_owned(), value.as_str().to_owned());
    }
    let partitions = if topic.assignments.is_empty() {
        check_replication(broker, topic.replication_factor)?;
        match topic.num_partitions {
            -1 => rules::default_partitions(&broker.metadata.image(), &configs).unwrap_or(broker.config.num_partitions),
            number => number,
        }
    } else {
        assigned(broker, topic)?
    };
    Ok(NewTopic { name: topic.name.as_str().to_owned(), partitions, configs })
}

fn check_replication(broker: &Broker, asked: i16) -> Result<(), ApiError> {
    let factor = if asked == -1 { broker.config.default_replication_factor } else { i32::from(asked) };
    if factor == i32::from(REPLICATION_FACTOR) {
        return Ok(());
    }
    let message = match factor {
        ..1 => "Replication factor must be larger than 0, or -1 to use the default value.".to_owned(),
        _ => format!(
            "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be \
             reached because only 1 broker(s) are registered."
        ),
    };
    Err(ApiError::new(ErrorCode::INVALID_REPLICATION_FACTOR, message))
}

/// The number of partitions that a manual assignment makes.
fn assigned(broker: &Broker, topic: &CreatableTopic) -> Result<i32, ApiError> {
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message =
            "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.";
        return Err(ApiError::new(ErrorCode::INVALID_REQUEST, message));
    }
    let mut indexes: Vec<i32> = topic.assignments.iter().map(|assignment| assignment.partition_index).collect();
    indexes.sort_unstable();
    if indexes.iter().enumerate().any(|(place, &index)| usize::try_from(index) != Ok(place)) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(ApiError::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message));
    }
    for assignment in &topic.assignments {
        check_assignment(broker, &assignment.broker_ids)?;
    }
    i32::try_from(indexes.len()).map_err(|_| ApiError::new(ErrorCode::INVALID_PARTITIONS, "too many partitions"))
}

/// A manual assignment can name this broker alone.
pub(super) fn check_assignment(broker: &Broker, broker_ids: &[i32]) -> Result<(), ApiError> {
    if broker_ids == [broker.config.node_id] {
        return Ok(());
    }
    let message =
        format!("the assignment {broker_ids:?} does not name exactly the one broker, {}", broker.config.node_id);
    Err(ApiError::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message))
}

fn described(broker: &Broker, topic: &CreatableTopic, id: Uuid, plan: &NewTopic) -> CreatableTopicResult {
    let configs = topic_entries(broker, &plan.configs).map(|entry| CreatableTopicConfigs {
        name: Str::from_static(entry.key.name),
        value: entry.value.as_deref().map(Str::from),
        read_only: false,
        config_source: entry.source as i8,
        is_sensitive: false,
    });
    CreatableTopicResult {
        name: topic.name.clone(),
        topic_id: id,
        num_partitions: plan.partitions,
        replication_factor: REPLICATION_FACTOR,
        configs: Some(configs.collect()),
        ..Default::default()
    }
}

fn refused(topic: &CreatableTopic, error: &ApiError) -> CreatableTopicResult {
    CreatableTopicResult {
        name: topic.name.clone(),
        error_code: error.code,
        error_message: error.text(),
        ..Default::default()
    }
}
