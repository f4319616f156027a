//! The group APIs over a socket, in every version: the requests and responses, without a client library in between.

mod client;
mod transactions;

use std::time::Instant;

use bytes::Bytes;
use client::{Client, PATIENCE, TestBroker};
use millstream_wire::messages::*;
use millstream_wire::{ErrorCode, Request, Str};
use uuid::Uuid;

const TOPIC: &str = "t";

fn text(text: &str) -> Str {
    Str::from(text)
}

/// Returns the version of another API that is as many steps below its newest as `at`.
fn beside<R: Request>(at: usize) -> i16 {
    let (least, newest) = (*R::VERSIONS.start(), *R::VERSIONS.end());
    (newest - i16::try_from(at).unwrap()).max(least)
}

fn join_request(group: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: text(group),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: text(member_id),
        protocol_type: text("consumer"),
        protocols: vec![JoinGroupRequestProtocol { name: text("range"), metadata: Bytes::from_static(b"sub") }],
        ..Default::default()
    }
}

/// Joins as KIP-394 requires: a member without an id gets one and joins again.
fn join(client: &mut Client, version: i16, mut request: JoinGroupRequest) -> JoinGroupResponse {
    let joined = client.ask(version, &request);
    if joined.error_code != ErrorCode::MEMBER_ID_REQUIRED {
        return joined;
    }
    assert!(version >= 4);
    request.member_id = joined.member_id;
    client.ask(version, &request)
}

fn sync_request(group: &str, member: &JoinGroupResponse, give: &[&Str]) -> SyncGroupRequest {
    let give = give.iter().map(|id| SyncGroupRequestAssignment {
        member_id: (*id).clone(),
        assignment: Bytes::from(format!("of {}", id.as_str())),
    });
    SyncGroupRequest {
        group_id: text(group),
        generation_id: member.generation_id,
        member_id: member.member_id.clone(),
        protocol_type: Some(text("consumer")),
        protocol_name: Some(text("range")),
        assignments: give.collect(),
        ..Default::default()
    }
}

fn commit_request(group: &str, offsets: &[(&str, Uuid, i32, i64)]) -> OffsetCommitRequest {
    let topics = offsets.iter().map(|(name, topic_id, partition, offset)| OffsetCommitRequestTopic {
        name: text(name),
        topic_id: *topic_id,
        partitions: vec![OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: *offset,
            committed_leader_epoch: 3,
            committed_metadata: Some(text("words")),
        }],
    });
    OffsetCommitRequest { group_id: text(group), topics: topics.collect(), ..Default::default() }
}

/// Fetches the offsets of one group as (topic or none, partition, offset, error), in any version.
fn fetch(
    client: &mut Client,
    version: i16,
    group: &str,
    topics: Option<&[(&str, Uuid, &[i32])]>,
) -> Vec<(String, i32, i64, ErrorCode)> {
    let mut request = OffsetFetchRequest { require_stable: version >= 7, ..Default::default() };
    if version >= 8 {
        let by = |&(name, topic_id, partitions): &(&str, Uuid, &[i32])| OffsetFetchRequestTopics {
            name: text(name),
            topic_id,
            partition_indexes: partitions.to_vec(),
        };
        let topics = topics.map(|topics| topics.iter().map(by).collect());
        request.groups = vec![OffsetFetchRequestGroup { group_id: text(group), topics, ..Default::default() }];
    } else {
        let by = |&(name, _, partitions): &(&str, Uuid, &[i32])| OffsetFetchRequestTopic {
            name: text(name),
            partition_indexes: partitions.to_vec(),
        };
        request.group_id = text(group);
        request.topics = topics.map(|topics| topics.iter().map(by).collect());
    }
    let answer = client.ask(version, &request);
    assert_eq!(answer.error_code, ErrorCode::NONE);
    let mut found = Vec::new();
    for topic in &answer.topics {
        for of in &topic.partitions {
            found.push((topic.name.to_string(), of.partition_index, of.committed_offset, of.error_code));
            assert_eq!(of.metadata.as_deref(), Some(if of.committed_offset < 0 { "" } else { "words" }));
        }
    }
    for topic in answer.groups.iter().flat_map(|group| &group.topics) {
        for of in &topic.partitions {
            found.push((topic.name.to_string(), of.partition_index, of.committed_offset, of.error_code));
            assert_eq!(of.metadata.as_deref(), Some(if of.committed_offset < 0 { "" } else { "words" }));
        }
    }
    found
}

