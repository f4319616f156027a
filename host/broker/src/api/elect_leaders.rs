//! ElectLeaders: every partition has one replica, which leads it whenever it can be served.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{
    ElectLeadersRequest, ElectLeadersResponse, ElectLeadersTopicPartitions, PartitionElectionResult,
    ReplicaElectionResult,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

/// The types of elections.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) struct ElectLeaders;

impl Handler for ElectLeaders {
    type Request = ElectLeadersRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Cluster));

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
        let election = request.election_type;
        let results = match request.topic_partitions {
            Some(topics) => topics.into_iter().map(|topic| of_topic(broker, election, topic)).collect(),
            // When all partitions are requested, those that need no election are left out.
            None => all(broker, election),
        };
        let known = [PREFERRED, UNCLEAN].contains(&election);
        ElectLeadersResponse {
            error_code: if known { ErrorCode::NONE } else { ErrorCode::INVALID_REQUEST },
            replica_election_results: results,
            ..Default::default()
        }
    }
}

fn of_topic(broker: &Broker, election: i8, topic: ElectLeadersTopicPartitions) -> ReplicaElectionResult {
    let results = topic.partitions.iter().map(|&partition| elect(broker, election, &topic.topic, partition));
    ReplicaElectionResult { partition_result: results.collect(), topic: topic.topic }
}

fn all(broker: &Broker, election: i8) -> Vec<ReplicaElectionResult> {
    let table = broker.topics.load();
    let topics = table.iter().map(|topic| {
        let results = topic.partitions.iter().map(|partition| elect(broker, election, &topic.name, partition.index()));
        ReplicaElectionResult {
            topic: topic.name.clone(),
            partition_result: results.filter(|result| result.error_code != ErrorCode::ELECTION_NOT_NEEDED).collect(),
        }
    });
    topics.filter(|topic| !topic.partition_result.is_empty()).collect()
}

fn elect(broker: &Broker, election: i8, topic: &Str, partition: i32) -> PartitionElectionResult {
    let error = why_not(broker, election, topic, partition);
    PartitionElectionResult { partition_id: partition, error_code: error.code, error_message: error.text() }
}

/// Returns why there is no election.
fn why_not(broker: &Broker, election: i8, name: &str, index: i32) -> ApiError {
    if ![PREFERRED, UNCLEAN].contains(&election) {
        return ApiError::new(ErrorCode::INVALID_REQUEST, format!("Unknown election type {election}"));
    }
    let table = broker.topics.load();
    let Some(topic) = table.by_name(name) else {
        return ApiError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("No such topic as {name}"));
    };
    let Some(partition) = topic.partition(index) else {
        let message = format!("No such partition as {name}-{index}");
        return ApiError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message);
    };
    if partition.is_online() {
        return ApiError::new(ErrorCode::ELECTION_NOT_NEEDED, "Leader election not needed for topic partition.");
    }
    if election == PREFERRED {
        return ApiError::new(ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE, "The preferred leader was not available.");
    }
    let message = "Eligible topic partition leaders are not available.";
    ApiError::new(ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE, message)
}
