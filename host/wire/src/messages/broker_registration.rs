//! BrokerRegistration: registers a broker that has started with the controller (KIP-631).

use uuid::Uuid;

use crate::{ErrorCode, Message, Str};

/// Registers a broker with its addresses and what it supports.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = BrokerRegistration, response = BrokerRegistrationResponse, versions = 0..=4, flexible = 0)]
pub struct BrokerRegistrationRequest {
    pub broker_id: i32,
    pub cluster_id: Str,
    /// The id of this run of the process.
    pub incarnation_id: Uuid,
    pub listeners: Vec<BrokerListener>,
    /// Up to version 3, features with a least level of 0 are left out.
    pub features: Vec<BrokerFeature>,
    pub rack: Option<Str>,
    #[wire(versions = 1..)]
    pub is_migrating_zk_broker: bool,
    /// The ids of the data folders that work (KIP-858).
    #[wire(versions = 2.., ignorable)]
    pub log_dirs: Vec<Uuid>,
    /// The broker epoch before a clean shutdown; -1 for none (KIP-966).
    #[wire(versions = 3.., default = -1, ignorable)]
    pub previous_broker_epoch: i64,
}

/// Holds the address of one listener: `Listener` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct BrokerListener {
    pub name: Str,
    pub host: Str,
    pub port: u16,
    /// 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// Holds the supported levels of one feature: `Feature` in Kafka's schema.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct BrokerFeature {
    pub name: Str,
    pub min_supported_version: i16,
    pub max_supported_version: i16,
}

/// Holds the epoch of the registration.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=4, flexible = 0)]
pub struct BrokerRegistrationResponse {
    pub throttle_time_ms: i32,
    pub error_code: ErrorCode,
    /// -1 after an error.
    #[wire(default = -1)]
    pub broker_epoch: i64,
}
