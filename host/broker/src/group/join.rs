//! JoinGroup: who may come in, under which id, and whether the group has to rebalance for it.

use std::collections::HashSet;
use std::sync::Arc;

use super::config::{MEMBER_METADATA_MAX_BYTES, NAME_MAX_BYTES, NEW_MEMBER_JOIN_TIMEOUT_MS};
use super::member::{Member, millis};
use super::model::*;
use super::state::{Group, GroupState, JoinPhase};

impl JoinRequest {
    /// Bounds what a group would keep of the member, and drops protocols that are named twice.
    fn normalize(&mut self) -> Result<(), GroupError> {
        let mut left = MEMBER_METADATA_MAX_BYTES;
        for protocol in &self.protocols {
            let size = protocol.name.len() + protocol.metadata.len();
            left = left.checked_sub(size).ok_or(GroupError::TooLargeToKeep)?;
        }
        let names = [&self.client_id, &self.protocol_type].into_iter().chain(&self.instance_id);
        if names.into_iter().any(|name| name.len() > NAME_MAX_BYTES) {
            return Err(GroupError::TooLargeToKeep);
        }
        let mut seen = HashSet::new();
        self.protocols.retain(|protocol| seen.insert(Arc::clone(&protocol.name)));
        Ok(())
    }
}

impl Group {
    /// Handles a JoinGroup. `fresh_id` is the id that a member without one gets. The answer comes through `effects` under
    /// `ticket`, now or when the rebalance ends.
    pub(crate) fn join(
        &mut self,
        now: Now,
        mut request: JoinRequest,
        fresh_id: MemberId,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        if let Err(error) = request.normalize() {
            return effects.refuse_join(ticket, error, &request.member_id);
        }
        let timeouts = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if !timeouts.contains(&request.session_timeout_ms) {
            return effects.refuse_join(ticket, GroupError::InvalidSessionTimeout, &request.member_id);
        }
        if !self.has_room_for(&request) {
            self.pending.remove(&request.member_id);
            self.remove(&request.member_id, effects);
            return effects.refuse_join(ticket, GroupError::GroupMaxSizeReached, &Arc::from(""));
        }
        if !self.speaks(&request) {
            return effects.refuse_join(ticket, GroupError::InconsistentGroupProtocol, &request.member_id);
        }
        if !request.member_id.is_empty() {
            return self.join_known(now, request, ticket, effects);
        }
        let current = request.instance_id.as_ref().and_then(|instance| self.static_members.get(instance)).cloned();
        match current {
            Some(current) => self.replace_static(now, request, &current, fresh_id, ticket, effects),
            None if request.instance_id.is_none() && request.requires_known_member_id => {
                let deadline_ms = now.after(millis(request.session_timeout_ms));
                self.arm(deadline_ms);
                effects.refuse_join(ticket, GroupError::MemberIdRequired, &fresh_id);
                self.pending.insert(fresh_id, deadline_ms);
            }
            None => self.add(now, fresh_id, request, ticket, effects),
        }
    }

    /// `group.max.size` holds for members and for those who were given an id. A group that was loaded with more than are allowed
    /// now shrinks at its next rebalance.
    fn has_room_for(&self, request: &JoinRequest) -> bool {
        let max = self.config.max_size;
        let replaces = request.instance_id.as_ref().is_some_and(|instance| self.static_members.contains_key(instance));
        match self.members.get(&request.member_id) {
            Some(member) if self.state == GroupState::PreparingRebalance => {
                member.join.is_some() || self.awaiting_join < max
            }
            Some(_) => true,
            None if replaces || self.pending.contains_key(&request.member_id) => true,
            None => self.members.len() + self.pending.len() < max,
        }
    }

