//! Bytes that the generated Java classes of Apache Kafka wrote (4.2, and 4.4 where a test names it). They cover
//! versions that the crate `kafka-protocol` does not know, nulls and numbers of rare types, the records of
//! `__consumer_offsets`, and headers.

use std::fmt::Debug;

use bytes::Bytes;
use millstream_wire::messages::*;
use millstream_wire::records::*;
use millstream_wire::{ApiKey, ErrorCode, Message, Reader, RequestHeader, Str, Versioned, Writer, codec};
use uuid::Uuid;

const TOPIC_ID: Uuid = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
const TIME: i64 = 1_700_000_000_000;

fn bytes(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[track_caller]
fn check<M: Message + Debug + PartialEq>(hex: &str, version: i16, expected: &M) {
    let bytes = bytes(hex);
    assert_eq!(&codec::from_bytes::<M>(bytes.clone(), version).unwrap(), expected);
    assert_eq!(codec::to_bytes(expected, version).unwrap(), bytes);
}

#[track_caller]
fn check_versioned<M: Versioned + Debug + PartialEq>(hex: &str, version: i16, expected: M) {
    let bytes = bytes(hex);
    assert_eq!(codec::to_versioned_bytes(&expected, version).unwrap(), bytes);
    assert_eq!(codec::from_versioned_bytes::<M>(bytes).unwrap(), (version, expected));
}

#[test]
fn list_offsets_11() {
    let partition = ListOffsetsPartition { partition_index: 2, current_leader_epoch: 5, timestamp: -3 };
    let topics = vec![ListOffsetsTopic { name: "orders".into(), partitions: vec![partition] }];
    let request = ListOffsetsRequest { replica_id: -1, isolation_level: 1, timeout_ms: 30_000, topics };
    check("ffffffff0102076f7264657273020000000200000005fffffffffffffffd00000000753000", 11, &request);

    let partition = ListOffsetsPartitionResponse {
        partition_index: 2,
        error_code: ErrorCode::NOT_LEADER_OR_FOLLOWER,
        timestamp: TIME,
        offset: 42,
        leader_epoch: 5,
    };
    let topics = vec![ListOffsetsTopicResponse { name: "orders".into(), partitions: vec![partition] }];
    let response = ListOffsetsResponse { throttle_time_ms: 7, topics };
    check("0000000702076f7264657273020000000200060000018bcfe56800000000000000002a00000005000000", 11, &response);
}

#[test]
fn offset_commit_10() {
    let partition = OffsetCommitRequestPartition {
        partition_index: 1,
        committed_offset: 42,
        committed_leader_epoch: 5,
        committed_metadata: Some("note".into()),
    };
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 3,
        member_id: "m".into(),
        group_instance_id: Some("i".into()),
        topics: vec![OffsetCommitRequestTopic {
            topic_id: TOPIC_ID,
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    };
    let hex =
        "026700000003026d0269020102030405060708090a0b0c0d0e0f100200000001000000000000002a00000005056e6f7465000000";
    check(hex, 10, &request);
}

#[test]
fn offset_fetch_10() {
    let topic = OffsetFetchRequestTopics { topic_id: TOPIC_ID, partition_indexes: vec![0, 1], ..Default::default() };
    let one = OffsetFetchRequestGroup {
        group_id: "g".into(),
        member_id: Some("m".into()),
        member_epoch: 3,
        topics: Some(vec![topic]),
    };
    let all = OffsetFetchRequestGroup { group_id: "all".into(), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![one, all], require_stable: true, ..Default::default() };
    let hex = "030267026d00000003020102030405060708090a0b0c0d0e0f10030000000000000001000004616c6c00ffffffff00000100";
    check(hex, 10, &request);
}

/// Kafka 4.4.
#[test]
fn api_versions_5() {
    let request = ApiVersionsRequest {
        client_software_name: "raw".into(),
        client_software_version: "1".into(),
        ..Default::default()
    };
    check("04726177023100ffffffff00", 5, &request);
    let request = ApiVersionsRequest { cluster_id: Some("4L6g3nShT-eMCtK--X86sw".into()), node_id: 3, ..request };
    check("04726177023117344c3667336e5368542d654d43744b2d2d58383673770000000300", 5, &request);
    let response = ApiVersionsResponse { error_code: ErrorCode::REBOOTSTRAP_REQUIRED, ..Default::default() };
    check("0081010000000000", 5, &response);
}

/// Kafka 4.4.
#[test]
fn delete_groups_3() {
    let request = DeleteGroupsRequest { groups_names: vec!["g".into(), "h".into()] };
    check("030267026800", 3, &request);
    let failed = DeletableGroupResult {
        group_id: "g".into(),
        error_code: ErrorCode::GROUP_DELETION_FAILED,
        error_message: Some("no".into()),
    };
    let busy =
        DeletableGroupResult { group_id: "h".into(), error_code: ErrorCode::NON_EMPTY_GROUP, ..Default::default() };
    let response = DeleteGroupsResponse { throttle_time_ms: 7, results: vec![failed, busy] };
    check("000000070302670086036e6f0002680044000000", 3, &response);
}

/// Kafka 4.4.
#[test]
fn describe_log_dirs_5() {
    check("0000", 5, &DescribeLogDirsRequest { topics: None });
    let topic = DescribableLogDirTopic { topic: "orders".into(), partitions: vec![0, 2] };
    check("02076f72646572730300000000000000020000", 5, &DescribeLogDirsRequest { topics: Some(vec![topic]) });

    let partition =
        DescribeLogDirsPartition { partition_index: 2, partition_size: 4096, offset_lag: 3, is_future_key: false };
    let folder = DescribeLogDirsResult {
        error_code: ErrorCode::NONE,
        log_dir: "/data".into(),
        topics: vec![DescribeLogDirsTopic { name: "orders".into(), partitions: vec![partition] }],
        total_bytes: 1 << 40,
        usable_bytes: 1 << 39,
        is_cordoned: true,
    };
    let response = DescribeLogDirsResponse { throttle_time_ms: 7, results: vec![folder], ..Default::default() };
    let hex = "000000070000020000062f6461746102076f7264657273020000000200000000000010000000000000000003000000\
               00000100000000000000008000000000010000";
    check(hex, 5, &response);
}

#[test]
fn structs_that_may_be_null() {
    let topic = DescribeTopicPartitionsTopicRequest { name: "orders".into() };
    let cursor = DescribeTopicPartitionsCursor { topic_name: "orders".into(), partition_index: 5 };
    let request =
        DescribeTopicPartitionsRequest { topics: vec![topic], response_partition_limit: 10, cursor: Some(cursor) };
    check("02076f7264657273000000000a01076f7264657273000000050000", 0, &request);
    check("01000007d0ff00", 0, &DescribeTopicPartitionsRequest::default());

    let partitions = ConsumerGroupTopicPartitions { topic_id: TOPIC_ID, partitions: vec![0, 1] };
    let response = ConsumerGroupHeartbeatResponse {
        member_id: Some("m".into()),
        member_epoch: 4,
        heartbeat_interval_ms: 5000,
        assignment: Some(ConsumerGroupAssignment { topic_partitions: vec![partitions] }),
        ..Default::default()
    };
    let hex = "00000000000000026d000000040000138801020102030405060708090a0b0c0d0e0f10030000000000000001000000";
    check(hex, 1, &response);
    let refused = ConsumerGroupHeartbeatResponse { error_code: ErrorCode::UNSUPPORTED_VERSION, ..Default::default() };
    check("00000000002300000000000000000000ff00", 1, &refused);
}

#[test]
fn floating_point_numbers() {
    let entry = ClientQuotaEntry {
        entity: vec![ClientQuotaEntity { entity_type: "user".into(), entity_name: None }],
        values: vec![ClientQuotaValue { key: "producer_byte_rate".into(), value: 1024.5 }],
    };
    let response = DescribeClientQuotasResponse {
        error_message: Some(Str::EMPTY),
        entries: Some(vec![entry]),
        ..Default::default()
    };
    let hex = "00000000000001020205757365720000021370726f64756365725f627974655f726174654090020000000000000000";
    check(hex, 1, &response);
}

#[test]
fn keys_of_consumer_offsets() {
    let key = OffsetCommitKey { group: "g".into(), topic: "orders".into(), partition: 2 };
    check_versioned("000100016700066f726465727300000002", 1, key);
    check_versioned("0002000167", 2, GroupMetadataKey { group: "g".into() });
}

#[test]
fn committed_offsets() {
    let value = OffsetCommitValue { offset: 42, metadata: "note".into(), commit_timestamp: TIME, ..Default::default() };
    check_versioned("0000000000000000002a00046e6f74650000018bcfe56800", 0, value.clone());
    let expiring = OffsetCommitValue { expire_timestamp: TIME + 1, ..value.clone() };
    check_versioned("0001000000000000002a00046e6f74650000018bcfe568000000018bcfe56801", 1, expiring);
    let value = OffsetCommitValue { leader_epoch: 5, ..value };
    check_versioned("0003000000000000002a0000000500046e6f74650000018bcfe56800", 3, value.clone());
    let value = OffsetCommitValue { topic_id: TOPIC_ID, ..value };
    let hex = "0004000000000000002a00000005056e6f74650000018bcfe568000100100102030405060708090a0b0c0d0e0f10";
    check_versioned(hex, 4, value);
}

#[test]
fn groups() {
    let member = GroupMemberMetadata {
        member_id: "m".into(),
        client_id: "c".into(),
        client_host: "/h".into(),
        session_timeout: 10_000,
        subscription: Bytes::from_static(&[1, 2]),
        assignment: Bytes::from_static(&[3]),
        ..Default::default()
    };
    let group = GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: None,
        members: vec![member.clone()],
        ..Default::default()
    };
    let hex =
        "00000008636f6e73756d657200000003000572616e6765ffff0000000100016d00016300022f68000027100000000201020000000103";
    check_versioned(hex, 0, group.clone());

    let member = GroupMemberMetadata { group_instance_id: Some("i".into()), rebalance_timeout: 60_000, ..member };
    let group = GroupMetadataValue { current_state_timestamp: TIME, members: vec![member], ..group };
    let hex = "00030008636f6e73756d657200000003000572616e6765ffff0000018bcfe56800000000\
               0100016d00016900016300022f680000ea60000027100000000201020000000103";
    check_versioned(hex, 3, group.clone());
    let hex = "000409636f6e73756d6572000000030672616e6765000000018bcfe5680002\
               026d02690263032f680000ea600000271003010202030000";
    check_versioned(hex, 4, group);
}

#[test]
fn consumer_protocol() {
    let subscription = ConsumerProtocolSubscription { topics: vec!["orders".into()], ..Default::default() };
    check_versioned("00000000000100066f7264657273ffffffff", 0, subscription.clone());

    let partitions = vec![ConsumerTopicPartitions { topic: "orders".into(), partitions: vec![0, 2] }];
    let subscription = ConsumerProtocolSubscription {
        owned_partitions: partitions.clone(),
        generation_id: 3,
        rack_id: Some("r".into()),
        ..subscription
    };
    let hex = "00030000000100066f7264657273ffffffff0000000100066f726465727300000002000000000000000200000003000172";
    check_versioned(hex, 3, subscription);

    let user_data = Some(Bytes::from_static(&[9]));
    let assignment = ConsumerProtocolAssignment { assigned_partitions: partitions, user_data };
    check_versioned("00030000000100066f72646572730000000200000000000000020000000109", 3, assignment);
}

/// Of a newer consumer's subscription, the known fields are read and the rest is left.
#[test]
fn a_newer_consumer_protocol_is_read_as_the_newest_known() {
    let subscription = ConsumerProtocolSubscription { topics: vec!["orders".into()], ..Default::default() };
    let known = codec::to_versioned_bytes(&subscription, 3).unwrap();
    let newer = [&[0, 9], &known[2..], &[1, 2, 3]].concat();
    assert_eq!(ConsumerProtocolSubscription::from_bytes(newer.into()).unwrap(), subscription);
    assert!(ConsumerProtocolSubscription::from_bytes(Bytes::from_static(&[0xff, 0xff, 0, 0])).is_err());
}

#[test]
fn headers() {
    for (version, hex) in [(8, "000300080000004d0006636c69656e74"), (9, "000300090000004d0006636c69656e7400")] {
        let header = RequestHeader::new(ApiKey::Metadata, version, 77, Some("client".into()));
        let mut writer = Writer::new();
        header.encode(&mut writer, ApiKey::Metadata.info().request_header_version(version)).unwrap();
        let frame = writer.finish().unwrap().into_bytes().unwrap();
        assert_eq!(frame.slice(4..), bytes(hex));
        let mut reader = Reader::new(bytes(hex));
        assert_eq!(RequestHeader::decode(&mut reader), Ok(header));
        assert_eq!(reader.remaining(), 0);
    }
}
