//! A group of the classic protocol as a pure state machine.
//!
//! ```text
//!            first join                 all joined, or timeout               leader's assignment committed
//!   Empty ───────────────▶ Preparing ─────────────────────────▶ Completing ───────────────────────────────▶ Stable
//!     ▲                    Rebalance                            Rebalance                                      │
//!     │  no members left       ▲  ▲                                 │  a member joins, leaves or times out      │
//!     └────────────────────────┘  └─────────────────────────────────┴──────────────────────────────────────────┘
//! ```
//!
//! Nothing here reads a clock, waits, locks or writes. A call takes the current time, and pushes what its caller has to
//! do onto [`Effects`]: send responses by [`Ticket`], write the group's record. Time passes in [`ClassicGroup::tick`],
//! which is due at [`ClassicGroup::wake_at_ms`]. The rules and error codes are Kafka's (`GroupMetadataManager`, classic
//! groups).
//!
//! This file holds the group and its transitions; `join.rs`, `sync.rs` and `session.rs` hold the requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::member::Member;
use super::model::*;
use crate::group::config::GroupConfig;

/// The state of a group. There is no `Dead`: the coordinator removes a deleted group, and requests for it get the same
/// response as for a group that never existed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ClassicState {
    /// No members; there may be offsets.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// All members have joined; the leader's assignment is missing.
    CompletingRebalance,
    /// All members have an assignment.
    Stable,
}

impl ClassicState {
    /// Returns the name in ListGroups and DescribeGroups.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What ends the wait for members while the group prepares a rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinPhase {
    /// The group was empty: wait a fixed delay for more members, and again while new ones come, up to the rebalance
    /// timeout.
    Initial { deadline_ms: u64, delay_ms: u64, remaining_ms: u64, member_added: bool },
    /// Wait for every known member, up to the longest rebalance timeout among them.
    Rejoin { deadline_ms: u64 },
}

impl JoinPhase {
    fn deadline_ms(self) -> u64 {
        match self {
            Self::Initial { deadline_ms, .. } | Self::Rejoin { deadline_ms } => deadline_ms,
        }
    }
}

/// A group of the classic protocol.
#[derive(Debug)]
pub(crate) struct ClassicGroup {
    pub(super) config: Arc<GroupConfig>,
    pub(super) state: ClassicState,
    /// When the state was entered, in milliseconds since the Unix epoch.
    pub(super) state_since_ms: i64,
    /// `None` until a member has joined. Until then the group only has offsets of consumers that do not join.
    pub(super) protocol_type: Option<Arc<str>>,
    pub(super) protocol: Option<Arc<str>>,
    pub(super) generation: i32,
    pub(super) leader: Option<MemberId>,
    pub(super) members: BTreeMap<MemberId, Member>,
    /// The number of members that support each protocol.
    pub(super) supported_by: HashMap<Arc<str>, usize>,
    /// The number of members whose JoinGroup waits for its response.
    pub(super) awaiting_join: usize,
    /// Static members by their `group.instance.id`.
    pub(super) static_members: HashMap<Arc<str>, MemberId>,
    /// Ids that were handed out with MEMBER_ID_REQUIRED and have not joined yet, with their expiry time.
    pub(super) pending: BTreeMap<MemberId, u64>,
    /// Members of this generation that have not sent SyncGroup yet.
    pub(super) pending_sync: BTreeSet<MemberId>,
    pub(super) sync_deadline_ms: Option<u64>,
    /// Set exactly in `PreparingRebalance`.
    pub(super) join_phase: Option<JoinPhase>,
    wake_at_ms: Option<u64>,
}

impl ClassicGroup {
    /// Makes a group without members.
    pub(crate) fn new(config: Arc<GroupConfig>, now: Now) -> Self {
        Self {
            config,
            state: ClassicState::Empty,
            state_since_ms: now.wall_ms,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            supported_by: HashMap::new(),
            awaiting_join: 0,
            static_members: HashMap::new(),
            pending: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            sync_deadline_ms: None,
            join_phase: None,
            wake_at_ms: None,
        }
    }

    /// Makes a group from its record: stable if it has members. Each gets a full session timeout to send a heartbeat.
    pub(crate) fn restored(config: Arc<GroupConfig>, from: GroupSnapshot, now: Now) -> Self {
        let mut group = Self::new(config, now);
        group.state_since_ms = if from.state_since_ms >= 0 { from.state_since_ms } else { now.wall_ms };
        group.generation = from.generation;
        group.protocol_type = (!from.protocol_type.is_empty()).then_some(from.protocol_type);
        group.state = if from.members.is_empty() { ClassicState::Empty } else { ClassicState::Stable };
        for member in from.members {
            let member = Member::restored(member, from.protocol.clone(), now);
            group.arm(member.session_deadline_ms);
            group.insert(member);
        }
        group.leader = from.leader;
        group.protocol = from.protocol;
        group
    }

