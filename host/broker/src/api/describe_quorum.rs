//! DescribeQuorum: the quorum of the metadata log. This node is its leader and only voter.

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
use crate::security::{AclOperation, Permission, ResourceType};

/// The topic of the metadata log. Clients cannot read it.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(super) struct DescribeQuorum;

impl Handler for DescribeQuorum {
    type Request = DescribeQuorumRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: DescribeQuorumRequest,
    ) -> DescribeQuorumResponse {
        let described = is_quorum(&request.topics);
        let topics = request.topics.into_iter().map(|topic| DescribeQuorumTopicResponse {
            partitions: match described {
                true => vec![quorum(broker)],
                false => topic.partitions.iter().map(|partition| unknown(partition.partition_index)).collect(),
            },
            topic_name: topic.topic_name,
        });
        DescribeQuorumResponse {
            error_message: Some(Str::EMPTY),
            topics: topics.collect(),
            nodes: if described { vec![node(broker, context)] } else { Vec::new() },
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

/// Describes the quorum as of the last committed change. A log with one voter commits what it has synced.
fn quorum(broker: &Broker) -> DescribeQuorumPartitionResponse {
    let end_offset = broker.metadata.end_offset();
    let now = now_ms();
    let voter = QuorumReplicaState {
        replica_id: broker.config.node_id,
        replica_directory_id: broker.directory_id,
        log_end_offset: end_offset,
        // The leader always has its own records.
        last_fetch_timestamp: now,
        last_caught_up_timestamp: now,
    };
    DescribeQuorumPartitionResponse {
        error_message: Some(Str::EMPTY),
        leader_id: broker.config.node_id,
        leader_epoch: broker.metadata.image().leader_epoch,
        high_watermark: end_offset,
        current_voters: vec![voter],
        ..Default::default()
    }
}

fn unknown(partition_index: i32) -> DescribeQuorumPartitionResponse {
    DescribeQuorumPartitionResponse {
        partition_index,
        error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        error_message: Some(Str::from_static("This server does not host this topic-partition.")),
        ..Default::default()
    }
}

/// Returns the address of the voter. There is no listener for controllers, so it is the one that the client uses.
fn node(broker: &Broker, context: &RequestContext) -> DescribeQuorumNode {
    let (host, port) = broker.advertised(&context.connection);
    let name = broker.config.listeners.get(context.connection.listener).map(|listener| listener.name.as_str());
    let listener =
        NodeListener { name: Str::from(name.unwrap_or_default()), host, port: u16::try_from(port).unwrap_or_default() };
    DescribeQuorumNode { node_id: broker.config.node_id, listeners: vec![listener] }
}
