//! The coordinator over a log in memory, in real time. Tests wait for responses, never for the clock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millstream_partition::now_ms;
use uuid::Uuid;

use super::classic::model::*;
use super::commits::{CommitRequest, OffsetToCommit};
use super::config::GroupConfig;
use super::coordinator::GroupCoordinator;
pub(super) use crate::memory_topic::*;

pub(super) fn config() -> GroupConfig {
    GroupConfig { initial_rebalance_delay: Duration::ZERO, min_session_timeout_ms: 1, ..GroupConfig::default() }
}

pub(super) async fn start(memory: &Memory) -> Arc<GroupCoordinator> {
    start_with(config(), memory).await
}

async fn start_with(config: GroupConfig, memory: &Memory) -> Arc<GroupCoordinator> {
    let coordinator = GroupCoordinator::new(config, Box::new(memory.clone()));
    coordinator.start().await;
    coordinator
}

pub(super) fn arc(text: &str) -> Arc<str> {
    Arc::from(text)
}

pub(super) fn join(member_id: &str, session_timeout_ms: i32) -> JoinRequest {
    JoinRequest {
        member_id: arc(member_id),
        instance_id: None,
        client_id: arc("client"),
        client_host: arc("/127.0.0.1"),
        session_timeout_ms,
        rebalance_timeout_ms: 60_000,
        protocol_type: arc("consumer"),
        protocols: vec![Protocol { name: arc("range"), metadata: Bytes::from_static(b"meta") }],
        requires_known_member_id: false,
        supports_skip_assignment: true,
    }
}

pub(super) fn sync(member: &Joined, instance: Option<&str>, give: &[&str]) -> SyncRequest {
    SyncRequest {
        member_id: Arc::clone(&member.member_id),
        instance_id: instance.map(arc),
        generation: member.generation,
        protocol_type: None,
        protocol: None,
        assignments: give.iter().map(|id| (arc(id), Bytes::from(format!("of {id}")))).collect(),
    }
}

pub(super) fn commit(member: Option<&Joined>, offset: i64) -> CommitRequest<'_> {
    CommitRequest {
        caller: Caller { member_id: member.map_or("", |member| &member.member_id), instance_id: None },
        generation: member.map_or(-1, |member| member.generation),
        retention_ms: None,
        offsets: vec![OffsetToCommit {
            topic: arc("t"),
            topic_id: Uuid::from_u128(5),
            partition: 1,
            offset,
            leader_epoch: 2,
            metadata: arc("note"),
        }],
    }
}

pub(super) fn committed(coordinator: &Arc<GroupCoordinator>, group: &str) -> Option<i64> {
    let found = coordinator.fetch_offsets(group, &[(arc("t"), 1)]).unwrap();
    Some(found.get("t")?.get(&1)?.offset)
}

/// Joins alone and owns everything.
pub(super) async fn join_alone(coordinator: &Arc<GroupCoordinator>, group: &str, request: JoinRequest) -> Joined {
    let instance = request.instance_id.clone();
    let joined = coordinator.join(group, request).await.unwrap();
    let own = sync(&joined, instance.as_deref(), &[&joined.member_id]);
    assert_eq!(coordinator.sync(group, own).await.unwrap().assignment, format!("of {}", joined.member_id));
    joined
}

