//! WriteTxnMarkers: the coordinator of a transaction ends it in the partitions that this broker leads.
//!
//! Only the listener of `inter.broker.listener.name` takes it. A marker decides what consumers see, so a client must
//! not be able to make one up.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_log::TransactionEnd;
use millstream_record::EndMarker;
use millstream_wire::messages::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use millstream_wire::{ErrorCode, Str};
use tokio::task::JoinSet;

use super::handler::{Handler, RequestContext};
use crate::broker::Broker;
use crate::security::{AclOperation, Permission, ResourceType};
use crate::transactions::markers::write_markers;

pub(super) struct WriteTxnMarkers;

impl Handler for WriteTxnMarkers {
    type Request = WriteTxnMarkersRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const PERMISSION: Option<Permission> = Some(Permission::new(AclOperation::ClusterAction, ResourceType::Cluster));

    async fn handle(
        broker: &Arc<Broker>,
        context: &RequestContext,
        request: WriteTxnMarkersRequest,
    ) -> WriteTxnMarkersResponse {
        let is_allowed = broker.config.inter_broker_listener == Some(context.connection.listener);
        if !is_allowed {
            tracing::debug!("markers are rejected: this is not the listener of inter.broker.listener.name");
        }
        // A marker that waits does not delay the others.
        let mut all = JoinSet::new();
        for (index, marker) in request.markers.into_iter().enumerate() {
            let broker = Arc::clone(broker);
            all.spawn(async move {
                let codes = match is_allowed {
                    true => write(&broker, &marker).await,
                    false => vec![ErrorCode::CLUSTER_AUTHORIZATION_FAILED; partitions(&marker).count()],
                };
                (index, result(marker, &codes))
            });
        }
        let mut results = all.join_all().await;
        results.sort_by_key(|(index, _)| *index);
        WriteTxnMarkersResponse { markers: results.into_iter().map(|(_, result)| result).collect() }
    }
}

async fn write(broker: &Broker, marker: &WritableTxnMarker) -> Vec<ErrorCode> {
    let end = TransactionEnd {
        producer_id: marker.producer_id,
        producer_epoch: marker.producer_epoch,
        marker: EndMarker { is_commit: marker.transaction_result, coordinator_epoch: marker.coordinator_epoch },
        transaction_version: marker.transaction_version,
    };
    let partitions: Vec<(Str, i32)> = partitions(marker).collect();
    let written = write_markers(&broker.topics, &broker.groups, &end, &partitions).await;
    written.into_iter().map(|written| written.map_or_else(|error| error.code, |()| ErrorCode::NONE)).collect()
}

fn partitions(marker: &WritableTxnMarker) -> impl Iterator<Item = (Str, i32)> {
    marker
        .topics
        .iter()
        .flat_map(|topic| topic.partition_indexes.iter().map(|partition| (topic.name.clone(), *partition)))
}

/// Returns the result for a marker; `codes` are those of its partitions, in the order of the request.
fn result(marker: WritableTxnMarker, codes: &[ErrorCode]) -> WritableTxnMarkerResult {
    let mut codes = codes.iter().copied();
    let topics = marker.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.into_iter().zip(codes.by_ref());
        let partitions = partitions
            .map(|(partition_index, error_code)| WritableTxnMarkerPartitionResult { partition_index, error_code });
        WritableTxnMarkerTopicResult { partitions: partitions.collect(), name: topic.name }
    });
    WritableTxnMarkerResult { producer_id: marker.producer_id, topics: topics.collect() }
}
