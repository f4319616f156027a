//! A group of any protocol. Today there is one: the classic protocol.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_wire::Str;

use super::classic::model::{Effects, MemberSnapshot};
use super::classic::{ClassicGroup, ClassicState};
use super::model::{Caller, GroupError, Now};

/// The classic protocol's name in ListGroups.
pub const CLASSIC: &str = "classic";

/// A group. Consumer groups (KIP-848) and share groups become further variants.
#[derive(Debug)]
pub(crate) enum Group {
    Classic(ClassicGroup),
}

impl Group {
    /// Returns the group as one of the classic protocol, for its requests.
    pub(crate) fn classic(&mut self) -> &mut ClassicGroup {
        let Self::Classic(group) = self;
        group
    }

    /// Returns the name of the protocol, as ListGroups shows it.
    pub(crate) fn kind(&self) -> &'static str {
        let Self::Classic(_) = self;
        CLASSIC
    }

    /// Returns the name of the state, as ListGroups shows it.
    pub(crate) fn state_name(&self) -> &'static str {
        let Self::Classic(group) = self;
        group.state().name()
    }

    /// Returns the protocol type, which the first member decides.
    pub(crate) fn protocol_type(&self) -> Option<&Arc<str>> {
        let Self::Classic(group) = self;
        group.protocol_type()
    }

    /// Returns the chosen protocol if the group is stable.
    pub(crate) fn described_protocol(&self) -> Option<&Arc<str>> {
        let Self::Classic(group) = self;
        group.described_protocol()
    }

    /// Returns the members as DescribeGroups shows them.
    pub(crate) fn describe_members(&self) -> Vec<MemberSnapshot> {
        let Self::Classic(group) = self;
        group.describe_members()
    }

    /// Returns whether the group has no members, and no id was handed out that may still join.
    pub(crate) fn is_vacant(&self) -> bool {
        let Self::Classic(group) = self;
        group.is_vacant()
    }

    /// Returns whether the group never had anything to keep.
    pub(crate) fn is_untouched(&self) -> bool {
        let Self::Classic(group) = self;
        group.is_untouched()
    }

    /// Returns whether the group has no members and has had some.
    pub(crate) fn empty_since_ms(&self) -> Option<i64> {
        let Self::Classic(group) = self;
        let was_used = group.protocol_type().is_some() && group.state() == ClassicState::Empty;
        was_used.then(|| group.state_since_ms())
    }

    /// Returns the topics that the members subscribe to; `None` if that is unknown.
    pub(crate) fn subscribed_topics(&self) -> Option<BTreeSet<Str>> {
        let Self::Classic(group) = self;
        group.subscribed_topics()
    }

    /// Returns whether committed offsets may expire now, by the state of the group.
    pub(crate) fn lets_offsets_expire(&self) -> bool {
        let Self::Classic(group) = self;
        match (group.protocol_type(), group.state()) {
            (None, _) | (Some(_), ClassicState::Empty | ClassicState::Stable) => true,
            (Some(_), ClassicState::PreparingRebalance | ClassicState::CompletingRebalance) => false,
        }
    }

    /// Checks that the offsets of a group may be deleted: it has no members, or its members are consumers.
    pub(crate) fn check_offset_delete(&self) -> Result<(), GroupError> {
        let Self::Classic(group) = self;
        if group.state() == ClassicState::Empty || group.is_of_consumers() {
            Ok(())
        } else {
            Err(GroupError::NonEmptyGroup)
        }
    }

    /// Checks that the caller may commit offsets, see [`ClassicGroup::may_commit`].
    pub(crate) fn may_commit(&mut self, now: Now, caller: Caller<'_>, generation: i32) -> Result<(), GroupError> {
        let Self::Classic(group) = self;
        group.may_commit(now, caller, generation)
    }

    /// Checks that the caller may commit offsets in a transaction, see [`ClassicGroup::may_commit_in_transaction`].
    pub(crate) fn may_commit_in_transaction(&self, caller: Caller<'_>, generation: i32) -> Result<(), GroupError> {
        let Self::Classic(group) = self;
        group.may_commit_in_transaction(caller, generation)
    }

    /// Returns when [`Group::tick`] has something to do, in monotonic milliseconds.
    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        let Self::Classic(group) = self;
        group.wake_at_ms()
    }

    /// Does everything that is due.
    pub(crate) fn tick(&mut self, now: Now, effects: &mut Effects) {
        let Self::Classic(group) = self;
        group.tick(now, effects);
    }
}
