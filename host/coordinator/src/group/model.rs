//! What all kinds of groups share: time, errors, the caller of a request.

use std::sync::Arc;

use millstream_wire::{ErrorCode, Str};
use thiserror::Error;

use crate::shard::NotServed;

/// Copies a name into memory of its own. A slice of a request frame would keep the whole frame alive as long as the
/// group.
#[must_use]
pub fn own(text: &Str) -> Arc<str> {
    Arc::from(text.as_str())
}

/// Copies a name if there is one, see [`own`].
#[must_use]
pub fn own_option(text: Option<&Str>) -> Option<Arc<str>> {
    text.map(own)
}

/// The id of a member, made by the coordinator.
pub type MemberId = Arc<str>;

/// The time of an event. The caller gives it, so the state machine never reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Monotonic milliseconds since a moment that stays the same: deadlines.
    pub(crate) mono_ms: u64,
    /// Milliseconds since the Unix epoch: written to the log.
    pub(crate) wall_ms: i64,
}

impl Now {
    /// Returns the monotonic time `delay_ms` from now.
    pub(crate) fn after(self, delay_ms: u64) -> u64 {
        self.mono_ms.saturating_add(delay_ms)
    }
}

/// The member that a request names as its sender.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The member id; empty for a client that is not a member.
    pub member_id: &'a str,
    /// The `group.instance.id` of a static member.
    pub instance_id: Option<&'a str>,
}

/// Why the coordinator rejects a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GroupError {
    /// Kafka's UNKNOWN_MEMBER_ID.
    #[error("the member id is not in the group")]
    UnknownMemberId,
    /// Kafka's FENCED_INSTANCE_ID.
    #[error("another member with the same group.instance.id has joined")]
    FencedInstanceId,
    /// Kafka's ILLEGAL_GENERATION.
    #[error("the generation is not the group's current generation")]
    IllegalGeneration,
    /// Kafka's REBALANCE_IN_PROGRESS.
    #[error("the group is rebalancing: join again")]
    RebalanceInProgress,
    /// Kafka's INCONSISTENT_GROUP_PROTOCOL.
    #[error("the protocol type or the protocols do not match those of the group")]
    InconsistentGroupProtocol,
    /// Kafka's INVALID_SESSION_TIMEOUT.
    #[error("the session timeout is not between group.min.session.timeout.ms and group.max.session.timeout.ms")]
    InvalidSessionTimeout,
    /// Kafka's MEMBER_ID_REQUIRED.
    #[error("join again with the member id of this response")]
    MemberIdRequired,
    /// Kafka's GROUP_MAX_SIZE_REACHED.
    #[error("the group has group.max.size members")]
    GroupMaxSizeReached,
    /// Kafka's INVALID_GROUP_ID.
    #[error("the group id is empty or too long")]
    InvalidGroupId,
    /// Names or metadata of a member exceed the limits of [`super::config`]; Kafka's INVALID_REQUEST.
    #[error("the member's names or metadata exceed the size limit for one member")]
    MemberTooLarge,
    /// Kafka's COORDINATOR_LOAD_IN_PROGRESS.
    #[error("the group is being loaded from the log")]
    CoordinatorLoadInProgress,
    /// Kafka's COORDINATOR_NOT_AVAILABLE.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// Kafka's NOT_COORDINATOR.
    #[error("this broker is not the coordinator of the group")]
    NotCoordinator,
    /// Kafka's GROUP_ID_NOT_FOUND.
    #[error("the group does not exist")]
    GroupIdNotFound,
    /// Kafka's NON_EMPTY_GROUP.
    #[error("the group has members")]
    NonEmptyGroup,
    /// Kafka's GROUP_SUBSCRIBED_TO_TOPIC.
    #[error("a member of the group subscribes to the topic")]
    GroupSubscribedToTopic,
    /// The log could not take the record.
    #[error("the record could not be written to the log")]
    WriteFailed,
    /// The transaction of the commit is not open, or cannot be asked for; with the code for the client.
    #[error("the coordinator of the transaction rejects the commit with {0}")]
    NotInTransaction(ErrorCode),
    /// The record is larger than a batch may be.
    #[error("the record is larger than max.message.bytes of __consumer_offsets")]
    RecordTooLarge,
}

impl From<NotServed> for GroupError {
    fn from(not_served: NotServed) -> Self {
        match not_served {
            NotServed::Loading => Self::CoordinatorLoadInProgress,
            NotServed::Failed => Self::CoordinatorNotAvailable,
            NotServed::Closed => Self::NotCoordinator,
        }
    }
}

impl From<GroupError> for ErrorCode {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::UnknownMemberId => Self::UNKNOWN_MEMBER_ID,
            GroupError::FencedInstanceId => Self::FENCED_INSTANCE_ID,
            GroupError::IllegalGeneration => Self::ILLEGAL_GENERATION,
            GroupError::RebalanceInProgress => Self::REBALANCE_IN_PROGRESS,
            GroupError::InconsistentGroupProtocol => Self::INCONSISTENT_GROUP_PROTOCOL,
            GroupError::InvalidSessionTimeout => Self::INVALID_SESSION_TIMEOUT,
            GroupError::MemberIdRequired => Self::MEMBER_ID_REQUIRED,
            GroupError::GroupMaxSizeReached => Self::GROUP_MAX_SIZE_REACHED,
            GroupError::InvalidGroupId => Self::INVALID_GROUP_ID,
            GroupError::MemberTooLarge => Self::INVALID_REQUEST,
            GroupError::CoordinatorLoadInProgress => Self::COORDINATOR_LOAD_IN_PROGRESS,
            // Clients find their coordinator again and retry, which suits a passing fault of the disk.
            GroupError::CoordinatorNotAvailable | GroupError::WriteFailed => Self::COORDINATOR_NOT_AVAILABLE,
            GroupError::NotCoordinator => Self::NOT_COORDINATOR,
            GroupError::GroupIdNotFound => Self::GROUP_ID_NOT_FOUND,
            GroupError::NonEmptyGroup => Self::NON_EMPTY_GROUP,
            GroupError::GroupSubscribedToTopic => Self::GROUP_SUBSCRIBED_TO_TOPIC,
            GroupError::NotInTransaction(code) => code,
            GroupError::RecordTooLarge => Self::UNKNOWN_SERVER_ERROR,
        }
    }
}
