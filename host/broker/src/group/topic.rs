//! The real storage: the topic `__consumer_offsets` of this broker.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use millstream_wire::ErrorCode;

use super::model::GroupError;
use super::storage::{Appended, Later, Storage};
use crate::broker::Broker;
use crate::controller;
use crate::error::ApiError;
use crate::topics::CONSUMER_OFFSETS;

/// The partitions of `__consumer_offsets`. Weak, since the broker owns the coordinator, which owns this.
pub(crate) struct OffsetsTopic(pub(crate) Weak<Broker>);

impl OffsetsTopic {
    /// The broker, unless it is being dropped.
    fn broker(&self) -> Result<Arc<Broker>, GroupError> {
        self.0.upgrade().ok_or(GroupError::NotCoordinator)
    }
}

impl Storage for OffsetsTopic {
    fn partitions(&self) -> i32 {
        self.broker().map_or(0, |broker| count(&broker))
    }

    fn create(&self) -> Later<i32> {
        let broker = self.broker();
        Box::pin(async move {
            let broker = broker?;
            controller::ensure_topic(&broker, CONSUMER_OFFSETS).await.map_err(|error| {
                tracing::error!("cannot create {CONSUMER_OFFSETS}: {error}");
                GroupError::CoordinatorNotAvailable
            })?;
            Ok(count(&broker))
        })
    }

    fn append(&self, partition: i32, batch: Bytes) -> Result<Appended, GroupError> {
        let broker = self.broker()?;
        let partition = broker.partition(CONSUMER_OFFSETS, partition).map_err(write_error)?;
        let appended = partition.append_internal(&batch).map_err(|error| write_error(error.into()))?;
        let committed = appended.committed;
        let durable = Box::pin(async move { committed.await.map_err(|error| write_error(error.into())) });
        Ok(Appended { base_offset: appended.base_offset, durable })
    }

    fn read(&self, partition: i32, offset: i64, max_bytes: usize) -> Result<Bytes, String> {
        let broker = self.broker().map_err(|error| error.to_string())?;
        let found = broker.partition(CONSUMER_OFFSETS, partition).map_err(|error| error.to_string())?;
        let start = found.reader().map_err(|error| error.to_string())?.log_start_offset();
        let read = found.read(offset.max(start), max_bytes, true).map_err(|error| error.to_string())?;
        let Some(slice) = read.slice else { return Ok(Bytes::new()) };
        slice.read_to_bytes().map_err(|error| error.to_string())
    }
}

fn count(broker: &Broker) -> i32 {
    let table = broker.topics.load();
    table.by_name(CONSUMER_OFFSETS).map_or(0, |topic| i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX))
}

fn write_error(error: ApiError) -> GroupError {
    match error.code {
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => GroupError::TooLargeToWrite,
        _ => {
            tracing::error!("cannot write to {CONSUMER_OFFSETS}: {error}");
            GroupError::WriteFailed
        }
    }
}
