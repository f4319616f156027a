//! AlterReplicaLogDirs: moves replicas of a broker to other data folders of it (KIP-113).

use crate::{ErrorCode, Message, Str};

/// Names the folders, each with the replicas that are to be in it.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = AlterReplicaLogDirs, response = AlterReplicaLogDirsResponse, versions = 1..=2, flexible = 2)]
pub struct AlterReplicaLogDirsRequest {
    pub dirs: Vec<AlterReplicaLogDir>,
}

/// Names a folder and its replicas.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterReplicaLogDir {
    /// The absolute path of the folder.
    pub path: Str,
    pub topics: Vec<AlterReplicaLogDirTopic>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterReplicaLogDirTopic {
    pub name: Str,
    pub partitions: Vec<i32>,
}

/// Reports the result for each partition.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=2, flexible = 2)]
pub struct AlterReplicaLogDirsResponse {
    pub throttle_time_ms: i32,
    pub results: Vec<AlterReplicaLogDirTopicResult>,
}

/// Reports the results for one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterReplicaLogDirTopicResult {
    pub topic_name: Str,
    pub partitions: Vec<AlterReplicaLogDirPartitionResult>,
}

/// Reports the result for one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct AlterReplicaLogDirPartitionResult {
    pub partition_index: i32,
    pub error_code: ErrorCode,
}
