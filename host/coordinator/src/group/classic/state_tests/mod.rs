//! Tests the state machine with a clock that the test controls.

mod static_members;
mod timeouts;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::group::classic::model::*;
use crate::group::classic::state::{ClassicGroup, ClassicState};
use crate::group::config::GroupConfig;

const SESSION_MS: u64 = 10_000;
const REBALANCE_MS: u64 = 60_000;

/// A group, its clock, and the responses that it has sent.
struct Fixture {
    group: ClassicGroup,
    now_ms: u64,
    tickets: u64,
    joins: HashMap<u64, JoinReply>,
    syncs: HashMap<u64, SyncReply>,
    writes: Vec<Write>,
    /// Whether records become durable as soon as they are written.
    durable: bool,
}

fn arc(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn join(member_id: &str) -> JoinRequest {
    JoinRequest {
        member_id: arc(member_id),
        instance_id: None,
        client_id: arc("client"),
        client_host: arc("/127.0.0.1"),
        session_timeout_ms: SESSION_MS as i32,
        rebalance_timeout_ms: REBALANCE_MS as i32,
        protocol_type: arc("consumer"),
        protocols: protocols(&["range"]),
        requires_known_member_id: false,
        supports_skip_assignment: true,
    }
}

fn static_join(instance: &str) -> JoinRequest {
    JoinRequest { instance_id: Some(arc(instance)), ..join("") }
}

fn protocols(names: &[&str]) -> Vec<Protocol> {
    names.iter().map(|name| Protocol { name: arc(name), metadata: Bytes::from(format!("meta of {name}")) }).collect()
}

fn caller(member_id: &str) -> Caller<'_> {
    Caller { member_id, instance_id: None }
}

impl Fixture {
    fn new() -> Self {
        Self::with(GroupConfig { initial_rebalance_delay: Duration::ZERO, ..GroupConfig::default() })
    }

    fn with(config: GroupConfig) -> Self {
        let group = ClassicGroup::new(Arc::new(config), Now { mono_ms: 0, wall_ms: 1_000 });
        Self::of(group)
    }

