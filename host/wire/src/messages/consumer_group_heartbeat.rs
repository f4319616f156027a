//! ConsumerGroupHeartbeat: joins, keeps and leaves a consumer group (KIP-848).

use uuid::Uuid;

use crate::codec::nullable_struct;
use crate::{ErrorCode, Message, Str};

/// Reports the state of a member. A null or -1 means that a field has not changed.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = ConsumerGroupHeartbeat, response = ConsumerGroupHeartbeatResponse, versions = 0..=1, flexible = 0)]
pub struct ConsumerGroupHeartbeatRequest {
    pub group_id: Str,
    pub member_id: Str,
    /// 0 joins, -1 leaves, -2 leaves as a static member that will be back.
    pub member_epoch: i32,
    pub instance_id: Option<Str>,
    pub rack_id: Option<Str>,
    #[wire(default = -1)]
    pub rebalance_timeout_ms: i32,
    pub subscribed_topic_names: Option<Vec<Str>>,
    #[wire(versions = 1..)]
    pub subscribed_topic_regex: Option<Str>,
    pub server_assignor: Option<Str>,
    /// The partitions that the member owns.
    pub topic_partitions: Option<Vec<ConsumerGroupTopicPartitions>>,
}

/// Names partitions of one topic: `TopicPartitions` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ConsumerGroupTopicPartitions {
    pub topic_id: Uuid,
    pub partitions: Vec<i32>,
}

/// Carries the member's epoch and, when it has changed, its assignment.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=1, flexible = 0)]
pub struct ConsumerGroupHeartbeatResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    pub error_message: Option<Str>,
    pub member_id: Option<Str>,
    pub member_epoch: i32,
    pub heartbeat_interval_ms: i32,
    pub assignment: Option<ConsumerGroupAssignment>,
}

/// Lists the partitions that a member may use: `Assignment` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ConsumerGroupAssignment {
    pub topic_partitions: Vec<ConsumerGroupTopicPartitions>,
}

nullable_struct!(ConsumerGroupAssignment);
