//! DescribeQuorum: the quorum of the metadata log. A broker that is alone is its leader and only voter.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_partition::now_ms;
use millstream_wire::messages::{
    DescribeQuorumNode, DescribeQuorumPartitionResponse, DescribeQuorumRequest, DescribeQuorumResponse,
    DescribeQuorumTopicRequest, DescribeQuorumTopicResponse, NodeListener, QuorumReplicaState,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::cluster::{Call, Member, QuorumState, Reply};
use crate::config::HostPort;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

/// The topic of the metadata log. Clients cannot read it.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(super) struct DescribeQuorum;

impl Handler for DescribeQuorum {
    type Request = DescribeQuorumRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));
    const NEEDS_TOPICS: bool = false;

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: DescribeQuorumRequest,
    ) -> DescribeQuorumResponse {
        if !is_quorum(&request.topics) {
            let unknown_topic = |topic: DescribeQuorumTopicRequest| DescribeQuorumTopicResponse {
                partitions: topic.partitions.iter().map(|partition| unknown(partition.partition_index)).collect(),
                topic_name: topic.topic_name,
            };
            let topics = request.topics.into_iter().map(unknown_topic).collect();
            return DescribeQuorumResponse { error_message: Some(Str::EMPTY), topics, ..Default::default() };
        }
        let state = match state(broker, context).await {
            Ok(state) => state,
            Err(error) => {
                let error_message = error.text();
                return DescribeQuorumResponse { error_code: error.code, error_message, ..Default::default() };
            }
        };
        let topic = |topic: DescribeQuorumTopicRequest| DescribeQuorumTopicResponse {
            partitions: vec![partition(&state)],
            topic_name: topic.topic_name,
        };
        DescribeQuorumResponse {
            error_message: Some(Str::EMPTY),
            topics: request.topics.into_iter().map(topic).collect(),
            nodes: nodes(broker, context, &state),
            ..Default::default()
        }
    }
}

/// Returns whether the request is about the quorum alone. Kafka describes it in no other request.
fn is_quorum(topics: &[DescribeQuorumTopicRequest]) -> bool {
    let [topic] = topics else { return false };
    let [partition] = topic.partitions.as_slice() else { return false };
    topic.topic_name.as_str() == METADATA_TOPIC && partition.partition_index == 0
}

/// Returns the state of the quorum as its leader knows it.
async fn state(broker: &Broker, context: &RequestContext) -> Result<QuorumState, ApiError> {
    let Some(cluster) = &broker.cluster else { return Ok(alone(broker, context)) };
    match cluster.ask_leader(Call::DescribeQuorum).await {
        Ok(Reply::Quorum(state)) => Ok(state),
        Ok(_) => Err(ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, "the leader of the quorum does not describe it")),
        Err(error) => Err(ApiError::new(ErrorCode::COORDINATOR_NOT_AVAILABLE, error.to_string())),
    }
}

/// Returns the quorum as of the last committed change. A log with one voter commits what it has synced. There is no
/// listener for nodes, so the address is the one that the client uses.
fn alone(broker: &Broker, context: &RequestContext) -> QuorumState {
    let end = u64::try_from(broker.metadata.end_offset()).unwrap_or_default();
    let (host, port) = broker.advertised(&context.connection);
    let node_id = broker.config.node_id;
    let address = HostPort { host: host.to_string(), port: u16::try_from(port).unwrap_or_default() }.to_string();
    QuorumState {
        leader: node_id,
        term: u64::try_from(broker.metadata.image().leader_epoch).unwrap_or_default(),
        committed_end: end,
        voters: vec![Member { node_id, directory_id: broker.directory_id, address, log_end: Some(end) }],
        observers: Vec::new(),
    }
}

fn partition(state: &QuorumState) -> DescribeQuorumPartitionResponse {
    let now = now_ms();
    let replicas = |members: &[Member]| {
        let replica = |member: &Member| {
            let end = member.log_end.map_or(-1, offset);
            // The leader always has its own entries. When others had all of them is known only while they do.
            let caught_up = end >= offset(state.committed_end);
            let at = if member.node_id == state.leader || caught_up { now } else { -1 };
            QuorumReplicaState {
                replica_id: member.node_id,
                replica_directory_id: member.directory_id,
                log_end_offset: end,
                last_fetch_timestamp: at,
                last_caught_up_timestamp: at,
            }
        };
        members.iter().map(replica).collect()
    };
    DescribeQuorumPartitionResponse {
        error_message: Some(Str::EMPTY),
        leader_id: state.leader,
        leader_epoch: i32::try_from(state.term).unwrap_or(i32::MAX),
        high_watermark: offset(state.committed_end),
        current_voters: replicas(&state.voters),
        observers: replicas(&state.observers),
        ..Default::default()
    }
}

fn offset(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn unknown(partition_index: i32) -> DescribeQuorumPartitionResponse {
    DescribeQuorumPartitionResponse {
        partition_index,
        error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        error_message: Some(Str::from_static("This server does not host this topic-partition.")),
        ..Default::default()
    }
}

/// Returns the addresses of the voters on the listener for nodes.
fn nodes(broker: &Broker, context: &RequestContext, state: &QuorumState) -> Vec<DescribeQuorumNode> {
    let index = broker.config.cluster.as_ref().map_or(context.connection.listener, |cluster| cluster.listener);
    let name = broker.config.listeners.get(index).map_or("", |listener| listener.name.as_str());
    let node = |member: &Member| {
        let address: HostPort = member.address.parse().ok()?;
        let listener = NodeListener { name: Str::from(name), host: Str::from(&address.host), port: address.port };
        Some(DescribeQuorumNode { node_id: member.node_id, listeners: vec![listener] })
    };
    state.voters.iter().filter_map(node).collect()
}
