//! ApiVersions: the APIs of a broker and their versions. The first request of most connections (KIP-35, KIP-511).

use crate::{ErrorCode, Message, Str};

/// Asks for the versions of the broker, and names the client.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(api = ApiVersions, response = ApiVersionsResponse, versions = 0..=5, flexible = 3)]
pub struct ApiVersionsRequest {
    #[wire(versions = 3.., ignorable)]
    pub client_software_name: Str,
    #[wire(versions = 3.., ignorable)]
    pub client_software_version: Str,
    /// The cluster that the client expects, if it knows both this and the node (KIP-1242).
    #[wire(versions = 5.., ignorable)]
    pub cluster_id: Option<Str>,
    /// The node that the client expects; -1 for any.
    #[wire(versions = 5.., default = -1, ignorable)]
    pub node_id: i32,
}

/// Lists the APIs of the broker. The response to a version that is not supported has version 0 and
/// `UNSUPPORTED_VERSION`.
#[derive(Message, Debug, Clone, PartialEq)]
#[message(versions = 0..=5, flexible = 3)]
pub struct ApiVersionsResponse {
    pub error_code: ErrorCode,
    pub api_keys: Vec<ApiVersion>,
    #[wire(versions = 1..)]
    pub throttle_time_ms: i32,
    #[wire(versions = 3.., tag = 0)]
    pub supported_features: Vec<SupportedFeatureKey>,
    #[wire(versions = 3.., tag = 1, default = -1)]
    pub finalized_features_epoch: i64,
    #[wire(versions = 3.., tag = 2)]
    pub finalized_features: Vec<FinalizedFeatureKey>,
    #[wire(versions = 3.., tag = 3)]
    pub zk_migration_ready: bool,
}

/// Holds the versions of one API.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct ApiVersion {
    pub api_key: i16,
    pub min_version: i16,
    pub max_version: i16,
}

/// Holds the levels of a feature that the broker supports.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct SupportedFeatureKey {
    pub name: Str,
    pub min_version: i16,
    pub max_version: i16,
}

/// Holds the level of a feature that the cluster uses.
#[derive(Message, Debug, Clone, PartialEq)]
pub struct FinalizedFeatureKey {
    pub name: Str,
    pub max_version_level: i16,
    pub min_version_level: i16,
}