    /// Returns the state.
    pub(crate) fn state(&self) -> ClassicState {
        self.state
    }

    /// Returns when the state was entered, in milliseconds since the Unix epoch.
    pub(crate) fn state_since_ms(&self) -> i64 {
        self.state_since_ms
    }

    /// Returns the protocol type, once a member has joined.
    pub(crate) fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// Returns the current generation; 0 until the first rebalance ends.
    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// Returns when [`ClassicGroup::tick`] has something to do, in monotonic milliseconds. May be too early, never too
    /// late.
    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        self.wake_at_ms
    }

    /// Returns whether the group never had anything to keep: no generation, no members, no id that may still join.
    pub(crate) fn is_untouched(&self) -> bool {
        self.generation == 0 && self.is_vacant()
    }

    /// Returns whether the group has no members, and no id was handed out that may still join.
    pub(crate) fn is_vacant(&self) -> bool {
        self.state == ClassicState::Empty && self.members.is_empty() && self.pending.is_empty()
    }

    /// Returns the members for DescribeGroups, with metadata and assignments only if the group is stable, as in Kafka.
    pub(crate) fn describe_members(&self) -> Vec<MemberSnapshot> {
        let stable = self.state == ClassicState::Stable;
        let protocol = self.protocol.as_deref().filter(|_| stable);
        let assignment = |member: &Member| if stable { member.assignment.clone() } else { Bytes::new() };
        self.members.values().map(|member| member.snapshot(protocol, assignment(member))).collect()
    }

    /// Returns the chosen protocol if the group is stable.
    pub(crate) fn described_protocol(&self) -> Option<&Arc<str>> {
        self.protocol.as_ref().filter(|_| self.state == ClassicState::Stable)
    }

    /// Returns the group's record, with `assignments` instead of the members' own if given.
    pub(super) fn snapshot(&self, assignments: Option<&BTreeMap<MemberId, Bytes>>) -> GroupSnapshot {
        let assignment = |member: &Member| match assignments {
            Some(assignments) => assignments.get(&member.id).cloned().unwrap_or_default(),
            None => member.assignment.clone(),
        };
        let protocol = self.protocol.as_deref();
        GroupSnapshot {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_ms,
            members: self.members.values().map(|member| member.snapshot(protocol, assignment(member))).collect(),
        }
    }

    /// Moves [`ClassicGroup::wake_at_ms`] forward to `deadline_ms` if that is earlier.
    pub(super) fn arm(&mut self, deadline_ms: u64) {
        self.wake_at_ms = Some(self.wake_at_ms.map_or(deadline_ms, |at| at.min(deadline_ms)));
    }

    /// Handles everything that is due: ids that were never used, members without heartbeats, rebalances that took too
    /// long.
    pub(crate) fn tick(&mut self, now: Now, effects: &mut Effects) {
        self.expire_pending(now, effects);
        self.expire_sessions(now, effects);
        self.expire_sync(now, effects);
        self.expire_join(now, effects);
        let sessions = self.members.values().map(|member| member.session_deadline_ms);
        let phases = self.join_phase.map(JoinPhase::deadline_ms).into_iter().chain(self.sync_deadline_ms);
        self.wake_at_ms = sessions.chain(phases).chain(self.pending.values().copied()).min();
    }

    // Membership

    /// Adds a member, which becomes the leader if there is none.
    pub(super) fn insert(&mut self, member: Member) {
        if self.leader.is_none() {
            self.leader = Some(Arc::clone(&member.id));
        }
        self.pending.remove(&member.id);
        self.count_protocols(&member.protocols, true);
        self.awaiting_join += usize::from(member.join.is_some());
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(Arc::clone(instance), Arc::clone(&member.id));
        }
        self.members.insert(Arc::clone(&member.id), member);
    }

    /// Removes a member and rejects its waiting requests, so that a live client joins again.
    pub(super) fn remove(&mut self, member_id: &str, effects: &mut Effects) {
        let Some(member) = self.members.remove(member_id) else { return };
        self.count_protocols(&member.protocols, false);
        self.pending_sync.remove(member_id);
        if let Some(instance) = &member.instance_id {
            self.static_members.remove(instance);
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        if let Some(ticket) = member.join {
            self.awaiting_join -= 1;
            effects.reject_join(ticket, GroupError::UnknownMemberId, &Arc::from(""));
        }
        if let Some(ticket) = member.sync {
            effects.sync(ticket, Err(GroupError::UnknownMemberId));
        }
    }

    pub(super) fn count_protocols(&mut self, protocols: &[Protocol], add: bool) {
        for protocol in protocols {
            let count = self.supported_by.entry(Arc::clone(&protocol.name)).or_default();
            *count = if add { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.supported_by.remove(&protocol.name);
            }
        }
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Checks that the caller is a member, and that a static member uses its newest id.
    pub(super) fn check_member(&self, caller: Caller<'_>) -> Result<(), GroupError> {
        let Some(instance) = caller.instance_id else {
            return if self.members.contains_key(caller.member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) };
        };
        match self.static_members.get(instance) {
            None => Err(GroupError::UnknownMemberId),
            Some(current) if **current == *caller.member_id => Ok(()),
            Some(_) => Err(GroupError::FencedInstanceId),
        }
    }

    /// Gives a member a full session timeout from now.
    pub(super) fn renew_session(&mut self, member_id: &str, now: Now) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.session_deadline_ms = now.after(member.session_timeout_ms);
            let deadline_ms = member.session_deadline_ms;
            self.arm(deadline_ms);
        }
    }

    /// Takes the ticket of the member's waiting JoinGroup, if it has one.
    pub(super) fn take_join(&mut self, member_id: &str) -> Option<Ticket> {
        let ticket = self.members.get_mut(member_id)?.join.take()?;
        self.awaiting_join -= 1;
        Some(ticket)
    }

    /// Returns the protocol of the next generation. Each member votes for the first of its protocols that all members
    /// support. A tie goes to the name that sorts first, so that the choice does not depend on the order of the votes.
    pub(super) fn select_protocol(&self) -> Option<Arc<str>> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for choice in self.members.values().filter_map(|member| member.vote(&self.supported_by, self.members.len())) {
            *votes.entry(choice).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| Arc::clone(name))
    }

    // Transitions

    fn enter(&mut self, state: ClassicState, now: Now) {
        self.state = state;
        self.state_since_ms = now.wall_ms;
    }

    /// Starts a rebalance. If one is being prepared already, completes it once all members have joined.
    pub(super) fn rebalance_or_complete(&mut self, now: Now, effects: &mut Effects) {
        match self.state {
            ClassicState::PreparingRebalance => self.complete_join_if_all_joined(now, effects),
            _ => self.prepare_rebalance(now, effects),
        }
    }

    /// Rebalances after a member was removed, so that the others get its partitions.
    pub(super) fn member_removed(&mut self, now: Now, effects: &mut Effects) {
        if self.state != ClassicState::Empty {
            self.rebalance_or_complete(now, effects);
        }
    }

    fn prepare_rebalance(&mut self, now: Now, effects: &mut Effects) {
        if self.state == ClassicState::CompletingRebalance {
            self.fail_syncs(GroupError::RebalanceInProgress, now, effects);
        }
        self.sync_deadline_ms = None;
        let from_empty = self.state == ClassicState::Empty;
        self.enter(ClassicState::PreparingRebalance, now);
        let rebalance_timeout_ms = self.rebalance_timeout_ms();
        let delay_ms = self.config.initial_rebalance_delay_ms();
        if from_empty && delay_ms == 0 {
            return self.complete_join(now, effects);
        }
        let phase = if from_empty {
            let remaining_ms = rebalance_timeout_ms.saturating_sub(delay_ms);
            JoinPhase::Initial { deadline_ms: now.after(delay_ms), delay_ms, remaining_ms, member_added: false }
        } else {
            JoinPhase::Rejoin { deadline_ms: now.after(rebalance_timeout_ms) }
        };
        self.await_joins(phase);
        self.complete_join_if_all_joined(now, effects);
    }

    fn await_joins(&mut self, phase: JoinPhase) {
        self.arm(phase.deadline_ms());
        self.join_phase = Some(phase);
    }

    fn rebalance_timeout_ms(&self) -> u64 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub(super) fn complete_join_if_all_joined(&mut self, now: Now, effects: &mut Effects) {
        let all_joined = self.awaiting_join == self.members.len() && self.pending.is_empty();
        if all_joined && matches!(self.join_phase, Some(JoinPhase::Rejoin { .. })) {
            self.complete_join(now, effects);
        }
    }

    fn expire_join(&mut self, now: Now, effects: &mut Effects) {
        match self.join_phase {
            Some(phase) if phase.deadline_ms() > now.mono_ms => {}
            Some(JoinPhase::Initial { delay_ms, remaining_ms, member_added: true, .. }) if remaining_ms > 0 => {
                let next_ms = self.config.initial_rebalance_delay_ms().min(remaining_ms);
                self.await_joins(JoinPhase::Initial {
                    deadline_ms: now.after(next_ms),
                    delay_ms: next_ms,
                    remaining_ms: remaining_ms.saturating_sub(delay_ms),
                    member_added: false,
                });
            }
            Some(_) => self.complete_join(now, effects),
            None => {}
        }
    }

    /// Ends the wait for members: removes dynamic members that have not joined, and announces the new generation to the
    /// others.
    fn complete_join(&mut self, now: Now, effects: &mut Effects) {
        let missing = |member: &&Member| member.join.is_none() && member.instance_id.is_none();
        let missing: Vec<_> = self.members.values().filter(missing).map(|member| Arc::clone(&member.id)).collect();
        for member_id in missing {
            self.remove(&member_id, effects);
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only static members are left and none of them has joined: keep their places for another timeout.
            return self
                .await_joins(JoinPhase::Rejoin { deadline_ms: now.after(self.rebalance_timeout_ms().max(1_000)) });
        }
        self.join_phase = None;
        self.pending_sync.clear();
        self.generation = self.generation.wrapping_add(1).max(0);
        if self.members.is_empty() {
            self.protocol = None;
            self.enter(ClassicState::Empty, now);
            effects.writes.push(Write { snapshot: self.snapshot(None), purpose: WritePurpose::Empty });
            return;
        }
        self.protocol = self.select_protocol();
        self.enter(ClassicState::CompletingRebalance, now);
        self.announce_generation(now, effects);
    }

    /// Elects a leader among the members that have joined. Returns false if there is none.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &MemberId| self.members.get(id).is_some_and(|member| member.join.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let next = self.members.values().find(|member| member.join.is_some()).map(|member| Arc::clone(&member.id));
        let found = next.is_some();
        self.leader = next.or(self.leader.take());
        found
    }

    fn announce_generation(&mut self, now: Now, effects: &mut Effects) {
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in &ids {
            if let Some(ticket) = self.take_join(id) {
                effects.joins.push((ticket, Ok(self.joined(id))));
            }
            self.renew_session(id, now);
            if let Some(member) = self.members.get_mut(id) {
                member.is_new = false;
            }
        }
        self.pending_sync.extend(ids);
        let deadline_ms = now.after(self.rebalance_timeout_ms());
        self.sync_deadline_ms = Some(deadline_ms);
        self.arm(deadline_ms);
    }

    /// Returns the JoinGroup response of the current generation for a member. Only the leader gets the list of members.
    pub(super) fn joined(&self, member_id: &MemberId) -> Joined {
        let members = if self.is_leader(member_id) { self.members_for_leader() } else { Vec::new() };
        Joined {
            member_id: Arc::clone(member_id),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members,
        }
    }

    fn members_for_leader(&self) -> Vec<JoinedMember> {
        let of = |member: &Member| JoinedMember {
            member_id: Arc::clone(&member.id),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        };
        self.members.values().map(of).collect()
    }

    /// Applies the committed assignment and responds to every waiting SyncGroup.
    pub(super) fn become_stable(
        &mut self,
        mut assignments: BTreeMap<MemberId, Bytes>,
        now: Now,
        effects: &mut Effects,
    ) {
        self.enter(ClassicState::Stable, now);
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.assignment = assignments.remove(&id).unwrap_or_default();
            if let Some(ticket) = member.sync.take() {
                effects.sync(ticket, Ok(self.synced(&id)));
                self.renew_session(&id, now);
            }
        }
    }

    /// Returns the SyncGroup response of a stable group for a member.
    pub(super) fn synced(&self, member_id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(member_id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    /// Rejects every waiting SyncGroup, and clears the assignments.
    pub(super) fn fail_syncs(&mut self, error: GroupError, now: Now, effects: &mut Effects) {
        let mut earliest_ms = u64::MAX;
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(ticket) = member.sync.take() {
                effects.sync(ticket, Err(error));
                member.session_deadline_ms = now.after(member.session_timeout_ms);
                earliest_ms = earliest_ms.min(member.session_deadline_ms);
            }
        }
        self.arm(earliest_ms);
    }
}
