//! A broker of the cluster: what it registers, and its state.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::FeatureLevel;

/// What a broker says of itself when it starts (KIP-631).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerRegistration {
    /// Its `node.id`.
    pub id: i32,
    /// Random for each start of the process, so that two processes with one id can be distinguished.
    pub incarnation: Uuid,
    /// Where clients and other brokers reach it: one address for each listener.
    pub endpoints: Vec<Endpoint>,
    /// Its `broker.rack`.
    pub rack: Option<String>,
    /// The lowest feature level that its program knows.
    pub level_min: u16,
    /// The highest feature level that its program knows.
    pub level_max: u16,
}

impl BrokerRegistration {
    /// Returns whether the program of the broker can read a log of this level.
    pub fn knows(&self, level: FeatureLevel) -> bool {
        (self.level_min..=self.level_max).contains(&level.number())
    }
}

/// The address of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The name of the listener, such as `PLAINTEXT`.
    pub listener: String,
    /// A host name or an IP address.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

/// A registered broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerImage {
    /// What it has registered. The one broker of a log without registrations has the nil incarnation.
    pub registration: BrokerRegistration,
    /// Rises with every registration in the cluster. A request with an older one comes from a process that is gone.
    pub epoch: i64,
    /// A fenced broker leads nothing and is in no in-sync set. A broker starts fenced, until it has caught up with the
    /// metadata.
    pub fenced: bool,
    /// The broker wants to stop, and its leaderships move away.
    pub shutting_down: bool,
}

impl BrokerImage {
    /// Returns the only broker of a log without registrations.
    pub(crate) fn alone(id: i32) -> Self {
        let registration = BrokerRegistration {
            id,
            incarnation: Uuid::nil(),
            endpoints: Vec::new(),
            rack: None,
            level_min: FeatureLevel::INITIAL.number(),
            level_max: FeatureLevel::NEWEST.number(),
        };
        Self { registration, epoch: 0, fenced: false, shutting_down: false }
    }

    /// Returns whether the broker may lead partitions and join in-sync sets.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.shutting_down
    }
}