#[tokio::test]
async fn a_second_member_shares_and_takes_over_when_the_first_leaves() {
    let coordinator = start(&Memory::new()).await;
    let first = join_alone(&coordinator, "g", join("", 10_000)).await;
    let second = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.join("g", join("", 10_000)).await }
    });
    let caller = Caller { member_id: &first.member_id, instance_id: None };
    let is_told = || coordinator.heartbeat("g", caller, 1) == Err(GroupError::RebalanceInProgress);
    wait_until("the first member learns of the rebalance", is_told).await;
    let first = coordinator.join("g", join(&first.member_id, 10_000)).await.unwrap();
    let second = second.await.unwrap().unwrap();
    assert_eq!((first.generation, second.generation, first.members.len()), (2, 2, 2));
    let give = [&*first.member_id, &*second.member_id];
    let (a, b) = tokio::join!(
        coordinator.sync("g", sync(&second, None, &[])),
        coordinator.sync("g", sync(&first, None, &give)),
    );
    assert_eq!(a.unwrap().assignment, format!("of {}", second.member_id));
    assert_eq!(b.unwrap().assignment, format!("of {}", first.member_id));
    let left = coordinator.leave("g", &[Caller { member_id: &first.member_id, instance_id: None }]);
    assert_eq!(left, Ok(vec![Ok(())]));
    let alone = join_alone(&coordinator, "g", join(&second.member_id, 10_000)).await;
    assert_eq!((alone.generation, alone.leader), (3, second.member_id));
}

#[tokio::test]
async fn the_timers_remove_a_member_without_heartbeats() {
    let coordinator = start(&Memory::new()).await;
    let first = join_alone(&coordinator, "g", join("", 100)).await;
    // The first one never joins again. The rebalance ends with its session, long before the rebalance timeout.
    let second = coordinator.join("g", join("", 10_000)).await.unwrap();
    assert_eq!((second.generation, second.members.len()), (2, 1));
    assert_ne!(second.member_id, first.member_id);
}

#[tokio::test]
async fn an_id_that_was_never_used_leaves_no_group_behind() {
    let coordinator = start(&Memory::new()).await;
    let request = JoinRequest { requires_known_member_id: true, ..join("", 50) };
    let rejected = coordinator.join("g", request).await.unwrap_err();
    assert_eq!(rejected.error, GroupError::MemberIdRequired);
    assert!(rejected.member_id.starts_with("client-"));
    wait_until("the group is removed", || coordinator.list().unwrap().is_empty()).await;
    let late = coordinator.join("g", join(&rejected.member_id, 50)).await;
    assert_eq!(late.unwrap_err().error, GroupError::UnknownMemberId);
}

#[tokio::test]
async fn an_offset_is_seen_once_it_is_durable() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    assert_eq!(committed(&coordinator, "g"), None);
    memory.flushed.send_replace(false);
    let pending = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.commit("g", commit(None, 7)).await }
    });
    wait_until("the offset is appended", || memory.batches() > 0).await;
    assert_eq!(committed(&coordinator, "g"), None);
    assert!(!pending.is_finished());
    memory.flushed.send_replace(true);
    assert_eq!(pending.await.unwrap(), Ok(()));
    assert_eq!(committed(&coordinator, "g"), Some(7));
    let found = coordinator.fetch_all_offsets("g").unwrap();
    let found = &found["t"][&1];
    assert_eq!((found.leader_epoch, &*found.metadata, found.topic_id), (2, "note", Uuid::from_u128(5)));
}

#[tokio::test]
async fn a_request_whose_record_is_not_committed_in_time_fails_and_may_be_applied_later() {
    let memory = Memory::new();
    let offsets_commit_timeout = Duration::from_millis(20);
    let coordinator = start_with(GroupConfig { offsets_commit_timeout, ..config() }, &memory).await;
    coordinator.commit("old", commit(None, 1)).await.unwrap();
    let joined = coordinator.join("g", join("", 10_000)).await.unwrap();
    memory.flushed.send_replace(false);
    let late = GroupError::CoordinatorNotAvailable;
    let own = sync(&joined, None, &[&joined.member_id]);
    assert_eq!(coordinator.sync("g", own).await.unwrap_err(), late);
    assert_eq!(coordinator.commit("simple", commit(None, 7)).await, Err(late));
    assert_eq!(coordinator.delete_group("old").await, Err(late));
    assert_eq!((committed(&coordinator, "simple"), committed(&coordinator, "old")), (None, Some(1)));
    memory.flushed.send_replace(true);
    wait_until("the offset is applied", || committed(&coordinator, "simple") == Some(7)).await;
    wait_until("the deletion is applied", || committed(&coordinator, "old").is_none()).await;
    let again = join_alone(&coordinator, "g", join(&joined.member_id, 10_000)).await;
    assert_eq!(again.generation, 2, "the rebalance begins again");
}