fn describe(client: &mut Client, version: i16, group: &str) -> DescribedGroup {
    let request = DescribeGroupsRequest { groups: vec![text(group)], ..Default::default() };
    client.ask(version, &request).groups.remove(0)
}

fn heartbeat(client: &mut Client, version: i16, group: &str, member: &JoinGroupResponse) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: text(group),
        generation_id: member.generation_id,
        member_id: member.member_id.clone(),
        ..Default::default()
    };
    client.ask(version, &request).error_code
}

fn leave(client: &mut Client, version: i16, group: &str, member_id: &Str) -> ErrorCode {
    let member = MemberIdentity { member_id: member_id.clone(), ..Default::default() };
    let mut request = LeaveGroupRequest { group_id: text(group), ..Default::default() };
    match version {
        ..=2 => request.member_id = member_id.clone(),
        _ => request.members = vec![member],
    }
    let answer = client.ask(version, &request);
    assert_eq!(answer.members.len(), usize::from(version >= 3));
    answer.members.first().map_or(answer.error_code, |member| member.error_code)
}

/// Runs one member's life, with every API in the version that is `at` steps below its newest.
fn live_once(client: &mut Client, topic_id: Uuid, at: usize) {
    let group = &format!("group-{at}");
    let find = beside::<FindCoordinatorRequest>(at);
    let request = match find {
        ..=3 => FindCoordinatorRequest { key: text(group), ..Default::default() },
        _ => FindCoordinatorRequest { coordinator_keys: vec![text(group)], ..Default::default() },
    };
    let found = client.ask(find, &request);
    assert_eq!(found.error_code, ErrorCode::NONE);
    assert_eq!(found.coordinators.len(), usize::from(find >= 4));
    assert!(
        found.coordinators.iter().all(|found| found.error_code == ErrorCode::NONE && found.host == text("127.0.0.1"))
    );

    let joined = join(client, beside::<JoinGroupRequest>(at), join_request(group, ""));
    assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::NONE, 1), "version {at} below the newest");
    assert_eq!((&joined.leader, joined.protocol_name.as_deref()), (&joined.member_id, Some("range")));
    assert_eq!(joined.members[0].metadata, "sub");
    let synced = client.ask(beside::<SyncGroupRequest>(at), &sync_request(group, &joined, &[&joined.member_id]));
    assert_eq!(synced.error_code, ErrorCode::NONE);
    assert_eq!(synced.assignment, format!("of {}", joined.member_id.as_str()));
    assert_eq!(heartbeat(client, beside::<HeartbeatRequest>(at), group, &joined), ErrorCode::NONE);

    let version = beside::<OffsetCommitRequest>(at);
    let mut commit = commit_request(group, &[(TOPIC, topic_id, 1, 7)]);
    commit.generation_id_or_member_epoch = joined.generation_id;
    commit.member_id = joined.member_id.clone();
    let committed = client.ask(version, &commit);
    assert_eq!(committed.topics[0].partitions[0].error_code, ErrorCode::NONE);
    commit.generation_id_or_member_epoch += 1;
    assert_eq!(client.ask(version, &commit).topics[0].partitions[0].error_code, ErrorCode::ILLEGAL_GENERATION);

    let version = beside::<OffsetFetchRequest>(at);
    let name = if version >= 10 { "" } else { TOPIC };
    let some = fetch(client, version, group, Some(&[(TOPIC, topic_id, &[1, 0])]));
    let expected = [(name.to_owned(), 1, 7, ErrorCode::NONE), (name.to_owned(), 0, -1, ErrorCode::NONE)];
    assert_eq!(some, expected);
    if version >= 2 {
        assert_eq!(fetch(client, version, group, None), expected[..1]);
    }

    let version = beside::<DescribeGroupsRequest>(at);
    let described = describe(client, version, group);
    assert_eq!((&*described.group_state, &*described.protocol_data), ("Stable", "range"));
    assert_eq!((&*described.members[0].client_id, &*described.members[0].client_host), ("tester", "/127.0.0.1"));
    assert_eq!(described.members[0].member_metadata, "sub");
    assert_eq!(described.authorized_operations, i32::MIN);
    let listed = client.ask(beside::<ListGroupsRequest>(at), &ListGroupsRequest::default());
    assert!(listed.groups.iter().any(|listed| *listed.group_id == **group && &*listed.protocol_type == "consumer"));

    let version = beside::<LeaveGroupRequest>(at);
    assert_eq!(leave(client, version, group, &joined.member_id), ErrorCode::NONE);
    assert_eq!(leave(client, version, group, &joined.member_id), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(&*describe(client, 5, group).group_state, "Empty");
}

