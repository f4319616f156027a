//! Bytes that the generated Java classes of Apache Kafka wrote (4.2, and 4.4 where a test names it). They cover
//! versions that the crate `kafka-protocol` does not know, nulls and numbers of rare types, the records of
//! `__consumer_offsets`, and headers.

use std::fmt::Debug;

use bytes::Bytes;
use millstream_wire::messages::*;
use millstream_wire::records::*;
use millstream_wire::{ApiKey, ErrorCode, Message, Reader, Records, RequestHeader, Str, Versioned, Writer, codec};
use uuid::Uuid;

const TOPIC_ID: Uuid = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
const DIRECTORY_ID: Uuid = Uuid::from_u128(0x1112_1314_1516_1718_191a_1b1c_1d1e_1f20);
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

/// Kafka 4.4: what a follower fetches within a session, and a response that says where the logs diverge.
#[test]
fn fetch_of_a_follower_18() {
    let partition = FetchPartition {
        partition: 1,
        current_leader_epoch: 5,
        fetch_offset: 42,
        last_fetched_epoch: 4,
        log_start_offset: 3,
        partition_max_bytes: 1 << 20,
        replica_directory_id: DIRECTORY_ID,
        high_watermark: 40,
        synced_offset: -1,
    };
    let forgotten = ForgottenTopic { topic_id: TOPIC_ID, partitions: vec![0, 2], ..Default::default() };
    let request = FetchRequest {
        cluster_id: Some("c".into()),
        replica_state: ReplicaState { replica_id: 2, replica_epoch: 9 },
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 10 << 20,
        session_id: 77,
        session_epoch: 3,
        topics: vec![FetchTopic { topic_id: TOPIC_ID, partitions: vec![partition], ..Default::default() }],
        forgotten_topics_data: vec![forgotten],
        ..Default::default()
    };
    let hex = "000001f40000000100a00000000000004d00000003020102030405060708090a0b0c0d0e0f1002000000010000000500\
               0000000000002a000000040000000000000003001000000200101112131415161718191a1b1c1d1e1f20010800000000\
               0000002800020102030405060708090a0b0c0d0e0f1003000000000000000200010200020263010d0000000200000000\
               0000000900";
    check(hex, 18, &request);

    let partition = PartitionData {
        partition_index: 1,
        high_watermark: 40,
        last_stable_offset: 39,
        log_start_offset: 3,
        diverging_epoch: DivergingEpoch { epoch: 4, end_offset: 41 },
        current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 6 },
        snapshot_id: SnapshotId { end_offset: 30, epoch: 2 },
        records: Records::Bytes(Bytes::from_static(&[1, 2, 3])),
        ..Default::default()
    };
    let topic = FetchableTopicResponse { topic_id: TOPIC_ID, partitions: vec![partition], ..Default::default() };
    let endpoint = NodeEndpoint { node_id: 1, host: "h".into(), port: 9092, rack: Some("r".into()) };
    let response = FetchResponse {
        throttle_time_ms: 7,
        session_id: 77,
        responses: vec![topic],
        node_endpoints: vec![endpoint],
        ..Default::default()
    };
    let hex = "0000000700000000004d020102030405060708090a0b0c0d0e0f10020000000100000000000000000028000000000000\
               0027000000000000000300ffffffff0401020303000d000000040000000000000029000109000000010000000600020d\
               000000000000001e00000002000001000e0200000001026800002384027200";
    check(hex, 18, &response);
}

