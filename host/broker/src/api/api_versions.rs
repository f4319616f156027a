//! ApiVersions: the versions that the broker serves.

use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_wire::messages::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use millstream_wire::{ApiKey, ErrorCode, Str, WireError};

use super::HANDLERS;
use super::handler::{RequestContext, Started, TwoStageHandler};
use crate::broker::Broker;
use crate::net::types::Close;
use crate::security::Permission;

pub(super) struct ApiVersions;

impl TwoStageHandler for ApiVersions {
    type Request = ApiVersionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const PERMISSION: Option<Permission> = None;

    /// Responds also to a body that does not decode: ApiVersions is the first request of a client, and its response
    /// tells the client which versions to use.
    fn start(
        _: &Arc<Broker>,
        context: RequestContext,
        body: Result<ApiVersionsRequest, WireError>,
    ) -> Result<Started, Close> {
        let valid = body.is_ok_and(|request| {
            context.version < 3
                || is_software(&request.client_software_name) && is_software(&request.client_software_version)
        });
        let error_code = if valid { ErrorCode::NONE } else { ErrorCode::INVALID_REQUEST };
        let api_keys = if valid { served().collect() } else { Vec::new() };
        let response = ApiVersionsResponse { error_code, api_keys, finalized_features_epoch: 0, ..Default::default() };
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

/// Returns whether a name is valid (KIP-511): letters, digits, dots and dashes, with letters or digits at both ends.
fn is_software(name: &Str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let bytes = name.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
}