#[test]
fn every_version_of_every_group_api_serves_a_member() {
    let folder = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(folder.path(), &[]);
    let mut client = broker.connect();
    assert_eq!(client.partitions("__consumer_offsets"), 0);
    let topic_id = client.create_topic(TOPIC, 2);
    let ranges = [
        FindCoordinatorRequest::VERSIONS,
        JoinGroupRequest::VERSIONS,
        SyncGroupRequest::VERSIONS,
        HeartbeatRequest::VERSIONS,
        LeaveGroupRequest::VERSIONS,
        OffsetCommitRequest::VERSIONS,
        OffsetFetchRequest::VERSIONS,
        ListGroupsRequest::VERSIONS,
        DescribeGroupsRequest::VERSIONS,
    ];
    let longest = ranges.into_iter().map(Iterator::count).max().unwrap();
    for at in 0..longest {
        live_once(&mut client, topic_id, at);
    }
    let grown = CreatePartitionsTopic { name: text("__consumer_offsets"), count: 60, ..Default::default() };
    let request = CreatePartitionsRequest { topics: vec![grown], timeout_ms: 1000, ..Default::default() };
    assert_eq!(client.ask(3, &request).results[0].error_code, ErrorCode::INVALID_PARTITIONS);
    assert_eq!(client.partitions("__consumer_offsets"), 50);
    broker.stop();
}

#[test]
fn a_second_member_shares_and_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(folder.path(), &[]);
    let (mut one, mut two) = (broker.connect(), broker.connect());
    let first = join(&mut one, 9, join_request("g", ""));
    one.ask(5, &sync_request("g", &first, &[&first.member_id]));
    let given = two.ask(9, &join_request("g", ""));
    two.send(9, &join_request("g", &given.member_id));
    let end = Instant::now() + PATIENCE;
    while heartbeat(&mut one, 4, "g", &first) != ErrorCode::REBALANCE_IN_PROGRESS {
        assert!(Instant::now() < end, "the first member does not learn of the rebalance");
        std::thread::yield_now();
    }
    let first = one.ask(9, &join_request("g", &first.member_id));
    let second = two.receive::<JoinGroupRequest>(9);
    assert_eq!((first.generation_id, second.generation_id), (2, 2));
    assert_eq!((first.members.len(), second.members.len(), &second.leader), (2, 0, &first.member_id));
    two.send(5, &sync_request("g", &second, &[]));
    let own = one.ask(5, &sync_request("g", &first, &[&first.member_id, &second.member_id]));
    assert_eq!(own.assignment, format!("of {}", first.member_id.as_str()));
    let own = two.receive::<SyncGroupRequest>(5);
    assert_eq!(own.assignment, format!("of {}", second.member_id.as_str()));
    assert_eq!(leave(&mut one, 5, "g", &first.member_id), ErrorCode::NONE);
    assert_eq!(heartbeat(&mut two, 4, "g", &second), ErrorCode::REBALANCE_IN_PROGRESS);
    let alone = two.ask(9, &join_request("g", &second.member_id));
    assert_eq!((alone.generation_id, alone.members.len()), (3, 1));
    broker.stop();
}

