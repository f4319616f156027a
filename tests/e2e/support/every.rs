//! A minimal valid request of every API in every version.

use bytes::Bytes;
use millstream_wire::messages::*;
use millstream_wire::{ApiKey, Request, Str, codec};
use uuid::Uuid;

use super::{TOPIC, Topic, batch, fetch_request};

/// The use that a test makes of each request.
pub(crate) trait Visitor {
    /// The result for one request.
    type Outcome;
    fn visit<R: Request>(&mut self, version: i16, request: R) -> Self::Outcome;
}

/// Encodes a request's body.
struct Body;

impl Visitor for Body {
    type Outcome = Bytes;
    fn visit<R: Request>(&mut self, version: i16, request: R) -> Bytes {
        codec::to_bytes(&request, version).unwrap_or_else(|error| panic!("{} v{version}: {error}", R::KEY))
    }
}

/// Returns the body of a minimal valid request.
pub(crate) fn minimal_body(api: ApiKey, version: i16, topic: &Topic) -> Vec<u8> {
    minimal(api, version, topic, &mut Body).to_vec()
}

/// Passes a minimal valid request to the visitor. It changes little: it appends one record, commits one offset, and
/// only validates changes of topics.
pub(crate) fn minimal<V: Visitor>(api: ApiKey, version: i16, topic: &Topic, visitor: &mut V) -> V::Outcome {
    let name = || topic.name.clone();
    match api {
        ApiKey::Produce => visitor.visit(version, topic.produce_request(version, 1, 0, batch(&["value"]))),
        ApiKey::Fetch => visitor.visit(version, fetch_request(version, &[(topic, 0, 0, 1 << 20)], 0, 0)),
        ApiKey::ListOffsets => {
            let partition = ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp: -1 };
            let topics = vec![ListOffsetsTopic { name: name(), partitions: vec![partition] }];
            visitor.visit(version, ListOffsetsRequest { replica_id: -1, topics, ..Default::default() })
        }
        ApiKey::Metadata => {
            let asked = MetadataRequestTopic { name: Some(name()), topic_id: Uuid::nil() };
            visitor.visit(version, MetadataRequest { topics: Some(vec![asked]), ..Default::default() })
        }
        ApiKey::OffsetForLeaderEpoch => {
            let partition = OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch: 0 };
            let topics = vec![OffsetForLeaderTopic { topic: name(), partitions: vec![partition] }];
            visitor.visit(version, OffsetForLeaderEpochRequest { replica_id: -1, topics })
        }
        ApiKey::ApiVersions => visitor.visit(
            version,
            ApiVersionsRequest {
                client_software_name: "raw".into(),
                client_software_version: "1".into(),
                ..Default::default()
            },
        ),
        ApiKey::AddPartitionsToTxn
        | ApiKey::AddOffsetsToTxn
        | ApiKey::EndTxn
        | ApiKey::TxnOffsetCommit
        | ApiKey::DescribeTransactions
        | ApiKey::ListTransactions => minimal_transaction(api, version, topic, visitor),
        ApiKey::InitProducerId => {
            visitor.visit(version, InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() })
        }
        ApiKey::CreateTopics
        | ApiKey::DeleteTopics
        | ApiKey::CreatePartitions
        | ApiKey::DescribeConfigs
        | ApiKey::AlterConfigs
        | ApiKey::IncrementalAlterConfigs
        | ApiKey::DescribeCluster => minimal_admin(api, version, topic, visitor),
        ApiKey::DeleteRecords
        | ApiKey::AlterReplicaLogDirs
        | ApiKey::DescribeLogDirs
        | ApiKey::DescribeProducers
        | ApiKey::DescribeTopicPartitions
        | ApiKey::WriteTxnMarkers
        | ApiKey::ElectLeaders
        | ApiKey::AlterPartitionReassignments
        | ApiKey::ListPartitionReassignments => minimal_partitions(api, version, topic, visitor),
        ApiKey::DescribeAcls
        | ApiKey::DescribeClientQuotas
        | ApiKey::DescribeUserScramCredentials
        | ApiKey::ListConfigResources => minimal_listing(api, version, visitor),
        ApiKey::DescribeQuorum
        | ApiKey::UpdateFeatures
        | ApiKey::UnregisterBroker
        | ApiKey::AddRaftVoter
        | ApiKey::RemoveRaftVoter
        | ApiKey::UnregisterController => minimal_cluster(api, version, visitor),
        _ => minimal_group(api, version, topic, visitor),
    }
}