/// Before version 15 a follower gives its id in the first field.
#[test]
fn fetch_of_a_follower_12() {
    let partition = FetchPartition {
        partition: 1,
        current_leader_epoch: 5,
        fetch_offset: 42,
        last_fetched_epoch: 4,
        log_start_offset: 3,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let request = FetchRequest {
        replica_id: 2,
        max_wait_ms: 500,
        min_bytes: 1,
        session_id: 77,
        session_epoch: 3,
        topics: vec![FetchTopic { topic: "orders".into(), partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(request.replica(), ReplicaState { replica_id: 2, replica_epoch: -1 });
    let hex = "00000002000001f4000000017fffffff000000004d0000000302076f7264657273020000000100000005000000000000\
               002a000000040000000000000003001000000000010100";
    check(hex, 12, &request);
}

/// Kafka 4.4: a null of the cordoned folders differs from none of them.
#[test]
fn broker_heartbeat_2() {
    let starting = BrokerHeartbeatRequest {
        broker_id: 2,
        broker_epoch: 9,
        current_metadata_offset: 42,
        want_fence: true,
        ..Default::default()
    };
    check("000000020000000000000009000000000000002a010000", 2, &starting);
    let stopping = BrokerHeartbeatRequest {
        want_fence: false,
        want_shut_down: true,
        offline_log_dirs: vec![TOPIC_ID],
        cordoned_log_dirs: Some(Vec::new()),
        ..starting.clone()
    };
    let hex = "000000020000000000000009000000000000002a0001020011020102030405060708090a0b0c0d0e0f10010101";
    check(hex, 2, &stopping);
    let cordoned =
        BrokerHeartbeatRequest { want_fence: false, cordoned_log_dirs: Some(vec![DIRECTORY_ID]), ..starting };
    check("000000020000000000000009000000000000002a0000010111021112131415161718191a1b1c1d1e1f20", 2, &cordoned);
    assert!(codec::to_bytes(&cordoned, 1).is_err(), "version 1 has no cordoned folders");
    let response = BrokerHeartbeatResponse {
        throttle_time_ms: 7,
        is_caught_up: true,
        is_fenced: false,
        should_shut_down: true,
        ..Default::default()
    };
    check("00000007000001000100", 2, &response);
}

/// Kafka 4.4.
#[test]
fn describe_quorum_2() {
    let leader = QuorumReplicaState {
        replica_id: 1,
        replica_directory_id: DIRECTORY_ID,
        log_end_offset: 43,
        last_caught_up_timestamp: TIME,
        ..Default::default()
    };
    // Kafka sends an empty text after success.
    let partition = DescribeQuorumPartitionResponse {
        error_message: Some(Str::EMPTY),
        leader_id: 1,
        leader_epoch: 5,
        high_watermark: 42,
        current_voters: vec![leader],
        ..Default::default()
    };
    let listener = NodeListener { name: "CONTROLLER".into(), host: "h".into(), port: 40_000 };
    let response = DescribeQuorumResponse {
        error_message: Some(Str::EMPTY),
        topics: vec![DescribeQuorumTopicResponse { topic_name: "t".into(), partitions: vec![partition] }],
        nodes: vec![DescribeQuorumNode { node_id: 1, listeners: vec![listener] }],
        ..Default::default()
    };
    let hex = "00000102027402000000000000010000000100000005000000000000002a02000000011112131415161718191a1b1c1d\
               1e1f20000000000000002bffffffffffffffff0000018bcfe56800000100000200000001020b434f4e54524f4c4c4552\
               02689c40000000";
    check(hex, 2, &response);
}

/// Kafka 4.4.
#[test]
fn add_raft_voter_1() {
    let request = AddRaftVoterRequest {
        cluster_id: Some("c".into()),
        timeout_ms: 30_000,
        voter_id: 3,
        voter_directory_id: DIRECTORY_ID,
        listeners: vec![NodeListener { name: "CONTROLLER".into(), host: "h".into(), port: u16::MAX }],
        ack_when_committed: false,
    };
    let hex = "026300007530000000031112131415161718191a1b1c1d1e1f20020b434f4e54524f4c4c45520268ffff000000";
    check(hex, 1, &request);
    let response = AddRaftVoterResponse {
        throttle_time_ms: 7,
        error_code: ErrorCode::INVALID_VOTER_KEY,
        error_message: Some("no".into()),
    };
    check("00000007007d036e6f00", 1, &response);
}

/// Kafka 4.4.
#[test]
fn unregister_controller_0() {
    check("0000000300", 0, &UnregisterControllerRequest { controller_id: 3 });
    let response = UnregisterControllerResponse {
        throttle_time_ms: 7,
        error_code: ErrorCode::CONTROLLER_ID_NOT_REGISTERED,
        error_message: Some("no".into()),
    };
    check("000000070088036e6f00", 0, &response);
}

#[test]
fn write_txn_markers_2() {
    let topics = vec![WritableTxnMarkerTopic { name: "orders".into(), partition_indexes: vec![0, 2] }];
    let marker = WritableTxnMarker {
        producer_id: 4242,
        producer_epoch: 7,
        transaction_result: true,
        topics,
        coordinator_epoch: 9,
        transaction_version: 2,
    };
    let request = WriteTxnMarkersRequest { markers: vec![marker.clone()] };
    check("02000000000000109200070102076f72646572730300000000000000020000000009020000", 2, &request);
    let older = WriteTxnMarkersRequest { markers: vec![WritableTxnMarker { transaction_version: 0, ..marker }] };
    check("02000000000000109200070102076f726465727303000000000000000200000000090000", 1, &older);

    let partitions =
        vec![WritableTxnMarkerPartitionResult { partition_index: 2, error_code: ErrorCode::INVALID_PRODUCER_EPOCH }];
    let topics = vec![WritableTxnMarkerTopicResult { name: "orders".into(), partitions }];
    let response = WriteTxnMarkersResponse { markers: vec![WritableTxnMarkerResult { producer_id: 4242, topics }] };
    check("02000000000000109202076f72646572730200000002002f00000000", 2, &response);
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