#[test]
fn a_restart_keeps_offsets_members_and_the_generation() {
    let folder = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(folder.path(), &["offsets.topic.num.partitions=3"]);
    let mut client = broker.connect();
    let topic_id = client.create_topic(TOPIC, 2);
    let fixed = JoinGroupRequest { group_instance_id: Some(text("i")), ..join_request("static", "") };
    let before = client.ask(9, &fixed);
    let mut sync = sync_request("static", &before, &[&before.member_id]);
    sync.group_instance_id = Some(text("i"));
    assert_eq!(client.ask(5, &sync).error_code, ErrorCode::NONE);
    for offset in 0..5 {
        let commit = commit_request("simple", &[(TOPIC, topic_id, 0, offset), (TOPIC, topic_id, 1, offset * 2)]);
        let answer = client.ask(10, &commit);
        assert!(answer.topics.iter().all(|topic| topic.partitions[0].error_code == ErrorCode::NONE));
    }
    broker.stop();

    let broker = TestBroker::start(folder.path(), &[]);
    let mut client = broker.connect();
    assert_eq!(client.partitions("__consumer_offsets"), 3);
    let found = fetch(&mut client, 9, "simple", None);
    let expected = [(TOPIC.to_owned(), 0, 4, ErrorCode::NONE), (TOPIC.to_owned(), 1, 8, ErrorCode::NONE)];
    assert_eq!(found, expected);
    let after = client.ask(9, &fixed);
    assert_eq!((after.error_code, after.generation_id, after.skip_assignment), (ErrorCode::NONE, 1, true));
    assert_ne!(after.member_id, before.member_id);
    let mut sync = sync_request("static", &after, &[]);
    sync.group_instance_id = Some(text("i"));
    assert_eq!(client.ask(5, &sync).assignment, format!("of {}", before.member_id.as_str()));
    sync.member_id = before.member_id;
    assert_eq!(client.ask(5, &sync).error_code, ErrorCode::FENCED_INSTANCE_ID);
    broker.stop();
}

#[test]
fn missing_topics_and_metadata_that_is_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(folder.path(), &["offset.metadata.max.bytes=5"]);
    let mut client = broker.connect();
    let topic_id = client.create_topic(TOPIC, 2);
    let stranger = Uuid::from_u128(1);
    let code = |answer: &OffsetCommitResponse, at: usize| answer.topics[at].partitions[0].error_code;
    let offsets = [(TOPIC, topic_id, 0, 1), (TOPIC, topic_id, 2, 1), ("nobody's", stranger, 0, 1)];
    let by_name = client.ask(9, &commit_request("g", &offsets));
    assert_eq!(
        [0, 1, 2].map(|at| code(&by_name, at)),
        [ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]
    );
    let by_id = client.ask(10, &commit_request("g", &offsets));
    assert_eq!(
        [0, 1, 2].map(|at| code(&by_id, at)),
        [ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_ID]
    );
    let unknown = fetch(&mut client, 10, "g", Some(&[("", stranger, &[0])]));
    assert_eq!(unknown, [(String::new(), 0, -1, ErrorCode::UNKNOWN_TOPIC_ID)]);
    let mut long = commit_request("g", &offsets[..1]);
    long.topics[0].partitions[0].committed_metadata = Some(text("longer"));
    assert_eq!(code(&client.ask(9, &long), 0), ErrorCode::OFFSET_METADATA_TOO_LARGE);

    let request = DeleteTopicsRequest { topic_names: vec![text(TOPIC)], timeout_ms: 10_000, ..Default::default() };
    assert_eq!(client.ask(5, &request).responses[0].error_code, ErrorCode::NONE);
    client.create_topic(TOPIC, 2);
    assert_eq!(fetch(&mut client, 9, "g", None), [], "a topic of the same name is another topic");
    broker.stop();
}