fn minimal_partitions<V: Visitor>(api: ApiKey, version: i16, topic: &Topic, visitor: &mut V) -> V::Outcome {
    let name = topic.name.clone();
    let partitions = vec![0];
    match api {
        ApiKey::DeleteRecords => {
            let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 0 }];
            let topics = vec![DeleteRecordsTopic { name, partitions }];
            visitor.visit(version, DeleteRecordsRequest { topics, timeout_ms: 30_000 })
        }
        ApiKey::AlterReplicaLogDirs => {
            let topics = vec![AlterReplicaLogDirTopic { name, partitions }];
            let dirs = vec![AlterReplicaLogDir { path: "/none".into(), topics }];
            visitor.visit(version, AlterReplicaLogDirsRequest { dirs })
        }
        ApiKey::DescribeLogDirs => {
            let topics = Some(vec![DescribableLogDirTopic { topic: name, partitions }]);
            visitor.visit(version, DescribeLogDirsRequest { topics })
        }
        ApiKey::DescribeProducers => {
            let topics = vec![DescribeProducersTopicRequest { name, partition_indexes: partitions }];
            visitor.visit(version, DescribeProducersRequest { topics })
        }
        ApiKey::WriteTxnMarkers => {
            let topics = vec![WritableTxnMarkerTopic { name, partition_indexes: partitions }];
            visitor.visit(
                version,
                WriteTxnMarkersRequest { markers: vec![WritableTxnMarker { topics, ..Default::default() }] },
            )
        }
        ApiKey::DescribeTopicPartitions => {
            let topics = vec![DescribeTopicPartitionsTopicRequest { name }];
            visitor.visit(version, DescribeTopicPartitionsRequest { topics, ..Default::default() })
        }
        ApiKey::ElectLeaders => {
            let topic_partitions = Some(vec![ElectLeadersTopicPartitions { topic: name, partitions }]);
            visitor.visit(version, ElectLeadersRequest { topic_partitions, ..Default::default() })
        }
        ApiKey::AlterPartitionReassignments => {
            let partitions = vec![ReassignablePartition { partition_index: 0, replicas: Some(vec![0]) }];
            let topics = vec![ReassignableTopic { name, partitions }];
            visitor.visit(version, AlterPartitionReassignmentsRequest { topics, ..Default::default() })
        }
        ApiKey::ListPartitionReassignments => {
            let topics = Some(vec![ListPartitionReassignmentsTopics { name, partition_indexes: partitions }]);
            visitor.visit(version, ListPartitionReassignmentsRequest { topics, ..Default::default() })
        }
        other => panic!("no request is known for {other}"),
    }
}

fn minimal_cluster<V: Visitor>(api: ApiKey, version: i16, visitor: &mut V) -> V::Outcome {
    const ABSENT: i32 = 77;
    match api {
        ApiKey::DescribeQuorum => {
            let partitions = vec![DescribeQuorumPartitionRequest { partition_index: 0 }];
            let topics = vec![DescribeQuorumTopicRequest { topic_name: "__cluster_metadata".into(), partitions }];
            visitor.visit(version, DescribeQuorumRequest { topics })
        }
        ApiKey::UpdateFeatures => {
            let update =
                FeatureUpdateKey { feature: "millstream.version".into(), max_version_level: 1, ..Default::default() };
            visitor.visit(version, UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() })
        }
        ApiKey::UnregisterBroker => visitor.visit(version, UnregisterBrokerRequest { broker_id: ABSENT }),
        ApiKey::AddRaftVoter => {
            visitor.visit(version, AddRaftVoterRequest { voter_id: ABSENT, timeout_ms: 1000, ..Default::default() })
        }
        ApiKey::RemoveRaftVoter => {
            visitor.visit(version, RemoveRaftVoterRequest { voter_id: ABSENT, ..Default::default() })
        }
        ApiKey::UnregisterController => visitor.visit(version, UnregisterControllerRequest { controller_id: ABSENT }),
        other => panic!("no request is known for {other}"),
    }
}

