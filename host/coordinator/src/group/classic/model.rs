//! What the classic protocol's state machine and its callers exchange: requests, replies and effects.
//!
//! Everything here owns its bytes, see [`own`](crate::group::own).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use crate::group::model::*;

/// The number of a request that waits for its response. The caller chooses it, unique within the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// A protocol that a member supports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// The name, such as `range`.
    pub name: Arc<str>,
    /// Opaque: a consumer's subscription, a Connect worker's state, a schema registry's identity.
    pub metadata: Bytes,
}

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// Empty for a member that has no id yet.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The client's name.
    pub client_id: Arc<str>,
    /// The client's address.
    pub client_host: Arc<str>,
    /// How long the member may send no heartbeat.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for the member to join again.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect` and so on.
    pub protocol_type: Arc<str>,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// A member without an id has to join again with one (JoinGroup v4, KIP-394).
    pub requires_known_member_id: bool,
    /// The client understands `skip_assignment` (JoinGroup v9).
    pub supports_skip_assignment: bool,
}

/// A member in the leader's JoinGroup response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member's id.
    pub member_id: MemberId,
    /// Its `group.instance.id`.
    pub instance_id: Option<Arc<str>>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// A JoinGroup that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The member's id.
    pub member_id: MemberId,
    /// The generation that starts.
    pub generation: i32,
    /// The protocol type of the group.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol of the generation.
    pub protocol: Option<Arc<str>>,
    /// The member that computes the assignment.
    pub leader: MemberId,
    /// The leader need not compute an assignment: the group keeps its current one.
    pub skip_assignment: bool,
    /// All members, for the leader. Empty for the others.
    pub members: Vec<JoinedMember>,
}

/// A JoinGroup that was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRejected {
    /// Why.
    pub error: GroupError,
    /// The member id of the response.
    pub member_id: Arc<str>,
}

/// The reply to a JoinGroup.
pub type JoinReply = Result<Joined, JoinRejected>;

/// A SyncGroup request.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// The member's id.
    pub member_id: Arc<str>,
    /// Its `group.instance.id`.
    pub instance_id: Option<Arc<str>>,
    /// The generation that the member knows.
    pub generation: i32,
    /// The protocol type that the member knows.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol that the member knows.
    pub protocol: Option<Arc<str>>,
    /// From the leader: the assignment of each member. Opaque.
    pub assignments: BTreeMap<MemberId, Bytes>,
}

/// A SyncGroup that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The protocol type of the group.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol of the generation.
    pub protocol: Option<Arc<str>>,
    /// The member's assignment.
    pub assignment: Bytes,
}

/// The reply to a SyncGroup.
pub type SyncReply = Result<Synced, GroupError>;

/// A group as its `__consumer_offsets` record holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GroupSnapshot {
    pub(crate) protocol_type: Arc<str>,
    pub(crate) generation: i32,
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) leader: Option<MemberId>,
    /// When the group entered its state, in milliseconds since the Unix epoch; -1 if unknown.
    pub(crate) state_since_ms: i64,
    pub(crate) members: Vec<MemberSnapshot>,
}

/// A member as the group's record holds it, and as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSnapshot {
    /// The member's id.
    pub member_id: MemberId,
    /// Its `group.instance.id`.
    pub instance_id: Option<Arc<str>>,
    /// The client's name.
    pub client_id: Arc<str>,
    /// The client's address.
    pub client_host: Arc<str>,
    /// How long a rebalance waits for the member to join again.
    pub rebalance_timeout_ms: i32,
    /// How long the member may send no heartbeat.
    pub session_timeout_ms: i32,
    /// The member's metadata for the group's protocol.
    pub subscription: Bytes,
    /// What the leader assigned to the member.
    pub assignment: Bytes,
}

/// A group record to write, and what happens after it.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) snapshot: GroupSnapshot,
    pub(crate) purpose: WritePurpose,
}

/// What [`super::ClassicGroup::written`] does when the record is committed, or the write has failed.
#[derive(Debug)]
pub(crate) enum WritePurpose {
    /// The last member left. No request waits.
    Empty,
    /// The leader's assignment: the group becomes stable, and every waiting SyncGroup gets its response.
    Assignment { generation: i32, assignments: BTreeMap<MemberId, Bytes> },
    /// A static member joined under a new id: its JoinGroup gets its response, or the change is undone.
    StaticMember(Box<StaticReplacement>),
}

/// What is needed to respond to, or to undo, the replacement of a static member.
#[derive(Debug)]
pub(crate) struct StaticReplacement {
    pub(crate) ticket: Ticket,
    pub(crate) instance_id: Arc<str>,
    pub(crate) old_member_id: MemberId,
    pub(crate) new_member_id: MemberId,
    pub(crate) old_protocols: Vec<Protocol>,
    pub(crate) old_session_timeout_ms: u64,
    pub(crate) old_rebalance_timeout_ms: u64,
    /// The leader before the replacement; `None` if the client understands `skip_assignment`, so that the response can
    /// name the current leader.
    pub(crate) leader_to_report: Option<MemberId>,
}

/// What the caller has to do after a call: send responses, write records.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) joins: Vec<(Ticket, JoinReply)>,
    pub(crate) syncs: Vec<(Ticket, SyncReply)>,
    pub(crate) writes: Vec<Write>,
}

impl Effects {
    pub(crate) fn reject_join(&mut self, ticket: Ticket, error: GroupError, member_id: &Arc<str>) {
        let member_id = Arc::clone(member_id);
        self.joins.push((ticket, Err(JoinRejected { error, member_id })));
    }

    pub(crate) fn sync(&mut self, ticket: Ticket, reply: SyncReply) {
        self.syncs.push((ticket, reply));
    }
}
