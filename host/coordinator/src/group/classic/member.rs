//! One member of a group.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::model::{JoinRequest, MemberId, MemberSnapshot, Now, Protocol, Ticket};

/// A member: its id, its protocols, its assignment and its waiting requests.
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
    /// No rebalance has ended since it joined, so it does not know its id and cannot send heartbeats.
    pub(crate) is_new: bool,
    /// When the session expires, in monotonic milliseconds.
    pub(crate) session_deadline_ms: u64,
    /// Its JoinGroup that waits for the end of the rebalance.
    pub(crate) join: Option<Ticket>,
    /// Its SyncGroup that waits for the leader's assignment.
    pub(crate) sync: Option<Ticket>,
}

impl Member {
    /// Makes a member that joins with the given id.
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

    /// Makes a member from the log. It has a full session timeout from now.
    pub(crate) fn restored(from: MemberSnapshot, protocol: Option<Arc<str>>, now: Now) -> Self {
        let session_timeout_ms = millis(from.session_timeout_ms);
        // Version 0 of the record has no rebalance timeout. The decoder takes the session timeout, as Kafka does.
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

    /// Returns the member for the group's record, with `assignment` instead of its own.
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

    /// Returns the member's metadata for `protocol`; empty if it does not support it.
    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let offered = self.protocols.iter().find(|offered| Some(&*offered.name) == protocol);
        offered.map(|offered| offered.metadata.clone()).unwrap_or_default()
    }

    /// Returns the first of the member's protocols that all `members` support.
    pub(crate) fn vote(&self, supported_by: &HashMap<Arc<str>, usize>, members: usize) -> Option<&Arc<str>> {
        self.protocols.iter().map(|offered| &offered.name).find(|name| supported_by.get(*name) == Some(&members))
    }

    /// Returns whether the member need not send heartbeats, since one of its requests waits for a response.
    pub(crate) fn is_excused(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }
}

/// Converts a timeout from a client. A negative one is 0.
pub(crate) fn millis(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn clamp_i32(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