fn minimal_listing<V: Visitor>(api: ApiKey, version: i16, visitor: &mut V) -> V::Outcome {
    match api {
        ApiKey::DescribeAcls => visitor.visit(version, DescribeAclsRequest::default()),
        ApiKey::DescribeClientQuotas => visitor.visit(version, DescribeClientQuotasRequest::default()),
        ApiKey::DescribeUserScramCredentials => visitor.visit(version, DescribeUserScramCredentialsRequest::default()),
        ApiKey::ListConfigResources => visitor.visit(version, ListConfigResourcesRequest::default()),
        other => panic!("no request is known for {other}"),
    }
}

fn minimal_admin<V: Visitor>(api: ApiKey, version: i16, topic: &Topic, visitor: &mut V) -> V::Outcome {
    let resource_name = topic.name.clone();
    match api {
        ApiKey::CreateTopics => {
            let topic = CreatableTopic {
                name: "another".into(),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            };
            visitor.visit(version, CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: true })
        }
        ApiKey::DeleteTopics => {
            let absent = Str::from("absent");
            let topics = vec![DeleteTopicState { name: Some(absent.clone()), topic_id: Uuid::nil() }];
            let request = DeleteTopicsRequest {
                topics: if version >= 6 { topics } else { Vec::new() },
                topic_names: if version >= 6 { Vec::new() } else { vec![absent] },
                timeout_ms: 30_000,
            };
            visitor.visit(version, request)
        }
        ApiKey::CreatePartitions => {
            let topic = CreatePartitionsTopic { name: resource_name, count: 2, assignments: None };
            let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: true };
            visitor.visit(version, request)
        }
        ApiKey::DescribeConfigs => {
            let resource = DescribeConfigsResource { resource_type: TOPIC, resource_name, configuration_keys: None };
            visitor.visit(version, DescribeConfigsRequest { resources: vec![resource], ..Default::default() })
        }
        ApiKey::AlterConfigs => {
            let resource = AlterConfigsResource { resource_type: TOPIC, resource_name, configs: Vec::new() };
            visitor.visit(version, AlterConfigsRequest { resources: vec![resource], validate_only: true })
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = IncrementalAlterableConfig {
                name: "retention.ms".into(),
                config_operation: 0,
                value: Some("60000".into()),
            };
            let resource =
                IncrementalAlterConfigsResource { resource_type: TOPIC, resource_name, configs: vec![config] };
            visitor.visit(version, IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true })
        }
        ApiKey::DescribeCluster => visitor.visit(version, DescribeClusterRequest::default()),
        other => panic!("no request is known for {other}"),
    }
}

fn minimal_group<V: Visitor>(api: ApiKey, version: i16, topic: &Topic, visitor: &mut V) -> V::Outcome {
    let group_id = Str::from("group");
    let member_id = Str::from("nobody");
    match api {
        ApiKey::FindCoordinator => {
            let batched = version >= 4;
            let request = FindCoordinatorRequest {
                key: if batched { Str::default() } else { group_id.clone() },
                key_type: 0,
                coordinator_keys: if batched { vec![group_id] } else { Vec::new() },
            };
            visitor.visit(version, request)
        }
        ApiKey::JoinGroup => {
            let protocol = JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(&[0; 10]) };
            let request = JoinGroupRequest {
                // A separate group for each version, so that no join waits for the members of another.
                group_id: format!("joined by v{version}").into(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 10_000,
                protocol_type: "consumer".into(),
                protocols: vec![protocol],
                ..Default::default()
            };
            visitor.visit(version, request)
        }
        ApiKey::SyncGroup => {
            visitor.visit(version, SyncGroupRequest { group_id, generation_id: 1, member_id, ..Default::default() })
        }
        ApiKey::Heartbeat => {
            visitor.visit(version, HeartbeatRequest { group_id, generation_id: 1, member_id, ..Default::default() })
        }
        ApiKey::LeaveGroup => {
            let member = MemberIdentity { member_id: member_id.clone(), ..Default::default() };
            let request = LeaveGroupRequest {
                group_id,
                member_id: if version >= 3 { Str::default() } else { member_id },
                members: if version >= 3 { vec![member] } else { Vec::new() },
            };
            visitor.visit(version, request)
        }
        ApiKey::OffsetCommit => visitor.visit(version, offset_commit(version, topic)),
        ApiKey::OffsetFetch => visitor.visit(version, offset_fetch(version, topic)),
        ApiKey::DescribeGroups => {
            visitor.visit(version, DescribeGroupsRequest { groups: vec![group_id], ..Default::default() })
        }
        ApiKey::ListGroups => visitor.visit(version, ListGroupsRequest::default()),
        ApiKey::DeleteGroups => visitor.visit(version, DeleteGroupsRequest { groups_names: vec!["absent".into()] }),
        ApiKey::OffsetDelete => {
            let partitions = vec![OffsetDeleteRequestPartition { partition_index: 0 }];
            let topics = vec![OffsetDeleteRequestTopic { name: topic.name.clone(), partitions }];
            visitor.visit(version, OffsetDeleteRequest { group_id: "absent".into(), topics })
        }
        ApiKey::ConsumerGroupHeartbeat => {
            visitor.visit(version, ConsumerGroupHeartbeatRequest { group_id, member_id, ..Default::default() })
        }
        ApiKey::ConsumerGroupDescribe => {
            let request = ConsumerGroupDescribeRequest { group_ids: vec![group_id], ..Default::default() };
            visitor.visit(version, request)
        }
        other => panic!("no request is known for {other}"),
    }
}

