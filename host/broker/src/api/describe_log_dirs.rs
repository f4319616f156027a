//! DescribeLogDirs: the data folders, their volumes, and the sizes of the partitions in them.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use millstream_partition::Partition;
use millstream_wire::messages::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use millstream_wire::{ErrorCode, Str};

use super::handler::{Handler, RequestContext, UNKNOWN_BYTES};
use crate::blocking::blocking;
use crate::broker::Broker;
use crate::log_dirs::LogDir;
use crate::security::{AclOperation, Permission, ResourceType};
use crate::topics::Topic;

/// The size of a volume that is not known.
const UNKNOWN: i64 = -1;

pub(super) struct DescribeLogDirs;

impl Handler for DescribeLogDirs {
    type Request = DescribeLogDirsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=5;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Cluster));

    fn response_bytes(_: &Broker, _: &RequestContext, _: &DescribeLogDirsRequest) -> usize {
        UNKNOWN_BYTES
    }

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: DescribeLogDirsRequest,
    ) -> DescribeLogDirsResponse {
        let asked = request.topics.as_deref();
        let cordoned = broker.config.cordoned_log_dirs(&broker.metadata.image());
        let mut results = Vec::new();
        for (dir, (total_bytes, usable_bytes)) in broker.dirs.iter().zip(volumes(broker).await) {
            let is_online = dir.is_online();
            results.push(DescribeLogDirsResult {
                error_code: if is_online { ErrorCode::NONE } else { ErrorCode::KAFKA_STORAGE_ERROR },
                log_dir: Str::from(dir.absolute().to_string_lossy().as_ref()),
                topics: if is_online { topics(broker, dir, asked) } else { Vec::new() },
                total_bytes,
                usable_bytes,
                is_cordoned: dir.is_named_in(&cordoned),
            });
        }
        DescribeLogDirsResponse { results, ..Default::default() }
    }
}

/// Returns the total and the usable bytes of the volume of each data folder.
async fn volumes(broker: &Arc<Broker>) -> Vec<(i64, i64)> {
    let (dirs, count) = (Arc::clone(&broker.dirs), broker.dirs.iter().count());
    let of_dir = |dir: &Arc<LogDir>| if dir.is_online() { volume(dir.path()) } else { (UNKNOWN, UNKNOWN) };
    let volumes = blocking(move || dirs.iter().map(of_dir).collect()).await;
    volumes.unwrap_or_else(|_| vec![(UNKNOWN, UNKNOWN); count])
}

/// Describes the requested partitions that are in a data folder of this broker.
fn topics(broker: &Broker, dir: &LogDir, asked: Option<&[DescribableLogDirTopic]>) -> Vec<DescribeLogDirsTopic> {
    let table = broker.topics.load();
    let described = |topic: &Topic, wanted: &dyn Fn(i32) -> bool| DescribeLogDirsTopic {
        name: topic.name.clone(),
        partitions: topic
            .own_partitions()
            .iter()
            .filter(|partition| partition.data_dir() == Some(dir.path()) && wanted(partition.index()))
            .filter(|partition| broker.has_replica(partition))
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
    let mut found: Vec<_> = found.into_iter().filter(|topic| !topic.partitions.is_empty()).collect();
    for ((id, index), copy) in broker.controller.moves().to(dir.path()) {
        let Some(topic) = table.by_id(id) else { continue };
        let is_asked = |asked: &DescribableLogDirTopic| asked.topic == topic.name && asked.partitions.contains(&index);
        if asked.is_some_and(|asked| !asked.iter().any(is_asked)) {
            continue;
        }
        let (end, size) = copy.progress();
        let log_end = topic.partition(index).and_then(|partition| partition.log_end_offset().ok()).unwrap_or(end);
        let future = DescribeLogDirsPartition {
            partition_index: index,
            partition_size: i64::try_from(size).unwrap_or(i64::MAX),
            offset_lag: (log_end - end).max(0),
            is_future_key: true,
        };
        match found.iter_mut().find(|described| described.name == topic.name) {
            Some(described) => described.partitions.push(future),
            None => found.push(DescribeLogDirsTopic { name: topic.name.clone(), partitions: vec![future] }),
        }
    }
    found
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