    fn of(group: ClassicGroup) -> Self {
        let (joins, syncs) = (HashMap::new(), HashMap::new());
        Self { group, now_ms: 0, tickets: 0, joins, syncs, writes: Vec::new(), durable: true }
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: 1_000 + self.now_ms as i64 }
    }

    fn settle(&mut self, effects: Effects) {
        self.joins.extend(effects.joins.into_iter().map(|(ticket, reply)| (ticket.0, reply)));
        self.syncs.extend(effects.syncs.into_iter().map(|(ticket, reply)| (ticket.0, reply)));
        for write in effects.writes {
            if self.durable {
                self.finish(write.purpose, Ok(()));
            } else {
                self.writes.push(write);
            }
        }
    }

    fn finish(&mut self, purpose: WritePurpose, outcome: Result<(), GroupError>) {
        let mut effects = Effects::default();
        self.group.written(self.now(), purpose, outcome, &mut effects);
        self.settle(effects);
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Sends a JoinGroup and returns the number of its response. A new member gets the id `m<number>`.
    fn join(&mut self, request: JoinRequest) -> u64 {
        let ticket = self.ticket();
        let mut effects = Effects::default();
        self.group.join(self.now(), request, arc(&format!("m{}", ticket.0)), ticket, &mut effects);
        self.settle(effects);
        ticket.0
    }

    fn joined(&mut self, ticket: u64) -> Joined {
        self.joins.remove(&ticket).expect("the JoinGroup has its response").expect("the JoinGroup succeeds")
    }

    fn rejected(&mut self, ticket: u64) -> GroupError {
        self.joins
            .remove(&ticket)
            .expect("the JoinGroup has its response")
            .expect_err("the JoinGroup is rejected")
            .error
    }

    fn sync_as(&mut self, member_id: &str, instance: Option<&str>, generation: i32, give: &[(&str, &str)]) -> u64 {
        let ticket = self.ticket();
        let mut effects = Effects::default();
        let own = |(id, own): &(&str, &str)| (arc(id), Bytes::copy_from_slice(own.as_bytes()));
        let request = SyncRequest {
            member_id: arc(member_id),
            instance_id: instance.map(arc),
            generation,
            protocol_type: Some(arc("consumer")),
            protocol: None,
            assignments: give.iter().map(own).collect::<BTreeMap<_, _>>(),
        };
        self.group.sync(self.now(), request, ticket, &mut effects);
        self.settle(effects);
        ticket.0
    }

    fn sync(&mut self, member_id: &str, generation: i32, give: &[(&str, &str)]) -> u64 {
        self.sync_as(member_id, None, generation, give)
    }

    fn assignment(&mut self, ticket: u64) -> Result<Bytes, GroupError> {
        self.syncs.remove(&ticket).expect("the SyncGroup has its response").map(|synced| synced.assignment)
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        self.group.heartbeat(self.now(), caller(member_id), generation)
    }

    fn leave(&mut self, member_id: &str) -> Result<(), GroupError> {
        self.leave_as(caller(member_id))
    }

    fn leave_as(&mut self, caller: Caller<'_>) -> Result<(), GroupError> {
        let mut effects = Effects::default();
        let results = self.group.leave(self.now(), &[caller], &mut effects);
        self.settle(effects);
        results[0]
    }

    /// Lets time pass as the coordinator does: from one deadline to the next.
    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while let Some(at_ms) = self.group.wake_at_ms().filter(|at| *at <= until_ms) {
            self.now_ms = self.now_ms.max(at_ms);
            let mut effects = Effects::default();
            self.group.tick(self.now(), &mut effects);
            self.settle(effects);
            assert!(
                self.group.wake_at_ms().is_none_or(|at| at > self.now_ms),
                "the group asks to be woken at once again"
            );
        }
        self.now_ms = until_ms;
    }

    /// Returns a stable member that owns "all".
    fn stable_with_one(&mut self) -> MemberId {
        let first = self.join(join(""));
        let joined = self.joined(first);
        let sync = self.sync(&joined.member_id, joined.generation, &[(&*joined.member_id, "all")]);
        assert_eq!(self.assignment(sync).unwrap(), "all");
        assert_eq!(self.group.state(), ClassicState::Stable);
        joined.member_id
    }

    /// Returns two members, stable in generation 2; the first one leads.
    fn stable_with_two(&mut self) -> (MemberId, MemberId) {
        let first = self.stable_with_one();
        let second = self.join(join(""));
        let again = self.join(join(&first));
        let (first, second) = (self.joined(again), self.joined(second));
        let follower = self.sync(&second.member_id, 2, &[]);
        let leader = self.sync(&first.member_id, 2, &[(&*first.member_id, "a"), (&*second.member_id, "b")]);
        assert_eq!((self.assignment(leader).unwrap(), self.assignment(follower).unwrap()), ("a".into(), "b".into()));
        (first.member_id, second.member_id)
    }
}

#[test]
fn a_first_member_leads_and_gets_what_it_assigns() {
    let mut f = Fixture::new();
    let ticket = f.join(join(""));
    let joined = f.joined(ticket);
    assert_eq!((joined.generation, &*joined.leader, &*joined.member_id), (1, "m1", "m1"));
    assert_eq!((joined.protocol_type.as_deref(), joined.protocol.as_deref()), (Some("consumer"), Some("range")));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].metadata, "meta of range");
    assert_eq!(f.group.state(), ClassicState::CompletingRebalance);
    let sync = f.sync("m1", 1, &[("m1", "all"), ("a stranger", "nothing")]);
    assert_eq!(f.assignment(sync), Ok("all".into()));
    assert_eq!(f.group.state(), ClassicState::Stable);
}

