//! The quorum of the metadata log.

use millstream_wire::Str;
use millstream_wire::messages::{
    DescribeQuorumPartitionRequest, DescribeQuorumRequest, DescribeQuorumTopicRequest, RemoveRaftVoterRequest,
};
use uuid::Uuid;

use super::Admin;
use crate::error::Error;

/// The topic of the metadata log.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// The quorum of the metadata log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumDescription {
    /// The node id of the leader, if there is one.
    pub leader: Option<i32>,
    /// Rises with every change of the leader.
    pub leader_epoch: i32,
    /// The offset after the last committed record.
    pub high_watermark: i64,
    /// The nodes that vote.
    pub voters: Vec<QuorumReplica>,
    /// The nodes that follow without a vote.
    pub observers: Vec<QuorumReplica>,
}

/// A node with a copy of the metadata log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumReplica {
    /// Its node id.
    pub id: i32,
    /// The id of its data folder; all zeros from an old node.
    pub directory_id: Uuid,
    /// The offset after its last record, if it is known.
    pub log_end_offset: Option<i64>,
    /// The time of its last fetch, in milliseconds since the epoch, if it is known.
    pub last_fetch_ms: Option<i64>,
    /// When it last had all records, in milliseconds since the epoch, if it is known.
    pub last_caught_up_ms: Option<i64>,
}

impl Admin {
    /// Describes the quorum of the metadata log.
    ///
    /// # Errors
    /// No broker can be reached, or it does not know the quorum.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, Error> {
        let partitions = vec![DescribeQuorumPartitionRequest { partition_index: 0 }];
        let topic = DescribeQuorumTopicRequest { topic_name: Str::from_static(METADATA_TOPIC), partitions };
        let request = DescribeQuorumRequest { topics: vec![topic] };
        let what = || "describe the quorum".to_owned();
        let mut retry = self.retry("the description of the quorum");
        loop {
            let attempt = async {
                let response = self.cluster.ask_any(&request).await?;
                Error::check(what, response.error_code, response.error_message.as_deref())?;
                let Some(quorum) = response.topics.first().and_then(|topic| topic.partitions.first()) else {
                    return Err(Error::Invalid("the response lacks the quorum".into()));
                };
                Error::check(what, quorum.error_code, quorum.error_message.as_deref())?;
                let known = |number: i64| (number >= 0).then_some(number);
                let replica = |replica: &millstream_wire::messages::QuorumReplicaState| QuorumReplica {
                    id: replica.replica_id,
                    directory_id: replica.replica_directory_id,
                    log_end_offset: known(replica.log_end_offset),
                    last_fetch_ms: known(replica.last_fetch_timestamp),
                    last_caught_up_ms: known(replica.last_caught_up_timestamp),
                };
                Ok(QuorumDescription {
                    leader: (quorum.leader_id >= 0).then_some(quorum.leader_id),
                    leader_epoch: quorum.leader_epoch,
                    high_watermark: quorum.high_watermark,
                    voters: quorum.current_voters.iter().map(replica).collect(),
                    observers: quorum.observers.iter().map(replica).collect(),
                })
            };
            if let Some(description) = retry.attempt(attempt).await? {
                return Ok(description);
            }
        }
    }

    /// Removes a voter from the quorum of the metadata log.
    ///
    /// # Errors
    /// The quorum has no such voter, or cannot lose it.
    pub async fn remove_voter(&self, id: i32, directory_id: Uuid) -> Result<(), Error> {
        let request = RemoveRaftVoterRequest { cluster_id: None, voter_id: id, voter_directory_id: directory_id };
        let what = || format!("remove voter {id} from the quorum");
        self.ask_controller(&what(), &request, |response| {
            Error::check(what, response.error_code, response.error_message.as_deref())
        })
        .await
        .map(drop)
    }
}
