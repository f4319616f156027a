//! Members with a `group.instance.id`, which keep their place over a restart (KIP-345).

use super::*;

fn stable(f: &mut Fixture) -> MemberId {
    let ticket = f.join(static_join("i"));
    let first = f.joined(ticket).member_id;
    let sync = f.sync_as(&first, Some("i"), 1, &[(&*first, "all")]);
    assert_eq!(f.assignment(sync), Ok("all".into()));
    first
}

#[test]
fn a_restart_keeps_the_generation_and_the_assignment_and_fences_the_old_self() {
    let mut f = Fixture::new();
    let old = stable(&mut f);
    let ticket = f.join(static_join("i"));
    let joined = f.joined(ticket);
    assert_eq!((joined.generation, joined.skip_assignment, joined.members.len()), (1, true, 1));
    assert_ne!(joined.member_id, old);
    assert_eq!(joined.leader, joined.member_id);
    let now = f.now();
    let zombie = Caller { member_id: &old, instance_id: Some("i") };
    assert_eq!(f.group.heartbeat(now, zombie, 1), Err(GroupError::FencedInstanceId));
    assert_eq!(f.group.may_commit(now, zombie, 1), Err(GroupError::FencedInstanceId));
    assert_eq!(f.leave_as(zombie), Err(GroupError::FencedInstanceId));
    let zombie = f.join(JoinRequest { member_id: old, ..static_join("i") });
    assert_eq!(f.rejected(zombie), GroupError::FencedInstanceId);
    let sync = f.sync_as(&joined.member_id, Some("i"), 1, &[]);
    assert_eq!(f.assignment(sync), Ok("all".into()));
}

#[test]
fn an_older_client_acts_as_a_follower() {
    let mut f = Fixture::new();
    let old = stable(&mut f);
    let ticket = f.join(JoinRequest { supports_skip_assignment: false, ..static_join("i") });
    let joined = f.joined(ticket);
    assert_eq!((joined.leader, joined.members, joined.skip_assignment), (old, vec![], false));
}

#[test]
fn a_restart_with_another_protocol_rebalances() {
    let mut f = Fixture::new();
    stable(&mut f);
    let other = JoinRequest { protocols: protocols(&["aaa", "range"]), ..static_join("i") };
    let ticket = f.join(other);
    let joined = f.joined(ticket);
    assert_eq!((joined.generation, joined.protocol.as_deref()), (2, Some("aaa")));
}

#[test]
fn a_replacement_that_cannot_be_written_is_undone() {
    let mut f = Fixture::new();
    let old = stable(&mut f);
    f.durable = false;
    let ticket = f.join(static_join("i"));
    assert!(f.joins.is_empty());
    let write = f.writes.pop().unwrap();
    f.finish(write.purpose, Err(GroupError::WriteFailed));
    assert_eq!(f.rejected(ticket), GroupError::WriteFailed);
    let now = f.now();
    assert_eq!(f.group.heartbeat(now, Caller { member_id: &old, instance_id: Some("i") }, 1), Ok(()));
    assert_eq!(f.group.awaiting_join, 0);
}

#[test]
fn without_heartbeats_it_keeps_its_place_for_its_session_timeout_through_a_rebalance() {
    let mut f = Fixture::new();
    let long = JoinRequest { session_timeout_ms: 600_000, ..static_join("i") };
    let ticket = f.join(long);
    let still = f.joined(ticket).member_id;
    f.sync_as(&still, Some("i"), 1, &[(&*still, "all")]);
    let second = f.join(join(""));
    f.pass(REBALANCE_MS);
    let joined = f.joined(second);
    assert_eq!((joined.generation, joined.members.len()), (2, 2), "the leader is the one that has joined");
    assert_eq!(joined.leader, joined.member_id);
}

#[test]
fn an_administrator_removes_it_by_its_instance_id() {
    let mut f = Fixture::new();
    stable(&mut f);
    let unknown = Caller { member_id: "", instance_id: Some("other") };
    assert_eq!(f.leave_as(unknown), Err(GroupError::UnknownMemberId));
    assert_eq!(f.leave_as(Caller { member_id: "", instance_id: Some("i") }), Ok(()));
    assert_eq!(f.group.state(), ClassicState::Empty);
}

#[test]
fn a_restart_during_a_rebalance_fences_the_join_that_waits() {
    let mut f = Fixture::new();
    stable(&mut f);
    let second = f.join(join(""));
    let pending = f.join(JoinRequest { requires_known_member_id: true, ..join("") });
    let pending = f.joins.remove(&pending).unwrap().unwrap_err().member_id;
    let once = f.join(static_join("i"));
    let twice = f.join(static_join("i"));
    assert_eq!(f.rejected(once), GroupError::FencedInstanceId);
    f.leave(&pending).unwrap();
    assert_eq!((f.joined(twice).generation, f.joined(second).generation), (2, 2));
}
