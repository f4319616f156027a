//! The APIs that delete groups and their offsets.

use millstream_tests::wait_until;
use millstream_wire::codec::to_versioned_bytes;
use millstream_wire::messages::*;
use millstream_wire::records::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use millstream_wire::{ErrorCode, Str};

use super::{PATIENCE, Seen, create};
use crate::support::{Raw, Topic};

/// Commits offset 7 for partition 0 of a topic, for a group without members.
fn commit(raw: &mut Raw, group: &str, topic: &Topic) {
    let partition = OffsetCommitRequestPartition {
        committed_offset: 7,
        committed_metadata: Some(Str::EMPTY),
        ..Default::default()
    };
    let topics =
        vec![OffsetCommitRequestTopic { name: topic.name.clone(), partitions: vec![partition], ..Default::default() }];
    let request =
        OffsetCommitRequest { group_id: group.into(), generation_id_or_member_epoch: -1, topics, ..Default::default() };
    // Kafka makes `__consumer_offsets` for the first group and serves it a moment later.
    wait_until("the coordinator", PATIENCE, || {
        find(raw, group);
        let code = raw.call(8, &request).topics[0].partitions[0].error_code;
        assert!(code.is_ok() || code.retriable(), "{code}");
        code.is_ok().then_some(())
    });
}

fn find(raw: &mut Raw, group: &str) {
    raw.call(3, &FindCoordinatorRequest { key: group.into(), ..Default::default() });
}

/// Returns what a group has committed for partition 0 of a topic.
fn committed(raw: &mut Raw, group: &str, topic: &Topic) -> (ErrorCode, i64) {
    let topics = vec![OffsetFetchRequestTopic { name: topic.name.clone(), partition_indexes: vec![0] }];
    let response =
        raw.call(7, &OffsetFetchRequest { group_id: group.into(), topics: Some(topics), ..Default::default() });
    (response.error_code, response.topics[0].partitions[0].committed_offset)
}

/// Joins a group as its only member and gets an assignment.
fn join(raw: &mut Raw, group: &str, protocol_type: &str, topic: &Topic) -> Str {
    find(raw, group);
    let subscription = ConsumerProtocolSubscription { topics: vec![topic.name.clone()], ..Default::default() };
    let metadata = to_versioned_bytes(&subscription, 1).expect("a subscription");
    let mut request = JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: protocol_type.into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata }],
        ..Default::default()
    };
    let joined = wait_until("the coordinator", PATIENCE, || {
        let joined = raw.call(5, &request);
        request.member_id = joined.member_id.clone();
        (joined.error_code == ErrorCode::NONE).then_some(joined)
    });
    let assignment = to_versioned_bytes(&ConsumerProtocolAssignment::default(), 1).expect("an assignment");
    let sync = SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment }],
        ..Default::default()
    };
    assert_eq!(raw.call(3, &sync).error_code, ErrorCode::NONE);
    joined.member_id
}

fn leave(raw: &mut Raw, group: &str, member_id: Str) {
    let request = LeaveGroupRequest { group_id: group.into(), member_id, ..Default::default() };
    assert_eq!(raw.call(2, &request).error_code, ErrorCode::NONE);
}

fn delete(raw: &mut Raw, version: i16, groups: &[&str]) -> DeleteGroupsResponse {
    let groups_names = groups.iter().map(|name| Str::from(*name)).collect();
    let mut response = raw.call(version, &DeleteGroupsRequest { groups_names });
    response.results.sort_by(|one, other| one.group_id.cmp(&other.group_id));
    response
}

pub(super) fn delete_groups(raw: &mut Raw, seen: &mut Seen) {
    let topic = create(raw, "groups", 1, &[]);
    for version in 0..=3 {
        let [simple, live] = ["simple", "live"].map(|kind| format!("{kind}-{version}"));
        commit(raw, &simple, &topic);
        let member = join(raw, &live, "consumer", &topic);
        seen.add("committed", &committed(raw, &simple, &topic));
        let deleted = delete(raw, version, &[&simple, &live, "no-such-group", "", &simple]);
        seen.add(&format!("v{version}"), &deleted);
        seen.add("committed", &committed(raw, &simple, &topic));
        seen.add("again", &delete(raw, version, &[&simple]));
        leave(raw, &live, member);
        seen.add("after the last member left", &delete(raw, version, &[&live]));
        seen.add("nothing", &delete(raw, version, &[]));
    }
    let listed = raw.call(4, &ListGroupsRequest::default());
    let left = listed.groups.iter().filter(|group| group.group_id.starts_with("simple")).count();
    seen.add("left", &left);
}

fn delete_offsets(raw: &mut Raw, group: &str, asked: &[(&str, i32)]) -> OffsetDeleteResponse {
    let topics = asked.iter().map(|(name, partition_index)| OffsetDeleteRequestTopic {
        name: Str::from(*name),
        partitions: vec![OffsetDeleteRequestPartition { partition_index: *partition_index }],
    });
    let request = OffsetDeleteRequest { group_id: group.into(), topics: topics.collect() };
    let mut response = raw.call(0, &request);
    response.topics.sort_by(|one, other| one.name.cmp(&other.name));
    response
}

pub(super) fn offset_delete(raw: &mut Raw, seen: &mut Seen) {
    let [one, two] = ["offsets-one", "offsets-two"].map(|name| create(raw, name, 1, &[]));
    let all = [(&*one.name, 0), (&*two.name, 0), ("no-such-topic", 0)];
    for kind in ["simple", "consumer", "connect"] {
        let group = format!("offsets-of-{kind}");
        commit(raw, &group, &one);
        commit(raw, &group, &two);
        // The broker knows no topics of members whose protocol type is not `consumer`.
        let member = (kind != "simple").then(|| join(raw, &group, kind, &one));
        seen.add(&format!("{kind}, before"), &(committed(raw, &group, &one), committed(raw, &group, &two)));
        seen.add("a partition that does not exist", &delete_offsets(raw, &group, &[(&one.name, 9)]));
        seen.add("nothing", &delete_offsets(raw, &group, &[]));
        seen.add("all", &delete_offsets(raw, &group, &all));
        seen.add("after", &(committed(raw, &group, &one), committed(raw, &group, &two)));
        // Kafka removes a group without members and offsets some time later; our broker does so at once.
        if member.is_some() {
            seen.add("again", &delete_offsets(raw, &group, &all));
        }
        if let Some(member) = member {
            leave(raw, &group, member);
            seen.add("without members", &delete_offsets(raw, &group, &all));
            seen.add("after", &(committed(raw, &group, &one), committed(raw, &group, &two)));
        }
    }
    for group in ["no-such-group", ""] {
        seen.add(&format!("group {group:?}"), &delete_offsets(raw, group, &all));
    }
}