#[tokio::test]
async fn members_commit_under_their_generation_only() {
    let coordinator = start(&Memory::new()).await;
    let member = join_alone(&coordinator, "g", join("", 10_000)).await;
    assert_eq!(coordinator.commit("g", commit(Some(&member), 3)).await, Ok(()));
    let older = Joined { generation: 0, ..member.clone() };
    assert_eq!(coordinator.commit("g", commit(Some(&older), 4)).await, Err(GroupError::IllegalGeneration));
    assert_eq!(coordinator.commit("g", commit(None, 5)).await, Err(GroupError::UnknownMemberId));
    assert_eq!(coordinator.commit("nobody's", commit(Some(&member), 6)).await, Err(GroupError::GroupIdNotFound));
    assert_eq!(committed(&coordinator, "g"), Some(3));
}

#[tokio::test]
async fn groups_and_offsets_survive_a_restart() {
    let memory = Memory::new();
    let before = start(&memory).await;
    let fixed = JoinRequest { instance_id: Some(arc("i")), ..join("", 10_000) };
    let member = join_alone(&before, "static", fixed.clone()).await;
    for offset in 1..=3 {
        before.commit("simple", commit(None, offset)).await.unwrap();
    }
    let gone = join_alone(&before, "left", join("", 10_000)).await;
    before.leave("left", &[Caller { member_id: &gone.member_id, instance_id: None }]).unwrap();
    before.stop();

    let after = start(&memory).await;
    assert_eq!(committed(&after, "simple"), Some(3));
    let states: Vec<_> = after.list().unwrap().into_iter().map(|group| (group.id.to_string(), group.state)).collect();
    let expected = [("left", "Empty"), ("simple", "Empty"), ("static", "Stable")];
    assert_eq!(states, expected.map(|(id, state)| (id.to_owned(), state)));
    let caller = Caller { member_id: &member.member_id, instance_id: Some("i") };
    assert_eq!(after.heartbeat("static", caller, 1), Ok(()));
    let described = after.describe("static").unwrap();
    assert_eq!((&*described.protocol_type, &*described.protocol), ("consumer", "range"));
    assert_eq!(described.members[0].assignment, format!("of {}", member.member_id));
    let back = after.join("static", fixed).await.unwrap();
    assert_eq!((back.generation, back.skip_assignment), (1, true), "no rebalance for a static member that is back");
    let own = after.sync("static", sync(&back, Some("i"), &[])).await.unwrap();
    assert_eq!(own.assignment, format!("of {}", member.member_id));
}

#[tokio::test]
async fn a_deleted_topic_loses_its_offsets_for_good() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("g", commit(None, 9)).await.unwrap();
    coordinator.topic_deleted("other");
    assert_eq!(committed(&coordinator, "g"), Some(9));
    coordinator.topic_deleted("t");
    assert_eq!(committed(&coordinator, "g"), None);
    assert_eq!(committed(&start(&memory).await, "g"), None);
}

#[tokio::test]
async fn offsets_expire_and_so_does_a_group_that_has_nothing_left() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("simple", commit(None, 9)).await.unwrap();
    let member = join_alone(&coordinator, "live", join("", 10_000)).await;
    coordinator.commit("live", commit(Some(&member), 9)).await.unwrap();
    let left = join_alone(&coordinator, "left", join("", 10_000)).await;
    coordinator.leave("left", &[Caller { member_id: &left.member_id, instance_id: None }]).unwrap();
    let retention_ms = config().offsets_retention_ms();
    coordinator.expire_offsets(now_ms() + retention_ms - 60_000);
    assert_eq!(committed(&coordinator, "simple"), Some(9));
    coordinator.expire_offsets(now_ms() + retention_ms);
    assert_eq!(committed(&coordinator, "simple"), None);
    // The metadata of the live member does not show what it subscribes to, so its offsets stay.
    assert_eq!(committed(&coordinator, "live"), Some(9));
    let ids = |of: &Arc<GroupCoordinator>| of.list().unwrap().into_iter().map(|group| group.id).collect::<Vec<_>>();
    assert_eq!(ids(&coordinator), [arc("live")]);
    assert_eq!(ids(&start(&memory).await), [arc("live")]);
}