#[test]
fn requests_that_no_member_would_send() {
    let folder = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(folder.path(), &["group.max.size=2"]);
    let mut client = broker.connect();
    assert_eq!(client.ask(9, &join_request("", "")).error_code, ErrorCode::INVALID_GROUP_ID);
    assert_eq!(client.ask(9, &join_request("g", "made up")).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    let mut huge = join_request("g", "");
    huge.protocols[0].metadata = Bytes::from(vec![7; 10 << 20]);
    assert_eq!(client.ask(9, &huge).error_code, ErrorCode::INVALID_REQUEST);
    let hasty = JoinGroupRequest { session_timeout_ms: 1, ..join_request("g", "") };
    assert_eq!(client.ask(9, &hasty).error_code, ErrorCode::INVALID_SESSION_TIMEOUT);
    let mute = JoinGroupRequest { protocols: Vec::new(), ..join_request("g", "") };
    assert_eq!(client.ask(9, &mute).error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let codes: Vec<_> = (0..4).map(|_| client.ask(9, &join_request("g", "")).error_code).collect();
    assert_eq!(codes[..2], [ErrorCode::MEMBER_ID_REQUIRED; 2]);
    assert_eq!(codes[2..], [ErrorCode::GROUP_MAX_SIZE_REACHED; 2]);
    let stranger = JoinGroupResponse { member_id: text("x"), generation_id: 1, ..Default::default() };
    assert_eq!(heartbeat(&mut client, 4, "nobody's", &stranger), ErrorCode::UNKNOWN_MEMBER_ID);
    let sync = sync_request("nobody's", &stranger, &[]);
    assert_eq!(client.ask(5, &sync).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    let nameless = SyncGroupRequest { protocol_name: None, ..sync };
    assert_eq!(client.ask(5, &nameless).error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    broker.stop();
}

#[test]
fn groups_that_do_not_exist_and_coordinators_of_other_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(folder.path(), &[]);
    let mut client = broker.connect();
    let early = describe(&mut client, 6, "nobody's");
    assert_eq!(early.error_code, ErrorCode::NOT_COORDINATOR, "a client finds the coordinator first");
    assert_eq!(client.partitions("__consumer_offsets"), 0, "a lookup creates nothing");
    client.ask(6, &FindCoordinatorRequest { coordinator_keys: vec![text("nobody's")], ..Default::default() });
    assert_eq!(fetch(&mut client, 9, "nobody's", None), []);
    let newest = describe(&mut client, 6, "nobody's");
    assert_eq!((newest.error_code, &*newest.group_state), (ErrorCode::GROUP_ID_NOT_FOUND, "Dead"));
    assert_eq!(newest.error_message.as_deref(), Some("Group nobody's not found."));
    let older = describe(&mut client, 5, "nobody's");
    assert_eq!((older.error_code, &*older.group_state), (ErrorCode::NONE, "Dead"));

    let topic_id = client.create_topic(TOPIC, 1);
    let mut commit = commit_request("nobody's", &[(TOPIC, topic_id, 0, 1)]);
    commit.generation_id_or_member_epoch = 3;
    commit.member_id = text("x");
    for (version, expected) in [(8, ErrorCode::ILLEGAL_GENERATION), (9, ErrorCode::GROUP_ID_NOT_FOUND)] {
        assert_eq!(client.ask(version, &commit).topics[0].partitions[0].error_code, expected);
    }
    client.ask(9, &commit_request("simple", &[(TOPIC, topic_id, 0, 1)]));
    let filtered = |client: &mut Client, states: &[&str], types: &[&str]| {
        let of = |names: &[&str]| names.iter().map(|name| text(name)).collect();
        let request = ListGroupsRequest { states_filter: of(states), types_filter: of(types) };
        client.ask(5, &request).groups.into_iter().map(|group| group.group_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(filtered(&mut client, &["empty", "Stable"], &["Classic"]), ["simple"]);
    assert_eq!(filtered(&mut client, &["Stable"], &[]), [""; 0]);
    assert_eq!(filtered(&mut client, &[], &["share"]), [""; 0]);

    for key_type in [2, 9] {
        let request =
            FindCoordinatorRequest { key_type, coordinator_keys: vec![text("x"), text("y")], ..Default::default() };
        let found = client.ask(6, &request).coordinators;
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].error_code, found[1].node_id), (ErrorCode::INVALID_REQUEST, -1));
        assert!(found[1].error_message.is_some());
    }
    broker.stop();
}
