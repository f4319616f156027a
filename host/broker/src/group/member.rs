//! One member of a group.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::model::{JoinRequest, MemberId, MemberSnapshot, Now, Protocol, Ticket};

/// A member: its id, what it offers, what it owns, and what it waits for.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) session_timeout_ms: u64,
    pub(crate) rebalance_timeout_ms: u64,
    /// In the member's order of preference, no name twice.
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// It has joined, but no rebalance has ended since: it does not know its id and cannot send heartbeats.
    pub(crate) is_new: bool,
    /// When the member is taken for dead, in monotonic milliseconds.
    pub(crate) session_deadline_ms: u64,
    /// Its JoinGroup that waits for the rebalance to end.
    pub(crate) join: Option<Ticket>,
    /// Its SyncGroup that waits for the leader's assignment.
    pub(crate) sync: Option<Ticket>,
}

impl Member {
    /// A member that joins under the id that it was given.
    pub(crate) fn joining(id: MemberId, request: JoinRequest, ticket: Ticket, session_deadline_ms: u64) -> Self {
        Self {
            id,
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout_ms: millis(request.session_timeout_ms),
            rebalance_timeout_ms: millis(request.rebalance_timeout_ms),
            protocols: request.protocols,
            assignment: Bytes::new(),
            is_new: true,
            session_deadline_ms,
            join: Some(ticket),
            sync: None,
        }
    }

    /// A member as it was written to the log: it has a full session time-out from now to show up.
    pub(crate) fn restored(from: MemberSnapshot, protocol: Option<Arc<str>>, now: Now) -> Self {
        let session_timeout_ms = millis(from.session_timeout_ms);
        // Version 0 of the record has no rebalance time-out: Kafka takes the session's then, and so does the decoder.
        Self {
            id: from.member_id,
            instance_id: from.instance_id,
            client_id: from.client_id,
            client_host: from.client_host,
            session_timeout_ms,
            rebalance_timeout_ms: millis(from.rebalance_timeout_ms),
            protocols: protocol.map(|name| Protocol { name, metadata: from.subscription }).into_iter().collect(),
            assignment: from.assignment,
            is_new: false,
            session_deadline_ms: now.after(session_timeout_ms),
            join: None,
            sync: None,
        }
    }

    /// The member as the log keeps it, with `assignment` in place of its own.
    pub(crate) fn snapshot(&self, protocol: Option<&str>, assignment: Bytes) -> MemberSnapshot {
        MemberSnapshot {
            member_id: Arc::clone(&self.id),
            instance_id: self.instance_id.clone(),
            client_id: Arc::clone(&self.client_id),
            client_host: Arc::clone(&self.client_host),
            rebalance_timeout_ms: clamp_i32(self.rebalance_timeout_ms),
            session_timeout_ms: clamp_i32(self.session_timeout_ms),
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    /// The metadata that the member offers for `protocol`; empty if it does not speak it.
    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let offered = self.protocols.iter().find(|offered| Some(&*offered.name) == protocol);
        offered.map(|offered| offered.metadata.clone()).unwrap_or_default()
    }

    /// The protocol that the member prefers among those that all `members` speak.
    pub(crate) fn vote(&self, spoken_by: &HashMap<Arc<str>, usize>, members: usize) -> Option<&Arc<str>> {
        self.protocols.iter().map(|offered| &offered.name).find(|name| spoken_by.get(*name) == Some(&members))
    }

    /// The member is told of a rebalance by its own open request: it need not send heartbeats meanwhile.
    pub(crate) fn is_excused(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }
}

/// A time-out from a client: negative means none at all.
pub(crate) fn millis(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn clamp_i32(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
