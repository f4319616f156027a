//! ListOffsets: the ends of a log, and the record for a time. No match gives -1 and -1, without an error.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_log::TimestampedOffset;
use millstream_partition::Partition;
use millstream_record::BatchView;
use millstream_wire::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
    ListOffsetsTopicResponse,
};
use millstream_wire::{ErrorCode, Str};

use super::fetch::READ_COMMITTED;
use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
/// The first version that knows the error OFFSET_NOT_AVAILABLE.
const NOT_AVAILABLE_SINCE: i16 = 5;

/// The end of the tiered storage, and the start of what waits for it: neither exists.
const TIERED: [i64; 2] = [-5, -6];

/// The first versions that know some special values. In older ones they are errors.
const KNOWN_SINCE: [(i64, i16); 4] = [(MAX_TIMESTAMP, 7), (EARLIEST_LOCAL, 8), (TIERED[0], 9), (TIERED[1], 11)];

/// The records that a client sees.
#[derive(Clone, Copy)]
enum Isolation {
    /// Those below the high watermark.
    Uncommitted,
    /// Those below the last stable offset.
    Committed,
}

impl Isolation {
    fn of(level: i8) -> Self {
        if level == READ_COMMITTED { Self::Committed } else { Self::Uncommitted }
    }

    fn end(self, partition: &Partition) -> i64 {
        match self {
            Self::Uncommitted => partition.high_watermark(),
            Self::Committed => partition.last_stable_offset(),
        }
    }
}

pub(super) struct ListOffsets;

impl Handler for ListOffsets {
    type Request = ListOffsetsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=11;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Describe, ResourceType::Topic));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: ListOffsetsRequest,
    ) -> ListOffsetsResponse {
        let version = context.version;
        let isolation = Isolation::of(request.isolation_level);
        let searches =
            |partition: &ListOffsetsPartition| partition.timestamp >= 0 || partition.timestamp == MAX_TIMESTAMP;
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            if !topic.partitions.iter().any(searches) {
                topics.push(look_up(broker, topic, version, isolation));
                continue;
            }
            // A search by time may read from disk and decompress, or call a plug-in, so it needs the topic's permits.
            let decoders = broker.topics.load().by_name(&topic.name).and_then(|topic| topic.edge.decoders.clone());
            let owner = Arc::clone(broker);
            let search = move || look_up(&owner, topic, version, isolation);
            let found = match decoders {
                None => broker.compute.run(search).await,
                Some(decoders) => decoders.permits.run(search).await,
            };
            topics.extend(found);
        }
        ListOffsetsResponse { topics, ..Default::default() }
    }
}

fn look_up(broker: &Broker, topic: ListOffsetsTopic, version: i16, isolation: Isolation) -> ListOffsetsTopicResponse {
    let partitions = topic.partitions.iter().map(|asked| {
        one(broker, &topic.name, asked, version, isolation).unwrap_or_else(|error| {
            if let Ok(partition) = broker.partition(&topic.name, asked.partition_index)
                && error.is_storage_fault()
            {
                partition.report("a lookup of an offset failed", &error);
            }
            ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                error_code: match error.code {
                    ErrorCode::OFFSET_NOT_AVAILABLE if version < NOT_AVAILABLE_SINCE => ErrorCode::LEADER_NOT_AVAILABLE,
                    code => code,
                },
                ..Default::default()
            }
        })
    });
    ListOffsetsTopicResponse { partitions: partitions.collect(), name: topic.name }
}

fn one(
    broker: &Broker,
    topic: &Str,
    asked: &ListOffsetsPartition,
    version: i16,
    isolation: Isolation,
) -> Result<ListOffsetsPartitionResponse, ApiError> {
    let partition = broker.partition(topic, asked.partition_index)?;
    if KNOWN_SINCE.iter().any(|(value, since)| *value == asked.timestamp && version < *since) {
        let message = format!("version {version} does not know the special value {}", asked.timestamp);
        return Err(ApiError::new(ErrorCode::UNSUPPORTED_VERSION, message));
    }
    partition.check_leader(asked.current_leader_epoch)?;
    let reader = partition.reader()?;
    let epoch = |offset: i64| partition.with_log(|log| log.epoch_of(offset).unwrap_or(partition.leader_epoch()));
    let decode = |batch: &BatchView<'_>, bytes_max| broker.edge.records_for_lookup(batch, bytes_max);
    let (offset, timestamp, leader_epoch) = match asked.timestamp {
        LATEST => {
            partition.check_high_watermark()?;
            (isolation.end(&partition), -1, partition.leader_epoch())
        }
        EARLIEST | EARLIEST_LOCAL => {
            let start = reader.log_start_offset();
            (start, -1, epoch(start)?)
        }
        MAX_TIMESTAMP => match visible(&partition, isolation, reader.offset_for_max_timestamp(&decode)?)? {
            Some(found) => (found.offset, found.timestamp, epoch(found.offset)?),
            None => (-1, -1, -1),
        },
        time if time >= 0 => match visible(&partition, isolation, reader.offset_for_timestamp(time, &decode)?)? {
            Some(found) => (found.offset, found.timestamp, epoch(found.offset)?),
            None => (-1, -1, -1),
        },
        time if TIERED.contains(&time) => (-1, -1, -1),
        other => {
            let message = format!("{other} is no time and no known special value");
            return Err(ApiError::new(ErrorCode::UNSUPPORTED_VERSION, message));
        }
    };
    Ok(ListOffsetsPartitionResponse {
        partition_index: asked.partition_index,
        error_code: ErrorCode::NONE,
        timestamp,
        offset,
        leader_epoch,
    })
}

/// Returns a record that was found if the client sees it. A new leader may not know yet what is committed.
fn visible(
    partition: &Partition,
    isolation: Isolation,
    found: Option<TimestampedOffset>,
) -> Result<Option<TimestampedOffset>, ApiError> {
    match found.filter(|found| found.offset < isolation.end(partition)) {
        Some(found) => Ok(Some(found)),
        None => Ok(partition.check_high_watermark().map(|()| None)?),
    }
}
