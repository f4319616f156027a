//! The coordinator of a group or of a transactional id, which is looked up when it is first needed, and again when it
//! has moved.

use std::sync::Arc;
use std::time::Duration;

use millstream_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use millstream_wire::{ErrorCode, Request, Str};
use parking_lot::Mutex;

use super::cluster::{Cluster, Lane};
use super::connection::Connection;
use super::metadata::address_of;
use crate::error::Error;

/// The first version of FindCoordinator with several keys.
const FIRST_WITH_KEYS: i16 = 4;

/// What a coordinator is responsible for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CoordinatorOf {
    Group,
    TransactionalId,
}

impl CoordinatorOf {
    fn key_type(self) -> i8 {
        match self {
            CoordinatorOf::Group => 0,
            CoordinatorOf::TransactionalId => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            CoordinatorOf::Group => "group",
            CoordinatorOf::TransactionalId => "transactional id",
        }
    }
}

/// The coordinator of one key.
pub(crate) struct Coordinator {
    of: CoordinatorOf,
    key: Str,
    /// The longest wait for a response of the coordinator, and for the lookup of it.
    pub(crate) request_timeout: Duration,
    node: Mutex<Option<i32>>,
}

impl Coordinator {
    pub(crate) fn new(of: CoordinatorOf, key: &str, request_timeout: Duration) -> Self {
        Self { of, key: Str::from(key), request_timeout, node: Mutex::default() }
    }

    /// Returns the id of the broker. Looks it up if it is unknown.
    pub(crate) async fn node(&self, cluster: &Cluster) -> Result<i32, Error> {
        if let Some(node) = *self.node.lock() {
            return Ok(node);
        }
        let connection = cluster.any().await?;
        let version = connection.version::<FindCoordinatorRequest>()?;
        let mut request = FindCoordinatorRequest { key_type: self.of.key_type(), ..FindCoordinatorRequest::default() };
        if version >= FIRST_WITH_KEYS {
            request.coordinator_keys = vec![self.key.clone()];
        } else {
            request.key = self.key.clone();
        }
        let response = connection.send(&request)?.wait(self.request_timeout).await?;
        let (node, address) = self.read(&response)?;
        let metadata = cluster.metadata();
        if metadata.brokers.get(&node).is_none_or(|known| **known != *address) {
            cluster.refresh(metadata.generation).await?;
        }
        *self.node.lock() = Some(node);
        Ok(node)
    }

    /// Returns the id and the address of the coordinator.
    fn read(&self, response: &FindCoordinatorResponse) -> Result<(i32, String), Error> {
        let what = || format!("find the coordinator of {} {}", self.of.name(), &*self.key);
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

    fn forget(&self) {
        *self.node.lock() = None;
    }

    /// Forgets the coordinator if the request failed.
    pub(crate) fn watch<T>(&self, response: Result<T, Error>) -> Result<T, Error> {
        response.map_err(|error| {
            self.forget();
            // The metadata has no broker with this id: it is down, and there will be another coordinator.
            let is_gone = error.code() == Some(ErrorCode::BROKER_NOT_AVAILABLE);
            let what = || format!("reach the coordinator of {} {}", self.of.name(), &*self.key);
            if is_gone { Error::broker(what(), ErrorCode::COORDINATOR_NOT_AVAILABLE, None) } else { error }
        })
    }

    /// Converts an error code of the coordinator into a result. Forgets the coordinator if it has moved.
    pub(crate) fn check(&self, what: impl Fn() -> String, code: ErrorCode, message: Option<&str>) -> Result<(), Error> {
        if matches!(code, ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE) {
            self.forget();
        }
        Error::check(what, code, message)
    }

    /// Returns a connection to the coordinator.
    pub(crate) async fn connect(&self, cluster: &Cluster, lane: Lane) -> Result<Arc<Connection>, Error> {
        let node = self.node(cluster).await?;
        self.watch(cluster.broker(node, lane).await)
    }

    /// Sends a request to the coordinator in a version of at most `last`, without retries.
    pub(crate) async fn ask_up_to<R: Request>(
        &self,
        cluster: &Cluster,
        lane: Lane,
        request: &R,
        last: i16,
    ) -> Result<R::Response, Error> {
        let connection = self.connect(cluster, lane).await?;
        let response = async { connection.send_up_to(request, last)?.wait(self.request_timeout).await };
        self.watch(response.await)
    }
}
