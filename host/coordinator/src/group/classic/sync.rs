//! SyncGroup: the leader sends the assignment, and each member receives its part.

use std::sync::Arc;

use super::model::*;
use super::state::{ClassicGroup, ClassicState};

impl ClassicGroup {
    /// Handles a SyncGroup. The response goes to `effects` under `ticket`, now or when the leader's assignment is
    /// committed.
    pub(crate) fn sync(&mut self, now: Now, request: SyncRequest, ticket: Ticket, effects: &mut Effects) {
        if let Err(error) = self.check_sync(&request) {
            return effects.sync(ticket, Err(error));
        }
        match self.state {
            ClassicState::Empty => effects.sync(ticket, Err(GroupError::UnknownMemberId)),
            ClassicState::PreparingRebalance => effects.sync(ticket, Err(GroupError::RebalanceInProgress)),
            ClassicState::CompletingRebalance => self.await_assignment(request, ticket, effects),
            ClassicState::Stable => {
                self.has_synced(&request.member_id);
                effects.sync(ticket, Ok(self.synced(&request.member_id)));
                self.renew_session(&request.member_id, now);
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(Caller { member_id: &request.member_id, instance_id: request.instance_id.as_deref() })?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs =
            |given: &Option<Arc<str>>, ours: &Option<Arc<str>>| given.is_some() && ours.is_some() && given != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn await_assignment(&mut self, mut request: SyncRequest, ticket: Ticket, effects: &mut Effects) {
        self.has_synced(&request.member_id);
        if let Some(member) = self.members.get_mut(&request.member_id)
            && let Some(superseded) = member.sync.replace(ticket)
        {
            effects.sync(superseded, Err(GroupError::RebalanceInProgress));
        }
        if self.is_leader(&request.member_id) {
            request.assignments.retain(|member_id, _| self.members.contains_key(member_id));
            let snapshot = self.snapshot(Some(&request.assignments));
            let purpose = WritePurpose::Assignment { generation: self.generation, assignments: request.assignments };
            effects.writes.push(Write { snapshot, purpose });
        }
    }

    fn has_synced(&mut self, member_id: &str) {
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            self.sync_deadline_ms = None;
        }
    }

    /// Removes members that joined but never asked for their assignment: the partitions assigned to them would not be
    /// read.
    pub(super) fn expire_sync(&mut self, now: Now, effects: &mut Effects) {
        if self.sync_deadline_ms.is_none_or(|deadline| deadline > now.mono_ms) {
            return;
        }
        self.sync_deadline_ms = None;
        for member_id in std::mem::take(&mut self.pending_sync) {
            self.remove(&member_id, effects);
        }
        self.member_removed(now, effects);
    }

    /// Continues after a record of [`Effects::writes`] was committed, or could not be written.
    pub(crate) fn written(
        &mut self,
        now: Now,
        purpose: WritePurpose,
        outcome: Result<(), GroupError>,
        effects: &mut Effects,
    ) {
        match purpose {
            WritePurpose::Empty => {}
            WritePurpose::StaticMember(replacement) => self.static_member_written(*replacement, outcome, effects),
            WritePurpose::Assignment { generation, assignments } => {
                if self.state != ClassicState::CompletingRebalance || self.generation != generation {
                    // Another rebalance has begun, and has responded to the members.
                    return;
                }
                match outcome {
                    Ok(()) => self.become_stable(assignments, now, effects),
                    Err(error) => {
                        self.fail_syncs(error, now, effects);
                        self.rebalance_or_complete(now, effects);
                    }
                }
            }
        }
    }
}
