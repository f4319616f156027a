//! Heartbeat, LeaveGroup, the right to commit, and members that go silent.

use std::sync::Arc;

use super::model::*;
use super::state::{Group, GroupState};

impl Group {
    /// Handles a Heartbeat.
    ///
    /// # Errors
    /// `RebalanceInProgress` tells a live member to join again; the others say that it is not a member of this generation.
    pub(crate) fn heartbeat(&mut self, now: Now, caller: Caller<'_>, generation: i32) -> Result<(), GroupError> {
        self.check_member(caller)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            GroupState::Empty => Err(GroupError::UnknownMemberId),
            GroupState::PreparingRebalance => {
                self.renew_session(caller.member_id, now);
                Err(GroupError::RebalanceInProgress)
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.renew_session(caller.member_id, now);
                Ok(())
            }
        }
    }

    /// Handles a LeaveGroup of several members; one answer each, in order. A static member may be named by its instance id alone
    /// (an administrator removes it, KIP-345).
    pub(crate) fn leave(
        &mut self,
        now: Now,
        leaving: &[Caller<'_>],
        effects: &mut Effects,
    ) -> Vec<Result<(), GroupError>> {
        let members = self.members.len();
        let answers: Vec<_> = leaving.iter().map(|caller| self.leave_one(*caller, effects)).collect();
        if self.members.len() < members {
            self.member_removed(now, effects);
        } else {
            // An id that was given up before it joined may be all that the rebalance waited for.
            self.complete_join_if_all_joined(now, effects);
        }
        answers
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

    /// Whether the caller may commit offsets now; if it is a member, that counts as a heartbeat.
    ///
    /// A negative generation with neither member nor instance id is a consumer that assigns its own partitions, or an
    /// administrator: it may commit as long as the group has no members.
    ///
    /// # Errors
    /// As [`Group::heartbeat`]; also while the group waits for its leader, since the member cannot own anything then.
    pub(crate) fn may_commit(&mut self, now: Now, caller: Caller<'_>, generation: i32) -> Result<(), GroupError> {
        if generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        if generation < 0 && caller.member_id.is_empty() && caller.instance_id.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(caller)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.renew_session(caller.member_id, now);
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
        let mut silent = Vec::new();
        for member in self.members.values_mut().filter(|member| member.session_deadline_ms <= now.mono_ms) {
            if member.is_excused() {
                member.session_deadline_ms = now.after(member.session_timeout_ms);
            } else {
                silent.push(Arc::clone(&member.id));
            }
        }
        if silent.is_empty() {
            return;
        }
        for member_id in silent {
            tracing::info!(member = %member_id, generation = self.generation, "member went silent and is removed from its group");
            self.remove(&member_id, effects);
        }
        self.member_removed(now, effects);
    }
}
