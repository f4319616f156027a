//! DescribeLogDirs: the data folders of a broker and the sizes of the partitions in them.

use crate::{ErrorCode, Message, Str};

/// Asks for the sizes of partitions.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = DescribeLogDirs, response = DescribeLogDirsResponse, versions = 1..=5, flexible = 2)]
pub struct DescribeLogDirsRequest {
    /// Null for all topics.
    pub topics: Option<Vec<DescribableLogDirTopic>>,
}

/// Names partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribableLogDirTopic {
    pub topic: Str,
    pub partitions: Vec<i32>,
}

/// Describes each data folder.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 1..=5, flexible = 2)]
pub struct DescribeLogDirsResponse {
    pub throttle_time_ms: i32,
    #[wire(versions = 3..)]
    pub error_code: ErrorCode,
    pub results: Vec<DescribeLogDirsResult>,
}

/// Describes one data folder.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeLogDirsResult {
    pub error_code: ErrorCode,
    /// The folder's absolute path.
    pub log_dir: Str,
    pub topics: Vec<DescribeLogDirsTopic>,
    /// The size of the volume; -1 when it is not known.
    #[wire(versions = 4.., default = -1)]
    pub total_bytes: i64,
    /// The free space of the volume; -1 when it is not known.
    #[wire(versions = 4.., default = -1)]
    pub usable_bytes: i64,
    /// Whether the folder takes no new partitions (KIP-1066).
    #[wire(versions = 5..)]
    pub is_cordoned: bool,
}

/// Describes the partitions of one topic.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeLogDirsTopic {
    pub name: Str,
    pub partitions: Vec<DescribeLogDirsPartition>,
}

/// Describes one partition.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct DescribeLogDirsPartition {
    pub partition_index: i32,
    /// The size of the log segments in bytes.
    pub partition_size: i64,
    /// How far the log end offset is ahead of the high watermark.
    pub offset_lag: i64,
    /// Whether the log is a copy that will replace the current one (KIP-113).
    pub is_future_key: bool,
}
