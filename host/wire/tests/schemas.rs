//! Every message at every version against Kafka's schemas and against the crate `kafka-protocol`.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message as OracleMessage};
use millstream_wire::apis;

use support::{Sample, ours, samples, schemas};

fn describe(sample: &Sample) -> String {
    format!("{} v{} {:?}", sample.name, sample.version, sample.fill)
}

/// Bytes by the schema decode to the original values by name, with absent fields at their defaults, and encode to the
/// same bytes.
#[test]
fn what_the_schema_writes_we_read_and_write() {
    let ours: BTreeMap<_, _> = ours().into_iter().map(|(name, round_trip, _)| (name, round_trip)).collect();
    for sample in samples() {
        let what = describe(&sample);
        let read = ours[sample.name](sample.bytes.clone(), sample.version).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(read.debug, sample.debug, "{what}");
        assert_eq!(read.left, 0, "{what}");
        assert_eq!(read.bytes, sample.bytes, "{what}");
    }
}

type Oracle = fn(Bytes, i16) -> Result<Vec<u8>, String>;

fn oracle<M: Decodable + Encodable>(bytes: Bytes, version: i16) -> Result<Vec<u8>, String> {
    let mut left = bytes;
    let message = M::decode(&mut left, version).map_err(|error| format!("decode: {error}"))?;
    if !left.is_empty() {
        return Err(format!("{} bytes left", left.len()));
    }
    let mut written = BytesMut::new();
    message.encode(&mut written, version).map_err(|error| format!("encode: {error}"))?;
    Ok(written.to_vec())
}

/// Returns the oracle's types and versions. The oracle is of Kafka 4.1, so a few of the newest are missing.
fn oracles() -> BTreeMap<&'static str, (Oracle, std::ops::RangeInclusive<i16>)> {
    macro_rules! types {
        ($($name:ident)*) => {
            BTreeMap::from([$((stringify!($name), {
                use kafka_protocol::messages::$name;
                let versions = <$name as OracleMessage>::VERSIONS;
                (oracle::<$name> as Oracle, versions.min..=versions.max)
            }),)*])
        };
    }
    types! {
        ApiVersionsRequest ApiVersionsResponse ProduceRequest ProduceResponse FetchRequest FetchResponse
        ListOffsetsRequest ListOffsetsResponse MetadataRequest MetadataResponse
        OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse CreateTopicsRequest CreateTopicsResponse
        DeleteTopicsRequest DeleteTopicsResponse CreatePartitionsRequest CreatePartitionsResponse
        DescribeConfigsRequest DescribeConfigsResponse AlterConfigsRequest AlterConfigsResponse
        IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse
        DescribeClusterRequest DescribeClusterResponse InitProducerIdRequest InitProducerIdResponse
        AddPartitionsToTxnRequest AddPartitionsToTxnResponse AddOffsetsToTxnRequest AddOffsetsToTxnResponse
        EndTxnRequest EndTxnResponse TxnOffsetCommitRequest TxnOffsetCommitResponse
        DescribeTransactionsRequest DescribeTransactionsResponse ListTransactionsRequest ListTransactionsResponse
        FindCoordinatorRequest FindCoordinatorResponse JoinGroupRequest JoinGroupResponse
        SyncGroupRequest SyncGroupResponse HeartbeatRequest HeartbeatResponse LeaveGroupRequest LeaveGroupResponse
        OffsetCommitRequest OffsetCommitResponse OffsetFetchRequest OffsetFetchResponse
        ListGroupsRequest ListGroupsResponse DescribeGroupsRequest DescribeGroupsResponse
        DeleteGroupsRequest DeleteGroupsResponse OffsetDeleteRequest OffsetDeleteResponse
        DeleteRecordsRequest DeleteRecordsResponse DescribeLogDirsRequest DescribeLogDirsResponse
        ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse
        ElectLeadersRequest ElectLeadersResponse DescribeAclsRequest DescribeAclsResponse
        DescribeClientQuotasRequest DescribeClientQuotasResponse
        DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse
        DescribeProducersRequest DescribeProducersResponse
        DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse
        ListConfigResourcesRequest ListConfigResourcesResponse
        ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse
        ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse
        AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse
        AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse
        DescribeQuorumRequest DescribeQuorumResponse
        AlterPartitionRequest AlterPartitionResponse
        UpdateFeaturesRequest UpdateFeaturesResponse
        WriteTxnMarkersRequest WriteTxnMarkersResponse
        BrokerRegistrationRequest BrokerRegistrationResponse
        BrokerHeartbeatRequest BrokerHeartbeatResponse
        UnregisterBrokerRequest UnregisterBrokerResponse
        AllocateProducerIdsRequest AllocateProducerIdsResponse
        AddRaftVoterRequest AddRaftVoterResponse
        RemoveRaftVoterRequest RemoveRaftVoterResponse
        ConsumerProtocolSubscription ConsumerProtocolAssignment
    }
}