#[tokio::test]
async fn an_offset_with_its_own_retention_expires_by_it() {
    let coordinator = start(&Memory::new()).await;
    coordinator.commit("g", CommitRequest { retention_ms: Some(1_000), ..commit(None, 9) }).await.unwrap();
    coordinator.expire_offsets(now_ms());
    assert_eq!(committed(&coordinator, "g"), Some(9));
    coordinator.expire_offsets(now_ms() + 1_000);
    assert_eq!(committed(&coordinator, "g"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_not_served_before_its_log_is_read() {
    let memory = Memory::new();
    start(&memory).await.commit("g", commit(None, 9)).await.unwrap();
    memory.reads.send_replace(Reads::Wait);
    let coordinator = GroupCoordinator::new(config(), Box::new(memory.clone()));
    let started = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.start().await }
    });
    wait_until("the load starts", || coordinator.shards.is_loading()).await;
    let loading = Err(GroupError::CoordinatorLoadInProgress);
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), loading);
    assert_eq!(coordinator.commit("g", commit(None, 10)).await, loading);
    assert_eq!(coordinator.join("g", join("", 10_000)).await.map(drop).map_err(|rejected| rejected.error), loading);
    assert_eq!(coordinator.list().map(drop), loading);
    memory.reads.send_replace(Reads::Work);
    started.await.unwrap();
    assert_eq!(committed(&coordinator, "g"), Some(9));
}

#[tokio::test]
async fn a_group_whose_log_cannot_be_read_is_not_served() {
    let memory = Memory::new();
    start(&memory).await.commit("g", commit(None, 9)).await.unwrap();
    memory.reads.send_replace(Reads::Fail);
    let coordinator = start(&memory).await;
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(coordinator.commit("g", commit(None, 1)).await, Err(GroupError::CoordinatorNotAvailable));
}

#[tokio::test]
async fn waiting_requests_end_when_the_broker_stops() {
    let coordinator = start(&Memory::new()).await;
    let first = join_alone(&coordinator, "g", join("", 10_000)).await;
    let waiting = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.join("g", join("", 10_000)).await }
    });
    let caller = Caller { member_id: &first.member_id, instance_id: None };
    wait_until("the second member joins", || coordinator.heartbeat("g", caller, 1) != Ok(())).await;
    coordinator.stop();
    assert_eq!(waiting.await.unwrap().unwrap_err().error, GroupError::NotCoordinator);
    assert_eq!(coordinator.heartbeat("g", caller, 1), Err(GroupError::NotCoordinator));
}

#[tokio::test]
async fn a_topic_that_is_created_later_is_served_then() {
    let memory = Memory::new();
    *memory.created.lock() = false;
    let coordinator = start(&memory).await;
    assert!(!coordinator.has_topic());
    assert_eq!(coordinator.commit("g", commit(None, 1)).await, Err(GroupError::NotCoordinator));
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), Err(GroupError::NotCoordinator));
    assert_eq!(coordinator.list(), Ok(Vec::new()));
    memory.reads.send_replace(Reads::Wait);
    *memory.created.lock() = true;
    coordinator.roles_changed();
    assert_eq!(coordinator.commit("g", commit(None, 1)).await, Ok(()), "an empty log needs no load");
    // The topic is deleted, and created again.
    *memory.created.lock() = false;
    memory.logs.lock().clear();
    coordinator.topic_deleted(super::log::CONSUMER_OFFSETS);
    assert!(!coordinator.has_topic());
    *memory.created.lock() = true;
    coordinator.roles_changed();
    assert_eq!(committed(&coordinator, "g"), None);
}

