//! The coordinator over a log in memory, in real time: what is awaited are answers, never the clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millstream_record::{BatchView, patch};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::commits::{CommitRequest, OffsetToCommit};
use super::config::GroupConfig;
use super::coordinator::{GroupCoordinator, wall_ms};
use super::model::*;
use super::storage::{Appended, Later, Storage};

const PARTITIONS: i32 = 4;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the condition is true.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let looked = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looked).await.is_ok(), "waited {PATIENCE:?} in vain: {what}");
}

/// What a read of the log does.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    Wait,
    Work,
    Fail,
}

/// Partitions in memory. What is appended becomes durable when `flushed` says so.
#[derive(Clone)]
struct Memory {
    logs: Arc<Mutex<BTreeMap<i32, Vec<Bytes>>>>,
    created: Arc<Mutex<bool>>,
    flushed: watch::Sender<bool>,
    reads: watch::Sender<Reads>,
}

impl Memory {
    fn new() -> Self {
        let logs = Arc::default();
        let (flushed, reads) = (watch::Sender::new(true), watch::Sender::new(Reads::Work));
        Self { logs, created: Arc::default(), flushed, reads }
    }

    fn batches(&self) -> usize {
        self.logs.lock().values().map(Vec::len).sum()
    }
}

fn next_offset(log: &[Bytes]) -> i64 {
    log.last().map_or(0, |batch| BatchView::parse(batch).unwrap().next_offset())
}

impl Storage for Memory {
    fn partitions(&self) -> i32 {
        if *self.created.lock() { PARTITIONS } else { 0 }
    }

    fn create(&self) -> Later<i32> {
        *self.created.lock() = true;
        Box::pin(async { Ok(PARTITIONS) })
    }

    fn append(&self, partition: i32, batch: Bytes) -> Result<Appended, GroupError> {
        let mut logs = self.logs.lock();
        let log = logs.entry(partition).or_default();
        let base_offset = next_offset(log);
        let mut batch = BytesMut::from(&batch[..]);
        patch::set_base_offset(&mut batch, base_offset);
        log.push(batch.freeze());
        let mut flushed = self.flushed.subscribe();
        let durable = Box::pin(async move {
            flushed.wait_for(|flushed| *flushed).await.map(drop).map_err(|_| GroupError::WriteFailed)
        });
        Ok(Appended { base_offset, durable })
    }

    fn read(&self, partition: i32, offset: i64, _max_bytes: usize) -> Result<Bytes, String> {
        let mut reads = self.reads.subscribe();
        let gate = async { *reads.wait_for(|reads| *reads != Reads::Wait).await.unwrap() };
        if tokio::runtime::Handle::current().block_on(gate) == Reads::Fail {
            return Err("the disk is gone".to_owned());
        }
        let logs = self.logs.lock();
        let after = |batch: &&Bytes| BatchView::parse(batch).unwrap().next_offset() > offset;
        Ok(logs.get(&partition).and_then(|log| log.iter().find(after).cloned()).unwrap_or_default())
    }
}

fn config() -> GroupConfig {
    GroupConfig { initial_rebalance_delay: Duration::ZERO, min_session_timeout_ms: 1, ..GroupConfig::default() }
}

async fn start(memory: &Memory) -> Arc<GroupCoordinator> {
    let coordinator = GroupCoordinator::new(config(), Box::new(memory.clone()));
    coordinator.start().await;
    coordinator
}