/// The oracle reads what we write. It writes the same bytes again, which we can read (the test above).
#[test]
fn what_we_write_the_oracle_reads_and_writes() {
    let ours: BTreeMap<_, _> = ours().into_iter().map(|(name, round_trip, _)| (name, round_trip)).collect();
    let oracles = oracles();
    let mut unseen = BTreeSet::new();
    for sample in samples() {
        let what = describe(&sample);
        let Some((oracle, _)) = oracles.get(sample.name).filter(|(_, known)| known.contains(&sample.version)) else {
            unseen.insert((sample.name, sample.version));
            continue;
        };
        let written = ours[sample.name](sample.bytes.clone(), sample.version).unwrap().bytes;
        let theirs = oracle(written.clone(), sample.version).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(Bytes::from(theirs), written, "{what}");
    }
    // Versions that the oracle does not have are compared with Kafka itself in `kafka_bytes.rs`.
    let newer = [
        ("ListOffsetsRequest", 11),
        ("ListOffsetsResponse", 11),
        ("OffsetCommitRequest", 10),
        ("OffsetFetchRequest", 10),
        ("ApiVersionsRequest", 5),
        ("ApiVersionsResponse", 5),
        ("DeleteGroupsRequest", 3),
        ("DeleteGroupsResponse", 3),
        ("DescribeLogDirsRequest", 5),
        ("DescribeLogDirsResponse", 5),
        ("BrokerHeartbeatRequest", 2),
        ("BrokerHeartbeatResponse", 2),
        ("AddRaftVoterRequest", 1),
        ("AddRaftVoterResponse", 1),
        ("UnregisterControllerRequest", 0),
        ("UnregisterControllerResponse", 0),
        ("WriteTxnMarkersRequest", 2),
        ("WriteTxnMarkersResponse", 2),
        ("TxnOffsetCommitRequest", 6),
        ("TxnOffsetCommitResponse", 6),
    ];
    let older =
        ["ProduceRequest", "ProduceResponse"].into_iter().flat_map(|name| (0..3).map(move |version| (name, version)));
    let records = [
        ("OffsetCommitKey", 0..=1),
        ("OffsetCommitValue", 0..=4),
        ("GroupMetadataKey", 2..=2),
        ("GroupMetadataValue", 0..=4),
        ("TransactionLogKey", 0..=0),
        ("TransactionLogValue", 0..=1),
    ]
    .into_iter()
    .flat_map(|(name, versions)| versions.map(move |version| (name, version)));
    assert_eq!(unseen, newer.into_iter().chain(older).chain(records).collect());
}

/// The tests above cover every version of every API.
#[test]
fn the_table_covers_every_api() {
    let schemas: BTreeMap<_, _> = schemas().into_iter().map(|schema| (schema.name, schema)).collect();
    for api in apis() {
        for message in ["Request", "Response"] {
            let schema = &schemas[format!("{}{message}", api.name).as_str()];
            assert_eq!(schema.versions, api.min..=api.max, "{}", schema.name);
            assert_eq!(schema.flexible, api.flexible, "{}", schema.name);
        }
    }
    assert_eq!(ours().len(), schemas.len());
}
