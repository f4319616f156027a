//! DescribeProducers: the producers whose state a partition keeps. A follower responds as well as the leader.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_partition::PartitionError;
use millstream_wire::ErrorCode;
use millstream_wire::messages::{
    DescribeProducersPartitionResponse, DescribeProducersRequest, DescribeProducersResponse,
    DescribeProducersTopicResponse, ProducerState,
};

use super::handler::{Handler, RequestContext, UNKNOWN_BYTES};
use crate::broker::Broker;
use crate::error::ApiError;
use crate::security::{AclOperation, Permission, ResourceType};
use millstream_metadata::check_name;

pub(super) struct DescribeProducers;

impl Handler for DescribeProducers {
    type Request = DescribeProducersRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::Read, ResourceType::Topic));

    fn response_bytes(_: &Broker, _: &RequestContext, _: &DescribeProducersRequest) -> usize {
        UNKNOWN_BYTES
    }

    async fn handle(
        broker: &Arc<Broker>,
        _: &RequestContext,
        request: DescribeProducersRequest,
    ) -> DescribeProducersResponse {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|&partition_index| {
                let (error_code, error_message, active_producers) = match find(broker, &topic.name, partition_index) {
                    Ok(producers) => (ErrorCode::NONE, None, producers),
                    Err(error) => (error.code, error.text(), Vec::new()),
                };
                DescribeProducersPartitionResponse { partition_index, error_code, error_message, active_producers }
            });
            DescribeProducersTopicResponse { partitions: partitions.collect(), name: topic.name }
        });
        DescribeProducersResponse { topics: topics.collect(), ..Default::default() }
    }
}

fn find(broker: &Broker, topic: &str, partition: i32) -> Result<Vec<ProducerState>, ApiError> {
    check_name(topic)?;
    let partition = broker.partition(topic, partition)?;
    if !broker.has_replica(&partition) {
        return Err(PartitionError::NotLeader { leader: partition.leader() }.into());
    }
    let producers = partition.with_log(|log| log.producers())?;
    let describe = |producer: millstream_log::ProducerState| ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: producer.epoch.into(),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.transaction_start.unwrap_or(-1),
    };
    Ok(producers.into_iter().map(describe).collect())
}