fn arc(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn join(member_id: &str, session_timeout_ms: i32) -> JoinRequest {
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

fn sync(member: &Joined, instance: Option<&str>, give: &[&str]) -> SyncRequest {
    SyncRequest {
        member_id: Arc::clone(&member.member_id),
        instance_id: instance.map(arc),
        generation: member.generation,
        protocol_type: None,
        protocol: None,
        assignments: give.iter().map(|id| (arc(id), Bytes::from(format!("of {id}")))).collect(),
    }
}

fn commit(member: Option<&Joined>, offset: i64) -> CommitRequest<'_> {
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

fn committed(coordinator: &Arc<GroupCoordinator>, group: &str) -> Option<i64> {
    let found = coordinator.fetch_offsets(group, &[(arc("t"), 1)]).unwrap();
    Some(found.get("t")?.get(&1)?.offset)
}

/// Joins alone and owns everything.
async fn join_alone(coordinator: &Arc<GroupCoordinator>, group: &str, request: JoinRequest) -> Joined {
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
    let told = |answer| answer == Err(GroupError::RebalanceInProgress);
    let caller = Caller { member_id: &first.member_id, instance_id: None };
    until("the first member is told", || told(coordinator.heartbeat("g", caller, 1))).await;
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
async fn the_timers_remove_a_member_that_is_silent() {
    let coordinator = start(&Memory::new()).await;
    let first = join_alone(&coordinator, "g", join("", 100)).await;
    // The first one never joins again: this ends when its session does, long before the rebalance time-out.
    let second = coordinator.join("g", join("", 10_000)).await.unwrap();
    assert_eq!((second.generation, second.members.len()), (2, 1));
    assert_ne!(second.member_id, first.member_id);
}

#[tokio::test]
async fn an_id_that_was_never_used_leaves_no_group_behind() {
    let coordinator = start(&Memory::new()).await;
    let request = JoinRequest { requires_known_member_id: true, ..join("", 50) };
    let refused = coordinator.join("g", request).await.unwrap_err();
    assert_eq!(refused.error, GroupError::MemberIdRequired);
    assert!(refused.member_id.starts_with("client-"));
    until("the group is gone", || coordinator.list().unwrap().is_empty()).await;
    let late = coordinator.join("g", join(&refused.member_id, 50)).await;
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
    until("the record is appended", || memory.batches() > 0).await;
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
async fn a_topic_that_is_deleted_takes_its_offsets_along_for_good() {
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
    coordinator.expire_offsets(wall_ms() + retention_ms - 60_000);
    assert_eq!(committed(&coordinator, "simple"), Some(9));
    coordinator.expire_offsets(wall_ms() + retention_ms);
    assert_eq!(committed(&coordinator, "simple"), None);
    // What the live member subscribes to cannot be told from its metadata, so its offsets stay.
    assert_eq!(committed(&coordinator, "live"), Some(9));
    let ids = |of: &Arc<GroupCoordinator>| of.list().unwrap().into_iter().map(|group| group.id).collect::<Vec<_>>();
    assert_eq!(ids(&coordinator), [arc("live")]);
    assert_eq!(ids(&start(&memory).await), [arc("live")]);
}

#[tokio::test]
async fn an_offset_with_a_retention_of_its_own_expires_by_it() {
    let coordinator = start(&Memory::new()).await;
    coordinator.commit("g", CommitRequest { retention_ms: Some(1_000), ..commit(None, 9) }).await.unwrap();
    coordinator.expire_offsets(wall_ms());
    assert_eq!(committed(&coordinator, "g"), Some(9));
    coordinator.expire_offsets(wall_ms() + 1_000);
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
    until("the load begins", || coordinator.is_loading()).await;
    let loading = Err(GroupError::CoordinatorLoadInProgress);
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), loading);
    assert_eq!(coordinator.commit("g", commit(None, 10)).await, loading);
    assert_eq!(coordinator.join("g", join("", 10_000)).await.map(drop).map_err(|refused| refused.error), loading);
    assert_eq!(coordinator.list().map(drop), loading);
    memory.reads.send_replace(Reads::Work);
    started.await.unwrap();
    assert_eq!(committed(&coordinator, "g"), Some(9));
}

#[tokio::test]
async fn a_group_whose_log_cannot_be_read_is_refused_rather_than_started_from_nothing() {
    let memory = Memory::new();
    start(&memory).await.commit("g", commit(None, 9)).await.unwrap();
    memory.reads.send_replace(Reads::Fail);
    let coordinator = start(&memory).await;
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(coordinator.commit("g", commit(None, 1)).await, Err(GroupError::CoordinatorNotAvailable));
}

#[tokio::test]
async fn those_who_wait_are_answered_when_the_broker_stops() {
    let coordinator = start(&Memory::new()).await;
    let first = join_alone(&coordinator, "g", join("", 10_000)).await;
    let waiting = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.join("g", join("", 10_000)).await }
    });
    let caller = Caller { member_id: &first.member_id, instance_id: None };
    until("the rebalance begins", || coordinator.heartbeat("g", caller, 1) != Ok(())).await;
    coordinator.stop();
    assert_eq!(waiting.await.unwrap().unwrap_err().error, GroupError::NotCoordinator);
    assert_eq!(coordinator.heartbeat("g", caller, 1), Err(GroupError::NotCoordinator));
}

