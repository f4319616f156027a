//! JoinGroup: whether a member may join, with which id, and whether the group has to rebalance.

use std::collections::HashSet;
use std::sync::Arc;

use super::member::{Member, millis};
use super::model::*;
use super::state::{ClassicGroup, ClassicState, JoinPhase};
use crate::group::config::{MEMBER_METADATA_MAX_BYTES, NAME_MAX_BYTES, NEW_MEMBER_JOIN_TIMEOUT_MS};

impl JoinRequest {
    /// Checks the size of the member's names and metadata, and removes protocols that are listed twice.
    fn normalize(&mut self) -> Result<(), GroupError> {
        let mut left = MEMBER_METADATA_MAX_BYTES;
        for protocol in &self.protocols {
            let size = protocol.name.len() + protocol.metadata.len();
            left = left.checked_sub(size).ok_or(GroupError::MemberTooLarge)?;
        }
        let names = [&self.client_id, &self.protocol_type].into_iter().chain(&self.instance_id);
        if names.into_iter().any(|name| name.len() > NAME_MAX_BYTES) {
            return Err(GroupError::MemberTooLarge);
        }
        let mut seen = HashSet::new();
        self.protocols.retain(|protocol| seen.insert(Arc::clone(&protocol.name)));
        Ok(())
    }
}

impl ClassicGroup {
    /// Handles a JoinGroup. A member without an id gets `new_id`. The response goes to `effects` under `ticket`, now or
    /// when the rebalance ends.
    pub(crate) fn join(
        &mut self,
        now: Now,
        mut request: JoinRequest,
        new_id: MemberId,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        if let Err(error) = request.normalize() {
            return effects.reject_join(ticket, error, &request.member_id);
        }
        let timeouts = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if !timeouts.contains(&request.session_timeout_ms) {
            return effects.reject_join(ticket, GroupError::InvalidSessionTimeout, &request.member_id);
        }
        if !self.has_room_for(&request) {
            self.pending.remove(&request.member_id);
            self.remove(&request.member_id, effects);
            return effects.reject_join(ticket, GroupError::GroupMaxSizeReached, &Arc::from(""));
        }
        if !self.supports_common_protocol(&request) {
            return effects.reject_join(ticket, GroupError::InconsistentGroupProtocol, &request.member_id);
        }
        if !request.member_id.is_empty() {
            return self.join_known(now, request, ticket, effects);
        }
        let current = request.instance_id.as_ref().and_then(|instance| self.static_members.get(instance)).cloned();
        match current {
            Some(current) => self.replace_static(now, request, &current, new_id, ticket, effects),
            None if request.instance_id.is_none() && request.requires_known_member_id => {
                let deadline_ms = now.after(millis(request.session_timeout_ms));
                self.arm(deadline_ms);
                effects.reject_join(ticket, GroupError::MemberIdRequired, &new_id);
                self.pending.insert(new_id, deadline_ms);
            }
            None => self.add(now, new_id, request, ticket, effects),
        }
    }

    /// Returns whether `group.max.size` allows the member. Ids that were handed out count as members. A group that was
    /// loaded with more members shrinks at its next rebalance.
    fn has_room_for(&self, request: &JoinRequest) -> bool {
        let max = self.config.max_size;
        let replaces = request.instance_id.as_ref().is_some_and(|instance| self.static_members.contains_key(instance));
        match self.members.get(&request.member_id) {
            Some(member) if self.state == ClassicState::PreparingRebalance => {
                member.join.is_some() || self.awaiting_join < max
            }
            Some(_) => true,
            None if replaces || self.pending.contains_key(&request.member_id) => true,
            None => self.members.len() + self.pending.len() < max,
        }
    }

