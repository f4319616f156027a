//! One handler per API, and the table that finds it.
//!
//! A handler is `async fn handle(&Arc<Broker>, &RequestContext, XRequest) -> XResponse`: its errors are codes within its
//! answer. Produce and fetch differ, since they answer at once where they can, produce may have no answer at all, and the
//! answer of a fetch has file ranges in it.

mod alter_configs;
mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;

use std::sync::Arc;

use bytes::Bytes;
use millstream_wire::frame::encode_response;
use millstream_wire::{ApiKey, ErrorCode, Message, Reader, RequestHeader, Str, WireError};

use crate::broker::Broker;
use crate::group::GroupError;
use crate::net::send_queue::Outgoing;
use crate::net::types::{Answer, Close, ConnectionInfo, Work};

/// Who asks, and in which version.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// A slice of the request's frame: copy it to keep it. Produce and fetch have none: while they wait, the buffer that
    /// the frame is a part of would wait with them.
    pub(crate) client_id: Option<Str>,
    pub(crate) connection: Arc<ConnectionInfo>,
}

impl RequestContext {
    /// The answer as it goes out.
    pub(crate) fn respond(&self, response: &impl Message) -> Result<Outgoing, Close> {
        self.respond_with_files(response, Vec::new())
    }

    /// The answer as it goes out, with the file ranges for its holes.
    pub(crate) fn respond_with_files(
        &self,
        response: &impl Message,
        files: Vec<millstream_log::LogSlice>,
    ) -> Result<Outgoing, Close> {
        let header_version = self.api.info().response_header_version(self.version);
        let frame = encode_response(self.correlation_id, header_version, response, self.version);
        let frame = frame.map_err(|error| Close::Protocol(format!("the answer cannot be written: {error}")))?;
        Ok(Outgoing::new(frame, files))
    }
}

/// A request that was started.
pub(crate) enum Started {
    /// The answer is there.
    Ready(Outgoing),
    /// The client wants no answer.
    Silent,
    /// The answer will come.
    Later(Answer),
    /// The answer will come, and nothing else of the connection may start before the work is done.
    Alone(Work),
}

/// Whether a frame without its prefix is a produce request.
pub(crate) fn is_produce(frame: &[u8]) -> bool {
    frame.first_chunk::<2>().is_some_and(|key| i16::from_be_bytes(*key) == ApiKey::Produce as i16)
}

/// Decodes a request and starts it. Bytes after the end of a request are ignored, as Kafka ignores them.
///
/// # Errors
/// The connection is to be closed: there is no way to answer what cannot be read.
pub(crate) fn start(broker: &Arc<Broker>, connection: &Arc<ConnectionInfo>, frame: Bytes) -> Result<Started, Close> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader).map_err(unreadable)?;
    let api = ApiKey::try_from(header.api_key).map_err(unreadable)?;
    let context = RequestContext {
        api,
        version: header.api_version,
        correlation_id: header.correlation_id,
        client_id: header.client_id.filter(|_| !matches!(api, ApiKey::Produce | ApiKey::Fetch)),
        connection: Arc::clone(connection),
    };
    if !api.info().supports(context.version) {
        return api_versions::refuse(context);
    }
    dispatch(broker, context, reader)
}

/// The code of an answer that has nothing else to say.
fn code(answer: Result<(), GroupError>) -> ErrorCode {
    answer.map_or_else(ErrorCode::from, |()| ErrorCode::NONE)
}

fn unreadable(error: WireError) -> Close {
    Close::Protocol(format!("a request cannot be read: {error}"))
}

/// Decodes the request, runs the handler as a future, encodes what it returns.
macro_rules! later {
    ($broker:ident, $context:ident, $reader:ident, $handler:path) => {{
        let request = Message::decode(&mut $reader, $context.version).map_err(unreadable)?;
        let broker = Arc::clone($broker);
        Ok(Started::Later(Box::pin(async move {
            let response = $handler(&broker, &$context, request).await;
            $context.respond(&response).map(Some)
        })))
    }};
}

fn dispatch(broker: &Arc<Broker>, context: RequestContext, mut reader: Reader) -> Result<Started, Close> {
    let version = context.version;
    match context.api {
        ApiKey::Produce => {
            let request = Message::decode(&mut reader, version).map_err(unreadable)?;
            produce::start(broker, context, request)
        }
        ApiKey::Fetch => {
            let request = Message::decode(&mut reader, version).map_err(unreadable)?;
            fetch::start(broker, context, request)
        }
        ApiKey::ApiVersions => api_versions::start(&context, &mut reader),
        ApiKey::Metadata => later!(broker, context, reader, metadata::handle),
        ApiKey::ListOffsets => later!(broker, context, reader, list_offsets::handle),
        ApiKey::OffsetForLeaderEpoch => later!(broker, context, reader, offset_for_leader_epoch::handle),
        ApiKey::CreateTopics => later!(broker, context, reader, create_topics::handle),
        ApiKey::DeleteTopics => later!(broker, context, reader, delete_topics::handle),
        ApiKey::CreatePartitions => later!(broker, context, reader, create_partitions::handle),
        ApiKey::DescribeConfigs => later!(broker, context, reader, describe_configs::handle),
        ApiKey::AlterConfigs => later!(broker, context, reader, alter_configs::handle),
        ApiKey::IncrementalAlterConfigs => later!(broker, context, reader, alter_configs::handle_incremental),
        ApiKey::DescribeCluster => later!(broker, context, reader, describe_cluster::handle),
        ApiKey::InitProducerId => later!(broker, context, reader, init_producer_id::handle),
        ApiKey::FindCoordinator => later!(broker, context, reader, find_coordinator::handle),
        ApiKey::JoinGroup => later!(broker, context, reader, join_group::handle),
        ApiKey::SyncGroup => later!(broker, context, reader, sync_group::handle),
        ApiKey::Heartbeat => later!(broker, context, reader, heartbeat::handle),
        ApiKey::LeaveGroup => later!(broker, context, reader, leave_group::handle),
        ApiKey::OffsetCommit => later!(broker, context, reader, offset_commit::handle),
        ApiKey::OffsetFetch => later!(broker, context, reader, offset_fetch::handle),
        ApiKey::ListGroups => later!(broker, context, reader, list_groups::handle),
        ApiKey::DescribeGroups => later!(broker, context, reader, describe_groups::handle),
        other => Err(Close::Protocol(format!("{other} is not supported"))),
    }
}
