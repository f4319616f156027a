//! DescribeTopicPartitions: topics and partitions, page by page (KIP-966).

use uuid::Uuid;

use crate::codec::nullable_struct;
use crate::{ErrorCode, Message, Str};

/// Asks for one page of partitions.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeTopicPartitions, response = DescribeTopicPartitionsResponse, versions = 0..=0, flexible = 0)]
pub struct DescribeTopicPartitionsRequest {
    /// Empty for all topics.
    pub topics: Vec<DescribeTopicPartitionsTopicRequest>,
    /// The most partitions in the response.
    #[wire(default = 2000)]
    pub response_partition_limit: i32,
    /// Where the page starts; null for the first page.
    pub cursor: Option<DescribeTopicPartitionsCursor>,
}

/// Names one topic: `TopicRequest` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeTopicPartitionsTopicRequest {
    pub name: Str,
}

/// Names the first partition of a page: `Cursor` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeTopicPartitionsCursor {
    pub topic_name: Str,
    pub partition_index: i32,
}

nullable_struct!(DescribeTopicPartitionsCursor);

/// Describes one page of partitions.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=0, flexible = 0)]
pub struct DescribeTopicPartitionsResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<DescribeTopicPartitionsResponseTopic>,
    /// Where the next page starts; null after the last page.
    pub next_cursor: Option<DescribeTopicPartitionsCursor>,
}

/// Describes one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeTopicPartitionsResponseTopic {
    pub error_code: ErrorCode,
    pub name: Option<Str>,
    pub topic_id: Uuid,
    pub is_internal: bool,
    pub partitions: Vec<DescribeTopicPartitionsResponsePartition>,
    /// One bit per [`AclOperation`](crate::AclOperation); `i32::MIN` when it is not known.
    #[wire(default = i32::MIN)]
    pub topic_authorized_operations: i32,
}

/// Describes one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeTopicPartitionsResponsePartition {
    pub error_code: ErrorCode,
    pub partition_index: i32,
    pub leader_id: i32,
    #[wire(default = -1)]
    pub leader_epoch: i32,
    pub replica_nodes: Vec<i32>,
    pub isr_nodes: Vec<i32>,
    pub eligible_leader_replicas: Option<Vec<i32>>,
    pub last_known_elr: Option<Vec<i32>>,
    pub offline_replicas: Vec<i32>,
}