    /// Returns whether the member supports a protocol of the right type that all other members support too.
    fn supports_common_protocol(&self, request: &JoinRequest) -> bool {
        if self.members.is_empty() {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        let by_all = |protocol: &Protocol| self.supported_by.get(&protocol.name) == Some(&self.members.len());
        self.protocol_type.as_ref() == Some(&request.protocol_type) && request.protocols.iter().any(by_all)
    }

    fn join_known(&mut self, now: Now, request: JoinRequest, ticket: Ticket, effects: &mut Effects) {
        if self.pending.contains_key(&request.member_id) {
            // Only dynamic members get such an id.
            if request.instance_id.is_some() {
                return effects.reject_join(ticket, GroupError::UnknownMemberId, &request.member_id);
            }
            return self.add(now, Arc::clone(&request.member_id), request, ticket, effects);
        }
        let caller = Caller { member_id: &request.member_id, instance_id: request.instance_id.as_deref() };
        if let Err(error) = self.check_member(caller) {
            return effects.reject_join(ticket, error, &request.member_id);
        }
        let Some(member) = self.members.get(&request.member_id) else { return };
        let unchanged = member.protocols == request.protocols;
        let respond_again = match self.state {
            // The member may have missed the response to its first JoinGroup.
            ClassicState::CompletingRebalance => unchanged,
            // The leader asks for a new assignment by joining again. A follower without changes gets the current
            // generation.
            ClassicState::Stable => unchanged && !self.is_leader(&request.member_id),
            ClassicState::PreparingRebalance => false,
            ClassicState::Empty => return effects.reject_join(ticket, GroupError::UnknownMemberId, &request.member_id),
        };
        if respond_again {
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

    /// Updates a member from its new JoinGroup, which waits for the rebalance.
    fn update(&mut self, member_id: &str, request: &JoinRequest, ticket: Ticket, effects: &mut Effects) {
        let Some(mut member) = self.members.remove(member_id) else { return };
        self.count_protocols(&member.protocols, false);
        self.count_protocols(&request.protocols, true);
        member.protocols.clone_from(&request.protocols);
        member.session_timeout_ms = millis(request.session_timeout_ms);
        member.rebalance_timeout_ms = millis(request.rebalance_timeout_ms);
        match member.join.replace(ticket) {
            // The member has sent another JoinGroup, so it does not wait for the first response any more.
            Some(superseded) => effects.reject_join(superseded, GroupError::RebalanceInProgress, &member.id),
            None => self.awaiting_join += 1,
        }
        self.members.insert(Arc::clone(&member.id), member);
    }

    /// Replaces a static member that has restarted: it keeps its place under a new id, and its old id is fenced. A
    /// stable group does not rebalance for it if its protocol stays the same.
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
        if self.state == ClassicState::Stable && self.select_protocol() == self.protocol {
            let purpose = WritePurpose::StaticMember(Box::new(replacement));
            effects.writes.push(Write { snapshot: self.snapshot(None), purpose });
        } else {
            self.rebalance_or_complete(now, effects);
        }
    }

    /// Gives a static member another id, and fences the requests that wait under the old one.
    fn rename(&mut self, old_id: &MemberId, new_id: &MemberId, effects: &mut Effects) {
        if let Some(ticket) = self.take_join(old_id) {
            effects.reject_join(ticket, GroupError::FencedInstanceId, old_id);
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

    /// Responds to the static member once the record with its new id is committed, or undoes the change if that failed.
    pub(super) fn static_member_written(
        &mut self,
        done: StaticReplacement,
        outcome: Result<(), GroupError>,
        effects: &mut Effects,
    ) {
        let waits = self.members.get(&done.new_member_id).is_some_and(|member| member.join == Some(done.ticket));
        if !waits {
            // The member was removed or replaced meanwhile, or a rebalance has sent the response.
            return;
        }
        self.take_join(&done.new_member_id);
        if let Err(error) = outcome {
            effects.reject_join(done.ticket, error, &Arc::from(""));
            return self.undo_replacement(done, effects);
        }
        let mut joined = self.joined(&done.new_member_id);
        match done.leader_to_report {
            None => joined.skip_assignment = self.is_leader(&done.new_member_id),
            Some(leader) => {
                // An older client that leads would compute an assignment, which the group does not need. With the
                // former leader's id in the response it acts as a follower.
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
