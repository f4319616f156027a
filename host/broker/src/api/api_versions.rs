//! ApiVersions: what the broker speaks. Also the refusal of what it does not.

use millstream_wire::messages::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use millstream_wire::{ApiKey, ErrorCode, Message, Reader, Str, apis};

use super::{RequestContext, Started};
use crate::net::types::Close;

pub(super) fn start(context: &RequestContext, reader: &mut Reader) -> Result<Started, Close> {
    // A body that cannot be read still gets an answer here: it is the first thing that a client says, and the answer is
    // how it learns what to say.
    let request = ApiVersionsRequest::decode(reader, context.version);
    let valid = request.is_ok_and(|request| {
        context.version < 3
            || is_software(&request.client_software_name) && is_software(&request.client_software_version)
    });
    let error_code = if valid { ErrorCode::NONE } else { ErrorCode::INVALID_REQUEST };
    let api_keys = if valid { all() } else { Vec::new() };
    let response = ApiVersionsResponse { error_code, api_keys, finalized_features_epoch: 0, ..Default::default() };
    context.respond(&response).map(Started::Ready)
}

/// What is not supported: an ApiVersions of the future is told what there is, in the oldest form; anything else would be
/// answered in a form that the client may not understand, so that the connection ends.
pub(super) fn refuse(mut context: RequestContext) -> Result<Started, Close> {
    if context.api != ApiKey::ApiVersions {
        return Err(Close::Protocol(format!("{} v{} is not supported", context.api, context.version)));
    }
    context.version = 0;
    let api_keys = all().into_iter().filter(|api| api.api_key == ApiKey::ApiVersions as i16).collect();
    let response = ApiVersionsResponse { error_code: ErrorCode::UNSUPPORTED_VERSION, api_keys, ..Default::default() };
    context.respond(&response).map(Started::Ready)
}

/// APIs that the codec knows and no handler serves yet.
const UNSERVED: [ApiKey; 14] = [
    ApiKey::DeleteRecords,
    ApiKey::DescribeAcls,
    ApiKey::DescribeLogDirs,
    ApiKey::DeleteGroups,
    ApiKey::ElectLeaders,
    ApiKey::ListPartitionReassignments,
    ApiKey::OffsetDelete,
    ApiKey::DescribeClientQuotas,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::DescribeProducers,
    ApiKey::ConsumerGroupHeartbeat,
    ApiKey::ConsumerGroupDescribe,
    ApiKey::ListConfigResources,
    ApiKey::DescribeTopicPartitions,
];

fn all() -> Vec<ApiVersion> {
    apis()
        .iter()
        .filter(|api| !UNSERVED.contains(&api.key))
        .map(|api| ApiVersion { api_key: api.key as i16, min_version: api.min, max_version: api.max })
        .collect()
}

/// KIP-511: letters, digits, dots and dashes, with letters or digits at both ends.
fn is_software(name: &Str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let bytes = name.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
}
