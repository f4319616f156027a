//! Membership in a consumer group: the classic protocol (JoinGroup, SyncGroup, Heartbeat) with eager rebalances.
//!
//! A task sends heartbeats while the application processes records. A rebalance starts only inside a `poll`, when the
//! application has processed all returned records: the positions are committed (with `enable.auto.commit`), the
//! listener gets the revoked partitions, and the member joins again.

pub(crate) mod assignor;
pub(crate) mod commit;
mod join;
mod member;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millstream_wire::{ErrorCode, Str};
use parking_lot::Mutex;

use crate::consumer::config::ConsumerConfig;
use crate::error::Error;
use crate::net::{Cluster, Coordinator, CoordinatorOf, Lane};

pub(crate) use member::{leave, run};

/// One request to the coordinator may take this part of the session timeout.
const SESSION_PARTS: u32 = 3;

/// The identity of this consumer in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) member_id: Str,
    /// -1 while the consumer is not a member.
    pub(crate) generation: i32,
}

impl Membership {
    const NONE: Membership = Membership { member_id: Str::EMPTY, generation: -1 };
}

/// A member of a group, as a transaction of its offsets names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupMetadata {
    /// The group.
    pub group_id: String,
    /// The generation of the membership; -1 for a consumer that is not a member.
    pub generation_id: i32,
    /// The member id; empty for a consumer that is not a member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<String>,
}

/// The group as seen by this consumer.
pub(crate) struct Group {
    pub(crate) id: Str,
    pub(crate) instance_id: Option<Str>,
    pub(crate) coordinator: Coordinator,
    membership: Mutex<Membership>,
    /// Set while the member must join or is joining: `poll` returns no records.
    rebalancing: AtomicBool,
    pub(crate) last_poll: Mutex<Instant>,
}

impl Group {
    pub(crate) fn new(id: &str, request_timeout: Duration) -> Self {
        Self {
            id: Str::from(id),
            instance_id: None,
            coordinator: Coordinator::new(CoordinatorOf::Group, id, request_timeout),
            membership: Mutex::new(Membership::NONE),
            rebalancing: AtomicBool::new(false),
            last_poll: Mutex::new(Instant::now()),
        }
    }

    /// Returns the group as its members use it.
    pub(crate) fn of_member(id: &str, config: &ConsumerConfig) -> Self {
        // A broker that hangs must not take the whole session: another one may coordinate the group by then.
        let request_timeout = config.client.request_timeout.min(config.session_timeout / SESSION_PARTS);
        let instance_id = config.group_instance_id.as_deref().map(Str::from);
        Self { instance_id, ..Self::new(id, request_timeout) }
    }

    pub(crate) fn membership(&self) -> Membership {
        self.membership.lock().clone()
    }

    /// Returns the membership as a transaction names it.
    pub(crate) fn metadata(&self) -> ConsumerGroupMetadata {
        let membership = self.membership();
        ConsumerGroupMetadata {
            group_id: self.id.to_string(),
            generation_id: membership.generation,
            member_id: membership.member_id.to_string(),
            group_instance_id: self.instance_id.as_deref().map(String::from),
        }
    }

    pub(crate) fn rebalancing(&self) -> bool {
        self.rebalancing.load(Ordering::SeqCst)
    }

    pub(crate) fn set_rebalancing(&self, rebalancing: bool) {
        self.rebalancing.store(rebalancing, Ordering::SeqCst);
    }

    /// Converts an error code of the coordinator into a result, and updates the membership accordingly.
    pub(crate) fn check(&self, what: impl Fn() -> String, code: ErrorCode, message: Option<&str>) -> Result<(), Error> {
        if matches!(code, ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION) {
            let mut membership = self.membership.lock();
            // The coordinator has removed this member: it must join with a new member id.
            if code == ErrorCode::UNKNOWN_MEMBER_ID {
                membership.member_id = Str::EMPTY;
            }
            membership.generation = -1;
        }
        self.coordinator.check(what, code, message)
    }

    /// Sends a request to the coordinator, without retries.
    pub(crate) async fn ask<R: millstream_wire::Request>(
        &self,
        cluster: &Cluster,
        request: &R,
    ) -> Result<R::Response, Error> {
        self.coordinator.ask_up_to(cluster, Lane::Group, request, i16::MAX).await
    }
}