#[tokio::test]
async fn a_group_is_deleted_with_its_offsets_once_it_is_empty() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    let delete = async |group| match coordinator.delete_group(group) {
        Ok(durable) => durable.await,
        Err(error) => Err(error),
    };
    coordinator.commit("simple", commit(None, 9)).await.unwrap();
    let member = join_alone(&coordinator, "g", join("", 10_000)).await;
    coordinator.commit("g", commit(Some(&member), 3)).await.unwrap();
    assert_eq!(delete("g").await, Err(GroupError::NonEmptyGroup));
    assert_eq!(delete("nobody's").await, Err(GroupError::GroupIdNotFound));
    coordinator.leave("g", &[Caller { member_id: &member.member_id, instance_id: None }]).unwrap();
    assert_eq!(delete("g").await, Ok(()));
    assert_eq!(delete("g").await, Err(GroupError::GroupIdNotFound));
    assert_eq!((committed(&coordinator, "g"), committed(&coordinator, "simple")), (None, Some(9)));
    let after = start(&memory).await;
    assert_eq!((committed(&after, "g"), committed(&after, "simple")), (None, Some(9)));
    let ids: Vec<_> = after.list().unwrap().into_iter().map(|group| group.id).collect();
    assert_eq!(ids, [arc("simple")]);
}

/// The commit's record lies before the tombstones, so that the log says that the offset is gone.
#[tokio::test]
async fn a_commit_that_is_under_way_does_not_bring_a_deleted_group_back() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("g", commit(None, 7)).await.unwrap();
    memory.flushed.send_replace(false);
    let written = memory.batches();
    let pending = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.commit("g", commit(None, 8)).await }
    });
    until("the commit is appended", || memory.batches() > written).await;
    let deleted = coordinator.delete_group("g").unwrap();
    memory.flushed.send_replace(true);
    assert_eq!((pending.await.unwrap(), deleted.await), (Ok(()), Ok(())));
    assert_eq!(committed(&coordinator, "g"), None);
    assert!(coordinator.list().unwrap().is_empty());
    assert_eq!(committed(&start(&memory).await, "g"), None);
}

#[tokio::test]
async fn offsets_of_topics_that_nobody_subscribes_to_are_deleted() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    let asked = [(arc("t"), 1), (arc("other"), 0)];
    let delete = async |group| {
        let (results, durable) = coordinator.delete_offsets(group, &asked)?;
        durable.await.map(|()| results)
    };
    assert_eq!(delete("nobody's").await, Err(GroupError::CoordinatorNotAvailable));
    coordinator.commit("simple", commit(None, 9)).await.unwrap();
    assert_eq!(delete("nobody's").await, Err(GroupError::GroupIdNotFound));
    assert_eq!(delete("simple").await, Ok(vec![Ok(()), Ok(())]));
    assert_eq!(committed(&coordinator, "simple"), None);

    // What a member of the type `consumer` says in other bytes than a subscription may be any topic.
    let member = join_alone(&coordinator, "unknown", join("", 10_000)).await;
    coordinator.commit("unknown", commit(Some(&member), 3)).await.unwrap();
    assert_eq!(delete("unknown").await, Ok(vec![Err(GroupError::SubscribedToTopic); 2]));
    // Version 0 with the one topic `t`, without user data.
    let metadata = Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff]);
    let protocols = vec![Protocol { name: arc("range"), metadata }];
    let member = join_alone(&coordinator, "consumers", JoinRequest { protocols, ..join("", 10_000) }).await;
    coordinator.commit("consumers", commit(Some(&member), 3)).await.unwrap();
    assert_eq!(delete("consumers").await, Ok(vec![Err(GroupError::SubscribedToTopic), Ok(())]));
    let workers = JoinRequest { protocol_type: arc("connect"), ..join("", 10_000) };
    join_alone(&coordinator, "workers", workers).await;
    assert_eq!(delete("workers").await, Err(GroupError::NonEmptyGroup));
    assert_eq!((committed(&coordinator, "unknown"), committed(&coordinator, "consumers")), (Some(3), Some(3)));
    assert_eq!(committed(&start(&memory).await, "simple"), None);
}
