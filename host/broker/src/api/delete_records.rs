//! DeleteRecords: moves the start of logs forward, and waits until the followers have moved theirs.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use millstream_wire::messages::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};
use millstream_wire::{ErrorCode, Str};
use tokio::time::{Instant, timeout_at};

use super::handler::{Handler, RequestContext};
use crate::blocking::blocking;
use crate::broker::Broker;
use crate::error::ApiError;
use crate::partition_dirs;
use crate::security::{AclOperation, Permission, ResourceType};

/// The offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// The low watermark of a partition whose records were not deleted.
const NO_LOW_WATERMARK: i64 = -1;

pub(super) struct DeleteRecords;

impl Handler for DeleteRecords {
    type Request = DeleteRecordsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Delete, ResourceType::Topic));

    async fn handle(broker: &Arc<Broker>, _: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
        let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
        let this = Arc::clone(broker);
        let topics: Vec<_> =
            request.topics.iter().map(|topic| (topic.name.copied(), topic.partitions.clone())).collect();
        let mut topics = blocking(move || delete(&this, topics)).await.unwrap_or_else(|error| {
            // The work ended without a result, so no partition has one.
            let failed = |partition: &DeleteRecordsPartition| result(partition, Err(error.clone()));
            let topics = request.topics.into_iter();
            topics
                .map(|topic| DeleteRecordsTopicResult {
                    partitions: topic.partitions.iter().map(failed).collect(),
                    name: topic.name,
                })
                .collect()
        });
        for topic in &mut topics {
            for deleted in topic.partitions.iter_mut().filter(|found| found.error_code.is_ok()) {
                wait_for_followers(broker, &topic.name, deleted, deadline).await;
            }
        }
        DeleteRecordsResponse { topics, ..Default::default() }
    }
}

/// Moves the log start offsets, then writes the checkpoint, so that an offset in a response survives a crash.
fn delete(broker: &Broker, topics: Vec<(Str, Vec<DeleteRecordsPartition>)>) -> Vec<DeleteRecordsTopicResult> {
    let mut results: Vec<_> = topics
        .into_iter()
        .map(|(name, partitions)| {
            let partitions =
                partitions.iter().map(|partition| result(partition, delete_one(broker, &name, partition))).collect();
            DeleteRecordsTopicResult { name, partitions }
        })
        .collect();
    let deleted = |found: &&mut DeleteRecordsPartitionResult| found.error_code.is_ok();
    if !results.iter().flat_map(|topic| &topic.partitions).any(|found| found.error_code.is_ok()) {
        return results;
    }
    if let Err(error) = partition_dirs::write_log_starts(&broker.dirs, &broker.topics.load()) {
        tracing::error!("cannot write the log start offsets: {error}");
        for found in results.iter_mut().flat_map(|topic| &mut topic.partitions).filter(deleted) {
            (found.error_code, found.low_watermark) = (ErrorCode::KAFKA_STORAGE_ERROR, NO_LOW_WATERMARK);
        }
    }
    results
}

fn result(partition: &DeleteRecordsPartition, deleted: Result<i64, ApiError>) -> DeleteRecordsPartitionResult {
    let (low_watermark, error_code) = match deleted {
        Ok(start) => (start, ErrorCode::NONE),
        Err(error) => (NO_LOW_WATERMARK, error.code),
    };
    DeleteRecordsPartitionResult { partition_index: partition.partition_index, low_watermark, error_code }
}

/// Deletes the records of one partition below an offset, and returns the new start of its log.
fn delete_one(broker: &Broker, name: &str, asked: &DeleteRecordsPartition) -> Result<i64, ApiError> {
    let table = broker.topics.load();
    let topic = table.by_name(name).ok_or_else(ApiError::unknown_topic)?;
    let partition = topic.partition(asked.partition_index).ok_or_else(ApiError::unknown_topic)?;
    if topic.is_internal() {
        let message = format!("Cannot delete records of internal topic {name}");
        return Err(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message));
    }
    if let Some(source) = &topic.shared_from {
        let message = format!("{name} is a view of {source} and has no records: delete those of {source}");
        return Err(ApiError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message));
    }
    if !topic.config.delete {
        let message = format!("the cleanup.policy of topic {name} does not allow to delete records");
        return Err(ApiError::new(ErrorCode::POLICY_VIOLATION, message));
    }
    partition.check_leader(-1)?;
    let high_watermark = partition.high_watermark();
    let offset = if asked.offset == HIGH_WATERMARK { high_watermark } else { asked.offset };
    if !(0..=high_watermark).contains(&offset) {
        let message = format!("offset {offset} is not between 0 and the high watermark {high_watermark}");
        return Err(ApiError::new(ErrorCode::OFFSET_OUT_OF_RANGE, message));
    }
    Ok(partition.delete_records(offset)?)
}

/// Waits until all followers that are alive have deleted the records as well. The result then has the low watermark of
/// all replicas.
async fn wait_for_followers(
    broker: &Broker,
    name: &str,
    deleted: &mut DeleteRecordsPartitionResult,
    deadline: Instant,
) {
    let required = deleted.low_watermark;
    let mut roles = broker.roles.clone();
    loop {
        let Ok(partition) = broker.partition(name, deleted.partition_index) else {
            (deleted.error_code, deleted.low_watermark) = (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, NO_LOW_WATERMARK);
            return;
        };
        // Before the look at the followers, so that no change is missed.
        let changed = partition.log_starts().notified();
        roles.mark_unchanged();
        let image = broker.metadata.image();
        let is_alive = |id: i32| image.broker(id).is_some_and(|registered| !registered.fenced);
        match partition.low_watermark(is_alive) {
            Ok(reached) => deleted.low_watermark = reached,
            Err(error) => {
                (deleted.error_code, deleted.low_watermark) = (ApiError::from(error).code, NO_LOW_WATERMARK);
                return;
            }
        }
        if deleted.low_watermark >= required {
            return;
        }
        let news = async {
            tokio::select! {
                () = changed => {}
                // Without a sender the broker stops, and the deadline ends the wait.
                Ok(()) = roles.changed() => {}
            }
        };
        if timeout_at(deadline, news).await.is_err() {
            deleted.error_code = ErrorCode::REQUEST_TIMED_OUT;
            return;
        }
    }
}
