//! Members without heartbeats and ids that are never used.

use super::*;
use crate::group::config::NEW_MEMBER_JOIN_TIMEOUT_MS;

#[test]
fn an_unused_id_expires_with_the_session_timeout() {
    let mut f = Fixture::new();
    let ticket = f.join(JoinRequest { requires_known_member_id: true, ..join("") });
    assert_eq!(f.rejected(ticket), GroupError::MemberIdRequired);
    f.pass(SESSION_MS - 1);
    assert!(!f.group.is_untouched());
    f.pass(1);
    assert!(f.group.is_untouched());
    let late = f.join(join("m1"));
    assert_eq!(f.rejected(late), GroupError::UnknownMemberId);
}

#[test]
fn a_member_without_heartbeats_is_removed_and_a_live_one_stays() {
    let mut f = Fixture::new();
    let (first, second) = f.stable_with_two();
    for _ in 0..3 {
        f.pass(SESSION_MS / 2);
        let expected =
            if f.group.state() == ClassicState::Stable { Ok(()) } else { Err(GroupError::RebalanceInProgress) };
        assert_eq!(f.heartbeat(&second, 2), expected);
    }
    assert_eq!(f.group.state(), ClassicState::PreparingRebalance);
    assert_eq!(f.heartbeat(&first, 2), Err(GroupError::UnknownMemberId));
    let again = f.join(join(&second));
    assert_eq!(f.joined(again).members.len(), 1);
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_removed_despite_heartbeats() {
    let mut f = Fixture::new();
    let (first, second) = f.stable_with_two();
    let again = f.join(join(&first));
    for _ in 0..(REBALANCE_MS / 5_000) {
        assert!(!f.joins.contains_key(&again));
        assert_eq!(f.heartbeat(&second, 2), Err(GroupError::RebalanceInProgress));
        f.pass(5_000);
    }
    assert_eq!(f.joined(again).members.len(), 1, "a member with a waiting JoinGroup needs no heartbeats");
    assert_eq!(f.heartbeat(&second, 2), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_member_that_never_syncs_is_removed_after_the_rebalance_timeout() {
    let mut f = Fixture::new();
    let (first, second) = f.stable_with_two();
    let (a, b) = (f.join(join(&first)), f.join(join(&second)));
    assert_eq!((f.joined(a).generation, f.joined(b).generation), (3, 3));
    let leader = f.sync(&first, 3, &[(&*first, "a"), (&*second, "b")]);
    assert_eq!(f.assignment(leader), Ok("a".into()));
    for _ in 0..(REBALANCE_MS / 5_000) {
        assert_eq!(f.heartbeat(&second, 3), Ok(()));
        assert_eq!(f.heartbeat(&first, 3), Ok(()));
        f.pass(5_000);
    }
    assert_eq!(f.heartbeat(&second, 3), Err(GroupError::UnknownMemberId));
    assert_eq!(f.heartbeat(&first, 3), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_leader_that_never_syncs_is_replaced() {
    let mut f = Fixture::new();
    let (first, second) = f.stable_with_two();
    let (a, b) = (f.join(join(&first)), f.join(join(&second)));
    assert_eq!((f.joined(a).leader, f.joined(b).generation), (first.clone(), 3));
    let waits = f.sync(&second, 3, &[]);
    f.pass(SESSION_MS);
    assert_eq!(f.assignment(waits), Err(GroupError::RebalanceInProgress));
    let again = f.join(join(&second));
    assert_eq!(f.joined(again).leader, second);
}

#[test]
fn a_new_member_that_disconnects_while_it_waits_is_removed_after_five_minutes() {
    let mut f = Fixture::new();
    let first = f.stable_with_one();
    let long = JoinRequest { rebalance_timeout_ms: 3_600_000, ..join("") };
    let second = f.join(long.clone());
    let mut passed_ms = 0;
    while passed_ms < NEW_MEMBER_JOIN_TIMEOUT_MS {
        assert!(!f.joins.contains_key(&second));
        assert_eq!(f.heartbeat(&first, 1), Err(GroupError::RebalanceInProgress));
        f.pass(5_000);
        passed_ms += 5_000;
    }
    assert_eq!(f.rejected(second), GroupError::UnknownMemberId);
}
