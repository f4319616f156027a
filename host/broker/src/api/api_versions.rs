//! ApiVersions: the versions that the broker serves.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use millstream_wire::{ApiKey, ErrorCode, Str, WireError};

use super::HANDLERS;
use super::handler::{RequestContext, Started, TwoStageHandler};
use super::update_features;
use crate::broker::Broker;
use crate::net::types::Close;
use crate::security::Permission;

/// The node id from a client that does not expect a certain node.
const ANY_NODE: i32 = -1;

pub(super) struct ApiVersions;

impl TwoStageHandler for ApiVersions {
    type Request = ApiVersionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const PERMISSION: Option<Permission> = None;

    /// Responds also to a body that does not decode: ApiVersions is the first request of a client, and its response
    /// tells the client which versions to use.
    fn start(
        broker: &Arc<Broker>,
        mut context: RequestContext,
        body: Result<ApiVersionsRequest, WireError>,
    ) -> Result<Started, Close> {
        let image = broker.metadata.image();
        let error_code = body.map_or(ErrorCode::INVALID_REQUEST, |request| {
            check(&request, context.version, &broker.cluster_id, broker.config.node_id)
        });
        if !error_code.is_ok() {
            return context.respond(&ApiVersionsResponse { error_code, ..Default::default() }).map(Started::Ready);
        }
        let response = ApiVersionsResponse {
            api_keys: served().collect(),
            supported_features: update_features::supported(broker, &image),
            // Features are part of the metadata, so their epoch is the end of its log.
            finalized_features_epoch: broker.metadata.end_offset(),
            finalized_features: update_features::finalized(&image),
            ..Default::default()
        };
        context.respond(&response).map(Started::Ready)
    }
}

/// Responds to a version of ApiVersions that the broker does not serve, in version 0: the client then retries with one
/// that it does serve.
pub(super) fn respond_unsupported(mut context: RequestContext) -> Result<Started, Close> {
    context.version = 0;
    let api_keys = served().filter(|api| api.api_key == ApiKey::ApiVersions as i16).collect();
    let response = ApiVersionsResponse { error_code: ErrorCode::UNSUPPORTED_VERSION, api_keys, ..Default::default() };
    context.respond(&response).map(Started::Ready)
}

fn served() -> impl Iterator<Item = ApiVersion> {
    HANDLERS.iter().map(|api| ApiVersion {
        api_key: api.key as i16,
        min_version: api.min_version,
        max_version: api.max_version,
    })
}

/// Checks the client's name, and from version 5 whether this is the cluster and the node that the client expects.
fn check(request: &ApiVersionsRequest, version: i16, cluster_id: &str, node_id: i32) -> ErrorCode {
    if version < 3 {
        return ErrorCode::NONE;
    }
    if !is_software(&request.client_software_name) || !is_software(&request.client_software_version) {
        return ErrorCode::INVALID_REQUEST;
    }
    match (request.cluster_id.as_deref(), request.node_id) {
        (None, ANY_NODE) => ErrorCode::NONE,
        (None | Some(""), _) | (_, ANY_NODE) => ErrorCode::INVALID_REQUEST,
        (Some(cluster), node) if cluster == cluster_id && node == node_id => ErrorCode::NONE,
        // The address now belongs to another cluster or node, so the client starts over from its bootstrap servers.
        _ => ErrorCode::REBOOTSTRAP_REQUIRED,
    }
}

/// Returns whether a name is valid (KIP-511): letters, digits, dots and dashes, with letters or digits at both ends.
fn is_software(name: &Str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let bytes = name.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: i16, cluster_id: Option<&str>, node_id: i32) -> ErrorCode {
        let request = ApiVersionsRequest {
            client_software_name: "client".into(),
            client_software_version: "1.0".into(),
            cluster_id: cluster_id.map(Str::from),
            node_id,
        };
        check(&request, version, "cluster", 7)
    }

    /// The codes are those of Apache Kafka 4.4.
    #[test]
    fn cluster_and_node_are_checked_together() {
        assert_eq!(checked(5, None, -1), ErrorCode::NONE);
        assert_eq!(checked(5, Some("cluster"), 7), ErrorCode::NONE);
        for (cluster, node) in [("other", 7), ("cluster", 8), ("other", 8)] {
            assert_eq!(checked(5, Some(cluster), node), ErrorCode::REBOOTSTRAP_REQUIRED, "{cluster} {node}");
        }
        for (cluster, node) in [(None, 7), (Some(""), 7), (Some("cluster"), -1), (Some(""), -1)] {
            assert_eq!(checked(5, cluster, node), ErrorCode::INVALID_REQUEST, "{cluster:?} {node}");
        }
    }
}