#[test]
fn a_second_member_makes_the_first_join_again() {
    let mut f = Fixture::new();
    let first = f.stable_with_one();
    let second = f.join(join(""));
    assert_eq!(f.group.state(), ClassicState::PreparingRebalance);
    assert!(!f.joins.contains_key(&second), "it waits for the first member");
    assert_eq!(f.heartbeat(&first, 1), Err(GroupError::RebalanceInProgress));
    let again = f.join(join(&first));
    let (first, second) = (f.joined(again), f.joined(second));
    assert_eq!((first.generation, second.generation), (2, 2));
    assert_eq!((first.members.len(), second.members.len()), (2, 0));
    assert_eq!(second.leader, first.member_id);
    let follower = f.sync(&second.member_id, 2, &[]);
    assert!(!f.syncs.contains_key(&follower), "it waits for the leader");
    let leader = f.sync(&first.member_id, 2, &[(&*first.member_id, "a"), (&*second.member_id, "b")]);
    assert_eq!(f.assignment(leader), Ok("a".into()));
    assert_eq!(f.assignment(follower), Ok("b".into()));
}

#[test]
fn the_first_rebalance_waits_for_more_members_and_again_when_they_come() {
    let mut f =
        Fixture::with(GroupConfig { initial_rebalance_delay: Duration::from_millis(3_000), ..GroupConfig::default() });
    let first = f.join(join(""));
    f.pass(2_000);
    let second = f.join(join(""));
    f.pass(1_500);
    assert!(f.joins.is_empty(), "the second member has extended the delay");
    f.pass(2_500);
    assert_eq!((f.joined(first).generation, f.joined(second).generation), (1, 1));
}

#[test]
fn the_initial_delay_ends_at_the_rebalance_timeout_however_many_come() {
    let mut f =
        Fixture::with(GroupConfig { initial_rebalance_delay: Duration::from_millis(3_000), ..GroupConfig::default() });
    let first = f.join(JoinRequest { rebalance_timeout_ms: 7_000, ..join("") });
    for _ in 0..6 {
        f.pass(1_000);
        assert!(!f.joins.contains_key(&first));
        f.join(JoinRequest { rebalance_timeout_ms: 7_000, ..join("") });
    }
    f.pass(1_000);
    assert_eq!(f.joined(first).members.len(), 7);
}

#[test]
fn a_member_without_an_id_gets_one_from_v4_on() {
    let mut f = Fixture::new();
    let known = JoinRequest { requires_known_member_id: true, ..join("") };
    let ticket = f.join(known.clone());
    let rejected = f.joins.remove(&ticket).unwrap().unwrap_err();
    assert_eq!(rejected.error, GroupError::MemberIdRequired);
    assert_eq!(&*rejected.member_id, "m1");
    assert_eq!(f.group.state(), ClassicState::Empty);
    let again = f.join(JoinRequest { member_id: rejected.member_id, ..known });
    assert_eq!(&*f.joined(again).member_id, "m1");
}

#[test]
fn a_pending_member_holds_the_rebalance_until_it_gives_up() {
    let mut f = Fixture::new();
    let first = f.stable_with_one();
    let pending = f.join(JoinRequest { requires_known_member_id: true, ..join("") });
    let pending = f.joins.remove(&pending).unwrap().unwrap_err().member_id;
    assert_eq!(f.group.state(), ClassicState::Stable, "an id alone does not disturb the group");
    let again = f.join(join(&first));
    assert!(!f.joins.contains_key(&again));
    assert_eq!(f.leave(&pending), Ok(()));
    assert_eq!(f.joined(again).generation, 2);
}

