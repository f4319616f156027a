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

use millstream_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use millstream_wire::{ErrorCode, Str};
use parking_lot::Mutex;

use crate::consumer::config::ConsumerConfig;
use crate::error::Error;
use crate::net::{Cluster, Lane, address_of};

pub(crate) use member::{leave, run};

/// The first version of FindCoordinator with several keys.
const FIRST_WITH_KEYS: i16 = 4;

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

/// The group as seen by this consumer.
pub(crate) struct Group {
    pub(crate) id: Str,
    pub(crate) instance_id: Option<Str>,
    /// The longest wait for a response of the coordinator, and for the lookup of it.
    request_timeout: Duration,
    membership: Mutex<Membership>,
    coordinator: Mutex<Option<i32>>,
    /// Set while the member must join or is joining: `poll` returns no records.
    rebalancing: AtomicBool,
    pub(crate) last_poll: Mutex<Instant>,
}

impl Group {
    pub(crate) fn new(id: &str, request_timeout: Duration) -> Self {
        Self {
            id: Str::from(id),
            instance_id: None,
            request_timeout,
            membership: Mutex::new(Membership::NONE),
            coordinator: Mutex::default(),
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

    pub(crate) fn rebalancing(&self) -> bool {
        self.rebalancing.load(Ordering::SeqCst)
    }

    pub(crate) fn set_rebalancing(&self, rebalancing: bool) {
        self.rebalancing.store(rebalancing, Ordering::SeqCst);
    }

    /// Returns the broker that coordinates the group. Looks it up if it is unknown.
    pub(crate) async fn coordinator(&self, cluster: &Cluster) -> Result<i32, Error> {
        if let Some(node) = *self.coordinator.lock() {
            return Ok(node);
        }
        let connection = cluster.any().await?;
        let version = connection.version::<FindCoordinatorRequest>()?;
        let mut request = FindCoordinatorRequest::default();
        if version >= FIRST_WITH_KEYS {
            request.coordinator_keys = vec![self.id.clone()];
        } else {
            request.key = self.id.clone();
        }
        let response = connection.send(&request)?.wait(self.request_timeout).await?;
        let (node, address) = self.read_coordinator(&response)?;
        let metadata = cluster.metadata();
        if metadata.brokers.get(&node).is_none_or(|known| **known != *address) {
            cluster.refresh(metadata.generation).await?;
        }
        *self.coordinator.lock() = Some(node);
        Ok(node)
    }

    /// Returns the id and the address of the coordinator.
    fn read_coordinator(&self, response: &FindCoordinatorResponse) -> Result<(i32, String), Error> {
        let what = || format!("find the coordinator of group {}", &*self.id);
        let (code, message, node) = match response.coordinators.first() {
            Some(one) => (one.error_code, &one.error_message, (one.node_id, address_of(&one.host, one.port))),
            None => {
                let node = (response.node_id, address_of(&response.host, response.port));
                (response.error_code, &response.error_message, node)
            }
        };
        Error::check(what, code, message.as_deref())?;
        Ok(node)
    }

    fn forget_coordinator(&self) {
        *self.coordinator.lock() = None;
    }

    /// Forgets the coordinator if the request failed.
    pub(crate) fn watch<T>(&self, response: Result<T, Error>) -> Result<T, Error> {
        response.map_err(|error| {
            self.forget_coordinator();
            // The metadata has no broker with this id: it is down, and another one will coordinate the group.
            let is_gone = error.code() == Some(ErrorCode::BROKER_NOT_AVAILABLE);
            let what = || format!("reach the coordinator of group {}", &*self.id);
            if is_gone { Error::broker(what(), ErrorCode::COORDINATOR_NOT_AVAILABLE, None) } else { error }
        })
    }

    /// Converts an error code of the coordinator into a result, and updates the membership accordingly.
    pub(crate) fn check(&self, what: impl Fn() -> String, code: ErrorCode, message: Option<&str>) -> Result<(), Error> {
        match code {
            ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE => self.forget_coordinator(),
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION => {
                let mut membership = self.membership.lock();
                // The coordinator has removed this member: it must join with a new member id.
                if code == ErrorCode::UNKNOWN_MEMBER_ID {
                    membership.member_id = Str::EMPTY;
                }
                membership.generation = -1;
            }
            _ => {}
        }
        Error::check(what, code, message)
    }

    /// Sends a request to the coordinator, without retries.
    pub(crate) async fn ask<R: millstream_wire::Request>(
        &self,
        cluster: &Cluster,
        request: &R,
    ) -> Result<R::Response, Error> {
        let node = self.coordinator(cluster).await?;
        let response =
            async { cluster.broker(node, Lane::Group).await?.send(request)?.wait(self.request_timeout).await };
        self.watch(response.await)
    }
}
