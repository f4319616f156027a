//! ElectLeaders: elects preferred leaders, or leaders for partitions that have none.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_metadata::controller::{Election, Request};
use millstream_metadata::{MetadataImage, NO_LEADER, PartitionImage, TopicImage};
use millstream_wire::messages::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionElectionResult, ReplicaElectionResult,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

pub(super) struct ElectLeaders;

impl Handler for ElectLeaders {
    type Request = ElectLeadersRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Alter, ResourceType::Cluster));

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
        let election = election(request.election_type);
        let image = broker.metadata.image();
        let is_all = request.topic_partitions.is_none();
        let wanted: Vec<(Str, Vec<i32>)> = match request.topic_partitions {
            Some(topics) => topics.into_iter().map(|topic| (topic.topic, topic.partitions)).collect(),
            None => election.as_ref().map_or_else(|_| Vec::new(), |election| all(broker, &image, *election)),
        };
        let checked: Vec<Vec<Result<Request, ApiError>>> = wanted
            .iter()
            .map(|(name, partitions)| {
                let check = |&partition: &i32| check(broker, &image, election.clone()?, name, partition);
                partitions.iter().map(check).collect()
            })
            .collect();
        let requests = checked.iter().flatten().flatten().cloned().collect();
        let mut outcomes = broker.controller.submit(requests, false).await.into_iter();
        let results = wanted.into_iter().zip(checked).map(|((topic, partitions), checked)| {
            let results = partitions.into_iter().zip(checked).map(|(partition, checked)| {
                let elected = checked.and_then(|_| outcomes.next().unwrap_or_else(|| Ok(Vec::new())));
                result(partition, elected.map(drop))
            });
            // When all partitions are requested, those that need no election are left out.
            let is_told =
                |result: &PartitionElectionResult| !is_all || result.error_code != ErrorCode::ELECTION_NOT_NEEDED;
            ReplicaElectionResult { partition_result: results.filter(is_told).collect(), topic }
        });
        ElectLeadersResponse {
            error_code: if election.is_ok() { ErrorCode::NONE } else { ErrorCode::INVALID_REQUEST },
            replica_election_results: results.collect(),
            ..Default::default()
        }
    }
}

/// Returns the kind of election that a request names.
fn election(election_type: i8) -> Result<Election, ApiError> {
    match election_type {
        0 => Ok(Election::Preferred),
        1 => Ok(Election::Unclean),
        other => Err(ApiError::new(ErrorCode::INVALID_REQUEST, format!("Unknown election type {other}"))),
    }
}

/// Returns all partitions that an election may change, by topic.
fn all(broker: &Broker, image: &MetadataImage, election: Election) -> Vec<(Str, Vec<i32>)> {
    let of_topic = |topic: &Arc<TopicImage>| {
        let partitions = (0..).zip(&topic.partitions);
        let wanted = partitions.filter(|(index, stored)| {
            needs_election(election, stored) || is_offline_here(broker, &topic.name, *index, stored)
        });
        (Str::from(topic.name.as_str()), wanted.map(|(index, _)| index).collect::<Vec<i32>>())
    };
    // A view has the leaders of its source.
    let topics = image.topics().filter(|topic| topic.view_of().is_none()).map(of_topic);
    topics.filter(|(_, partitions)| !partitions.is_empty()).collect()
}

fn needs_election(election: Election, stored: &PartitionImage) -> bool {
    match election {
        Election::Preferred => stored.replicas.first() != Some(&stored.leader),
        Election::Clean | Election::Unclean => stored.leader == NO_LEADER,
    }
}

/// Returns whether this broker leads a partition whose log could not be opened.
fn is_offline_here(broker: &Broker, topic: &str, index: i32, stored: &PartitionImage) -> bool {
    let leads = stored.leader == broker.config.node_id;
    leads && broker.partition(topic, index).is_ok_and(|partition| !partition.is_online())
}

/// Returns the request to the controller.
fn check(
    broker: &Broker,
    image: &MetadataImage,
    election: Election,
    name: &str,
    index: i32,
) -> Result<Request, ApiError> {
    let unknown = |what: &str| {
        let message = format!("No such {what}");
        ApiError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message)
    };
    let topic = image.topic(name).ok_or_else(|| unknown(&format!("topic as {name}")))?;
    let stored = image.partitions_of(topic).get(usize::try_from(index).unwrap_or(usize::MAX));
    let stored = stored.ok_or_else(|| unknown(&format!("partition as {name}-{index}")))?;
    if is_offline_here(broker, name, index, stored) && !needs_election(election, stored) {
        return Err(match election {
            Election::Preferred => {
                let message = "The preferred leader was not available.";
                ApiError::new(ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE, message)
            }
            Election::Clean | Election::Unclean => {
                let message = "Eligible topic partition leaders are not available.";
                ApiError::new(ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE, message)
            }
        });
    }
    Ok(Request::ElectLeader { election, topic: topic.id, partition: index })
}

fn result(partition_id: i32, elected: Result<(), ApiError>) -> PartitionElectionResult {
    match elected {
        Ok(()) => PartitionElectionResult { partition_id, ..Default::default() },
        Err(error) => PartitionElectionResult { partition_id, error_code: error.code, error_message: error.text() },
    }
}