#[tokio::test]
async fn a_record_of_an_older_leader_epoch_is_not_acknowledged() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    memory.flushed.send_replace(false);
    let pending = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.commit("g", commit(None, 7)).await }
    });
    wait_until("the offset is appended", || memory.batches() > 0).await;
    memory.lead("g", Some(1));
    memory.flushed.send_replace(true);
    assert_eq!(pending.await.unwrap(), Err(GroupError::NotCoordinator));
    assert_eq!(committed(&coordinator, "g"), None);
    assert_eq!(coordinator.commit("g", commit(None, 8)).await, Err(GroupError::NotCoordinator), "not loaded again");
    assert_eq!(memory.batches(), 1);
    coordinator.roles_changed();
    wait_until("the log is loaded", || !coordinator.shards.is_loading()).await;
    assert_eq!(committed(&coordinator, "g"), Some(7), "the new epoch has what is in the log");
    assert_eq!(coordinator.commit("g", commit(None, 8)).await, Ok(()));
}

#[tokio::test]
async fn a_deleted_group_is_gone_with_its_offsets_once_that_is_committed() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("g", commit(None, 9)).await.unwrap();
    memory.flushed.send_replace(false);
    let batches = memory.batches();
    let pending = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.delete_group("g").await }
    });
    wait_until("the tombstones are appended", || memory.batches() == batches + 2).await;
    assert!(!pending.is_finished());
    assert_eq!(committed(&coordinator, "g"), Some(9));
    memory.flushed.send_replace(true);
    assert_eq!(pending.await.unwrap(), Ok(()));
    assert_eq!(committed(&coordinator, "g"), None);
    assert!(coordinator.list().unwrap().is_empty());
    assert_eq!(coordinator.delete_group("g").await, Err(GroupError::GroupIdNotFound));
    assert_eq!(coordinator.delete_group("").await, Err(GroupError::GroupIdNotFound));
    let after = start(&memory).await;
    assert!(after.list().unwrap().is_empty());
    assert_eq!(committed(&after, "g"), None);
}

#[tokio::test]
async fn a_group_with_members_is_not_deleted_and_one_that_they_left_is() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    let member = join_alone(&coordinator, "g", join("", 10_000)).await;
    coordinator.commit("g", commit(Some(&member), 9)).await.unwrap();
    assert_eq!(coordinator.delete_group("g").await, Err(GroupError::NonEmptyGroup));
    assert_eq!(committed(&coordinator, "g"), Some(9));
    coordinator.leave("g", &[Caller { member_id: &member.member_id, instance_id: None }]).unwrap();
    assert_eq!(coordinator.delete_group("g").await, Ok(()));
    assert!(start(&memory).await.list().unwrap().is_empty());
}

#[tokio::test]
async fn a_commit_that_comes_during_the_deletion_survives_it() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("g", commit(None, 9)).await.unwrap();
    memory.flushed.send_replace(false);
    let batches = memory.batches();
    let deletion = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.delete_group("g").await }
    });
    wait_until("the tombstones are appended", || memory.batches() == batches + 2).await;
    let later = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.commit("g", commit(None, 10)).await }
    });
    wait_until("the offset is appended", || memory.batches() == batches + 3).await;
    memory.flushed.send_replace(true);
    assert_eq!((deletion.await.unwrap(), later.await.unwrap()), (Ok(()), Ok(())));
    assert_eq!(committed(&coordinator, "g"), Some(10));
    assert_eq!(committed(&start(&memory).await, "g"), Some(10));
}

/// Returns a consumer's subscription to one topic, version 0.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, topic.len() as u8];
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(&[0xff; 4]);
    Bytes::from(bytes)
}

fn subscribed(topic: &str) -> JoinRequest {
    let protocols = vec![Protocol { name: arc("range"), metadata: subscription(topic) }];
    JoinRequest { protocols, ..join("", 10_000) }
}

