//! The words that the state machine and its callers exchange: requests, answers, errors and effects.
//!
//! Everything here owns its bytes. A name or a blob that is a slice of a request frame would keep the whole frame alive for as
//! long as the group lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millstream_wire::Str;

/// A copy of a name with memory of its own.
pub(crate) fn own(text: &Str) -> Arc<str> {
    Arc::from(text.as_str())
}

/// As [`own`].
pub(crate) fn own_option(text: Option<&Str>) -> Option<Arc<str>> {
    text.map(own)
}

/// The id of a member, made by the coordinator.
pub(crate) type MemberId = Arc<str>;

/// The moment at which something happens, given by the caller: the state machine never looks at a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds of a monotonic clock: deadlines are measured with it.
    pub(crate) mono_ms: u64,
    /// Milliseconds since the Unix epoch: what is written to the log.
    pub(crate) wall_ms: i64,
}

impl Now {
    /// The monotonic moment `delay_ms` from now.
    pub(crate) fn after(self, delay_ms: u64) -> u64 {
        self.mono_ms.saturating_add(delay_ms)
    }
}

/// Names a request that waits for an answer. The caller chooses it, unique within the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// Why the coordinator refuses; the handlers map it to Kafka's error codes in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    #[error("the coordinator does not know this member of the group")]
    UnknownMemberId,
    #[error("another member with the same group.instance.id has taken over")]
    FencedInstanceId,
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    #[error("the group is rebalancing: join again")]
    RebalanceInProgress,
    #[error("the protocol type or the protocols do not fit those of the group")]
    InconsistentGroupProtocol,
    #[error("the session time-out is outside group.min.session.timeout.ms and group.max.session.timeout.ms")]
    InvalidSessionTimeout,
    #[error("join again with the member id of this answer")]
    MemberIdRequired,
    #[error("the group has group.max.size members")]
    GroupMaxSizeReached,
    #[error("the group id is empty or too long")]
    InvalidGroupId,
    #[error("the member's names or metadata are larger than a group keeps of one member")]
    TooLargeToKeep,
    #[error("the group is being loaded from the log")]
    CoordinatorLoadInProgress,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    #[error("this broker is not the coordinator of the group")]
    NotCoordinator,
    #[error("the group does not exist")]
    GroupIdNotFound,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("a member of the group subscribes to the topic")]
    SubscribedToTopic,
    #[error("the record could not be written to the log")]
    WriteFailed,
    #[error("the record is larger than the max.message.bytes of __consumer_offsets")]
    TooLargeToWrite,
}

/// One protocol that a member offers, in its order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: Arc<str>,
    /// Opaque: a consumer's subscription, a Connect worker's state, a schema registry's identity.
    pub(crate) metadata: Bytes,
}

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    /// Empty: the member has no id yet.
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) protocol_type: Arc<str>,
    pub(crate) protocols: Vec<Protocol>,
    /// The version asks a member without an id to come back with one (JoinGroup v4, KIP-394).
    pub(crate) requires_known_member_id: bool,
    /// The client understands `skip_assignment` (JoinGroup v9).
    pub(crate) supports_skip_assignment: bool,
}

/// A member as the leader sees it in its JoinGroup answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) member_id: MemberId,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) metadata: Bytes,
}

/// A JoinGroup that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) member_id: MemberId,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<Arc<str>>,
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) leader: MemberId,
    /// The leader need not compute an assignment: the group keeps the one it has.
    pub(crate) skip_assignment: bool,
    /// Empty for followers.
    pub(crate) members: Vec<JoinedMember>,
}

/// A JoinGroup that was refused, with the member id that the answer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub(crate) error: GroupError,
    pub(crate) member_id: Arc<str>,
}

pub(crate) type JoinReply = Result<Joined, JoinRefused>;

/// A SyncGroup request.
#[derive(Debug, Clone)]
pub(crate) struct SyncRequest {
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<Arc<str>>,
    pub(crate) protocol: Option<Arc<str>>,
    /// From the leader: what each member shall own. Opaque.
    pub(crate) assignments: BTreeMap<MemberId, Bytes>,
}

/// A SyncGroup that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: Option<Arc<str>>,
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) assignment: Bytes,
}

pub(crate) type SyncReply = Result<Synced, GroupError>;

/// Who a request says it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance_id: Option<&'a str>,
}

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

/// A member within a [`GroupSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberSnapshot {
    pub(crate) member_id: MemberId,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

/// A group record to be written, and what hangs on it.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) snapshot: GroupSnapshot,
    pub(crate) purpose: WritePurpose,
}

/// What [`super::state::Group::written`] does once the record is durable, or has failed.
#[derive(Debug)]
pub(crate) enum WritePurpose {
    /// The last member went: nobody waits.
    Empty,
    /// The leader's assignment: the group becomes stable and every SyncGroup is answered.
    Assignment { generation: i32, assignments: BTreeMap<MemberId, Bytes> },
    /// A static member came back under a new id: its JoinGroup is answered, or the change is undone.
    StaticMember(Box<StaticReplacement>),
}

/// What is needed to answer for, or to undo, the replacement of a static member.
#[derive(Debug)]
pub(crate) struct StaticReplacement {
    pub(crate) ticket: Ticket,
    pub(crate) instance_id: Arc<str>,
    pub(crate) old_member_id: MemberId,
    pub(crate) new_member_id: MemberId,
    pub(crate) old_protocols: Vec<Protocol>,
    pub(crate) old_session_timeout_ms: u64,
    pub(crate) old_rebalance_timeout_ms: u64,
    /// The leader before the replacement; `None` if the client understands `skip_assignment` and is told the truth.
    pub(crate) leader_to_report: Option<MemberId>,
}

/// What the caller has to do after a call: answer requests, write records.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) joins: Vec<(Ticket, JoinReply)>,
    pub(crate) syncs: Vec<(Ticket, SyncReply)>,
    pub(crate) writes: Vec<Write>,
}

impl Effects {
    pub(crate) fn refuse_join(&mut self, ticket: Ticket, error: GroupError, member_id: &Arc<str>) {
        let member_id = Arc::clone(member_id);
        self.joins.push((ticket, Err(JoinRefused { error, member_id })));
    }

    pub(crate) fn sync(&mut self, ticket: Ticket, reply: SyncReply) {
        self.syncs.push((ticket, reply));
    }
}
