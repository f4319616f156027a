//! Connections to other brokers, over their listener for brokers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream_metadata::MetadataStore;
use millstream_wire::{ErrorCode, Request};
use parking_lot::Mutex;

use crate::error::ApiError;
use crate::replication::{Connection, ConnectionError};

/// The most idle connections to one broker.
const IDLE_MAX: usize = 8;

/// The most bytes of a response.
const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// How long a connection and a response may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The other brokers of the cluster.
pub(crate) struct OtherBrokers {
    metadata: Arc<MetadataStore>,
    /// The name of the listener for brokers; `None` for a broker that is alone.
    listener: Option<String>,
    idle: Mutex<HashMap<i32, Vec<Connection>>>,
}

impl fmt::Debug for OtherBrokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtherBrokers").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl OtherBrokers {
    pub(crate) fn new(metadata: Arc<MetadataStore>, listener: Option<String>) -> Self {
        Self { metadata, listener, idle: Mutex::default() }
    }

    /// Sends a request to a broker and returns its response. A request that may have been sent is sent once more over a
    /// new connection, so it has to be one that may be repeated.
    ///
    /// # Errors
    /// NETWORK_EXCEPTION: the broker is not known, or not reached.
    pub(super) async fn call<R: Request>(
        &self,
        broker: i32,
        request: &R,
        version: i16,
    ) -> Result<R::Response, ApiError> {
        let idle = self.idle.lock().get_mut(&broker).and_then(Vec::pop);
        if let Some(mut connection) = idle
            && let Ok(response) = connection.call(request, version).await
        {
            self.keep(broker, connection);
            return Ok(response);
        }
        // The broker may have been started again since.
        let (host, port) = self.address(broker).ok_or_else(|| {
            ApiError::new(ErrorCode::NETWORK_EXCEPTION, format!("the address of broker {broker} is not known"))
        })?;
        let failed = |error: ConnectionError| {
            ApiError::new(ErrorCode::NETWORK_EXCEPTION, format!("broker {broker} at {host}:{port}: {error}"))
        };
        let mut connection = Connection::open(&host, port, RESPONSE_BYTES_MAX, TIMEOUT).await.map_err(failed)?;
        let response = connection.call(request, version).await.map_err(failed)?;
        self.keep(broker, connection);
        Ok(response)
    }

    fn keep(&self, broker: i32, connection: Connection) {
        let mut all = self.idle.lock();
        let idle = all.entry(broker).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    fn address(&self, broker: i32) -> Option<(String, u16)> {
        let image = self.metadata.image();
        let endpoints = &image.broker(broker)?.registration.endpoints;
        let endpoint = endpoints.iter().find(|endpoint| Some(&endpoint.listener) == self.listener.as_ref())?;
        Some((endpoint.host.clone(), endpoint.port))
    }
}