#[test]
fn made_up_member_ids_are_rejected() {
    let mut f = Fixture::new();
    f.stable_with_one();
    let ticket = f.join(join("made up"));
    assert_eq!(f.rejected(ticket), GroupError::UnknownMemberId);
    assert_eq!(f.heartbeat("made up", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(f.leave("made up"), Err(GroupError::UnknownMemberId));
    assert_eq!(f.group.state(), ClassicState::Stable);
}

#[test]
fn a_leaving_member_makes_the_others_share() {
    let mut f = Fixture::new();
    let (first, second) = f.stable_with_two();
    assert_eq!(f.leave(&first), Ok(()));
    assert_eq!(f.group.state(), ClassicState::PreparingRebalance);
    assert_eq!(f.heartbeat(&second, 2), Err(GroupError::RebalanceInProgress));
    let again = f.join(join(&second));
    let joined = f.joined(again);
    assert_eq!((joined.generation, joined.leader, joined.members.len()), (3, second.clone(), 1));
    let sync = f.sync(&second, 3, &[(&*second, "all")]);
    assert_eq!(f.assignment(sync), Ok("all".into()));
}

#[test]
fn the_last_member_leaves_an_empty_group_with_a_generation_of_its_own() {
    let mut f = Fixture::new();
    let first = f.stable_with_one();
    f.durable = false;
    assert_eq!(f.leave(&first), Ok(()));
    assert_eq!((f.group.state(), f.group.generation()), (ClassicState::Empty, 2));
    assert_eq!(f.writes.len(), 1);
    assert_eq!(f.writes[0].snapshot.members, []);
    assert_eq!(f.writes[0].snapshot.generation, 2);
    assert!(f.group.wake_at_ms().is_some());
    f.pass(1_000_000);
    assert_eq!(f.group.wake_at_ms(), None, "an empty group sleeps for ever");
}

#[test]
fn generations_are_fenced() {
    let mut f = Fixture::new();
    let (first, _) = f.stable_with_two();
    for generation in [-1, 0, 1, 3] {
        assert_eq!(f.heartbeat(&first, generation), Err(GroupError::IllegalGeneration));
        let sync = f.sync(&first, generation, &[]);
        assert_eq!(f.assignment(sync), Err(GroupError::IllegalGeneration));
        assert_eq!(f.group.may_commit(f.now(), caller(&first), generation), Err(GroupError::IllegalGeneration));
    }
    assert_eq!(f.group.may_commit(f.now(), caller(&first), 2), Ok(()));
}

#[test]
fn commits_are_checked() {
    let mut f = Fixture::new();
    assert_eq!(f.group.may_commit(f.now(), caller(""), -1), Ok(()), "a simple consumer, no members");
    let first = f.join(join(""));
    let first = f.joined(first).member_id;
    assert_eq!(f.group.may_commit(f.now(), caller(&first), 1), Err(GroupError::RebalanceInProgress));
    f.sync(&first, 1, &[(&*first, "all")]);
    assert_eq!(f.group.may_commit(f.now(), caller(&first), 1), Ok(()));
    assert_eq!(
        f.group.may_commit(f.now(), caller(""), -1),
        Err(GroupError::UnknownMemberId),
        "a simple consumer among members"
    );
    assert_eq!(f.group.may_commit(f.now(), caller("stranger"), 1), Err(GroupError::UnknownMemberId));
    f.join(join(""));
    assert_eq!(f.group.may_commit(f.now(), caller(&first), 1), Ok(()), "the last commit before it joins again");
    let fenced = Caller { member_id: &first, instance_id: Some("i") };
    assert_eq!(f.group.may_commit(f.now(), fenced, 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_commit_counts_as_a_heartbeat() {
    let mut f = Fixture::new();
    let first = f.stable_with_one();
    for _ in 0..4 {
        f.pass(SESSION_MS - 1);
        assert_eq!(f.group.may_commit(f.now(), caller(&first), 1), Ok(()));
    }
    f.pass(SESSION_MS);
    assert_eq!(f.group.state(), ClassicState::Empty);
}

#[test]
fn the_protocol_that_most_members_prefer_is_chosen() {
    let mut f =
        Fixture::with(GroupConfig { initial_rebalance_delay: Duration::from_millis(1_000), ..GroupConfig::default() });
    let offers: [&[&str]; 3] = [&["mine", "range", "sticky"], &["sticky", "range"], &["sticky", "range"]];
    let tickets = offers.map(|names| f.join(JoinRequest { protocols: protocols(names), ..join("") }));
    let stranger = f.join(JoinRequest { protocols: protocols(&["mine"]), ..join("") });
    assert_eq!(f.rejected(stranger), GroupError::InconsistentGroupProtocol);
    let connect = f.join(JoinRequest { protocol_type: arc("connect"), ..join("") });
    assert_eq!(f.rejected(connect), GroupError::InconsistentGroupProtocol);
    f.pass(2_000);
    assert_eq!(f.joined(tickets[0]).protocol.as_deref(), Some("sticky"));
}

#[test]
fn other_protocol_types_are_opaque() {
    let mut f = Fixture::new();
    let ticket = f.join(JoinRequest { protocol_type: arc("sr"), protocols: protocols(&["v0"]), ..join("") });
    let joined = f.joined(ticket);
    assert_eq!((joined.protocol_type.as_deref(), joined.protocol.as_deref()), (Some("sr"), Some("v0")));
    let nothing = Fixture::new().join(JoinRequest { protocol_type: arc(""), ..join("") });
    assert_eq!(nothing, 1);
}

#[test]
fn session_timeouts_and_sizes_have_limits() {
    let mut f =
        Fixture::with(GroupConfig { max_size: 2, initial_rebalance_delay: Duration::ZERO, ..GroupConfig::default() });
    for session_timeout_ms in [-1, 0, 5_999, 1_800_001, i32::MAX] {
        let ticket = f.join(JoinRequest { session_timeout_ms, ..join("") });
        assert_eq!(f.rejected(ticket), GroupError::InvalidSessionTimeout);
    }
    let (first, _) = f.stable_with_two();
    let third = f.join(join(""));
    assert_eq!(f.rejected(third), GroupError::GroupMaxSizeReached);
    assert_eq!(f.group.state(), ClassicState::Stable);
    assert_eq!(f.heartbeat(&first, 2), Ok(()));
}

#[test]
fn the_bytes_that_a_group_keeps_of_a_member_are_limited() {
    let mut f = Fixture::new();
    let protocol = |name: &str, size| Protocol { name: arc(name), metadata: Bytes::from(vec![0; size]) };
    let heavy = vec![protocol("a", 600_000), protocol("b", 600_000)];
    let long = "x".repeat(10_000);
    let rejected = [
        JoinRequest { protocols: heavy, ..join("") },
        JoinRequest { client_id: arc(&long), ..join("") },
        JoinRequest { protocol_type: arc(&long), ..join("") },
        static_join(&long),
    ];
    for request in rejected {
        let ticket = f.join(request);
        assert_eq!(f.rejected(ticket), GroupError::MemberTooLarge);
    }
    assert!(f.group.is_untouched());
    let twice = JoinRequest { protocols: protocols(&["range", "sticky", "range"]), ..join("") };
    let ticket = f.join(twice);
    assert_eq!(f.joined(ticket).protocol.as_deref(), Some("range"));
    assert_eq!(f.leave("m5"), Ok(()));
    assert!(f.group.supported_by.is_empty());
}

#[test]
fn ids_that_were_handed_out_count_towards_the_size() {
    let mut f = Fixture::with(GroupConfig { max_size: 3, ..GroupConfig::default() });
    let known = JoinRequest { requires_known_member_id: true, ..join("") };
    let errors: Vec<_> =
        (0..5).map(|_| f.join(known.clone())).collect::<Vec<_>>().into_iter().map(|t| f.rejected(t)).collect();
    assert_eq!(errors[..3], [GroupError::MemberIdRequired; 3]);
    assert_eq!(errors[3..], [GroupError::GroupMaxSizeReached; 2]);
}

#[test]
fn a_follower_that_joins_again_gets_its_generation_and_a_leader_a_rebalance() {
    let mut f = Fixture::new();
    let (first, second) = f.stable_with_two();
    let again = f.join(join(&second));
    assert_eq!(f.joined(again).generation, 2);
    assert_eq!(f.group.state(), ClassicState::Stable);
    let changed = f.join(JoinRequest { protocols: protocols(&["range", "other"]), ..join(&second) });
    assert_eq!(f.group.state(), ClassicState::PreparingRebalance);
    let leader = f.join(join(&first));
    assert_eq!((f.joined(changed).generation, f.joined(leader).generation), (3, 3));
}

#[test]
fn a_lost_response_is_sent_again_while_the_leader_is_awaited() {
    let mut f = Fixture::new();
    let ticket = f.join(join(""));
    let first = f.joined(ticket);
    let again = f.join(join(&first.member_id));
    assert_eq!(f.joined(again), first);
    f.join(join(""));
    assert_eq!(f.group.state(), ClassicState::PreparingRebalance);
}

#[test]
fn a_join_that_is_sent_twice_gets_two_responses() {
    let mut f = Fixture::new();
    let first = f.stable_with_one();
    let second = f.join(join(""));
    let pending = f.join(JoinRequest { requires_known_member_id: true, ..join("") });
    let pending = f.joins.remove(&pending).unwrap().unwrap_err().member_id;
    let once = f.join(join(&first));
    let twice = f.join(join(&first));
    assert_eq!(f.rejected(once), GroupError::RebalanceInProgress);
    assert_eq!(f.leave(&pending), Ok(()));
    assert_eq!((f.joined(twice).members.len(), f.joined(second).generation), (2, 2));
}

#[test]
fn the_assignment_counts_only_once_it_is_durable() {
    let mut f = Fixture::new();
    let ticket = f.join(join(""));
    let first = f.joined(ticket).member_id;
    f.durable = false;
    let sync = f.sync(&first, 1, &[(&*first, "all")]);
    assert!(f.syncs.is_empty());
    assert_eq!(f.writes[0].snapshot.members[0].assignment, "all");
    let write = f.writes.pop().unwrap();
    f.finish(write.purpose, Ok(()));
    assert_eq!(f.assignment(sync), Ok("all".into()));
}

#[test]
fn an_assignment_that_cannot_be_written_starts_over() {
    let mut f = Fixture::new();
    let ticket = f.join(join(""));
    let first = f.joined(ticket).member_id;
    f.durable = false;
    let sync = f.sync(&first, 1, &[(&*first, "all")]);
    let write = f.writes.pop().unwrap();
    f.finish(write.purpose, Err(GroupError::WriteFailed));
    assert_eq!(f.assignment(sync), Err(GroupError::WriteFailed));
    assert_eq!(f.group.state(), ClassicState::PreparingRebalance);
}

#[test]
fn a_late_write_of_an_older_generation_changes_nothing() {
    let mut f = Fixture::new();
    let ticket = f.join(join(""));
    let first = f.joined(ticket).member_id;
    f.durable = false;
    let sync = f.sync(&first, 1, &[(&*first, "all")]);
    let second = f.join(join(""));
    assert_eq!(f.assignment(sync), Err(GroupError::RebalanceInProgress));
    let again = f.join(join(&first));
    assert_eq!((f.joined(again).generation, f.joined(second).generation), (2, 2));
    let write = f.writes.pop().unwrap();
    f.finish(write.purpose, Ok(()));
    assert_eq!(f.group.state(), ClassicState::CompletingRebalance);
}

#[test]
fn a_group_from_the_log_continues() {
    let mut f = Fixture::new();
    let (first, second) = f.stable_with_two();
    f.durable = false;
    let again = f.join(join(&first));
    f.join(join(&second));
    f.joined(again);
    f.sync(&first, 3, &[(&*first, "a"), (&*second, "b")]);
    let snapshot = f.writes.pop().unwrap().snapshot;

    let config = Arc::new(GroupConfig::default());
    let mut f = Fixture::of(ClassicGroup::restored(config, snapshot, Now { mono_ms: 0, wall_ms: 5 }));
    assert_eq!((f.group.state(), f.group.generation()), (ClassicState::Stable, 3));
    assert_eq!(f.heartbeat(&first, 3), Ok(()));
    let sync = f.sync(&second, 3, &[]);
    assert_eq!(f.assignment(sync), Ok("b".into()));
    f.pass(SESSION_MS - 1);
    assert_eq!(f.heartbeat(&first, 3), Ok(()));
    f.pass(1);
    assert_eq!(f.group.state(), ClassicState::PreparingRebalance, "the second one was not heard of since");
}
