//! DescribeLogDirs: the data folder, its volume, and the sizes of the partitions in it.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use millstream_partition::Partition;
use millstream_wire::messages::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext};
use crate::blocking::blocking;
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};
use crate::topics::Topic;

/// The size of a volume that is not known.
const UNKNOWN: i64 = -1;

pub(super) struct DescribeLogDirs;

impl Handler for DescribeLogDirs {
    type Request = DescribeLogDirsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=5;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: DescribeLogDirsRequest,
    ) -> DescribeLogDirsResponse {
        let folder = broker.data_dir.clone();
        let (log_dir, total_bytes, usable_bytes) = blocking(move || {
            let path = std::path::absolute(&folder).unwrap_or_else(|_| folder.clone());
            let (total, usable) = volume(&folder);
            (Str::from(path.to_string_lossy().as_ref()), total, usable)
        })
        .await
        .unwrap_or((Str::EMPTY, UNKNOWN, UNKNOWN));
        let result = DescribeLogDirsResult {
            error_code: if log_dir.is_empty() { ErrorCode::KAFKA_STORAGE_ERROR } else { ErrorCode::NONE },
            log_dir,
            topics: topics(broker, request.topics.as_deref()),
            total_bytes,
            usable_bytes,
            is_cordoned: broker.metadata.image().is_cordoned(broker.config.node_id),
        };
        DescribeLogDirsResponse { results: vec![result], ..Default::default() }
    }
}

/// Describes the requested partitions that this broker has a replica of.
fn topics(broker: &Broker, asked: Option<&[DescribableLogDirTopic]>) -> Vec<DescribeLogDirsTopic> {
    let table = broker.topics.load();
    let described = |topic: &Topic, wanted: &dyn Fn(i32) -> bool| DescribeLogDirsTopic {
        name: topic.name.clone(),
        partitions: topic
            .own_partitions()
            .iter()
            .filter(|partition| wanted(partition.index()) && broker.has_replica(partition))
            .filter_map(|partition| describe(partition))
            .collect(),
    };
    let found: Vec<_> = match asked {
        None => table.iter().map(|topic| described(topic, &|_| true)).collect(),
        Some(asked) => asked
            .iter()
            .filter_map(|asked| {
                table.by_name(&asked.topic).map(|topic| described(topic, &|index| asked.partitions.contains(&index)))
            })
            .collect(),
    };
    found.into_iter().filter(|topic| !topic.partitions.is_empty()).collect()
}

/// Describes a partition; `None` if its log could not be opened.
fn describe(partition: &Partition) -> Option<DescribeLogDirsPartition> {
    let reader = partition.reader().ok()?;
    Some(DescribeLogDirsPartition {
        partition_index: partition.index(),
        partition_size: i64::try_from(reader.size()).unwrap_or(i64::MAX),
        offset_lag: partition.offset_lag().ok()?,
        is_future_key: false,
    })
}

/// Returns the total and the usable bytes of the volume that holds a folder.
fn volume(folder: &Path) -> (i64, i64) {
    let Ok(stat) = rustix::fs::statvfs(folder) else { return (UNKNOWN, UNKNOWN) };
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
    (bytes(stat.f_blocks), bytes(stat.f_bavail))
}
