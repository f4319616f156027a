//! Deletion of records, and the sizes of partitions on disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_wire::messages::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic, DescribeLogDirsRequest, DescribeLogDirsResult,
};
use millstream_wire::{ErrorCode, Str};

use super::{Admin, PerBroker};
use crate::consumer::record::TopicPartition;
use crate::error::Error;
use crate::net::Lane;

/// A data folder of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirDescription {
    /// The absolute path.
    pub path: String,
    /// The size of the volume, in bytes, if it is known.
    pub total_bytes: Option<u64>,
    /// The free space of the volume, in bytes, if it is known.
    pub usable_bytes: Option<u64>,
    /// Whether it takes no new replicas.
    pub cordoned: bool,
    /// Whether the folder has failed, so that its partitions are offline.
    pub offline: bool,
    /// The replicas in the folder.
    pub replicas: BTreeMap<TopicPartition, ReplicaLog>,
}

/// A replica of a partition on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaLog {
    /// Its size in bytes.
    pub bytes: u64,
    /// How many committed records it lacks.
    pub lag: i64,
}

impl Admin {
    /// Deletes all records before an offset in each partition; -1 deletes all committed records. Returns the new log
    /// start offsets.
    ///
    /// # Errors
    /// The first partition that was rejected. Other partitions may have been changed.
    pub async fn delete_records(
        &self,
        before: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let mut retry = self.retry("the deletion of records");
        loop {
            if let Some(starts) = retry.attempt(self.delete_records_once(before)).await? {
                return Ok(starts);
            }
        }
    }

    async fn delete_records_once(
        &self,
        before: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error> {
        let timeout = self.cluster.config().request_timeout;
        let mut by_node: BTreeMap<i32, BTreeMap<Arc<str>, Vec<DeleteRecordsPartition>>> = BTreeMap::new();
        for (TopicPartition { topic, partition }, offset) in before {
            let (node, _) = self.cluster.leader(topic, *partition).await?;
            let partitions = by_node.entry(node).or_default().entry(topic.clone()).or_default();
            partitions.push(DeleteRecordsPartition { partition_index: *partition, offset: *offset });
        }
        let mut starts = BTreeMap::new();
        for (node, topics) in by_node {
            let topics = topics
                .into_iter()
                .map(|(topic, partitions)| DeleteRecordsTopic { name: Str::from(&*topic), partitions });
            let request = DeleteRecordsRequest {
                topics: topics.collect(),
                timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            };
            let response = self.cluster.ask_leader(node, &request).await?;
            for topic in &response.topics {
                for result in &topic.partitions {
                    let partition = TopicPartition::new(&*topic.name, result.partition_index);
                    Error::check(|| format!("delete records of {partition}"), result.error_code, None)?;
                    starts.insert(partition, result.low_watermark);
                }
            }
        }
        Ok(starts)
    }

    /// Returns the data folders of each of these brokers. A broker gets at most `limit`.
    pub async fn describe_log_dirs_of_all(
        &self,
        brokers: impl IntoIterator<Item = i32>,
        limit: Duration,
    ) -> PerBroker<Vec<LogDirDescription>> {
        let ask = |admin: Admin, id| async move { admin.describe_log_dirs(id).await };
        self.ask_each(brokers.into_iter(), limit, ask).await
    }

    /// Returns the data folders of a broker, with the sizes of all partitions.
    ///
    /// # Errors
    /// There is no such broker, or it rejects the request.
    pub async fn describe_log_dirs(&self, node: i32) -> Result<Vec<LogDirDescription>, Error> {
        let what = format!("the data folders of broker {node}");
        let mut retry = self.retry(&what);
        let response = loop {
            let attempt = async {
                let response = self.cluster.ask(node, Lane::Main, &DescribeLogDirsRequest { topics: None }).await?;
                Error::check(|| format!("describe {what}"), response.error_code, None)?;
                let described = |result: &&DescribeLogDirsResult| result.error_code != ErrorCode::KAFKA_STORAGE_ERROR;
                for result in response.results.iter().filter(described) {
                    Error::check(|| format!("describe folder {}", &*result.log_dir), result.error_code, None)?;
                }
                Ok(response)
            };
            if let Some(response) = retry.attempt(attempt).await? {
                break response;
            }
        };
        let size = |bytes: i64| u64::try_from(bytes).ok();
        let folders = response.results.iter().map(|result| LogDirDescription {
            path: result.log_dir.to_string(),
            total_bytes: size(result.total_bytes),
            usable_bytes: size(result.usable_bytes),
            cordoned: result.is_cordoned,
            offline: result.error_code == ErrorCode::KAFKA_STORAGE_ERROR,
            replicas: result
                .topics
                .iter()
                .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)))
                .filter_map(|(topic, partition)| {
                    let name = TopicPartition::new(&*topic.name, partition.partition_index);
                    Some((name, ReplicaLog { bytes: size(partition.partition_size)?, lag: partition.offset_lag }))
                })
                .collect(),
        });
        Ok(folders.collect())
    }
}
