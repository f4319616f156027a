//! The coordinator follows the leaders of its partitions: loads, unloads, and what happens to requests meanwhile.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::classic::model::*;
use super::coordinator::GroupCoordinator;
use super::coordinator_tests::*;

type Joining = JoinHandle<JoinReply>;

fn spawn_join(coordinator: &Arc<GroupCoordinator>, group: &'static str) -> Joining {
    let coordinator = Arc::clone(coordinator);
    tokio::spawn(async move { coordinator.join(group, join("", 10_000)).await })
}

fn spawn_commit(coordinator: &Arc<GroupCoordinator>, offset: i64) -> JoinHandle<Result<(), GroupError>> {
    let coordinator = Arc::clone(coordinator);
    tokio::spawn(async move { coordinator.commit("g", commit(None, offset)).await })
}

async fn loaded(coordinator: &Arc<GroupCoordinator>) {
    wait_until("the logs are loaded", || !coordinator.shards.is_loading()).await;
}

fn ids(coordinator: &Arc<GroupCoordinator>) -> Vec<String> {
    coordinator.list().unwrap().into_iter().map(|group| group.id.to_string()).collect()
}

#[tokio::test]
async fn groups_are_dropped_with_the_leadership_and_loaded_with_it() {
    let memory = Memory::new();
    memory.lead("g", None);
    // "h" is in another partition than "g".
    let [one, two] = [start(&memory).await, start(&memory).await];
    assert_eq!(one.commit("g", commit(None, 1)).await, Err(GroupError::NotCoordinator));
    assert_eq!(one.commit("h", commit(None, 5)).await, Ok(()));
    assert_eq!(ids(&one), ["h"]);
    memory.lead("g", Some(3));
    two.roles_changed();
    assert_eq!(two.commit("g", commit(None, 1)).await, Ok(()));
    join_alone(&two, "g", join("", 10_000)).await;
    assert_eq!(ids(&two), ["g"]);
    memory.lead("g", None);
    two.roles_changed();
    assert_eq!(ids(&two), [""; 0]);
    let lost = GroupError::NotCoordinator;
    assert_eq!(two.fetch_all_offsets("g").map(drop), Err(lost));
    assert_eq!(two.delete_group("g").await, Err(lost));
    assert_eq!(two.describe("g").map(drop), Err(lost));
    assert_eq!(two.delete_offsets("g", &[]).await, Err(lost));
    memory.lead("g", Some(4));
    one.roles_changed();
    loaded(&one).await;
    assert_eq!(ids(&one), ["g", "h"], "the other partition was not touched");
    assert_eq!((committed(&one, "g"), committed(&one, "h")), (Some(1), Some(5)));
    assert_eq!(one.describe("g").unwrap().state, "Stable");
}

#[tokio::test]
async fn waiting_requests_end_with_the_leadership() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    let first = join_alone(&coordinator, "g", join("", 10_000)).await;
    let waiting = spawn_join(&coordinator, "g");
    let caller = Caller { member_id: &first.member_id, instance_id: None };
    wait_until("the second member joins", || coordinator.heartbeat("g", caller, 1) != Ok(())).await;
    let other = coordinator.join("h", join("", 10_000)).await.unwrap();
    memory.flushed.send_replace(false);
    let own = sync(&other, None, &[&other.member_id]);
    let syncing = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.sync("h", own).await }
    });
    wait_until("the assignment is appended", || memory.batches() == 2).await;
    for group in ["g", "h"] {
        memory.lead(group, None);
    }
    coordinator.roles_changed();
    assert_eq!(waiting.await.unwrap().unwrap_err().error, GroupError::NotCoordinator);
    assert_eq!(syncing.await.unwrap().unwrap_err(), GroupError::NotCoordinator);
    assert_eq!(coordinator.heartbeat("g", caller, 1), Err(GroupError::NotCoordinator));
}

#[tokio::test]
async fn a_timer_of_an_unloaded_group_is_gone() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    join_alone(&coordinator, "g", join("", 10_000)).await;
    assert!(coordinator.has_timers());
    memory.lead("g", None);
    coordinator.roles_changed();
    assert!(!coordinator.has_timers());
    memory.lead("g", Some(1));
    coordinator.roles_changed();
    loaded(&coordinator).await;
    wait_until("the loaded member has a deadline", || coordinator.has_timers()).await;
}

#[tokio::test]
async fn a_commit_fails_if_the_leadership_is_lost_before_it_is_committed() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("g", commit(None, 1)).await.unwrap();
    memory.flushed.send_replace(false);
    let pending = spawn_commit(&coordinator, 2);
    wait_until("the offset is appended", || memory.batches() == 2).await;
    // Another broker leads for one epoch, and has not seen the second offset.
    memory.logs.lock().values_mut().for_each(|log| log.truncate(1));
    memory.lead("g", Some(2));
    coordinator.roles_changed();
    memory.flushed.send_replace(true);
    assert_eq!(pending.await.unwrap(), Err(GroupError::NotCoordinator));
    loaded(&coordinator).await;
    assert_eq!(committed(&coordinator, "g"), Some(1));
}

