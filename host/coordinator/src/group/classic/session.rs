//! Heartbeat, LeaveGroup, the check before a commit, and members that send no heartbeat.

use std::sync::Arc;

use super::model::*;
use super::state::{ClassicGroup, ClassicState};

impl ClassicGroup {
    /// Handles a Heartbeat.
    ///
    /// # Errors
    /// `RebalanceInProgress` tells a member to join again. Otherwise the caller is not a member of this generation.
    pub(crate) fn heartbeat(&mut self, now: Now, caller: Caller<'_>, generation: i32) -> Result<(), GroupError> {
        self.check_member(caller)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            ClassicState::Empty => Err(GroupError::UnknownMemberId),
            ClassicState::PreparingRebalance => {
                self.renew_session(caller.member_id, now);
                Err(GroupError::RebalanceInProgress)
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                self.renew_session(caller.member_id, now);
                Ok(())
            }
        }
    }

    /// Handles a LeaveGroup of several members, and returns one result for each, in order. An administrator names a
    /// static member by its instance id alone (KIP-345).
    pub(crate) fn leave(
        &mut self,
        now: Now,
        leaving: &[Caller<'_>],
        effects: &mut Effects,
    ) -> Vec<Result<(), GroupError>> {
        let members = self.members.len();
        let results: Vec<_> = leaving.iter().map(|caller| self.leave_one(*caller, effects)).collect();
        if self.members.len() < members {
            self.member_removed(now, effects);
        } else {
            // The rebalance may have waited only for an id that never joined and was given up now.
            self.complete_join_if_all_joined(now, effects);
        }
        results
    }

    fn leave_one(&mut self, caller: Caller<'_>, effects: &mut Effects) -> Result<(), GroupError> {
        let by_instance = caller.instance_id.filter(|_| caller.member_id.is_empty());
        if let Some(instance) = by_instance {
            let member_id = self.static_members.get(instance).cloned().ok_or(GroupError::UnknownMemberId)?;
            self.remove(&member_id, effects);
            return Ok(());
        }
        if self.pending.remove(caller.member_id).is_some() {
            return Ok(());
        }
        self.check_member(caller)?;
        self.remove(caller.member_id, effects);
        Ok(())
    }

    /// Checks that the caller may commit offsets now. A commit of a member counts as a heartbeat.
    ///
    /// A negative generation without member id and instance id comes from a consumer that assigns its own partitions,
    /// or from an administrator. It may commit while the group has no members.
    ///
    /// # Errors
    /// As [`ClassicGroup::heartbeat`]; also while the group waits for its leader, since no member has an assignment
    /// then.
    pub(crate) fn may_commit(&mut self, now: Now, caller: Caller<'_>, generation: i32) -> Result<(), GroupError> {
        if generation < 0 && self.state == ClassicState::Empty {
            return Ok(());
        }
        if generation < 0 && caller.member_id.is_empty() && caller.instance_id.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(caller)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == ClassicState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.renew_session(caller.member_id, now);
        Ok(())
    }

    /// Checks that the caller may commit offsets in a transaction. The transaction fences its producer, so a caller
    /// without member id may commit whatever members there are: older producers do not send one.
    ///
    /// # Errors
    /// As [`ClassicGroup::heartbeat`], but for rebalances.
    pub(crate) fn may_commit_in_transaction(&self, caller: Caller<'_>, generation: i32) -> Result<(), GroupError> {
        let is_member = !caller.member_id.is_empty() || caller.instance_id.is_some();
        if generation < 0 && (self.state == ClassicState::Empty || !is_member) {
            return Ok(());
        }
        self.check_member(caller)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        Ok(())
    }

    pub(super) fn expire_pending(&mut self, now: Now, effects: &mut Effects) {
        let before = self.pending.len();
        self.pending.retain(|_, deadline_ms| *deadline_ms > now.mono_ms);
        if self.pending.len() < before {
            self.complete_join_if_all_joined(now, effects);
        }
    }

    pub(super) fn expire_sessions(&mut self, now: Now, effects: &mut Effects) {
        let mut expired = Vec::new();
        for member in self.members.values_mut().filter(|member| member.session_deadline_ms <= now.mono_ms) {
            if member.is_excused() {
                member.session_deadline_ms = now.after(member.session_timeout_ms);
            } else {
                expired.push(Arc::clone(&member.id));
            }
        }
        if expired.is_empty() {
            return;
        }
        for member_id in expired {
            let generation = self.generation;
            tracing::info!(
                member = %member_id,
                generation,
                "removing a member: no heartbeat within its session timeout"
            );
            self.remove(&member_id, effects);
        }
        self.member_removed(now, effects);
    }
}
