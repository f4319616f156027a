//! ConsumerGroupDescribe: state and members of consumer groups (KIP-848).

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Asks for groups by name.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = ConsumerGroupDescribe, response = ConsumerGroupDescribeResponse, versions = 0..=1, flexible = 0)]
pub struct ConsumerGroupDescribeRequest {
    pub group_ids: Vec<Str>,
    pub include_authorized_operations: bool,
}

/// Describes each group.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1, flexible = 0)]
pub struct ConsumerGroupDescribeResponse {
    pub throttle_time_ms: i32,
    pub groups: Vec<DescribedConsumerGroup>,
}

/// Describes one group: `DescribedGroup` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribedConsumerGroup {
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub group_id: Str,
    pub group_state: Str,
    pub group_epoch: i32,
    pub assignment_epoch: i32,
    pub assignor_name: Str,
    pub members: Vec<DescribedConsumerGroupMember>,
    /// One bit per [`AclOperation`](crate::AclOperation); `i32::MIN` when it is not asked for.
    #[wire(default = i32::MIN)]
    pub authorized_operations: i32,
}

/// Describes one member: `Member` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribedConsumerGroupMember {
    pub member_id: Str,
    pub instance_id: Option<Str>,
    pub rack_id: Option<Str>,
    pub member_epoch: i32,
    pub client_id: Str,
    pub client_host: Str,
    pub subscribed_topic_names: Vec<Str>,
    pub subscribed_topic_regex: Option<Str>,
    pub assignment: DescribedAssignment,
    pub target_assignment: DescribedAssignment,
    /// -1 unknown, 0 a classic member, 1 a consumer member.
    #[wire(versions = 1.., default = -1)]
    pub member_type: i8,
}

/// Lists partitions: `Assignment` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribedAssignment {
    pub topic_partitions: Vec<DescribedTopicPartitions>,
}

/// Lists partitions of one topic: `TopicPartitions` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribedTopicPartitions {
    pub topic_id: Uuid,
    pub topic_name: Str,
    pub partitions: Vec<i32>,
}
