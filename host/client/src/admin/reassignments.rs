//! Moves of partitions to other brokers, and elections of their leaders.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_wire::messages::{
    AlterPartitionReassignmentsRequest, ElectLeadersRequest, ElectLeadersTopicPartitions,
    ListPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use millstream_wire::{ErrorCode, Str};

use super::Admin;
use crate::consumer::record::TopicPartition;
use crate::error::Error;

/// The result for each partition.
type Results = BTreeMap<TopicPartition, Result<(), Error>>;

/// A partition that is being moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// The partition.
    pub partition: TopicPartition,
    /// The brokers that have it now: those of both sides.
    pub replicas: Vec<i32>,
    /// Those of them that are new.
    pub adding: Vec<i32>,
    /// Those of them that leave.
    pub removing: Vec<i32>,
}

/// A kind of election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionType {
    /// The first replica, if it is in sync.
    Preferred,
    /// Any replica that is alive, for a partition without a leader. Records may be lost.
    Unclean,
}

impl Admin {
    /// Begins to move partitions to other brokers, the preferred leader first; `None` cancels the move of a partition.
    ///
    /// # Errors
    /// The cluster rejects the request as a whole. The result of each partition is its own.
    pub async fn alter_reassignments(
        &self,
        targets: &BTreeMap<TopicPartition, Option<Vec<i32>>>,
    ) -> Result<Results, Error> {
        let mut topics: BTreeMap<Arc<str>, Vec<ReassignablePartition>> = BTreeMap::new();
        for (TopicPartition { topic, partition }, replicas) in targets {
            let partition = ReassignablePartition { partition_index: *partition, replicas: replicas.clone() };
            topics.entry(topic.clone()).or_default().push(partition);
        }
        let topic = |(name, partitions): (Arc<str>, _)| ReassignableTopic { name: Str::from(&*name), partitions };
        let request = AlterPartitionReassignmentsRequest {
            topics: topics.into_iter().map(topic).collect(),
            ..AlterPartitionReassignmentsRequest::default()
        };
        let what = "the move of partitions";
        let response = self
            .ask_controller(what, &request, |response| {
                Error::check(|| what.to_owned(), response.error_code, response.error_message.as_deref())
            })
            .await?;
        let results = response.responses.iter().flat_map(|topic| {
            topic.partitions.iter().map(|one| {
                let partition = TopicPartition::new(&*topic.name, one.partition_index);
                let result = Error::check(|| format!("move {partition}"), one.error_code, one.error_message.as_deref());
                (partition, result)
            })
        });
        Ok(results.collect())
    }

    /// Returns the partitions that are being moved.
    ///
    /// # Errors
    /// No broker can be reached.
    pub async fn list_reassignments(&self) -> Result<Vec<Reassignment>, Error> {
        let what = "the list of moves";
        let response = self
            .ask_controller(what, &ListPartitionReassignmentsRequest::default(), |response| {
                Error::check(|| what.to_owned(), response.error_code, response.error_message.as_deref())
            })
            .await?;
        let ongoing = response.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|one| Reassignment {
                partition: TopicPartition::new(&*topic.name, one.partition_index),
                replicas: one.replicas.clone(),
                adding: one.adding_replicas.clone(),
                removing: one.removing_replicas.clone(),
            })
        });
        let mut ongoing: Vec<_> = ongoing.collect();
        ongoing.sort_by(|one, other| one.partition.cmp(&other.partition));
        Ok(ongoing)
    }

    /// Elects the leaders of partitions; `None` for all that need it. A partition that needs no election has the error
    /// ELECTION_NOT_NEEDED.
    ///
    /// # Errors
    /// The cluster rejects the request as a whole. The result of each partition is its own.
    pub async fn elect_leaders(
        &self,
        election: ElectionType,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<Results, Error> {
        let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
        for TopicPartition { topic, partition } in partitions.unwrap_or_default() {
            topics.entry(topic.clone()).or_default().push(*partition);
        }
        let topic =
            |(topic, partitions): (Arc<str>, _)| ElectLeadersTopicPartitions { topic: Str::from(&*topic), partitions };
        let topics: Vec<_> = topics.into_iter().map(topic).collect();
        let request = ElectLeadersRequest {
            election_type: match election {
                ElectionType::Preferred => 0,
                ElectionType::Unclean => 1,
            },
            topic_partitions: partitions.map(|_| topics),
            ..ElectLeadersRequest::default()
        };
        let what = "the election of leaders";
        let response = self
            .ask_controller(what, &request, |response| Error::check(|| what.to_owned(), response.error_code, None))
            .await?;
        let results = response.replica_election_results.iter().flat_map(|topic| {
            topic.partition_result.iter().map(|one| {
                let partition = TopicPartition::new(&*topic.topic, one.partition_id);
                let what = || format!("elect the leader of {partition}");
                let result = Error::check(what, one.error_code, one.error_message.as_deref());
                (partition, result)
            })
        });
        Ok(results.collect())
    }
}

impl Error {
    /// Returns whether an election was not needed.
    #[must_use]
    pub fn is_election_not_needed(&self) -> bool {
        self.code() == Some(ErrorCode::ELECTION_NOT_NEEDED)
    }
}