#[tokio::test]
async fn offsets_of_a_topic_without_a_subscription_can_be_deleted() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    let member = join_alone(&coordinator, "g", subscribed("other")).await;
    coordinator.commit("g", commit(Some(&member), 9)).await.unwrap();
    let asked = [(arc("t"), 1), (arc("t"), 5), (arc("other"), 0)];
    let results = coordinator.delete_offsets("g", &asked).await.unwrap();
    assert_eq!(results, [Ok(()), Ok(()), Err(GroupError::GroupSubscribedToTopic)]);
    assert_eq!(committed(&coordinator, "g"), None);
    assert_eq!(committed(&start(&memory).await, "g"), None);
    assert_eq!(coordinator.delete_offsets("nobody's", &asked).await, Err(GroupError::GroupIdNotFound));
}

#[tokio::test]
async fn an_offset_that_is_deleted_during_an_earlier_commit_stays_deleted() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("g", commit(None, 9)).await.unwrap();
    // The commit is appended before the tombstone, and applied after it.
    let batches = memory.batches();
    memory.held.send_replace(Some(1));
    let earlier = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.commit("g", commit(None, 10)).await }
    });
    wait_until("the offset is appended", || memory.batches() == batches + 1).await;
    assert_eq!(coordinator.delete_offsets("g", &[(arc("t"), 1)]).await, Ok(vec![Ok(())]));
    assert_eq!(committed(&coordinator, "g"), None);
    assert!(!earlier.is_finished());
    memory.held.send_replace(None);
    assert_eq!(earlier.await.unwrap(), Ok(()));
    assert_eq!(committed(&start(&memory).await, "g"), None, "the log");
    assert_eq!(committed(&coordinator, "g"), None, "memory");
    coordinator.commit("g", commit(None, 11)).await.unwrap();
    assert_eq!(committed(&coordinator, "g"), Some(11));
}

#[tokio::test]
async fn offsets_are_kept_where_the_subscription_is_unknown() {
    let coordinator = start(&Memory::new()).await;
    let member = join_alone(&coordinator, "consumers", join("", 10_000)).await;
    coordinator.commit("consumers", commit(Some(&member), 9)).await.unwrap();
    let results = coordinator.delete_offsets("consumers", &[(arc("t"), 1)]).await.unwrap();
    assert_eq!(results, [Err(GroupError::GroupSubscribedToTopic)]);
    let connect = JoinRequest { protocol_type: arc("connect"), ..join("", 10_000) };
    let member = join_alone(&coordinator, "connect", connect).await;
    let deleted = coordinator.delete_offsets("connect", &[(arc("t"), 1)]).await;
    assert_eq!(deleted, Err(GroupError::NonEmptyGroup));
    coordinator.leave("connect", &[Caller { member_id: &member.member_id, instance_id: None }]).unwrap();
    assert_eq!(coordinator.delete_offsets("connect", &[(arc("t"), 1)]).await, Ok(vec![Ok(())]));
}

#[tokio::test]
async fn a_deletion_that_cannot_be_written_changes_nothing() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("g", commit(None, 9)).await.unwrap();
    // The tombstone of the group fits; that of the offset, with its longer key, does not.
    let lengths: Vec<usize> = {
        let mut group = super::log::Batch::at(0);
        group.group_tombstone("g").unwrap();
        let mut offset = super::log::Batch::at(0);
        offset.offset_tombstone("g", "t", 1).unwrap();
        [group, offset].map(|batch| batch.build().unwrap().len()).into()
    };
    assert!(lengths[0] < lengths[1]);
    *memory.batch_bytes_max.lock() = lengths[0];
    assert_eq!(coordinator.delete_group("g").await, Err(GroupError::WriteFailed));
    assert_eq!(committed(&coordinator, "g"), Some(9));
    assert_eq!(committed(&start(&memory).await, "g"), Some(9));
}
