//! One handler per API, and the one list of them.
//!
//! A handler is a type that implements [`Handler`](handler::Handler). It implements
//! [`TwoStageHandler`](handler::TwoStageHandler) if its response may be ready at once, come late, or be left out. The
//! list drives dispatch, the check of versions, the response of ApiVersions and the counts of requests. To add an API,
//! write its file, and name it below.

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod add_raft_voter;
mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod api_versions;
#[cfg(test)]
mod cluster_tests;
mod cluster_view;
mod consumer_group_describe;
mod consumer_group_heartbeat;
#[cfg(test)]
mod coordinator_tests;
mod create_partitions;
mod create_topics;
mod current_leader;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_transactions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod end_txn;
mod fetch;
mod find_coordinator;
mod handler;
#[cfg(test)]
mod handler_tests;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod offsets_topic;
mod produce;
mod remove_raft_voter;
#[cfg(test)]
mod stage_tests;
mod sync_group;
mod transaction_topic;
mod txn_offset_commit;
mod unregister_broker;
mod unregister_controller;
mod update_features;
mod write_txn_markers;

use std::sync::Arc;
use std::time::Instant;

use millstream_coordinator::group::GroupError;
use millstream_wire::{ApiKey, ErrorCode, Reader, RequestHeader};

use self::handler::{ApiEntry, Stages, undecodable};
pub(crate) use self::handler::{RequestContext, Started};
use crate::broker::Broker;
use crate::metrics::RequestStats;
use crate::metrics::requests::RequestMetrics;
use crate::net::types::{Close, ConnectionInfo, RequestFrame};

/// Makes the list of APIs, and the lookup by key. A type has the name of its API.
macro_rules! handlers {
    ($($stages:ident $module:ident::$name:ident,)*) => {
        #[repr(usize)]
        enum Index { $($name,)* }

        static HANDLERS: &[ApiEntry] = &[$(ApiEntry::$stages::<$module::$name>(Index::$name as usize),)*];

        /// Returns the entry of an API that the broker serves.
        fn find(api: ApiKey) -> Option<&'static ApiEntry> {
            match api {
                $(ApiKey::$name => HANDLERS.get(Index::$name as usize),)*
                #[allow(unreachable_patterns, reason = "the wire crate may know more APIs than the broker serves")]
                _ => None,
            }
        }
    };
}

// In the order of the keys.
handlers! {
    two_stage produce::Produce,
    two_stage fetch::Fetch,
    one_stage list_offsets::ListOffsets,
    one_stage metadata::Metadata,
    one_stage offset_commit::OffsetCommit,
    one_stage offset_fetch::OffsetFetch,
    one_stage find_coordinator::FindCoordinator,
    one_stage join_group::JoinGroup,
    one_stage heartbeat::Heartbeat,
    one_stage leave_group::LeaveGroup,
    one_stage sync_group::SyncGroup,
    one_stage describe_groups::DescribeGroups,
    one_stage list_groups::ListGroups,
    two_stage api_versions::ApiVersions,
    one_stage create_topics::CreateTopics,
    one_stage delete_topics::DeleteTopics,
    one_stage delete_records::DeleteRecords,
    one_stage init_producer_id::InitProducerId,
    one_stage offset_for_leader_epoch::OffsetForLeaderEpoch,
    one_stage add_partitions_to_txn::AddPartitionsToTxn,
    one_stage add_offsets_to_txn::AddOffsetsToTxn,
    one_stage end_txn::EndTxn,
    one_stage write_txn_markers::WriteTxnMarkers,
    one_stage txn_offset_commit::TxnOffsetCommit,
    one_stage describe_acls::DescribeAcls,
    one_stage describe_configs::DescribeConfigs,
    one_stage alter_configs::AlterConfigs,
    one_stage alter_replica_log_dirs::AlterReplicaLogDirs,
    one_stage describe_log_dirs::DescribeLogDirs,
    one_stage create_partitions::CreatePartitions,
    one_stage delete_groups::DeleteGroups,
    one_stage elect_leaders::ElectLeaders,
    one_stage incremental_alter_configs::IncrementalAlterConfigs,
    one_stage alter_partition_reassignments::AlterPartitionReassignments,
    one_stage list_partition_reassignments::ListPartitionReassignments,
    one_stage offset_delete::OffsetDelete,
    one_stage describe_client_quotas::DescribeClientQuotas,
    one_stage describe_user_scram_credentials::DescribeUserScramCredentials,
    one_stage describe_quorum::DescribeQuorum,
    one_stage update_features::UpdateFeatures,
    one_stage describe_cluster::DescribeCluster,
    one_stage describe_producers::DescribeProducers,
    one_stage unregister_broker::UnregisterBroker,
    one_stage describe_transactions::DescribeTransactions,
    one_stage list_transactions::ListTransactions,
    one_stage consumer_group_heartbeat::ConsumerGroupHeartbeat,
    one_stage consumer_group_describe::ConsumerGroupDescribe,
    one_stage list_config_resources::ListConfigResources,
    one_stage describe_topic_partitions::DescribeTopicPartitions,
    one_stage add_raft_voter::AddRaftVoter,
    one_stage remove_raft_voter::RemoveRaftVoter,
    one_stage unregister_controller::UnregisterController,
}