    /// The member offers at least one protocol of the right type that everybody else speaks too.
    fn speaks(&self, request: &JoinRequest) -> bool {
        if self.members.is_empty() {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        let by_all = |protocol: &Protocol| self.spoken_by.get(&protocol.name) == Some(&self.members.len());
        self.protocol_type.as_ref() == Some(&request.protocol_type) && request.protocols.iter().any(by_all)
    }

    fn join_known(&mut self, now: Now, request: JoinRequest, ticket: Ticket, effects: &mut Effects) {
        if self.pending.contains_key(&request.member_id) {
            // Ids are handed out to dynamic members alone.
            if request.instance_id.is_some() {
                return effects.refuse_join(ticket, GroupError::UnknownMemberId, &request.member_id);
            }
            return self.add(now, Arc::clone(&request.member_id), request, ticket, effects);
        }
        let caller = Caller { member_id: &request.member_id, instance_id: request.instance_id.as_deref() };
        if let Err(error) = self.check_member(caller) {
            return effects.refuse_join(ticket, error, &request.member_id);
        }
        let Some(member) = self.members.get(&request.member_id) else { return };
        let unchanged = member.protocols == request.protocols;
        let answer_again = match self.state {
            // It may have missed the answer to its first JoinGroup.
            GroupState::CompletingRebalance => unchanged,
            // The leader asks for a new assignment by joining again; a follower that has nothing new is told what it is part of.
            GroupState::Stable => unchanged && !self.is_leader(&request.member_id),
            GroupState::PreparingRebalance => false,
            GroupState::Empty => return effects.refuse_join(ticket, GroupError::UnknownMemberId, &request.member_id),
        };
        if answer_again {
            return effects.joins.push((ticket, Ok(self.joined(&request.member_id))));
        }
        let member_id = Arc::clone(&request.member_id);
        self.update(&member_id, &request, ticket, effects);
        self.rebalance_or_complete(now, effects);
    }

    fn add(&mut self, now: Now, id: MemberId, request: JoinRequest, ticket: Ticket, effects: &mut Effects) {
        if self.generation == 0
            && let Some(JoinPhase::Initial { member_added, .. }) = &mut self.join_phase
        {
            *member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(Arc::clone(&request.protocol_type));
        }
        let deadline_ms = now.after(NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.arm(deadline_ms);
        self.insert(Member::joining(id, request, ticket, deadline_ms));
        self.rebalance_or_complete(now, effects);
    }

    /// Takes over what a member offers now, and lets it wait for the rebalance.
    fn update(&mut self, member_id: &str, request: &JoinRequest, ticket: Ticket, effects: &mut Effects) {
        let Some(mut member) = self.members.remove(member_id) else { return };
        self.count_protocols(&member.protocols, false);
        self.count_protocols(&request.protocols, true);
        member.protocols.clone_from(&request.protocols);
        member.session_timeout_ms = millis(request.session_timeout_ms);
        member.rebalance_timeout_ms = millis(request.rebalance_timeout_ms);
        match member.join.replace(ticket) {
            // The member has asked again, so it does not listen for the first answer any more.
            Some(superseded) => effects.refuse_join(superseded, GroupError::RebalanceInProgress, &member.id),
            None => self.awaiting_join += 1,
        }
        self.members.insert(Arc::clone(&member.id), member);
    }

    /// A static member has restarted: it takes its own place under a new id, and its old self is fenced. A stable group does not
    /// rebalance for it if its protocol stays the same.
    fn replace_static(
        &mut self,
        now: Now,
        request: JoinRequest,
        old_id: &MemberId,
        new_id: MemberId,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let Some(old) = self.members.get(old_id) else { return };
        let was_leader = self.leader.clone();
        let replacement = StaticReplacement {
            ticket,
            instance_id: request.instance_id.clone().unwrap_or_default(),
            old_member_id: Arc::clone(old_id),
            new_member_id: Arc::clone(&new_id),
            old_protocols: old.protocols.clone(),
            old_session_timeout_ms: old.session_timeout_ms,
            old_rebalance_timeout_ms: old.rebalance_timeout_ms,
            leader_to_report: if request.supports_skip_assignment { None } else { was_leader },
        };
        self.rename(old_id, &new_id, effects);
        self.update(&new_id, &request, ticket, effects);
        self.renew_session(&new_id, now);
        if self.state == GroupState::Stable && self.select_protocol() == self.protocol {
            let purpose = WritePurpose::StaticMember(Box::new(replacement));
            effects.writes.push(Write { snapshot: self.snapshot(None), purpose });
        } else {
            self.rebalance_or_complete(now, effects);
        }
    }

    /// Gives a static member another id; requests that wait under the old one are fenced.
    fn rename(&mut self, old_id: &MemberId, new_id: &MemberId, effects: &mut Effects) {
        if let Some(ticket) = self.take_join(old_id) {
            effects.refuse_join(ticket, GroupError::FencedInstanceId, old_id);
        }
        let Some(mut member) = self.members.remove(old_id) else { return };
        if let Some(ticket) = member.sync.take() {
            effects.sync(ticket, Err(GroupError::FencedInstanceId));
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(Arc::clone(new_id));
        }
        if self.is_leader(old_id) {
            self.leader = Some(Arc::clone(new_id));
        }
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(Arc::clone(instance), Arc::clone(new_id));
        }
        member.id = Arc::clone(new_id);
        self.members.insert(Arc::clone(new_id), member);
    }

    /// The record with the static member's new id is durable, or could not be written.
    pub(super) fn static_member_written(
        &mut self,
        done: StaticReplacement,
        outcome: Result<(), GroupError>,
        effects: &mut Effects,
    ) {
        let waits = self.members.get(&done.new_member_id).is_some_and(|member| member.join == Some(done.ticket));
        if !waits {
            return; // Removed, replaced again or answered by a rebalance meanwhile.
        }
        self.take_join(&done.new_member_id);
        if let Err(error) = outcome {
            effects.refuse_join(done.ticket, error, &Arc::from(""));
            return self.undo_replacement(done, effects);
        }
        let mut joined = self.joined(&done.new_member_id);
        match done.leader_to_report {
            None => joined.skip_assignment = self.is_leader(&done.new_member_id),
            Some(leader) => {
                // An older client that were told that it leads would compute an assignment that nobody asked for: it is told
                // the leader's id from before, so that it takes itself for a follower.
                joined.leader = leader;
                joined.members = Vec::new();
            }
        }
        effects.joins.push((done.ticket, Ok(joined)));
    }

    fn undo_replacement(&mut self, done: StaticReplacement, effects: &mut Effects) {
        self.rename(&done.new_member_id, &done.old_member_id, effects);
        let Some(mut member) = self.members.remove(&done.old_member_id) else { return };
        self.count_protocols(&member.protocols, false);
        self.count_protocols(&done.old_protocols, true);
        member.protocols = done.old_protocols;
        member.session_timeout_ms = done.old_session_timeout_ms;
        member.rebalance_timeout_ms = done.old_rebalance_timeout_ms;
        debug_assert_eq!(member.instance_id.as_ref(), Some(&done.instance_id));
        self.members.insert(Arc::clone(&done.old_member_id), member);
    }
}