fn offset_commit(version: i16, topic: &Topic) -> OffsetCommitRequest {
    let by_id = version >= 10;
    let partition = OffsetCommitRequestPartition { committed_metadata: Some("mine".into()), ..Default::default() };
    let topic = OffsetCommitRequestTopic {
        name: if by_id { Str::default() } else { topic.name.clone() },
        topic_id: if by_id { topic.id } else { Uuid::nil() },
        partitions: vec![partition],
    };
    OffsetCommitRequest { group_id: "committed".into(), topics: vec![topic], ..Default::default() }
}

fn offset_fetch(version: i16, topic: &Topic) -> OffsetFetchRequest {
    let group_id = Str::from("committed");
    if version < 8 {
        let topic = OffsetFetchRequestTopic { name: topic.name.clone(), partition_indexes: vec![0] };
        return OffsetFetchRequest { group_id, topics: Some(vec![topic]), ..Default::default() };
    }
    let by_id = version >= 10;
    let topic = OffsetFetchRequestTopics {
        name: if by_id { Str::default() } else { topic.name.clone() },
        topic_id: if by_id { topic.id } else { Uuid::nil() },
        partition_indexes: vec![0],
    };
    let group = OffsetFetchRequestGroup { group_id, topics: Some(vec![topic]), ..Default::default() };
    OffsetFetchRequest { groups: vec![group], ..Default::default() }
}

/// Passes a request about transactions. Their transactional id does not exist.
fn minimal_transaction<V: Visitor>(api: ApiKey, version: i16, topic: &Topic, visitor: &mut V) -> V::Outcome {
    let id = || Str::from("transactional-id");
    match api {
        ApiKey::AddPartitionsToTxn => {
            let topics = vec![AddPartitionsToTxnTopic { name: topic.name.clone(), partitions: vec![0] }];
            let request = match version {
                ..=3 => AddPartitionsToTxnRequest {
                    v3_and_below_transactional_id: id(),
                    v3_and_below_topics: topics,
                    ..Default::default()
                },
                _ => AddPartitionsToTxnRequest {
                    transactions: vec![AddPartitionsToTxnTransaction {
                        transactional_id: id(),
                        topics,
                        ..Default::default()
                    }],
                    ..Default::default()
                },
            };
            visitor.visit(version, request)
        }
        ApiKey::AddOffsetsToTxn => {
            let group_id = "group".into();
            visitor.visit(version, AddOffsetsToTxnRequest { transactional_id: id(), group_id, ..Default::default() })
        }
        ApiKey::EndTxn => visitor.visit(version, EndTxnRequest { transactional_id: id(), ..Default::default() }),
        ApiKey::TxnOffsetCommit => {
            let partition = TxnOffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 0,
                committed_leader_epoch: -1,
                committed_metadata: None,
            };
            let topics = vec![TxnOffsetCommitRequestTopic {
                name: topic.name.clone(),
                topic_id: topic.id,
                partitions: vec![partition],
            }];
            let group_id = "group".into();
            let request = TxnOffsetCommitRequest { transactional_id: id(), group_id, topics, ..Default::default() };
            visitor.visit(version, request)
        }
        ApiKey::DescribeTransactions => {
            visitor.visit(version, DescribeTransactionsRequest { transactional_ids: vec![id()] })
        }
        _ => visitor.visit(version, ListTransactionsRequest { duration_filter: -1, ..Default::default() }),
    }
}