/// Returns whether a frame, without its length prefix, is a produce request.
pub(crate) fn is_produce(frame: &[u8]) -> bool {
    frame.first_chunk::<2>().is_some_and(|key| i16::from_be_bytes(*key) == ApiKey::Produce as i16)
}

/// Decodes a request, which arrived at `received`, and starts it. The share of its frame goes with it.
///
/// # Errors
/// The connection is to be closed: the request cannot be decoded, or the broker does not serve it.
pub(crate) fn start(
    broker: &Arc<Broker>,
    connection: &Arc<ConnectionInfo>,
    frame: RequestFrame,
    received: Instant,
) -> Result<Started, Close> {
    let mut reader = Reader::new(frame.bytes);
    let header = RequestHeader::decode(&mut reader).map_err(undecodable)?;
    let key = ApiKey::try_from(header.api_key).map_err(undecodable)?;
    let api = find(key).ok_or_else(|| Close::Protocol(format!("{key} is not supported")))?;
    let context = RequestContext {
        api,
        version: header.api_version,
        correlation_id: header.correlation_id,
        client_id: header.client_id.filter(|_| api.stages == Stages::One),
        connection: Arc::clone(connection),
        received,
        share: frame.share,
    };
    connection.metrics.started(connection.id, api.index);
    if api.serves(context.version) {
        return api.start(broker, context, reader);
    }
    match key {
        ApiKey::ApiVersions => api_versions::respond_unsupported(context),
        _ => Err(context.close(format!("{key} v{} is not supported", context.version))),
    }
}

/// Makes the counters of all APIs.
pub(crate) fn request_metrics() -> Arc<RequestMetrics> {
    Arc::new(RequestMetrics::new(HANDLERS.len()))
}

/// Returns the counts of all APIs, by key.
pub(crate) fn request_stats(metrics: &RequestMetrics) -> Vec<RequestStats> {
    HANDLERS.iter().map(|api| metrics.stats(api.index, api.key.info().name)).collect()
}

/// Returns the error code of a response without other fields.
fn code(result: Result<(), GroupError>) -> ErrorCode {
    result.map_or_else(ErrorCode::from, |()| ErrorCode::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_keys_and_finds_each_api() {
        assert!(HANDLERS.is_sorted_by_key(|api| api.key as i16));
        for (index, api) in HANDLERS.iter().enumerate() {
            assert_eq!(api.index, index);
            assert_eq!(find(api.key).map(|found| found.index), Some(index), "{}", api.key);
        }
    }

    #[test]
    fn only_api_versions_needs_no_permission() {
        let free: Vec<_> = HANDLERS.iter().filter(|api| api.permission.is_none()).map(|api| api.key).collect();
        assert_eq!(free, [ApiKey::ApiVersions]);
    }
}