#[tokio::test]
async fn a_late_commit_of_an_old_epoch_does_not_change_the_loaded_group() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("g", commit(None, 1)).await.unwrap();
    memory.held.send_replace(Some(1));
    let pending = spawn_commit(&coordinator, 2);
    wait_until("the offset is appended", || memory.batches() == 2).await;
    memory.logs.lock().values_mut().for_each(|log| log.truncate(1));
    memory.lead("g", Some(1));
    coordinator.roles_changed();
    loaded(&coordinator).await;
    // The log reports the commit of the old write as if its epoch had not passed.
    memory.lead("g", Some(0));
    memory.held.send_replace(None);
    assert_eq!(pending.await.unwrap(), Err(GroupError::NotCoordinator));
    assert_eq!(committed(&coordinator, "g"), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_overtaken_installs_nothing() {
    let memory = Memory::new();
    start(&memory).await.commit("g", commit(None, 1)).await.unwrap();
    memory.lead("g", None);
    let coordinator = start(&memory).await;
    // The load of epoch 1 is slow, and the leadership is lost meanwhile.
    memory.reads.send_replace(Reads::Wait);
    memory.lead("g", Some(1));
    coordinator.roles_changed();
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), Err(GroupError::CoordinatorLoadInProgress));
    coordinator.roles_changed();
    wait_until("one load waits", || memory.waiting_reads() == 1).await;
    memory.lead("g", None);
    coordinator.roles_changed();
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), Err(GroupError::NotCoordinator));
    // Epoch 3 begins before the load of epoch 1 ends.
    memory.lead("g", Some(3));
    coordinator.roles_changed();
    wait_until("both loads wait", || memory.waiting_reads() == 2).await;
    memory.reads.send_replace(Reads::Work);
    loaded(&coordinator).await;
    assert_eq!(committed(&coordinator, "g"), Some(1));
    assert_eq!(coordinator.commit("g", commit(None, 4)).await, Ok(()));
    assert_eq!(committed(&coordinator, "g"), Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_whose_epoch_ends_unnoticed_is_not_served() {
    let memory = Memory::new();
    start(&memory).await.commit("g", commit(None, 1)).await.unwrap();
    memory.reads.send_replace(Reads::Wait);
    memory.lead("g", Some(1));
    let coordinator = GroupCoordinator::new(config(), Box::new(memory.clone()));
    coordinator.roles_changed();
    wait_until("the load starts", || memory.waiting_reads() == 1).await;
    let ended = coordinator.shards.load_ended.notified();
    // The log has another leader already. The call that reports it comes later.
    memory.lead("g", None);
    memory.reads.send_replace(Reads::Work);
    ended.await;
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), Err(GroupError::CoordinatorLoadInProgress));
    coordinator.roles_changed();
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), Err(GroupError::NotCoordinator));
}

#[tokio::test]
async fn a_failed_load_is_tried_again_in_the_next_epoch() {
    let memory = Memory::new();
    start(&memory).await.commit("g", commit(None, 1)).await.unwrap();
    memory.reads.send_replace(Reads::Fail);
    let coordinator = start(&memory).await;
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), Err(GroupError::CoordinatorNotAvailable));
    memory.reads.send_replace(Reads::Work);
    coordinator.roles_changed();
    assert_eq!(coordinator.fetch_all_offsets("g").map(drop), Err(GroupError::CoordinatorNotAvailable));
    memory.lead("g", Some(1));
    coordinator.roles_changed();
    loaded(&coordinator).await;
    assert_eq!(committed(&coordinator, "g"), Some(1));
}

#[tokio::test]
async fn offsets_expire_only_where_their_partition_is_led() {
    let memory = Memory::new();
    let [old, new] = [start(&memory).await, start(&memory).await];
    old.commit("g", commit(None, 1)).await.unwrap();
    memory.lead("g", None);
    old.roles_changed();
    let batches = memory.batches();
    old.expire_offsets(i64::MAX);
    old.topic_deleted("t");
    assert_eq!(memory.batches(), batches);
    memory.lead("g", Some(1));
    new.roles_changed();
    loaded(&new).await;
    assert_eq!(committed(&new, "g"), Some(1));
    new.expire_offsets(i64::MAX);
    assert_eq!(committed(&new, "g"), None);
    assert_eq!(memory.batches(), batches + 2, "the tombstones of the offset and of the group");
}

/// The leader goes on in the same epoch: nothing loads the log again.
#[tokio::test]
async fn a_leader_that_was_suspended_applies_what_it_has_appended() {
    let memory = Memory::new();
    let coordinator = start(&memory).await;
    coordinator.commit("h", commit(None, 1)).await.unwrap();
    memory.flushed.send_replace(false);
    let batches = memory.batches();
    let pending = spawn_commit(&coordinator, 2);
    let deleting = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { coordinator.delete_group("h").await }
    });
    wait_until("the offset and two tombstones are appended", || memory.batches() == batches + 3).await;
    memory.suspended.send_replace(true);
    assert_eq!(pending.await.unwrap(), Err(GroupError::NotCoordinator), "the client does not wait");
    assert_eq!(deleting.await.unwrap(), Err(GroupError::NotCoordinator));
    let old = coordinator.fetch_offsets("h", &[(arc("t"), 1)]);
    assert_eq!(old, Err(GroupError::NotCoordinator), "another broker may have changed it");
    memory.suspended.send_replace(false);
    assert_eq!((committed(&coordinator, "g"), committed(&coordinator, "h")), (None, Some(1)));
    memory.flushed.send_replace(true);
    wait_until("the offset is applied", || committed(&coordinator, "g") == Some(2)).await;
    wait_until("the deletion is applied", || committed(&coordinator, "h").is_none()).await;
}
